use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use standfast_model::ServiceName;
use standfast_runtime::Clock;
use tokio::sync::watch;

use super::answer::{Refusal, json, with_etag};
use super::request::{Query, condition, percent_decode};
use super::{BODY_BYTES_MAX, wire};
use crate::batch::check_key;
use crate::{Batch, SCAN_LIMIT_MAX, Scan, Space, Store};

/// Entries of a page when the request does not say.
const LIMIT_DEFAULT: u64 = 100;

/// The state API over a store. Cheap to clone.
///
/// A service's URL is `http://HOST:PORT/v1/SERVICE`; what follows that is in `docs/state-api.md`.
#[derive(Debug, Clone)]
pub struct StateApi {
    store: Arc<dyn Store>,
    clock: Clock,
    services: watch::Receiver<BTreeSet<ServiceName>>,
}

/// What a request is for.
enum Target {
    Keys,
    Key(String),
    Batch,
}

impl StateApi {
    /// The API for the services that are in `services` at the time of a request. The clock must be the store's.
    pub const fn new(
        store: Arc<dyn Store>,
        clock: Clock,
        services: watch::Receiver<BTreeSet<ServiceName>>,
    ) -> Self {
        Self { store, clock, services }
    }

    /// The API for services that never change.
    pub fn for_services(
        store: Arc<dyn Store>,
        clock: Clock,
        services: impl IntoIterator<Item = ServiceName>,
    ) -> Self {
        let (_sender, services) = watch::channel(services.into_iter().collect());
        Self::new(store, clock, services)
    }

    /// Answers a request. Every failure is an answer.
    ///
    /// # Cancellation
    /// Dropping it does not take a write back.
    pub async fn handle(&self, request: Request<Bytes>) -> Response<Bytes> {
        self.answer(request).await.unwrap_or_else(Refusal::into_response)
    }

    async fn answer(&self, request: Request<Bytes>) -> Result<Response<Bytes>, Refusal> {
        let (space, target) = self.route(request.uri().path())?;
        match (target, request.method()) {
            (Target::Key(key), &Method::GET) => self.get(&space, &key, &request).await,
            (Target::Key(key), &Method::PUT) => self.put(&space, key, request).await,
            (Target::Key(key), &Method::DELETE) => self.delete(&space, key, &request).await,
            (Target::Keys, &Method::GET) => self.list(space, &request).await,
            (Target::Batch, &Method::POST) => self.batch(&space, &request).await,
            (target, method) => {
                let allow = match target {
                    Target::Key(_) => "GET, PUT, DELETE",
                    Target::Keys => "GET",
                    Target::Batch => "POST",
                };
                let message = format!("{method} is not possible here (possible: {allow})");
                let refusal = Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message);
                Err(Refusal { allow: Some(allow), ..refusal })
            }
        }
    }

    fn route(&self, path: &str) -> Result<(Space, Target), Refusal> {
        let not_found = |code, message: &str| Refusal::new(StatusCode::NOT_FOUND, code, message);
        let nothing_here =
            || not_found("no_such_path", "there is `/v1/SERVICE/keys`, `…/keys/KEY` and `…/batch`");
        let (service, rest) =
            path.strip_prefix("/v1/").and_then(|rest| rest.split_once('/')).ok_or_else(nothing_here)?;
        let service = service.parse().ok().filter(|service| self.services.borrow().contains(service));
        let service: ServiceName =
            service.ok_or_else(|| not_found("no_such_service", "the stack has no service of that name"))?;
        let target = match rest.split_once('/') {
            None if rest == "keys" => Target::Keys,
            None if rest == "batch" => Target::Batch,
            Some(("keys", key)) => {
                let key = percent_decode("key", key)?;
                check_key(key.as_bytes())?;
                Target::Key(key)
            }
            _ => return Err(nothing_here()),
        };
        Ok((Space::Service(service), target))
    }

    async fn get(
        &self,
        space: &Space,
        key: &str,
        request: &Request<Bytes>,
    ) -> Result<Response<Bytes>, Refusal> {
        Query::parse(request.uri().query(), &[])?;
        match self.store.get(space, key.as_bytes()).await? {
            None => Err(Refusal::new(StatusCode::NOT_FOUND, "no_such_key", "there is no such key")),
            Some(entry) => {
                let mut answer = Response::new(entry.value);
                let any_bytes = HeaderValue::from_static("application/octet-stream");
                answer.headers_mut().insert(header::CONTENT_TYPE, any_bytes);
                Ok(with_etag(answer, entry.version))
            }
        }
    }

    async fn put(
        &self,
        space: &Space,
        key: String,
        request: Request<Bytes>,
    ) -> Result<Response<Bytes>, Refusal> {
        let ttl = Query::parse(request.uri().query(), &["ttl_ms"])?.number("ttl_ms", 1, u64::MAX)?;
        let is = condition(request.method(), request.headers())?;
        let expires_at = ttl.map(|ttl| self.clock.now().plus(Duration::from_millis(ttl)));
        let batch = Batch::new().put_until(space, key.clone(), request.into_body(), expires_at);
        let batch = if let Some(is) = is { batch.when(space, key, is) } else { batch };
        self.write(batch).await
    }

    async fn delete(
        &self,
        space: &Space,
        key: String,
        request: &Request<Bytes>,
    ) -> Result<Response<Bytes>, Refusal> {
        Query::parse(request.uri().query(), &[])?;
        let is = condition(request.method(), request.headers())?;
        let batch = Batch::new().delete(space, key.clone());
        let mut answer =
            self.write(if let Some(is) = is { batch.when(space, key, is) } else { batch }).await?;
        *answer.status_mut() = StatusCode::NO_CONTENT;
        answer.headers_mut().remove(header::ETAG); // of an entry that is gone
        Ok(answer)
    }

    /// Does the write of one key, which answers with `ETag` and without a list of conditions.
    async fn write(&self, batch: Batch) -> Result<Response<Bytes>, Refusal> {
        match self.store.commit(batch).await {
            Ok(done) => Ok(with_etag(Response::new(Bytes::new()), done.version)),
            Err(error) => Err(Refusal { failed: None, ..error.into() }),
        }
    }

    async fn list(&self, space: Space, request: &Request<Bytes>) -> Result<Response<Bytes>, Refusal> {
        let mut query = Query::parse(request.uri().query(), &["prefix", "limit", "after", "reverse"])?;
        let limit = query.number("limit", 1, SCAN_LIMIT_MAX as u64)?.unwrap_or(LIMIT_DEFAULT);
        let scan = Scan {
            space,
            prefix: query.take("prefix").unwrap_or_default().into(),
            after: query.take("after").map(Bytes::from),
            limit: usize::try_from(limit).unwrap_or(SCAN_LIMIT_MAX),
            reverse: query.flag("reverse")?,
        };
        Ok(json(&wire::Listing::from(self.store.scan(&scan).await?)))
    }

    async fn batch(&self, space: &Space, request: &Request<Bytes>) -> Result<Response<Bytes>, Refusal> {
        Query::parse(request.uri().query(), &[])?;
        let body = request.body();
        if body.len() > BODY_BYTES_MAX {
            let message = format!("{} bytes of body, at most {BODY_BYTES_MAX} are allowed", body.len());
            return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message));
        }
        let batch = wire::batch(space, body, self.clock.now())?;
        match self.store.commit(batch).await {
            Ok(done) => Ok(json(&wire::BatchDone { version: done.version.0 })),
            Err(error) => Err(Refusal { found: None, ..error.into() }),
        }
    }
}
