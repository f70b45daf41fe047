//! How connections to replicas are opened: plain, or through TLS.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use standfast_model::{Protocol, ReplicaTls};
use standfast_runtime::Net;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use crate::tls::{ReadFile, TlsError, bad, chain, read_file};
use crate::wire::Stream;

/// TLS to one service's replicas, ready for use.
#[derive(Debug)]
pub struct ReplicaTlsConfig {
    config: Arc<ClientConfig>,
    /// For health checks, which speak HTTP/1.1 whatever the service does.
    for_checks: Arc<ClientConfig>,
    name: ServerName<'static>,
    /// What must be agreed on.
    protocol: Protocol,
    /// Whether the last connection failed: said once, and not for each request.
    is_failing: AtomicBool,
}

impl ReplicaTlsConfig {
    /// Reads the files. Without `ca`, the machine's own authorities are believed.
    ///
    /// # Errors
    /// [`TlsError`], which names the file.
    pub fn new(tls: &ReplicaTls, protocol: Protocol, read: ReadFile<'_>) -> Result<Arc<Self>, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let builder = builder.with_root_certificates(roots(tls, read)?);
        let mut config = match &tls.certificate {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let bytes = read_file(&own.key, read)?;
                let key = PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| bad(&own.key, &error))?;
                let chain = chain(&own.cert, read)?;
                builder.with_client_auth_cert(chain, key).map_err(|error| bad(&own.key, &error))?
            }
        };
        let name = ServerName::try_from(tls.server_name.clone())
            .map_err(|_| TlsError::Name { name: tls.server_name.clone() })?;
        let mut for_checks = config.clone();
        for_checks.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.alpn_protocols = match protocol {
            Protocol::Http1 => vec![b"http/1.1".to_vec()],
            Protocol::Http2 => vec![b"h2".to_vec()],
            Protocol::Tcp => Vec::new(),
        };
        let (config, for_checks) = (Arc::new(config), Arc::new(for_checks));
        Ok(Arc::new(Self { config, for_checks, name, protocol, is_failing: AtomicBool::new(false) }))
    }

    /// Opens a connection for a health check by HTTP/1.1.
    ///
    /// # Errors
    /// The replica takes no connection, or cannot prove who it is.
    pub async fn connect_for_check(
        &self,
        net: Net,
        address: SocketAddr,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Unpin + Send + use<>> {
        let stream = net.connect_tcp(address).await?;
        TlsConnector::from(Arc::clone(&self.for_checks)).connect(self.name.clone(), stream).await
    }

    async fn open(&self, net: Net, address: SocketAddr) -> io::Result<Stream> {
        let stream = net.connect_tcp(address).await?;
        let connector = TlsConnector::from(Arc::clone(&self.config));
        let shaken = connector.connect(self.name.clone(), stream).await;
        let shaken = shaken.and_then(|stream| {
            let agreed = stream.get_ref().1.alpn_protocol();
            let is_h2 = agreed == Some(b"h2");
            if self.protocol == Protocol::Http2 && !is_h2 {
                return Err(io::Error::other("it does not agree to HTTP/2"));
            }
            Ok(Stream::Tls(Box::new(stream.into())))
        });
        let was_failing = self.is_failing.swap(shaken.is_err(), Ordering::Relaxed);
        if let (Err(error), false) = (&shaken, was_failing) {
            tracing::warn!(%error, %address, "a replica and we do not agree on TLS; see `traffic.tls`");
        }
        shaken
    }
}

/// Whom to believe.
fn roots(tls: &ReplicaTls, read: ReadFile<'_>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    match &tls.ca {
        Some(path) => {
            for certificate in chain(path, read)? {
                roots.add(certificate).map_err(|error| bad(path, &error))?;
            }
        }
        None => {
            // Some of a machine's authorities may be of kinds that rustls does not know: they sign nothing here.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(TlsError::NoAuthorities);
            }
        }
    }
    Ok(roots)
}

/// How connections to a service's replicas are opened.
#[derive(Debug, Clone, Default)]
pub(crate) enum Transport {
    #[default]
    Plain,
    Tls(Arc<ReplicaTlsConfig>),
    /// TLS is wanted, and its files cannot be used: nothing is sent plain in its place.
    Unusable,
}

impl Transport {
    /// What a service that wants TLS, or not, gets.
    pub(crate) fn new(wants_tls: bool, config: Option<&Arc<ReplicaTlsConfig>>) -> Self {
        match (wants_tls, config) {
            (false, _) => Self::Plain,
            (true, Some(config)) => Self::Tls(Arc::clone(config)),
            (true, None) => Self::Unusable,
        }
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Plain, Self::Plain) | (Self::Unusable, Self::Unusable) => true,
            (Self::Tls(one), Self::Tls(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }

    pub(crate) const fn scheme(&self) -> &'static str {
        match self {
            Self::Plain => "http",
            Self::Tls(_) | Self::Unusable => "https",
        }
    }

    /// Opens a connection. It takes as long as the operating system and the replica let it: wrap it in a time limit.
    ///
    /// # Errors
    /// The replica takes no connection, or cannot prove who it is.
    pub(crate) async fn open(&self, net: Net, address: SocketAddr) -> io::Result<Stream> {
        match self {
            Self::Plain => Ok(Stream::Tcp(net.connect_tcp(address).await?)),
            Self::Tls(config) => config.open(net, address).await,
            Self::Unusable => Err(io::Error::other("the files of `traffic.tls` cannot be used")),
        }
    }
}
