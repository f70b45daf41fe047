//! TLS to clients.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use standfast_gateway::{Config, Limits, ListenerKind, Snapshot, tls_config};
use standfast_model::{Certificate, Filters, Redirect, Route, Tls};
use standfast_runtime::Net;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::h2::speaks_h2;
use crate::h2_rig::{H2, H2Replica, soon};
use crate::replica::Replica;
use crate::rig::{Rig, endpoints, one_worker, raw, snapshot};

pub(crate) fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/certificates").join(name)
}

fn certificate(name: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(file(&format!("{name}.pem"))).unwrap()
}

pub(crate) fn settings(names: &[&str], client_ca: Option<&str>) -> Tls {
    let of =
        |name: &&str| Certificate { cert: file(&format!("{name}.pem")), key: file(&format!("{name}.key")) };
    Tls { port: 0, certificates: names.iter().map(of).collect(), client_ca: client_ca.map(file) }
}

pub(crate) fn server(names: &[&str], client_ca: Option<&str>) -> Arc<ServerConfig> {
    tls_config(&settings(names, client_ca), &|path| std::fs::read(path)).unwrap()
}

/// A gateway with one listener for TLS.
pub(crate) struct TlsRig {
    pub(crate) rig: Rig,
}

impl TlsRig {
    pub(crate) fn start(snapshot: Snapshot) -> Self {
        Self::start_with(Limits::default(), snapshot, server(&["first", "shop", "wild"], None))
    }

    pub(crate) fn start_with(limits: Limits, mut snapshot: Snapshot, tls: Arc<ServerConfig>) -> Self {
        snapshot.tls = Some(tls);
        let config = Config { limits, ..one_worker() };
        Self { rig: Rig::start_as(ListenerKind::PublicTls, config, snapshot) }
    }

    pub(crate) async fn connect(&self, name: &str, alpn: &[&[u8]]) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = Net::real().connect_tcp(self.rig.public).await.unwrap();
        handshake(stream, name, client(alpn, None)).await
    }

    /// The certificate that a client is shown.
    async fn shown(&self, name: &str) -> CertificateDer<'static> {
        let stream = self.connect(name, &[]).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
    }
}

pub(crate) async fn handshake(
    stream: TcpStream,
    name: &str,
    config: ClientConfig,
) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    soon("a handshake", TlsConnector::from(Arc::new(config)).connect(name, stream)).await
}

/// A client that trusts the tests' authority, and shows this certificate.
pub(crate) fn client(alpn: &[&[u8]], identity: Option<&str>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(certificate("authority")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(name) => {
            let key = PrivateKeyDer::from_pem_file(file(&format!("{name}.key"))).unwrap();
            builder.with_client_auth_cert(vec![certificate(name)], key).unwrap()
        }
    };
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config
}

/// One request over HTTP/1.1, and everything until the gateway has said that it closes.
pub(crate) async fn ask(stream: &mut TlsStream<TcpStream>) -> std::io::Result<String> {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: shop.test\r\nconnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    // An end without `close_notify` is an error.
    soon("the end", stream.read_to_string(&mut answer)).await?;
    Ok(answer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_name_that_a_client_asks_for_chooses_the_certificate() {
    let replica = Replica::start().await;
    let rig = TlsRig::start(snapshot(endpoints(&[&replica])));
    for (asked, shown) in
        [("first.test", "first"), ("shop.test", "shop"), ("WWW.Shop.test", "shop"), ("any.wild.test", "wild")]
    {
        assert_eq!(rig.shown(asked).await, certificate(shown), "{asked}");
    }
    // Whoever asks for none, or for one that is not there, is shown the first.
    let mut silent = client(&[], None);
    silent.enable_sni = false;
    let stream = Net::real().connect_tcp(rig.rig.public).await.unwrap();
    handshake(stream, "first.test", silent).await.unwrap();
    for asked in ["unknown.test", "wild.test", "two.levels.wild.test"] {
        let error = rig.connect(asked, &[]).await.unwrap_err().to_string();
        assert!(error.contains("first.test"), "{asked}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_protocol_is_agreed_on_and_the_replica_is_told_of_tls() {
    let replica = Replica::start().await;
    let rig = TlsRig::start(snapshot(endpoints(&[&replica])));
    for (offered, agreed) in
        [(&[&b"h2"[..], b"http/1.1"][..], Some(&b"h2"[..])), (&[b"http/1.1"], Some(b"http/1.1")), (&[], None)]
    {
        let mut stream = rig.connect("shop.test", offered).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), agreed);
        if agreed == Some(b"h2") {
            assert_eq!(H2::over(stream).await.get("/").await.status, 200);
        } else {
            let answer = ask(&mut stream).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
    }
    assert!(rig.connect("shop.test", &[b"spdy/3"]).await.is_err());
    assert_eq!(replica.seen_count(), 3);
    assert!(replica.seen().iter().all(|seen| seen.headers["x-forwarded-proto"] == "https"));
    assert!(
        replica
            .seen()
            .iter()
            .all(|seen| seen.headers["forwarded"].to_str().unwrap().ends_with("proto=https"))
    );
    // Who speaks no TLS there gets nowhere.
    raw(rig.rig.public, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(replica.seen_count(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_exchanged_without_touching_open_connections() {
    let replica = H2Replica::start().await;
    let rig = TlsRig::start(speaks_h2(&[replica.address]));
    let mut old = rig.connect("shop.test", &[b"http/1.1"]).await.unwrap();
    let streams = H2::over(rig.connect("shop.test", &[b"h2"]).await.unwrap()).await;
    assert_eq!(streams.get("/").await.status, 200);
    rig.rig.publish(|snapshot| snapshot.tls = Some(server(&["first", "shop-new"], None))).await;
    assert_eq!(rig.shown("shop.test").await, certificate("shop-new"));
    assert_eq!(streams.get("/").await.status, 200);
    assert!(ask(&mut old).await.unwrap().starts_with("HTTP/1.1 200"));
    // Without any, nobody is let in.
    rig.rig.publish(|snapshot| snapshot.tls = None).await;
    assert!(rig.connect("shop.test", &[]).await.is_err());
    assert_eq!(streams.get("/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_must_show_a_certificate_where_one_is_asked_for() {
    let replica = Replica::start().await;
    let tls = server(&["shop"], Some("authority.pem"));
    let rig = TlsRig::start_with(Limits::default(), snapshot(endpoints(&[&replica])), tls);
    for (identity, is_taken) in [(None, false), (Some("client-strange"), false), (Some("client"), true)] {
        let stream = Net::real().connect_tcp(rig.rig.public).await.unwrap();
        // With TLS 1.3 a client learns only when it reads that it was turned away.
        let answer = match handshake(stream, "shop.test", client(&[], identity)).await {
            Ok(mut stream) => ask(&mut stream).await,
            Err(error) => Err(error),
        };
        assert_eq!(answer.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")), is_taken, "{identity:?}");
    }
    assert_eq!(replica.seen_count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_says_nothing_is_closed_and_every_connection_is_closed_with_a_word() {
    let replica = Replica::start().await;
    // Long enough for a handshake on a machine that is busy.
    let limit = Duration::from_secs(1);
    let limits = Limits { header_read_max: limit, client_idle_max: limit, ..Limits::default() };
    let tls = server(&["shop"], None);
    let rig = TlsRig::start_with(limits, snapshot(endpoints(&[&replica])), tls);
    let begin_of_a_hello = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc];
    let (nothing, half) = tokio::join!(raw(rig.rig.public, b""), raw(rig.rig.public, &begin_of_a_hello));
    assert_eq!((nothing.as_str(), half.as_str()), ("", ""));
    // Idle ones: `read` gives an error where the word is missing.
    let mut idle = rig.connect("shop.test", &[]).await.unwrap();
    let mut streams = H2::over(rig.connect("shop.test", &[b"h2"]).await.unwrap()).await;
    assert_eq!(streams.get("/").await.status, 200);
    assert_eq!(soon("the end", idle.read(&mut [0; 16])).await.unwrap(), 0);
    // The client says goodbye too, and may find nobody there any more: that is no missing word.
    if let Err(error) = streams.ended().await {
        assert_eq!(error.get_io().map(std::io::Error::kind), Some(std::io::ErrorKind::BrokenPipe), "{error}");
    }
}

#[test]
fn files_that_do_not_fit_are_named() {
    let error = |tls: &Tls| tls_config(tls, &|path| std::fs::read(path)).unwrap_err().to_string();
    let mut wrong = settings(&["shop"], None);
    wrong.certificates[0].key = file("wild.key");
    assert!(error(&wrong).contains("wild.key"), "{}", error(&wrong));
    wrong.certificates[0].key = file("shop.pem");
    assert!(error(&wrong).contains("shop.pem"));
    wrong.certificates[0].cert = file("shop.key");
    assert!(error(&wrong).contains("shop.key: there is no certificate in it"), "{}", error(&wrong));
    let missing = settings(&["missing"], None);
    assert!(error(&missing).contains("missing.pem"));
    assert!(error(&settings(&["shop"], Some("shop.key"))).contains("shop.key"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_by_http_is_sent_to_https() {
    let replica = Replica::start().await;
    let mut world = snapshot(endpoints(&[&replica]));
    let redirect = Redirect { scheme: Some("https".into()), host: None, port: None, path: None, status: 301 };
    world.routes.insert(
        0,
        Route {
            scheme: Some("http".into()),
            filters: Filters { redirect: Some(redirect), ..Filters::default() },
            ..Route::prefix("/", Vec::new())
        },
    );
    let plain = Rig::start(world.clone());
    let answer = plain.client().await.get("/cart?item=1").await;
    assert_eq!((answer.status, answer.header("location")), (301, Some("https://shop.test/cart?item=1")));
    assert_eq!(replica.seen_count(), 0);
    let rig = TlsRig::start(world);
    let mut stream = rig.connect("shop.test", &[]).await.unwrap();
    assert!(ask(&mut stream).await.unwrap().starts_with("HTTP/1.1 200"));
    assert_eq!(replica.seen_count(), 1);
}
