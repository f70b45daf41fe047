//! As whom something is called: what can be written into a header field at once, and what is only had by asking first.

use ::http::header::AUTHORIZATION;
use ::http::{HeaderMap, HeaderValue};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;

use super::{Writing, uri};
use crate::decide::as_text;
use crate::program::{Access, TokenAccess};
use crate::run::{Problem, Standard};

/// A text that is not shown to people.
#[derive(Clone, PartialEq, Eq, Hash, serde::Serialize)]
pub struct Hidden(pub String);

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// What is shown to a service only after something else was asked.
#[derive(Debug, Clone, PartialEq)]
pub enum Credential {
    /// A name and a password, which answer the service's challenge (RFC 7616).
    Digest {
        /// Who.
        user: String,
        /// The password.
        password: Hidden,
    },
    /// A token, which an authority gives.
    Token(Box<TokenWanted>),
}

/// A token that an authority is asked for.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct TokenWanted {
    /// The authority's address.
    pub authority: String,
    /// Whether it says itself where tokens are had (OpenID Connect).
    pub is_discovered: bool,
    /// Where tokens are had, below the authority.
    pub endpoint: String,
    /// The grant, in the words of OAuth.
    pub grant: String,
    /// Who asks.
    pub client: Client,
    /// Whether the request is written as JSON, not as a form.
    pub is_json: bool,
    /// Who may have issued the token; anybody if this is empty.
    pub issuers: Vec<String>,
    /// What it shall allow.
    pub scopes: Vec<String>,
    /// For whom it shall be.
    pub audiences: Vec<String>,
    /// For the grant `password`.
    pub username: Option<String>,
    /// For the grant `password`.
    pub password: Option<Hidden>,
    /// A token that is shown, and its type: on behalf of whom, or what is refreshed.
    pub subject: Option<(Hidden, String)>,
    /// A token that is shown, and its type: who acts.
    pub actor: Option<(Hidden, String)>,
}

/// Who asks for a token.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Client {
    /// Its name.
    pub id: Option<String>,
    /// Its secret, or its private key.
    pub secret: Option<Hidden>,
    /// A signed statement in place of these.
    pub assertion: Option<Hidden>,
    /// How it shows them, in the words of OAuth.
    pub authentication: String,
}

/// Writes what can be shown at once into `headers`, and returns what cannot.
pub(super) fn show(
    writing: &Writing<'_>,
    access: &Access,
    headers: &mut HeaderMap,
) -> Result<Option<Credential>, Problem> {
    let text = match access {
        Access::Basic { user, password } => {
            let pair = format!("{}:{}", writing.text(user)?, writing.text(password)?);
            format!("Basic {}", BASE64.encode(pair))
        }
        Access::Bearer(token) => format!("Bearer {}", writing.text(token)?),
        Access::Digest { user, password } => {
            let (user, password) = (writing.text(user)?, Hidden(writing.text(password)?));
            return Ok(Some(Credential::Digest { user, password }));
        }
        Access::Token(wanted) => return Ok(Some(Credential::Token(Box::new(token(writing, wanted)?)))),
    };
    headers.insert(AUTHORIZATION, sensitive(&text)?);
    Ok(None)
}

/// A header field's value that is not shown to people.
pub(crate) fn sensitive(text: &str) -> Result<HeaderValue, Problem> {
    let mut value = HeaderValue::from_str(text)
        .map_err(|_| Standard::Authentication.problem("the credentials hold more than one line"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn token(writing: &Writing<'_>, access: &TokenAccess) -> Result<TokenWanted, Problem> {
    let settings = writing.fill(&access.settings)?;
    let settings = Settings(&settings);
    let authority = match &access.authority {
        Some(address) => uri::written(writing, address)?,
        None => settings.needed("authority")?,
    };
    let client = Settings(settings.part("client"));
    let grant = settings.text("grant").unwrap_or_else(|| "client_credentials".to_owned());
    if grant == "authorization_code" {
        return Err(wrong("the grant `authorization_code` needs a person, and nobody is asked"));
    }
    Ok(TokenWanted {
        authority,
        is_discovered: access.is_discovered,
        endpoint: settings.part_text("endpoints", "token").unwrap_or_else(|| "/oauth2/token".to_owned()),
        grant,
        client: Client {
            id: client.text("id"),
            secret: client.text("secret").map(Hidden),
            assertion: client.text("assertion").map(Hidden),
            authentication: client.text("authentication").unwrap_or_else(|| "client_secret_post".to_owned()),
        },
        is_json: settings.part_text("request", "encoding").is_some_and(|encoding| encoding.contains("json")),
        issuers: settings.texts("issuers")?,
        scopes: settings.texts("scopes")?,
        audiences: settings.texts("audiences")?,
        username: settings.text("username"),
        password: settings.text("password").map(Hidden),
        subject: settings.shown_token("subject")?,
        actor: settings.shown_token("actor")?,
    })
}

fn wrong(detail: impl Into<String>) -> Problem {
    Standard::Configuration.problem(detail)
}

/// The keys of `oauth2`, wherever they come from.
struct Settings<'v>(&'v Value);

impl Settings<'_> {
    fn part(&self, name: &str) -> &Value {
        self.0.get(name).unwrap_or(&Value::Null)
    }

    fn text(&self, name: &str) -> Option<String> {
        as_text(self.part(name))
    }

    fn part_text(&self, part: &str, name: &str) -> Option<String> {
        Settings(self.part(part)).text(name)
    }

    fn needed(&self, name: &str) -> Result<String, Problem> {
        self.text(name).ok_or_else(|| wrong(format!("`{name}` is missing where a token is to be had")))
    }

    fn texts(&self, name: &str) -> Result<Vec<String>, Problem> {
        match self.part(name) {
            Value::Null => Ok(Vec::new()),
            Value::Array(items) => items
                .iter()
                .map(|item| as_text(item).ok_or_else(|| wrong(format!("`{name}` must be a list of texts"))))
                .collect(),
            one => Ok(vec![as_text(one).ok_or_else(|| wrong(format!("`{name}` must be a list of texts")))?]),
        }
    }

    fn shown_token(&self, name: &str) -> Result<Option<(Hidden, String)>, Problem> {
        let part = Settings(self.part(name));
        if part.0.is_null() {
            return Ok(None);
        }
        Ok(Some((Hidden(part.needed("token")?), part.needed("type")?)))
    }
}
