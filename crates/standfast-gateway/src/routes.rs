//! Which rule a request from outside falls under. Pure.
//!
//! Of the routes whose conditions are all met the most specific one wins. A route for the request's scheme comes before all that name
//! none: so it is with a listener's own routes. Then as the Gateway API orders them: a host that is written
//! out, the longest host with a `*`, any host; of the same host an exact path, the longest prefix, a regular expression; of the
//! same path one with a method, more header fields, more query parameters; and then the one that was written first. When no
//! route of a host fits, those of less specific hosts are asked.
//!
//! Costs: one look-up for the host (and one for each label, where there are hosts with a `*`), one for an exact path, a binary
//! search for prefixes. Regular expressions are tried one after the other, and only when nothing else fits.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::Duration;

use regex_lite::Regex;
use standfast_model::{FieldMatch, PathMatch, Priority, RateLimit, Route, ServiceName, ValueMatch};
use standfast_runtime::Rng;

use crate::filters::Filters;
use crate::path::{self, Reading};

/// The longest host name that is looked up; DNS allows 253 bytes.
const HOST_BYTES_MAX: usize = 255;

/// What routes look at in a request.
pub(crate) trait RequestView {
    /// As it was sent: methods tell cases apart.
    fn method(&self) -> &str;
    /// As the client wrote it, perhaps with a port; empty when it named none.
    fn host(&self) -> &str;
    /// From `/` on, without the query, not decoded.
    fn path(&self) -> &str;
    /// What follows the `?`, not decoded.
    fn query(&self) -> Option<&str>;
    /// The value of the first field of this name (lower case). Where a name comes more than once, only the first counts: values
    /// are not joined with commas, so that a condition for `a` is not met or missed depending on what is appended to it.
    fn header(&self, name: &str) -> Option<&[u8]>;
}

/// A snapshot's routes, made for looking up. `T` is what a service becomes.
#[derive(Debug)]
pub(crate) struct RouteTable<T> {
    /// In the order of the snapshot, so that a rule's place is its index.
    rules: Vec<Rule<T>>,
    /// Those for either scheme.
    either: Hosts,
    http: Hosts,
    https: Hosts,
}

/// The rules of one scheme, by their hosts.
#[derive(Debug, Default)]
struct Hosts {
    has_any: bool,
    by_host: HashMap<Box<str>, HostRules>,
    /// By what follows `*.`.
    by_suffix: HashMap<Box<str>, HostRules>,
    /// The most labels of a suffix: no longer ones are looked up.
    suffix_labels_max: usize,
    any_host: HostRules,
}

/// A route, ready for use.
#[derive(Debug)]
pub(crate) struct Rule<T> {
    /// Its place in the snapshot: what is counted and limited by route is found by it.
    pub(crate) index: usize,
    /// For people: its host and path.
    pub(crate) name: Box<str>,
    /// In place of the service's own.
    pub(crate) timeout: Option<Duration>,
    /// Of its requests.
    pub(crate) priority: Priority,
    /// All of them count.
    pub(crate) rate_limits: Box<[RateLimit]>,
    /// Its requests at a time.
    pub(crate) concurrency_max: Option<u32>,
    /// What it does to requests and answers.
    pub(crate) filters: Filters,
    /// Those with a share, and the sum of the shares up to and with each.
    targets: Box<[(u64, T)]>,
    mirror: Option<T>,
    method: Option<Box<str>>,
    headers: Box<[Field]>,
    query: Box<[Field]>,
}

/// The rules of one host: indices of rules, the more specific first.
#[derive(Debug, Default)]
struct HostRules {
    exact: HashMap<Box<str>, Vec<usize>>,
    /// Sorted by text.
    prefixes: Vec<Prefix>,
    regexes: Vec<(Regex, usize)>,
}

#[derive(Debug)]
struct Prefix {
    /// Without a slash at its end.
    text: Box<str>,
    /// The place of the longest other prefix that this one begins with.
    shorter: Option<usize>,
    rules: Vec<usize>,
}

/// A condition for a header field or a query parameter.
#[derive(Debug)]
struct Field {
    name: Box<str>,
    value: Wanted,
}

#[derive(Debug)]
enum Wanted {
    Exact(Box<str>),
    Regex(Regex),
    Present,
    /// A regular expression that is none. The stack's checks let none through.
    Never,
}

impl<T> RouteTable<T> {
    /// The table of `routes`.
    pub(crate) fn new(routes: &[Route], mut resolve: impl FnMut(&ServiceName) -> T) -> Self {
        let mut table = Self {
            rules: Vec::with_capacity(routes.len()),
            either: Hosts::default(),
            http: Hosts::default(),
            https: Hosts::default(),
        };
        for (index, route) in routes.iter().enumerate() {
            table.rules.push(Rule::new(index, route, &mut resolve));
        }
        let mut order: Vec<usize> = (0..routes.len()).collect();
        order.sort_by_key(|index| table.rules[*index].rank());
        for index in order {
            let hosts = match routes[index].scheme.as_deref() {
                None => &mut table.either,
                Some("https") => &mut table.https,
                Some(_) => &mut table.http,
            };
            hosts.has_any = true;
            hosts.of_host(routes[index].host.as_deref()).take(&routes[index].path, index);
        }
        [&mut table.either, &mut table.http, &mut table.https].into_iter().for_each(Hosts::link);
        table
    }

    /// The rule for a request that came by a scheme; `None` also for a path that [`path::check_path`] refuses.
    pub(crate) fn find(&self, scheme: &str, view: &impl RequestView) -> Option<&Rule<T>> {
        let reading = Reading::of(view.path())?;
        let mut buffer = [0; HOST_BYTES_MAX];
        let host = lower_host(view.host(), &mut buffer).unwrap_or_default();
        let own = if scheme == "https" { &self.https } else { &self.http };
        let fits = |index: usize| self.rules.get(index).is_some_and(|rule| rule.fits(view));
        let index = own.find(host, &reading, &fits).or_else(|| self.either.find(host, &reading, &fits))?;
        self.rules.get(index)
    }

    /// All rules, in the order of the snapshot.
    pub(crate) fn rules(&self) -> &[Rule<T>] {
        &self.rules
    }
}

impl Hosts {
    fn link(&mut self) {
        let hosts = self.by_host.values_mut().chain(self.by_suffix.values_mut());
        hosts.chain([&mut self.any_host]).for_each(HostRules::link);
    }

    fn of_host(&mut self, host: Option<&str>) -> &mut HostRules {
        let Some(host) = host.filter(|host| *host != "*") else { return &mut self.any_host };
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        match host.strip_prefix("*.") {
            None => self.by_host.entry(host.into()).or_default(),
            Some(suffix) => {
                self.suffix_labels_max = self.suffix_labels_max.max(suffix.split('.').count());
                self.by_suffix.entry(suffix.into()).or_default()
            }
        }
    }

    /// The first rule whose conditions are all met; `fits` holds a request against all but host and path.
    fn find(&self, host: &str, reading: &Reading<'_>, fits: &impl Fn(usize) -> bool) -> Option<usize> {
        if !self.has_any {
            return None;
        }
        let exact = self.by_host.get(host).and_then(|rules| rules.find(reading, fits));
        exact
            .or_else(|| self.find_by_suffix(host, reading, fits))
            .or_else(|| self.any_host.find(reading, fits))
    }

    fn find_by_suffix(
        &self,
        host: &str,
        reading: &Reading<'_>,
        fits: &impl Fn(usize) -> bool,
    ) -> Option<usize> {
        if self.by_suffix.is_empty() {
            return None;
        }
        let mut labels = host.bytes().filter(|byte| *byte == b'.').count() + 1;
        let mut rest = host;
        // Longest first; the whole host is not under itself.
        while let Some((label, suffix)) = rest.split_once('.') {
            (rest, labels) = (suffix, labels - 1);
            if label.is_empty() || labels > self.suffix_labels_max {
                continue;
            }
            let rules = self.by_suffix.get(suffix);
            let found = rules.and_then(|rules| rules.find(reading, fits));
            if found.is_some() {
                return found;
            }
        }
        None
    }
}

impl HostRules {
    fn take(&mut self, path: &PathMatch, index: usize) {
        match path {
            PathMatch::Exact(text) => {
                self.exact.entry(path::of_route(text).into()).or_default().push(index);
            }
            PathMatch::Prefix(text) => {
                let text = path::of_route(text).trim_end_matches('/').into();
                self.prefixes.push(Prefix { text, shorter: None, rules: vec![index] });
            }
            PathMatch::Regex(text) => self.regexes.extend(whole(text).map(|regex| (regex, index))),
        }
    }

    /// Sorts the prefixes, joins equal ones and lets each know the next shorter one.
    fn link(&mut self) {
        // Stable: the rules of one prefix stay in the order that they were taken in.
        self.prefixes.sort_by(|a, b| a.text.cmp(&b.text));
        self.prefixes.dedup_by(|next, first| {
            let is_same = next.text == first.text;
            if is_same {
                first.rules.append(&mut next.rules);
            }
            is_same
        });
        for place in 1..self.prefixes.len() {
            // Of sorted texts, all that begin one are on the way from its neighbour to shorter ones.
            let mut shorter = Some(place - 1);
            while let Some(at) = shorter
                && !self.prefixes[place].text.starts_with(&*self.prefixes[at].text)
            {
                shorter = self.prefixes[at].shorter;
            }
            self.prefixes[place].shorter = shorter;
        }
    }

    fn find(&self, reading: &Reading<'_>, fits: &impl Fn(usize) -> bool) -> Option<usize> {
        let path: &str = &reading.path;
        if let Some(rules) = self.exact.get(path)
            && let Some(found) = rules.iter().copied().find(|rule| fits(*rule))
        {
            return Some(found);
        }
        let mut place = self.prefixes.partition_point(|prefix| &*prefix.text <= path).checked_sub(1);
        while let Some(prefix) = place.and_then(|place| self.prefixes.get(place)) {
            if is_under(&prefix.text, path)
                && let Some(found) = prefix.rules.iter().copied().find(|rule| fits(*rule))
            {
                return Some(found);
            }
            place = prefix.shorter;
        }
        let matches = |regex: &Regex| {
            regex.is_match(path) || reading.with_text.as_deref().is_some_and(|path| regex.is_match(path))
        };
        self.regexes.iter().find(|(regex, rule)| fits(*rule) && matches(regex)).map(|(_, rule)| *rule)
    }
}

fn is_under(prefix: &str, path: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A regular expression for a whole text. It must be one by itself, or `a)|(b` would get out of the brackets.
fn whole(text: &str) -> Option<Regex> {
    let _is_legal_alone = Regex::new(text).ok()?;
    Regex::new(&format!("^(?:{text})$")).ok()
}

impl<T> Rule<T> {
    fn new(index: usize, route: &Route, resolve: &mut impl FnMut(&ServiceName) -> T) -> Self {
        let mut sum = 0;
        let targets = route.to.iter().filter(|target| target.weight > 0).map(|target| {
            sum += u64::from(target.weight);
            (sum, resolve(&target.service))
        });
        let targets = targets.collect();
        Self {
            index,
            name: route_name(route).into(),
            timeout: route.timeout,
            priority: route.priority,
            rate_limits: route.rate_limits.as_slice().into(),
            concurrency_max: route.concurrency_max,
            filters: Filters::new(route),
            targets,
            mirror: route.filters.mirror.as_ref().map(|mirror| resolve(&mirror.to)),
            method: route.method.as_deref().map(Into::into),
            headers: route.headers.iter().map(Field::new).collect(),
            query: route.query.iter().map(Field::new).collect(),
        }
    }

    /// Of the same host and path, the rule with the lower rank wins.
    fn rank(&self) -> (bool, Reverse<usize>, Reverse<usize>, usize) {
        (self.method.is_none(), Reverse(self.headers.len()), Reverse(self.query.len()), self.index)
    }

    fn fits(&self, view: &impl RequestView) -> bool {
        self.method.as_deref().is_none_or(|method| method == view.method())
            && self
                .headers
                .iter()
                .all(|field| view.header(&field.name).is_some_and(|value| field.takes(value)))
            && self.query.iter().all(|field| field.is_in(view.query().unwrap_or_default()))
    }

    /// Where a request goes: one of the targets, by their weights. `None` where none has a share, and where the rule redirects.
    pub(crate) fn pick(&self, rng: &mut Rng) -> Option<&T> {
        match &*self.targets {
            [] => None,
            [(_, only)] => Some(only),
            _ => self.pick_by(rng.bits()),
        }
    }

    /// The target for a hash, by the weights: the same hash goes to the same one.
    pub(crate) fn pick_by(&self, hash: u64) -> Option<&T> {
        let (sum, _) = self.targets.last()?;
        let drawn = hash % sum;
        let place = self.targets.partition_point(|(up_to, _)| *up_to <= drawn);
        self.targets.get(place).map(|(_, target)| target)
    }

    /// The targets with a share.
    pub(crate) fn targets(&self) -> impl Iterator<Item = &T> {
        self.targets.iter().map(|(_, target)| target)
    }

    /// Where a copy of this request goes, if it is one of those that are copied.
    pub(crate) fn mirror(&self, rng: &mut Rng) -> Option<&T> {
        self.mirror.as_ref().filter(|_| self.filters.mirrors(rng))
    }
}

/// A route's host and path, with what sets it apart from others of the same path.
pub fn route_name(route: &Route) -> String {
    let mut name = route.method.as_ref().map(|method| format!("{method} ")).unwrap_or_default();
    if let Some(scheme) = &route.scheme {
        name.push_str(scheme);
        name.push_str("://");
    }
    name.push_str(route.host.as_deref().unwrap_or("*"));
    name.push_str(match &route.path {
        PathMatch::Prefix(_) => "",
        PathMatch::Exact(_) => "=",
        PathMatch::Regex(_) => "~",
    });
    name.push_str(route.path.text());
    for field in route.headers.iter().chain(&route.query) {
        name.push(' ');
        name.push_str(&field.name);
        if let ValueMatch::Exact(value) | ValueMatch::Regex(value) = &field.value {
            name.push('=');
            name.push_str(value);
        }
    }
    name
}

impl Field {
    fn new(field: &FieldMatch) -> Self {
        let value = match &field.value {
            ValueMatch::Exact(text) => Wanted::Exact(text.as_str().into()),
            ValueMatch::Regex(text) => whole(text).map_or(Wanted::Never, Wanted::Regex),
            ValueMatch::Present => Wanted::Present,
        };
        Self { name: field.name.as_str().into(), value }
    }

    fn takes(&self, value: &[u8]) -> bool {
        match &self.value {
            Wanted::Exact(text) => text.as_bytes() == value,
            Wanted::Regex(regex) => std::str::from_utf8(value).is_ok_and(|value| regex.is_match(value)),
            Wanted::Present => true,
            Wanted::Never => false,
        }
    }

    /// Whether the query has the parameter as it is wanted. Of several of its name the first one counts.
    fn is_in(&self, query: &str) -> bool {
        let parameters =
            query.split('&').map(|parameter| parameter.split_once('=').unwrap_or((parameter, "")));
        let mut named = parameters.filter(|(name, _)| form_decoded(name).eq(self.name.bytes()));
        let Some((_, value)) = named.next() else { return false };
        match &self.value {
            Wanted::Exact(text) => form_decoded(value).eq(text.bytes()),
            Wanted::Regex(_) => self.takes(&form_decoded(value).collect::<Vec<u8>>()),
            Wanted::Present => true,
            Wanted::Never => false,
        }
    }
}

/// What a part of a query stands for: `+` is a space, `%41` an `A`; a `%` that encodes nothing is itself.
fn form_decoded(text: &str) -> impl Iterator<Item = u8> + '_ {
    let mut rest = text.as_bytes();
    std::iter::from_fn(move || {
        let (first, after) = rest.split_first()?;
        let encoded = path::encoded(after).filter(|_| *first == b'%');
        rest = if encoded.is_some() { &after[2..] } else { after };
        Some(encoded.unwrap_or(if *first == b'+' { b' ' } else { *first }))
    })
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
#[path = "routes_tests.rs"]
pub(crate) mod tests;
