//! As whom something is called.

use std::sync::Arc;

use serde_json::{Value, json};
use standfast_model::workflow::{
    Authentication, ClientAuthentication, Credentials, Grant, Named, OAuth2, Template, Token, TokenRequest,
    Uri, UserPassword,
};

use super::{Building, lookup};
use crate::program::{Access, Address, Form, TokenAccess};

impl Building<'_> {
    /// What is shown by this policy, or by the one of `use.authentications` that is named.
    pub(super) fn access(
        &mut self,
        authentication: Option<&Named<Authentication>>,
        pointer: &str,
    ) -> Option<Access> {
        let document = Arc::clone(&self.document);
        let found = match authentication? {
            Named::Here(authentication) => authentication,
            Named::Use(name) => lookup(&document.reusable.authentications, name),
        };
        Some(match found {
            Authentication::Basic(known) => {
                let (user, password) = self.login(known);
                Access::Basic { user, password }
            }
            Authentication::Digest(known) => {
                let (user, password) = self.login(known);
                Access::Digest { user, password }
            }
            Authentication::Bearer(Credentials::Here(token)) => Access::Bearer(self.form(token)),
            Authentication::Bearer(Credentials::Secret(secret)) => {
                Access::Bearer(self.secret(secret, "token"))
            }
            Authentication::OAuth2(wanted) => self.token(wanted, false, pointer)?,
            Authentication::Oidc(wanted) => self.token(wanted, true, pointer)?,
        })
    }

    pub(super) fn address(&mut self, uri: &Uri) -> Address {
        match uri {
            Uri::Template(text) => Address::Template(text.clone()),
            Uri::Expression(expression) => Address::Filter(self.filter(expression)),
        }
    }

    fn login(&mut self, known: &Credentials<UserPassword>) -> (Form, Form) {
        match known {
            Credentials::Here(known) => (self.form(&known.username), self.form(&known.password)),
            Credentials::Secret(secret) => (self.secret(secret, "username"), self.secret(secret, "password")),
        }
    }

    fn token(
        &mut self,
        wanted: &Credentials<Box<OAuth2>>,
        is_discovered: bool,
        pointer: &str,
    ) -> Option<Access> {
        let (settings, authority) = match wanted {
            Credentials::Secret(secret) => {
                (Form::Filter(self.filter_of(&format!("$secrets[{}]", quoted(secret)))), None)
            }
            Credentials::Here(wanted) if wanted.grant == Some(Grant::AuthorizationCode) => {
                self.refuse(pointer, "the grant `authorization_code`, which needs a person,");
                return None;
            }
            Credentials::Here(wanted) => {
                let authority = wanted.authority.as_ref().map(|authority| self.address(authority));
                (self.settings(wanted), authority)
            }
        };
        Some(Access::Token(Box::new(TokenAccess { settings, authority, is_discovered })))
    }

    /// The keys as the language has them, so that a secret that holds the same keys is read the same way.
    fn settings(&mut self, wanted: &OAuth2) -> Form {
        let client = [
            ("id", self.optional(wanted.client.id.as_ref())),
            ("secret", self.optional(wanted.client.secret.as_ref())),
            ("assertion", self.optional(wanted.client.assertion.as_ref())),
            ("authentication", Some(fixed(client_word(wanted.client.authentication).into()))),
        ];
        let encoding = match wanted.request {
            TokenRequest::Form => "application/x-www-form-urlencoded",
            TokenRequest::Json => "application/json",
        };
        object([
            ("endpoints", Some(fixed(json!({"token": wanted.endpoints.token})))),
            ("grant", wanted.grant.map(|grant| fixed(grant_word(grant).into()))),
            ("client", Some(object(client))),
            ("request", Some(fixed(json!({"encoding": encoding})))),
            ("issuers", Some(fixed(wanted.issuers.clone().into()))),
            ("scopes", Some(self.forms(&wanted.scopes))),
            ("audiences", Some(self.forms(&wanted.audiences))),
            ("username", self.optional(wanted.username.as_ref())),
            ("password", self.optional(wanted.password.as_ref())),
            ("subject", self.shown_token(wanted.subject.as_ref())),
            ("actor", self.shown_token(wanted.actor.as_ref())),
        ])
    }

    fn shown_token(&mut self, token: Option<&Token>) -> Option<Form> {
        let token = token?;
        Some(object([("token", Some(self.form(&token.token))), ("type", Some(self.form(&token.kind)))]))
    }

    pub(super) fn forms(&mut self, templates: &[Template]) -> Form {
        Form::List(templates.iter().map(|template| self.form(template)).collect())
    }

    /// A part of a secret that holds an object.
    fn secret(&mut self, secret: &str, part: &str) -> Form {
        let text = format!("$secrets[{}][{}]", quoted(secret), quoted(part));
        Form::Filter(self.filter_of(&text))
    }
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

fn fixed(value: Value) -> Form {
    Form::Value(Arc::new(value))
}

fn object<const N: usize>(fields: [(&str, Option<Form>); N]) -> Form {
    Form::Object(fields.into_iter().filter_map(|(name, form)| Some((name.to_owned(), form?))).collect())
}

fn grant_word(grant: Grant) -> &'static str {
    match grant {
        Grant::AuthorizationCode => "authorization_code",
        Grant::ClientCredentials => "client_credentials",
        Grant::Password => "password",
        Grant::RefreshToken => "refresh_token",
        Grant::TokenExchange => "urn:ietf:params:oauth:grant-type:token-exchange",
    }
}

fn client_word(way: ClientAuthentication) -> &'static str {
    match way {
        ClientAuthentication::Basic => "client_secret_basic",
        ClientAuthentication::Post => "client_secret_post",
        ClientAuthentication::SecretJwt => "client_secret_jwt",
        ClientAuthentication::PrivateKeyJwt => "private_key_jwt",
        ClientAuthentication::None => "none",
    }
}
