//! Routes held against each other and against what `prove` sends.

use std::collections::BTreeSet;

use regex_lite::{Regex, RegexBuilder};

use crate::diagnostics::shown;
use crate::keys::{LoadDraft, REGEX_SIZE_MAX};
use crate::shape::Context;
use crate::source::At;
use crate::traffic::{FieldMatch, PathMatch, Route, ValueMatch, whole};

/// What stands in a load for a request's own id.
const ID: &str = "${id}";
/// Such an id, as far as a route can tell.
const SAMPLE_ID: &str = "0-a-0";
/// Bytes of loads that are held against regular expressions; the rest counts as matched. A text takes as many steps as its
/// length times the size of the expression, and a stack may have thousands of both.
const MATCHED_BYTES_MAX: usize = 64 << 10;
/// As many bytes as a short text counts for.
const TEXT_BYTES_MIN: usize = 8;
/// Regular expressions that are kept compiled; what further ones would match counts as matched.
const COMPILED_MAX: usize = 500;

/// Routes, of which no two are for the same requests.
pub(crate) fn routes(drafts: Vec<At<Route>>, cx: &mut Context<'_>) -> Vec<Route> {
    let mut seen = BTreeSet::new();
    for At { value: route, span } in &drafts {
        let path = match &route.path {
            PathMatch::Prefix(prefix) => PathMatch::Prefix(prefix.trim_end_matches('/').to_owned()),
            other => other.clone(),
        };
        let (headers, query) = (sorted(&route.headers), sorted(&route.query));
        if !seen.insert((&route.scheme, &route.host, path, &route.method, headers, query)) {
            let of_host =
                route.host.as_ref().map(|host| format!(" of host `{}`", shown(host))).unwrap_or_default();
            let is_plain = route.scheme.is_none()
                && route.method.is_none()
                && route.headers.is_empty()
                && route.query.is_empty();
            let with = if is_plain { "" } else { " under the same conditions" };
            let message =
                format!("two routes are for the path `{}`{of_host}{with}", shown(route.path.text()));
            cx.reports.error_hint(*span, message, "list both services under `to`, with weights");
        }
    }
    drafts.into_iter().map(|draft| draft.value).collect()
}

fn sorted(matches: &[FieldMatch]) -> Vec<&FieldMatch> {
    let mut sorted: Vec<&FieldMatch> = matches.iter().collect();
    sorted.sort();
    sorted
}

/// Finds the routes of loads.
pub(crate) struct Finder<'r> {
    routes: Vec<Compiled<'r>>,
    /// Bytes that may still be held against regular expressions.
    left: usize,
}

/// A route and its compiled regular expressions, where it has some.
struct Compiled<'r> {
    route: &'r Route,
    path: Option<Regex>,
    headers: Vec<Option<Regex>>,
    query: Vec<Option<Regex>>,
}

/// What of a load routes look at.
struct Asked<'l> {
    host: Option<String>,
    path: String,
    query: Vec<(&'l str, &'l str)>,
    load: &'l LoadDraft,
}

/// How far a load gets with a route, in this order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reach<'r> {
    OtherPath,
    OtherScheme,
    OtherHost(&'r str),
    OtherMethod(&'r str),
    NoHeader(&'r str),
    NoQuery(&'r str),
    All,
}

impl<'r> Finder<'r> {
    pub(crate) fn new(routes: &'r [Route]) -> Self {
        let mut room = COMPILED_MAX;
        let mut compile = |regex: &str| {
            room = room.checked_sub(1)?;
            RegexBuilder::new(&whole(regex)).size_limit(REGEX_SIZE_MAX).build().ok()
        };
        let fields = |matches: &[FieldMatch], compile: &mut dyn FnMut(&str) -> Option<Regex>| {
            let one = |field: &FieldMatch| match &field.value {
                ValueMatch::Regex(regex) => compile(regex),
                ValueMatch::Exact(_) | ValueMatch::Present => None,
            };
            matches.iter().map(one).collect()
        };
        let compiled = |route: &'r Route| Compiled {
            route,
            path: match &route.path {
                PathMatch::Regex(regex) => compile(regex),
                PathMatch::Prefix(_) | PathMatch::Exact(_) => None,
            },
            headers: fields(&route.headers, &mut compile),
            query: fields(&route.query, &mut compile),
        };
        Self { routes: routes.iter().map(compiled).collect(), left: MATCHED_BYTES_MAX }
    }

    /// Reports a load that no route is for.
    pub(crate) fn finds(&mut self, load: &LoadDraft, cx: &mut Context<'_>) {
        let Some(sent_to) = &load.path else { return };
        let asked = Asked::by(load, &sent_to.value);
        let mut best = Reach::OtherPath;
        for route in &self.routes {
            best = best.max(route.reach(&asked, &mut self.left));
            if best == Reach::All {
                return;
            }
        }
        let path = sent_to.value.split(['?', '#']).next().unwrap_or_default();
        let message = format!("no route leads from `{}` to a service", shown(path));
        let hint = match best {
            Reach::OtherPath | Reach::All => "add a route for it under `routes`".to_owned(),
            Reach::OtherScheme => "there is one for `scheme: https`, and loads are sent by http".to_owned(),
            Reach::OtherHost(host) => match host.strip_prefix("*.") {
                Some(parent) => {
                    format!("there is one for the hosts under `{}`: add a header `host`", shown(parent))
                }
                None => format!("there is one for the host `{}`: add the header `host: {0}`", shown(host)),
            },
            Reach::OtherMethod(method) => format!("there is one for the method {method}"),
            Reach::NoHeader(name) => {
                format!("there is one that asks for another header field `{}`", shown(name))
            }
            Reach::NoQuery(name) => {
                format!("there is one that asks for another query parameter `{}`", shown(name))
            }
        };
        cx.reports.error_hint(sent_to.span, message, hint);
    }
}

impl<'l> Asked<'l> {
    fn by(load: &'l LoadDraft, path: &'l str) -> Self {
        let host = load.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("host"));
        let host = host.map(|(_, value)| value.split(':').next().unwrap_or_default().to_ascii_lowercase());
        let target = path.split('#').next().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let query = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, ""))).collect();
        Self { host, path: path.replace(ID, SAMPLE_ID), query, load }
    }

    /// The value of a header field. `Some(None)` when it is there and its value is not known here.
    fn header(&self, name: &str) -> Option<Option<&'l str>> {
        let load = self.load;
        if let Some((_, value)) = load.headers.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)) {
            return Some(Some(value).filter(|value| !value.contains(ID)).map(String::as_str));
        }
        let is_set = match name {
            "content-type" | "content-length" => load.body.is_some(),
            "idempotency-key" => load.idempotency_key,
            _ => false,
        };
        is_set.then_some(None)
    }

    /// The same of a query parameter.
    fn query(&self, name: &str) -> Option<Option<&'l str>> {
        let (_, value) = self.query.iter().find(|(own, _)| *own == name)?;
        let is_plain = !value.contains(['%', '+']) && !value.contains(ID);
        Some(Some(*value).filter(|_| is_plain))
    }
}

impl<'r> Compiled<'r> {
    fn reach(&self, asked: &Asked<'_>, left: &mut usize) -> Reach<'r> {
        let route = self.route;
        let is_path = match &route.path {
            PathMatch::Regex(_) => matches(self.path.as_ref(), &asked.path, left),
            PathMatch::Prefix(_) | PathMatch::Exact(_) => route.path.matches(&asked.path),
        };
        if !is_path {
            return Reach::OtherPath;
        }
        if route.scheme.as_deref() == Some("https") {
            return Reach::OtherScheme;
        }
        if let Some(host) = route.host.as_deref()
            && !route.is_for_host(asked.host.as_deref())
        {
            return Reach::OtherHost(host);
        }
        if let Some(method) = route.method.as_deref()
            && method != asked.load.method
        {
            return Reach::OtherMethod(method);
        }
        for (field, regex) in route.headers.iter().zip(&self.headers) {
            if !fits(field, regex.as_ref(), asked.header(&field.name), left) {
                return Reach::NoHeader(&field.name);
            }
        }
        for (field, regex) in route.query.iter().zip(&self.query) {
            if !fits(field, regex.as_ref(), asked.query(&field.name), left) {
                return Reach::NoQuery(&field.name);
            }
        }
        Reach::All
    }
}

fn fits(field: &FieldMatch, regex: Option<&Regex>, value: Option<Option<&str>>, left: &mut usize) -> bool {
    match (value, &field.value) {
        (None, _) => false,
        (Some(None), _) | (_, ValueMatch::Present) => true,
        (Some(Some(value)), ValueMatch::Exact(exact)) => value == exact,
        (Some(Some(value)), ValueMatch::Regex(_)) => matches(regex, value, left),
    }
}

fn matches(regex: Option<&Regex>, text: &str, left: &mut usize) -> bool {
    match (regex, left.checked_sub(text.len().max(TEXT_BYTES_MIN))) {
        (Some(regex), Some(after)) => {
            *left = after;
            regex.is_match(text)
        }
        _ => true,
    }
}
