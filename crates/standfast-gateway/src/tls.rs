//! TLS to clients: certificates from files, one configuration for all workers, exchanged as a whole when files change.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use standfast_model::Tls;

/// Why TLS cannot be offered.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or is not what it should be.
    #[error("cannot use {}: {why}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// A name is none that a certificate can be for.
    #[error("`{name}` is neither a host name nor an IP address")]
    Name {
        /// Which.
        name: String,
    },
    /// Nobody is believed.
    #[error(
        "no certificate authorities are known to this machine; install them, or name a file: `traffic.tls.ca`"
    )]
    NoAuthorities,
    /// The parts do not fit together.
    #[error("the TLS settings cannot be used")]
    Settings(#[from] rustls::Error),
}

/// What TLS needs of the disk: whole files.
pub type ReadFile<'a> = &'a dyn Fn(&Path) -> io::Result<Vec<u8>>;

/// Makes the configuration for listeners of kind [`crate::ListenerKind::PublicTls`]. A certificate is chosen by the name that the
/// client asks for (SNI), by its own names; the first one is for all others.
///
/// # Errors
/// [`TlsError`], which names the file.
pub fn tls_config(tls: &Tls, read: ReadFile<'_>) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut by_name = BTreeMap::new();
    let mut first = None;
    for certificate in &tls.certificates {
        let chain = chain(&certificate.cert, read)?;
        let bytes = read_file(&certificate.key, read)?;
        let key = PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| bad(&certificate.key, &error))?;
        let names = chain.first().map(names_of).unwrap_or_default();
        let signer =
            provider.key_provider.load_private_key(key).map_err(|error| bad(&certificate.key, &error))?;
        let certified = Arc::new(CertifiedKey::new(chain, signer));
        certified.keys_match().map_err(|error| bad(&certificate.key, &error))?;
        for name in names {
            by_name.entry(name).or_insert_with(|| Arc::clone(&certified));
        }
        first.get_or_insert(certified);
    }
    let builder =
        ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let builder = match &tls.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in chain(path, read)? {
                roots.add(certificate).map_err(|error| bad(path, &error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| bad(path, &error))?)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(ByName { by_name, first }));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

pub(crate) fn bad(path: &Path, why: &impl std::fmt::Display) -> TlsError {
    TlsError::File { path: path.to_owned(), why: why.to_string() }
}

pub(crate) fn read_file(path: &Path, read: ReadFile<'_>) -> Result<Vec<u8>, TlsError> {
    read(path).map_err(|error| bad(path, &error))
}

pub(crate) fn chain(path: &Path, read: ReadFile<'_>) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes = read_file(path, read)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) => Err(bad(path, &"there is no certificate in it")),
        Err(error) => Err(bad(path, &error)),
    }
}

/// The DNS names that a certificate is for, lower case.
fn names_of(certificate: &CertificateDer<'_>) -> Vec<String> {
    let parsed = webpki::EndEntityCert::try_from(certificate);
    let names = parsed
        .iter()
        .flat_map(|parsed| parsed.valid_dns_names().map(str::to_ascii_lowercase).collect::<Vec<_>>());
    names.collect()
}

/// Chooses a certificate by the name that the client asks for.
#[derive(Debug)]
struct ByName {
    by_name: BTreeMap<String, Arc<CertifiedKey>>,
    first: Option<Arc<CertifiedKey>>,
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let wanted = hello.server_name().map(str::to_ascii_lowercase);
        let found = wanted.as_deref().and_then(|name| {
            let wildcard = name.split_once('.').map(|(_, parent)| format!("*.{parent}"));
            self.by_name.get(name).or_else(|| self.by_name.get(&wildcard?))
        });
        found.or(self.first.as_ref()).cloned()
    }
}
