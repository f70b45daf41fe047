//! Tokens of authorities (RFC 6749, RFC 8693, OpenID Connect): asked for once, kept until they expire.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use ::http::{HeaderMap, HeaderValue, Method};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use ring::digest::{SHA256, digest};
use serde_json::{Map, Value};
use standfast_model::Stamp;
use standfast_runtime::{Clock, Rng};
use tokio::sync::Mutex as AsyncMutex;

use super::caller::Caller;
use super::jwt::{self, Statement};
use crate::ask::{HttpAnswer, HttpRequest, TokenWanted, form, of_http, sensitive};
use crate::run::{Problem, Standard};

/// Most tokens that are kept; when there are more, all are asked for again.
const TOKENS_MAX: usize = 1_000;
/// How long a token is used whose answer does not say.
const LIFE_DEFAULT: Duration = Duration::from_secs(60);
/// Longest that a token is used, whatever its answer says.
const LIFE_MAX: Duration = Duration::from_secs(24 * 3_600);
/// How long before its end a token is not used any more, so that it does not end on its way.
const EARLY: Duration = Duration::from_secs(10);
/// Most of an authority's answer that a problem tells, in characters.
const EXCERPT_MAX: usize = 300;
/// Where an authority says where its end points are.
const DISCOVERY: &str = "/.well-known/openid-configuration";
/// What an assertion of a client is (RFC 7523).
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

type Key = [u8; 32];
type Slot = Arc<AsyncMutex<Held>>;

/// The tokens that are had. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Tokens {
    clock: Clock,
    slots: Arc<Mutex<HashMap<Key, Slot>>>,
    rng: Arc<Mutex<Rng>>,
}

/// What is held for one way of asking. Whoever comes while it is asked for waits for the same token.
#[derive(Default)]
struct Held {
    token: Option<(String, Stamp)>,
    /// What the authority gave in place of the refresh token that the document has.
    refresh: Option<String>,
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Held")
    }
}

impl Tokens {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, slots: Arc::default(), rng: Arc::new(Mutex::new(Rng::from_entropy())) }
    }

    /// A word that nobody has used before.
    pub(super) fn nonce(&self) -> String {
        let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
        format!("{:016x}{:016x}", rng.bits(), rng.bits())
    }

    fn slot(&self, wanted: &TokenWanted) -> Slot {
        let key = key_of(wanted);
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.len() >= TOKENS_MAX && !slots.contains_key(&key) {
            slots.clear();
        }
        Arc::clone(slots.entry(key).or_default())
    }

    /// A token that is still good.
    pub(super) async fn get(
        &self,
        caller: &Caller,
        wanted: &TokenWanted,
        deadline: Stamp,
    ) -> Result<String, Problem> {
        let slot = self.slot(wanted);
        let mut held = slot.lock().await;
        if let Some((token, until)) = &held.token
            && self.clock.now() < *until
        {
            return Ok(token.clone());
        }
        let given = self.ask(caller, wanted, held.refresh.as_deref(), deadline).await?;
        held.token = Some((given.token.clone(), given.until));
        held.refresh = given.refresh.or(held.refresh.take());
        Ok(given.token)
    }

    /// From now on this token is not good any more.
    pub(super) async fn forget(&self, wanted: &TokenWanted, token: &str) {
        let slot = self.slot(wanted);
        let mut held = slot.lock().await;
        if held.token.as_ref().is_some_and(|(held, _)| held == token) {
            held.token = None;
        }
    }

    async fn ask(
        &self,
        caller: &Caller,
        wanted: &TokenWanted,
        refresh: Option<&str>,
        deadline: Stamp,
    ) -> Result<Given, Problem> {
        let address = match wanted.is_discovered {
            true => discover(caller, wanted, deadline).await?,
            false => below(&wanted.authority, &wanted.endpoint),
        };
        let mut headers = HeaderMap::new();
        let mut fields = grant(wanted, refresh)?;
        self.show_client(wanted, &address, &mut headers, &mut fields)?;
        let request = written(wanted, &address, headers, fields)?;
        let asked_at = self.clock.now();
        let answer = caller.send_plain(&request, deadline).await?;
        let fields = read(&address, &answer)?;
        Given::of(&fields, wanted, asked_at)
    }

    /// Says who asks.
    fn show_client(
        &self,
        wanted: &TokenWanted,
        address: &str,
        headers: &mut HeaderMap,
        fields: &mut Map<String, Value>,
    ) -> Result<(), Problem> {
        let client = &wanted.client;
        let missing = |what: &str| {
            let detail = format!("`client.{what}` is missing for `{}`", client.authentication);
            Standard::Configuration.problem(detail)
        };
        let id = client.id.as_deref();
        let way = client.authentication.as_str();
        match way {
            "none" => {}
            "client_secret_basic" => {
                let id = id.ok_or_else(|| missing("id"))?;
                let secret = client.secret.as_ref().ok_or_else(|| missing("secret"))?;
                let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
                let pair = STANDARD.encode(format!("{}:{}", encode(id), encode(&secret.0)));
                headers.insert(AUTHORIZATION, sensitive(&format!("Basic {pair}"))?);
                return Ok(());
            }
            "client_secret_post" => {
                id.ok_or_else(|| missing("id"))?;
                if let Some(secret) = &client.secret {
                    fields.insert("client_secret".to_owned(), secret.0.as_str().into());
                }
            }
            "client_secret_jwt" | "private_key_jwt" => {
                let statement = match (&client.assertion, &client.secret) {
                    (Some(given), _) => given.0.clone(),
                    (None, Some(secret)) => {
                        let id = id.ok_or_else(|| missing("id"))?;
                        let statement = Statement {
                            client: id,
                            audience: address,
                            id: &self.nonce(),
                            now: self.clock.now(),
                        };
                        match way {
                            "client_secret_jwt" => jwt::by_secret(&statement, &secret.0),
                            _ => jwt::by_private_key(&statement, &secret.0)?,
                        }
                    }
                    (None, None) => return Err(missing("assertion")),
                };
                fields.insert("client_assertion_type".to_owned(), ASSERTION_TYPE.into());
                fields.insert("client_assertion".to_owned(), statement.into());
            }
            other => {
                let detail = format!("`client.authentication`: `{other}` is not known");
                return Err(Standard::Configuration.problem(detail));
            }
        }
        if let Some(id) = id {
            fields.insert("client_id".to_owned(), id.into());
        }
        Ok(())
    }
}

fn key_of(wanted: &TokenWanted) -> Key {
    // What is asked for is made of texts, so it can always be written.
    let text = serde_json::to_vec(wanted).unwrap_or_default();
    let mut key = Key::default();
    key.copy_from_slice(digest(&SHA256, &text).as_ref());
    key
}

fn below(authority: &str, path: &str) -> String {
    if path.contains("://") {
        return path.to_owned();
    }
    format!("{}/{}", authority.trim_end_matches('/'), path.trim_start_matches('/'))
}

/// Where an authority of OpenID Connect gives tokens.
async fn discover(caller: &Caller, wanted: &TokenWanted, deadline: Stamp) -> Result<String, Problem> {
    let authority = wanted.authority.trim_end_matches('/');
    let address = match authority.ends_with(DISCOVERY) {
        true => authority.to_owned(),
        false => format!("{authority}{DISCOVERY}"),
    };
    let request = HttpRequest {
        method: Method::GET,
        uri: of_http(&address)?,
        headers: accepting(),
        body: Bytes::new(),
        credential: None,
    };
    let answer = caller.send_plain(&request, deadline).await?;
    let fields = read(&address, &answer)?;
    let found = fields.get("token_endpoint").and_then(Value::as_str);
    found.map(str::to_owned).ok_or_else(|| {
        Standard::Authentication
            .problem(format!("{address} does not say where tokens are had (`token_endpoint`)"))
    })
}

fn accepting() -> HeaderMap {
    HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("application/json"))])
}

/// What is asked for.
fn grant(wanted: &TokenWanted, refresh: Option<&str>) -> Result<Map<String, Value>, Problem> {
    let missing = |what: &str| {
        Standard::Configuration.problem(format!("`{what}` is missing for the grant `{}`", wanted.grant))
    };
    let mut fields = Map::new();
    let mut put = |name: &str, value: &str| fields.insert(name.to_owned(), value.into());
    put("grant_type", &wanted.grant);
    match wanted.grant.as_str() {
        "client_credentials" => {}
        "password" => {
            put("username", wanted.username.as_deref().ok_or_else(|| missing("username"))?);
            put("password", &wanted.password.as_ref().ok_or_else(|| missing("password"))?.0);
        }
        "refresh_token" => {
            let given = wanted.subject.as_ref().map(|(token, _)| token.0.as_str());
            put("refresh_token", refresh.or(given).ok_or_else(|| missing("subject"))?);
        }
        "urn:ietf:params:oauth:grant-type:token-exchange" => {
            let (token, kind) = wanted.subject.as_ref().ok_or_else(|| missing("subject"))?;
            put("subject_token", &token.0);
            put("subject_token_type", kind);
            if let Some((token, kind)) = &wanted.actor {
                put("actor_token", &token.0);
                put("actor_token_type", kind);
            }
        }
        other => return Err(Standard::Configuration.problem(format!("the grant `{other}` is not known"))),
    }
    if !wanted.scopes.is_empty() {
        put("scope", &wanted.scopes.join(" "));
    }
    match wanted.audiences.as_slice() {
        [] => {}
        [one] => {
            put("audience", one);
        }
        several => {
            fields.insert("audience".to_owned(), several.to_vec().into());
        }
    }
    Ok(fields)
}

fn written(
    wanted: &TokenWanted,
    address: &str,
    mut headers: HeaderMap,
    fields: Map<String, Value>,
) -> Result<HttpRequest, Problem> {
    let (kind, body) = match wanted.is_json {
        true => ("application/json", Value::Object(fields).to_string()),
        false => ("application/x-www-form-urlencoded", form(&fields)),
    };
    headers.extend(accepting());
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    Ok(HttpRequest {
        method: Method::POST,
        uri: of_http(address)?,
        headers,
        body: body.into(),
        credential: None,
    })
}

/// An authority's answer.
fn read(address: &str, answer: &HttpAnswer) -> Result<Map<String, Value>, Problem> {
    let fields = match serde_json::from_slice(&answer.body) {
        Ok(Value::Object(fields)) => Some(fields),
        _ => None,
    };
    if !answer.status.is_success() {
        let text = |name| fields.as_ref().and_then(|fields| fields.get(name)).and_then(Value::as_str);
        let said: Vec<&str> = [text("error"), text("error_description")].into_iter().flatten().collect();
        let said: String = said.join(": ").chars().take(EXCERPT_MAX).collect();
        let detail = format!("{address} was answered with {} {said}", answer.status);
        let detail = detail.trim_end();
        // What an authority cannot do now it may do later; what it refuses it refuses.
        return Err(match answer.status.is_client_error() {
            true => Standard::Authentication.problem(detail),
            false => Standard::Communication.problem(detail).with_status(answer.status.as_u16()),
        });
    }
    fields.ok_or_else(|| {
        Standard::Authentication.problem(format!("{address} did not answer with a JSON object"))
    })
}

/// What an authority gave.
struct Given {
    token: String,
    until: Stamp,
    refresh: Option<String>,
}

impl Given {
    fn of(fields: &Map<String, Value>, wanted: &TokenWanted, asked_at: Stamp) -> Result<Self, Problem> {
        let text = |name: &str| fields.get(name).and_then(Value::as_str);
        let refused = |detail: String| Err(Standard::Authentication.problem(detail));
        let Some(token) = text("access_token") else {
            return refused(format!("the authority {} gave no `access_token`", wanted.authority));
        };
        if let Some(kind) = text("token_type")
            && !kind.eq_ignore_ascii_case("bearer")
        {
            return refused(format!(
                "the authority gave a token of the type `{kind}`, which cannot be shown"
            ));
        }
        if !wanted.issuers.is_empty() {
            let issuer = jwt::issuer(token);
            let same = |known: &String| {
                Some(known.trim_end_matches('/')) == issuer.as_deref().map(|i| i.trim_end_matches('/'))
            };
            if !wanted.issuers.iter().any(same) {
                let issuer = issuer.unwrap_or_else(|| "nobody that it names".to_owned());
                return refused(format!("the token was issued by {issuer}, who is not one of `issuers`"));
            }
        }
        let seconds = fields.get("expires_in").and_then(|life| match life {
            Value::String(text) => text.parse().ok(),
            life => life.as_u64(),
        });
        let life = seconds.map_or(LIFE_DEFAULT, Duration::from_secs).min(LIFE_MAX);
        // One that lives for a short time is used for most of it.
        let until = asked_at.plus(life.saturating_sub(EARLY.min(life / 4)));
        Ok(Self { token: token.to_owned(), until, refresh: text("refresh_token").map(str::to_owned) })
    }
}
