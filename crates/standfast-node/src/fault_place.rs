//! Whether a fault has a place in the stack: one that names a service that is not there would do nothing, and prove nothing.

use standfast_gateway::{Place, route_name};
use standfast_model::Stack;

use crate::externals::external_zone;

/// What a place names and the stack does not have, as a sentence; `None` when there is nothing of that kind.
pub(crate) fn missing(place: &Place, stack: &Stack) -> Option<String> {
    let services: Vec<&str> =
        stack.services.keys().chain(stack.externals.keys()).map(|name| name.as_str()).collect();
    let replica = place.replica.as_ref().map(|replica| &replica.replica.service);
    let named = place.service.iter().chain(replica).map(|name| name.as_str());
    let routes: Vec<String> = stack.routes.iter().map(route_name).collect();
    let external = (!stack.externals.is_empty()).then(external_zone);
    let zones: Vec<&str> = stack.zones.iter().chain(&external).map(|name| name.as_str()).collect();
    let named_zones = place.from_zone.iter().chain(&place.to_zone).map(|name| name.as_str());
    let routes: Vec<&str> = routes.iter().map(String::as_str).collect();
    one_of("service", named, &services)
        .or_else(|| one_of("route", place.route.as_deref().into_iter(), &routes))
        .or_else(|| one_of("zone", named_zones, &zones))
}

fn one_of<'a>(kind: &str, mut named: impl Iterator<Item = &'a str>, known: &[&str]) -> Option<String> {
    let unknown = named.find(|name| !known.contains(name))?;
    Some(format!("the stack has no {kind} `{unknown}`; it has {}", known.join(", ")))
}

#[cfg(test)]
mod tests {
    use standfast_gateway::Fault;

    use super::*;

    #[test]
    fn what_a_fault_names_must_be_in_the_stack() {
        let folder = tempfile::tempdir().unwrap();
        let text =
            "name: s\nservices:\n  api: {external: [\"127.0.0.1:1\"]}\nroutes:\n  - {path: /a, to: api}\n";
        std::fs::write(folder.path().join("standfast.yaml"), text).unwrap();
        let stack =
            standfast_model::load(folder.path(), &std::collections::BTreeMap::default()).unwrap().stack;
        let said = |fault: &str| missing(fault.parse::<Fault>().unwrap().place(), &stack);
        for good in ["", "service=api;", "route=*/a;", "to-zone=a;", "replica=api-0;", "to-zone=elsewhere;"] {
            assert_eq!(said(&format!("reset;{good}for=1s")), None, "{good}");
        }
        let sentence = "the stack has no service `apo`; it has api";
        assert_eq!(said("reset;service=apo;for=1s").as_deref(), Some(sentence));
        assert_eq!(said("reset;replica=apo-1;for=1s").as_deref(), Some(sentence));
        assert!(said("reset;route=*/b;for=1s").unwrap().contains("no route `*/b`; it has */a"));
        assert!(said("reset;from-zone=z;for=1s").unwrap().contains("no zone `z`"));
    }
}
