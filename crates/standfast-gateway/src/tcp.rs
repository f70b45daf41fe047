//! Services that speak neither HTTP/1.1 nor HTTP/2: connections are passed on as they are.

use std::rc::Rc;
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;

use crate::client::Client;
use crate::outlier::Evidence;
use crate::pool::{InFlight, Service, Wish};
use crate::worker::Worker;

/// From one look for a replica to the next, while none takes a connection.
const PAUSE: Duration = Duration::from_millis(50);

/// Passes a connection on to a replica, until both sides have ended it.
pub(crate) async fn serve(
    worker: Rc<Worker>,
    client: Rc<Client>,
    mut stream: TcpStream,
    service: Rc<Service>,
) {
    service.counters.requests.add(1);
    let zone = client.kind.caller_zone().cloned().or_else(|| worker.gateway_zone());
    let until = worker.clock.now().plus(service.policy.borrow().hold);
    let mut tried = Vec::new();
    loop {
        let now = worker.clock.now();
        let wish = Wish {
            now,
            zone: zone.as_ref(),
            tried: &tried,
            is_repeatable: true,
            key_hash: None,
            is_desperate: false,
        };
        let chosen = service.choose(wish, &mut worker.rng.borrow_mut());
        let Some(endpoint) = chosen else {
            if now >= until {
                service.counters.no_replica.add(1);
                return;
            }
            let _changed_or_over = worker.clock.timeout(PAUSE, worker.newer_snapshot()).await;
            worker.refresh();
            tried.clear();
            continue;
        };
        let in_flight = InFlight::new(&service, &endpoint, now);
        let transport = service.transport();
        let connecting = transport.open(worker.net, endpoint.address);
        let limit = worker.limits.get().connect_max;
        let connected = worker.clock.timeout(limit, connecting).await;
        let took = worker.clock.now().since(now);
        in_flight.is_judged();
        in_flight.tells_no_pace();
        let Ok(Ok(mut replica)) = connected else {
            endpoint.counters.refused.add(1);
            // That it took long may be our own slowness.
            let (evidence, is_lagging) = match connected {
                Ok(_) => (Evidence::Refused, false),
                Err(_) => (Evidence::Silent, worker.is_lagging(now, limit)),
            };
            service.judge(&endpoint, took, evidence, worker.clock.now(), is_lagging);
            tried.push(endpoint);
            continue;
        };
        endpoint.counters.attempts.add(1);
        service.judge(&endpoint, took, Evidence::Answered, worker.clock.now(), false);
        client.activity.begins();
        if let Err(error) = copy_bidirectional(&mut stream, &mut replica).await {
            tracing::debug!(%error, "a connection broke off");
        }
        return;
    }
}
