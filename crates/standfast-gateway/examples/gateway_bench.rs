//! The gateway alone before given upstreams, for comparisons with other proxies (the `own` peer of the gateway benchmarks).
//!
//! `gateway_bench --listen 127.0.0.1:18080 [--upstream 127.0.0.1:19001 …] [--endpoints FILE] [--workers 1]`. The file has lines
//! `upstream ADDRESS` and `route PREFIX`. SIGTERM drains; SIGUSR1 prints the counters; SIGHUP rereads the file.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use standfast_gateway::{
    Config, Endpoint, EndpointState, Gateway, ListenerInput, ListenerKind, Pool, Snapshot,
};
use standfast_model::{Instance, ReplicaId, Route, ServiceName, Target, Traffic, ZoneName};
use standfast_runtime::Clock;
use tokio::signal::unix::{SignalKind, signal};

struct Arguments {
    listen: SocketAddr,
    upstreams: Vec<SocketAddr>,
    endpoints: Option<PathBuf>,
    workers: usize,
}

fn arguments() -> anyhow::Result<Arguments> {
    let (mut listen, mut upstreams, mut endpoints, mut workers) = (None, Vec::new(), None, 1);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().with_context(|| format!("{word} needs a value"));
        match word.as_str() {
            "--listen" => listen = Some(value()?.parse()?),
            "--upstream" => upstreams.push(value()?.parse()?),
            "--endpoints" => endpoints = Some(value()?.into()),
            "--workers" => workers = value()?.parse()?,
            other => anyhow::bail!("unknown word {other}"),
        }
    }
    Ok(Arguments { listen: listen.context("--listen ADDRESS is missing")?, upstreams, endpoints, workers })
}

/// What the command line and the file say.
fn snapshot(arguments: &Arguments, version: u64) -> anyhow::Result<Snapshot> {
    let (service, zone): (ServiceName, ZoneName) = ("up".parse()?, "a".parse()?);
    let mut addresses = arguments.upstreams.clone();
    let mut prefixes = vec!["/".to_owned()];
    if let Some(path) = &arguments.endpoints {
        for line in std::fs::read_to_string(path)?.lines() {
            match line.split_once(' ') {
                Some(("upstream", address)) => addresses.push(address.parse()?),
                Some(("route", prefix)) => prefixes.push(prefix.to_owned()),
                _ => anyhow::bail!("neither an upstream nor a route: {line}"),
            }
        }
    }
    let endpoints = addresses.into_iter().zip(0..).map(|(address, slot)| Endpoint {
        instance: Instance { replica: ReplicaId { service: service.clone(), slot }, attempt: 1 },
        address,
        zone: zone.clone(),
        state: EndpointState::Ready,
    });
    let pool = Pool { endpoints: endpoints.collect(), policy: Traffic::default() };
    let to = vec![Target { service: service.clone(), weight: 1 }];
    Ok(Snapshot {
        version,
        routes: prefixes.iter().map(|prefix| Route::prefix(prefix, to.clone())).collect(),
        services: BTreeMap::from([(service, pool)]),
        gateway_zone: Some(zone),
        ..Snapshot::default()
    })
}

/// As many sockets as workers, so that the kernel shares connections out.
fn sockets(listen: SocketAddr, workers: usize) -> anyhow::Result<Vec<std::net::TcpListener>> {
    (0..workers)
        .map(|_| {
            let domain = socket2::Domain::for_address(listen);
            let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
            socket.set_reuse_address(true)?;
            socket.set_reuse_port(true)?;
            socket.bind(&listen.into())?;
            socket.listen(4_096)?;
            Ok(socket.into())
        })
        .collect()
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = arguments()?;
    let mut version = 1;
    let (sender, receiver) = tokio::sync::watch::channel(Arc::new(snapshot(&arguments, version)?));
    let sockets = sockets(arguments.listen, arguments.workers)?;
    let input = ListenerInput { kind: ListenerKind::Public, sockets };
    let mut config = Config { workers: arguments.workers, ..Config::default() };
    // More than the benchmark's 10,000 idle connections.
    config.limits.connections_max = 20_000;
    let gateway = Gateway::start(config, vec![input], receiver, Clock::system(), 1)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut show = signal(SignalKind::user_defined1())?;
    let mut reread = signal(SignalKind::hangup())?;
    loop {
        tokio::select! {
            biased;
            _ = terminate.recv() => break,
            _ = show.recv() => eprintln!("{:#?}", gateway.stats()),
            _ = reread.recv() => {
                version += 1;
                sender.send_replace(Arc::new(snapshot(&arguments, version)?));
            }
        }
    }
    gateway.drain(Duration::from_secs(5)).await;
    Ok(())
}
