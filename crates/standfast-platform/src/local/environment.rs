//! What a replica finds in its environment.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use standfast_model::{Instance, StackName, ZoneName};

use super::procfs::INSTANCE_VARIABLE;
use crate::{Launch, Wanted};

/// What the agent itself tells a replica.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Given<'a> {
    pub(crate) stack: &'a StackName,
    pub(crate) instance: &'a Instance,
    pub(crate) zone: &'a ZoneName,
    pub(crate) address: SocketAddr,
    pub(crate) mark: &'a str,
}

/// A replica's whole environment. Later ones win: what the agent's starter had (`PATH`, `HOME`, …), `HOST`, the order's
/// variables for the zone, those for the service, the launch's own, so that a user's own value of the same name is
/// kept; and last what a replica cannot do without: on another `PORT` than the agent gave it nobody would find it, and
/// by the `STANDFAST_` variables it is known.
pub(crate) fn environment(
    base: &BTreeMap<String, String>,
    wanted: &Wanted,
    launch: &Launch,
    given: Given<'_>,
) -> BTreeMap<String, String> {
    let Given { stack, instance, zone, address, mark } = given;
    let service = &instance.replica.service;
    let mut all = base.clone();
    all.insert("HOST".into(), address.ip().to_string());
    let ordered = [
        wanted.zone_environment.get(zone),
        wanted.service_environment.get(service),
        Some(&launch.environment),
    ];
    for variables in ordered.into_iter().flatten() {
        all.extend(variables.iter().map(|(name, value)| (name.clone(), value.clone())));
    }
    let fixed = [
        ("PORT", address.port().to_string()),
        ("STANDFAST_STACK", stack.to_string()),
        ("STANDFAST_SERVICE", service.to_string()),
        ("STANDFAST_REPLICA", instance.replica.to_string()),
        ("STANDFAST_ZONE", zone.to_string()),
        (INSTANCE_VARIABLE, mark.to_owned()),
    ];
    all.extend(fixed.map(|(name, value)| (name.to_owned(), value)));
    all
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use standfast_model::{HealthCheck, Limits, Probe, ReplicaId};

    use super::*;

    #[test]
    fn the_users_own_value_wins_except_where_it_would_hide_the_replica() {
        let one = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
        let mut own = one("STOCK_URL", "http://elsewhere");
        own.extend([("PORT".into(), "80".into()), ("HOST".into(), "0.0.0.0".into())]);
        let launch = Launch {
            command: vec!["x".into()],
            working_dir: "/".into(),
            environment: own,
            healthcheck: HealthCheck {
                probe: Probe::Tcp,
                interval: Duration::from_secs(1),
                timeout: Duration::from_secs(1),
                retries: 3,
                start_period: Duration::ZERO,
            },
            limits: Limits::default(),
            stop_grace_period: Duration::from_secs(1),
        };
        let (zone, instance) = (
            "a".parse().unwrap(),
            Instance { replica: ReplicaId { service: "orders".parse().unwrap(), slot: 2 }, attempt: 1 },
        );
        let mut wanted = Wanted::default();
        wanted.zone_environment.insert("a".parse().unwrap(), one("STOCK_URL", "http://zone"));
        wanted
            .service_environment
            .insert("orders".parse().unwrap(), one("STANDFAST_STATE_URL", "http://state"));
        let given = Given {
            stack: &"shop".parse().unwrap(),
            instance: &instance,
            zone: &zone,
            address: "127.80.1.3:20001".parse().unwrap(),
            mark: "shop/orders-2.1/1/f",
        };
        let all = environment(&one("PATH", "/bin"), &wanted, &launch, given);
        let value = |name: &str| all[name].as_str();
        assert_eq!(
            (value("STOCK_URL"), value("HOST"), value("PORT")),
            ("http://elsewhere", "0.0.0.0", "20001")
        );
        assert_eq!((value("STANDFAST_STATE_URL"), value("PATH")), ("http://state", "/bin"));
        assert_eq!((value("STANDFAST_REPLICA"), value("STANDFAST_ZONE")), ("orders-2", "a"));
    }
}
