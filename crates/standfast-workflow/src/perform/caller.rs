//! Requests by HTTP with what must be asked for before they are let in: a challenge that is answered, a token of an authority.

use ::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use ::http::{Response, StatusCode};
use hyper::body::Incoming;
use standfast_model::Stamp;
use standfast_runtime::Clock;

use super::digest::{self, Challenge};
use super::http::{HttpSender, collect};
use super::oauth::Tokens;
use crate::ask::{ANSWER_BYTES_MAX, Credential, HttpAnswer, HttpRequest, sensitive};
use crate::run::{Problem, Standard};

/// Sends requests as whoever they are sent as. Cheap to clone; clones share connections and tokens.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    http: HttpSender,
    tokens: Tokens,
    clock: Clock,
}

impl Caller {
    pub(super) fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(super) fn new(clock: Clock) -> Self {
        Self { http: HttpSender::new(), tokens: Tokens::new(clock), clock }
    }

    /// Sends a request as it is, whatever it should show besides, and reads the whole answer.
    pub(super) async fn send_plain(
        &self,
        request: &HttpRequest,
        deadline: Stamp,
    ) -> Result<HttpAnswer, Problem> {
        let answer = self.open_plain(request, deadline).await?;
        collect(answer, ANSWER_BYTES_MAX).await.map_err(|why| why.into_problem(request))
    }

    /// Sends a request with what it shows, and reads the whole answer.
    pub(super) async fn send(&self, request: &HttpRequest, deadline: Stamp) -> Result<HttpAnswer, Problem> {
        let answer = self.open(request, deadline).await?;
        collect(answer, ANSWER_BYTES_MAX).await.map_err(|why| why.into_problem(request))
    }

    /// The same request with what it shows, for what is not sent from here.
    pub(super) async fn shown(&self, request: &HttpRequest, deadline: Stamp) -> Result<HttpRequest, Problem> {
        match &request.credential {
            None => Ok(request.clone()),
            Some(Credential::Token(wanted)) => {
                showing(request, &bearer(&self.tokens.get(self, wanted, deadline).await?))
            }
            Some(Credential::Digest { .. }) => {
                Err(Standard::Configuration.problem("digest authentication is only for calls by HTTP"))
            }
        }
    }

    /// From now on the token that this request showed is not good any more.
    pub(super) async fn refused(&self, request: &HttpRequest, shown: &HttpRequest) {
        let text = shown.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        if let (Some(Credential::Token(wanted)), Some(token)) =
            (&request.credential, text.and_then(|text| text.strip_prefix("Bearer ")))
        {
            self.tokens.forget(wanted, token).await;
        }
    }

    async fn open_plain(
        &self,
        request: &HttpRequest,
        deadline: Stamp,
    ) -> Result<Response<Incoming>, Problem> {
        let left = deadline.since(self.clock.now());
        self.http.open(request, left).await.map_err(|why| why.into_problem(request))
    }

    /// Sends a request with what it shows, and returns its answer as soon as that begins.
    pub(super) async fn open(
        &self,
        request: &HttpRequest,
        deadline: Stamp,
    ) -> Result<Response<Incoming>, Problem> {
        match &request.credential {
            None => self.open_plain(request, deadline).await,
            Some(Credential::Digest { user, password }) => {
                let first = self.open_plain(request, deadline).await?;
                match challenge(&first) {
                    Some(challenge) => {
                        let nonce = self.tokens.nonce();
                        let shown = digest::answer(&challenge, request, user, &password.0, &nonce);
                        self.open_plain(&showing(request, &shown)?, deadline).await
                    }
                    None => Ok(first),
                }
            }
            Some(Credential::Token(wanted)) => {
                let token = self.tokens.get(self, wanted, deadline).await?;
                let first = self.open_plain(&showing(request, &bearer(&token))?, deadline).await?;
                if first.status() != StatusCode::UNAUTHORIZED {
                    return Ok(first);
                }
                // The token may have been taken back before its time: one new one is had.
                self.tokens.forget(wanted, &token).await;
                let token = self.tokens.get(self, wanted, deadline).await?;
                self.open_plain(&showing(request, &bearer(&token))?, deadline).await
            }
        }
    }
}

fn challenge(answer: &Response<Incoming>) -> Option<Challenge> {
    if answer.status() != StatusCode::UNAUTHORIZED {
        return None;
    }
    let texts = answer.headers().get_all(WWW_AUTHENTICATE).iter();
    digest::strongest(texts.filter_map(|value| value.to_str().ok()))
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

fn showing(request: &HttpRequest, text: &str) -> Result<HttpRequest, Problem> {
    let mut request = request.clone();
    request.headers.insert(AUTHORIZATION, sensitive(text)?);
    Ok(request)
}
