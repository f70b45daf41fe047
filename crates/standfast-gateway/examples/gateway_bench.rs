//! The gateway alone before given upstreams, for comparisons with other proxies (the `own` peer of the gateway benchmarks).
//!
//! `gateway_bench --listen 127.0.0.1:18080 --upstream 127.0.0.1:19001 [--upstream …] [--workers 1]`; further words (the
//! benchmark's mode) are ignored. SIGTERM drains; SIGUSR1 prints the counters.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use standfast_gateway::{
    Config, Endpoint, EndpointState, Gateway, ListenerInput, ListenerKind, Policy, Pool, Snapshot,
};
use standfast_model::{Instance, ReplicaId, Route, ServiceName, Target, ZoneName};
use standfast_runtime::Clock;
use tokio::signal::unix::{SignalKind, signal};

struct Arguments {
    listen: SocketAddr,
    upstreams: Vec<SocketAddr>,
    workers: usize,
}

fn arguments() -> anyhow::Result<Arguments> {
    let (mut listen, mut upstreams, mut workers) = (None, Vec::new(), 1);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().with_context(|| format!("{word} needs a value"));
        match word.as_str() {
            "--listen" => listen = Some(value()?.parse()?),
            "--upstream" => upstreams.push(value()?.parse()?),
            "--workers" => workers = value()?.parse()?,
            _ => {}
        }
    }
    Ok(Arguments { listen: listen.context("--listen ADDRESS is missing")?, upstreams, workers })
}

fn snapshot(upstreams: &[SocketAddr]) -> anyhow::Result<Snapshot> {
    let (service, zone): (ServiceName, ZoneName) = ("up".parse()?, "a".parse()?);
    let endpoints = upstreams.iter().zip(0..).map(|(address, slot)| Endpoint {
        instance: Instance { replica: ReplicaId { service: service.clone(), slot }, attempt: 1 },
        address: *address,
        zone: zone.clone(),
        state: EndpointState::Ready,
    });
    let pool = Pool { endpoints: endpoints.collect(), policy: Policy::default() };
    let to = vec![Target { service: service.clone(), weight: 1 }];
    Ok(Snapshot {
        version: 1,
        routes: vec![Route::prefix("/", to)],
        services: BTreeMap::from([(service, pool)]),
        gateway_zone: Some(zone),
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
    let Arguments { listen, upstreams, workers } = arguments()?;
    let (_sender, receiver) = tokio::sync::watch::channel(Arc::new(snapshot(&upstreams)?));
    let input = ListenerInput { kind: ListenerKind::Public, sockets: sockets(listen, workers)? };
    let config = Config { workers, ..Config::default() };
    let gateway = Gateway::start(config, vec![input], receiver, Clock::system(), 1)?;
    let (mut terminate, mut show) = (signal(SignalKind::terminate())?, signal(SignalKind::user_defined1())?);
    loop {
        tokio::select! {
            biased;
            _ = terminate.recv() => break,
            _ = show.recv() => eprintln!("{:#?}", gateway.stats()),
        }
    }
    gateway.drain(Duration::from_secs(5)).await;
    Ok(())
}
