//! Which route a request from outside falls under: the most specific host, then the longest path prefix. Pure.

use std::collections::HashMap;

use standfast_model::{PathMatch, Route, ServiceName};
use standfast_runtime::Rng;

/// The longest host name that is looked up; DNS allows 253 bytes.
const HOST_BYTES_MAX: usize = 255;

/// A snapshot's routes, made for looking up. `T` is what a target becomes.
#[derive(Debug)]
pub(crate) struct RouteTable<T> {
    by_host: HashMap<Box<str>, Rules<T>>,
    any_host: Rules<T>,
}

/// Longest prefix first.
type Rules<T> = Vec<Rule<T>>;

#[derive(Debug)]
struct Rule<T> {
    path: PathMatch,
    targets: Vec<(u32, T)>,
    weight: u64,
}

impl<T> RouteTable<T> {
    /// The table of `routes`; targets without weight and rules without targets are left out.
    pub(crate) fn new(routes: &[Route], mut resolve: impl FnMut(&ServiceName) -> T) -> Self {
        let mut table = Self { by_host: HashMap::new(), any_host: Vec::new() };
        for route in routes {
            let targets: Vec<(u32, T)> = route
                .to
                .iter()
                .filter(|target| target.weight > 0)
                .map(|target| (target.weight, resolve(&target.service)))
                .collect();
            if targets.is_empty() {
                continue;
            }
            let weight = targets.iter().map(|(weight, _)| u64::from(*weight)).sum();
            let rules = match &route.host {
                Some(host) => table.by_host.entry(host.to_ascii_lowercase().into()).or_default(),
                None => &mut table.any_host,
            };
            rules.push(Rule { path: route.path.clone(), targets, weight });
        }
        // Stable, so that of equal prefixes the one written first wins.
        for rules in table.by_host.values_mut().chain([&mut table.any_host]) {
            rules.sort_by_key(|rule| std::cmp::Reverse(rule.path.text().trim_end_matches('/').len()));
        }
        table
    }

    /// The target of a request for `host` (as the client wrote it, perhaps with a port) and `path` (without its query).
    pub(crate) fn find(&self, host: &str, path: &str, rng: &mut Rng) -> Option<&T> {
        let mut buffer = [0; HOST_BYTES_MAX];
        let of_host = lower_host(host, &mut buffer).and_then(|host| self.by_host.get(host));
        let rule = of_host
            .and_then(|rules| first_match(rules, path))
            .or_else(|| first_match(&self.any_host, path))?;
        pick(rule, rng)
    }
}

fn first_match<'a, T>(rules: &'a Rules<T>, path: &str) -> Option<&'a Rule<T>> {
    rules.iter().find(|rule| rule.path.matches(path))
}

fn pick<'a, T>(rule: &'a Rule<T>, rng: &mut Rng) -> Option<&'a T> {
    if let [(_, only)] = rule.targets.as_slice() {
        return Some(only);
    }
    let mut left = rng.bits() % rule.weight.max(1);
    for (weight, target) in &rule.targets {
        match left.checked_sub(u64::from(*weight)) {
            Some(rest) => left = rest,
            None => return Some(target),
        }
    }
    None
}

/// The host without its port and a final dot, in lower case, written into `buffer`.
fn lower_host<'a>(host: &str, buffer: &'a mut [u8; HOST_BYTES_MAX]) -> Option<&'a str> {
    let without_port = match host.strip_prefix('[') {
        Some(_) => host.split_inclusive(']').next().unwrap_or(host),
        None => host.split(':').next().unwrap_or(host),
    };
    let name = without_port.strip_suffix('.').unwrap_or(without_port).as_bytes();
    let target = buffer.get_mut(..name.len())?;
    target.copy_from_slice(name);
    target.make_ascii_lowercase();
    std::str::from_utf8(target).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use standfast_model::Target;

    fn route(host: Option<&str>, path: &str, to: &[(&str, u32)]) -> Route {
        let to = to
            .iter()
            .map(|(name, weight)| Target { service: name.parse().unwrap(), weight: *weight })
            .collect();
        Route { host: host.map(Into::into), ..Route::prefix(path, to) }
    }

    fn found(routes: &[Route], host: &str, path: &str) -> Option<String> {
        let table = RouteTable::new(routes, ToString::to_string);
        table.find(host, path, &mut Rng::seeded(1)).cloned()
    }

    #[test]
    fn the_most_specific_host_then_the_longest_prefix_wins() {
        let routes = [
            route(None, "/", &[("web", 1)]),
            route(None, "/orders/", &[("orders", 1)]),
            route(Some("shop.test"), "/orders", &[("shop-orders", 1)]),
        ];
        for (host, path, service) in [
            ("x", "/orders/1", "orders"),
            ("x", "/orders", "orders"),
            ("x", "/ordersX", "web"),
            ("SHOP.test.:8080", "/orders/7", "shop-orders"),
            ("shop.test", "/other", "web"),
            ("[::1]:80", "/", "web"),
        ] {
            assert_eq!(found(&routes, host, path).as_deref(), Some(service), "{host} {path}");
        }
        assert_eq!(found(&routes[1..], "x", "/"), None);
    }

    #[test]
    fn requests_are_shared_by_weight() {
        let routes = [route(None, "/", &[("a", 3), ("b", 1), ("off", 0)])];
        let table = RouteTable::new(&routes, ToString::to_string);
        let mut rng = Rng::seeded(5);
        let a = (0..4_000).filter(|_| table.find("x", "/", &mut rng).unwrap() == "a").count();
        assert!((2_850..3_150).contains(&a), "{a}");
    }
}
