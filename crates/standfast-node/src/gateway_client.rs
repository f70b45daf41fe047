//! A client of the interface of a gateway that runs by itself.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use serde::de::DeserializeOwned;
use standfast_gateway::{Filter, Record};
use standfast_runtime::http::Client;
use standfast_runtime::{Clock, Net, Peer};

use crate::client::AdminError;
use crate::gateway_admin::{REQUESTS, encoded, query};

/// The longest that a call may take.
const CALL_MAX: Duration = Duration::from_secs(10);

/// A client of one gateway.
#[derive(Debug, Clone)]
pub struct GatewayClient {
    /// `127.0.0.1:9464`.
    authority: String,
    http: Client,
}

impl GatewayClient {
    /// A client of the gateway whose `--admin` is at `address`: `http://127.0.0.1:9464`, or without the scheme.
    ///
    /// # Errors
    /// What is wrong with the address.
    pub fn new(address: &str, net: Net, clock: Clock) -> Result<Self, &'static str> {
        if address.starts_with("https://") {
            return Err("it is asked without TLS: http://HOST:PORT");
        }
        let authority = address.strip_prefix("http://").unwrap_or(address).trim_end_matches('/');
        let port = authority.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        let is_authority = authority.bytes().all(|byte| byte.is_ascii_graphic() && !b"/@?#".contains(&byte));
        if port.is_none() || !is_authority {
            return Err("it is written as http://HOST:PORT");
        }
        Ok(Self { authority: authority.to_owned(), http: Client::new(net, clock) })
    }

    /// What became of a request, by its `Standfast-Request-Id`, what its client calls it, or its trace.
    ///
    /// # Errors
    /// [`AdminError::Refused`] when nothing is remembered of it.
    pub async fn why(&self, id: &str) -> Result<Record, AdminError> {
        self.get(&format!("{REQUESTS}/{}", encoded(id))).await
    }

    /// The newest requests that are remembered, newest first.
    ///
    /// # Errors
    /// See [`AdminError`].
    pub async fn recent(&self, limit: usize, filter: &Filter) -> Result<Vec<Record>, AdminError> {
        self.get(&format!("{REQUESTS}?{}", query(limit, filter))).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, AdminError> {
        let unreachable = |source: Box<dyn std::error::Error + Send + Sync>| AdminError::NoGateway {
            address: self.authority.clone(),
            source,
        };
        let mut found =
            tokio::net::lookup_host(self.authority.as_str()).await.map_err(|e| unreachable(e.into()))?;
        let address = found.next().ok_or_else(|| unreachable("the name has no address".into()))?;
        let request = Request::get(path).header("host", self.authority.as_str()).body(Bytes::new());
        let request = request.map_err(|error| unreachable(error.into()))?;
        let answer = self.http.send(&Peer::Tcp(address), request, CALL_MAX).await;
        let answer = answer.map_err(|error| unreachable(error.into()))?;
        if answer.status() == StatusCode::OK {
            return serde_json::from_slice(answer.body()).map_err(|error| unreachable(error.into()));
        }
        let refusal = serde_json::from_slice(answer.body());
        Err(refusal.map_or_else(|error| unreachable(error.into()), AdminError::Refused))
    }
}
