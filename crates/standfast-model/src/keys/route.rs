use std::collections::BTreeSet;

use regex_lite::RegexBuilder;
use serde_json::{Value, json};

use super::filters::{CHANGES, MIRROR, REDIRECT, REWRITE, mirror};
use super::http::{FIELD_NAME, FIELD_NAMES, HOST_OR_WILDCARD, METHODS, PATH, field_value};
use super::traffic::{CONCURRENCY_MAX, TIMEOUT_MAX, TIMEOUT_MIN};
use crate::diagnostics::shown;
use crate::id::ServiceName;
use crate::shape::{
    Choice, Context, Count, Fields, FromText, Keyed, Kinds, List, Loose, Object, Rate, Referent, Refers,
    Shape, TextKeys, Time, Whole, or_variable,
};
use crate::source::{At, Span};
use crate::stack::Target;
use crate::traffic::{
    FieldMatch, Filters, PathMatch, PathRewrite, Priority, RateLimit, RatePer, Route, ValueMatch, whole,
};
use crate::yaml::Kind;

/// Largest weight of a target.
const WEIGHT_MAX: u32 = 1_000_000;
/// Highest rate of a rate limit, and most requests that it lets in at once.
const RATE_PER_SECOND_MAX: u32 = 1_000_000;
/// Longest regular expression, in bytes.
const REGEX_BYTES_MAX: usize = 1 << 10;
/// Largest machine that a regular expression becomes, in bytes: repetitions of repetitions make much of little.
pub(crate) const REGEX_SIZE_MAX: usize = 64 << 10;
/// Longest value of a query parameter, in bytes.
const QUERY_BYTES_MAX: usize = 8 << 10;

/// What stands beside a redirect in vain.
const WITH_SERVICE: [&str; 5] = ["request_headers", "rewrite", "mirror", "timeout", "concurrency"];

/// A route whose services may not exist.
pub(crate) const ROUTE: Object<Route> = Object { doc: "A rule for requests from outside.", read: route };

fn route(f: &mut Fields<'_, '_>) -> Option<Route> {
    let scheme = f.optional(
        "scheme",
        "The scheme it is for, `http` or `https`: how the gateway itself is asked. Such a route comes before all that name none. \
         Default: either.",
        Choice(&[("http", "http"), ("https", "https")]),
    );
    let host = f.optional(
        "host",
        "The host it is for, without a port; `\"*.example.org\"` is any host under it. Default: any host.",
        HOST_OR_WILDCARD,
    );
    let path = f.optional(
        "path",
        "The paths it is for: a prefix on segment boundaries (`/orders` matches `/orders` and `/orders/1`), or a mapping \
         with `prefix`, `exact` or `regex`. Default: /.",
        path_match(),
    );
    let method = f.optional("method", "The method it is for. Default: any.", METHODS);
    let headers = f.optional(
        "headers",
        "Header fields that a request must have, with their values, or mappings with `exact`, `regex` or `present`.",
        header_matches(),
    );
    let query = f.optional(
        "query",
        "Query parameters that a request must have, in the same forms as `headers`.",
        query_matches(),
    );
    let to = f.optional(
        "to",
        "Where requests go: a service, or a list of services with weights. Not beside `redirect`.",
        targets(),
    );
    let request_headers = f.optional("request_headers", "Changes of the request's header fields.", CHANGES);
    let response_headers = f.optional("response_headers", "Changes of the answer's header fields.", CHANGES);
    let rewrite = f.optional("rewrite", REWRITE.doc, REWRITE);
    let redirect = f.optional("redirect", REDIRECT.doc, REDIRECT);
    let mirror = f.optional("mirror", MIRROR.doc, mirror());
    let timeout = f.optional(
        "timeout",
        "In place of the service's `traffic.timeout`.",
        Time { min: TIMEOUT_MIN, max: TIMEOUT_MAX },
    );
    let priorities =
        Choice(&[("low", Priority::Low), ("normal", Priority::Normal), ("high", Priority::High)]);
    let priority = f.or(
        "priority",
        "Which requests are let in last when there are too many: the low ones.",
        priorities,
        Priority::default(),
    );
    let rate_limits = f.optional(
        "rate_limit",
        "Requests that are let in in a time: a mapping with `rate`, or a list of these, which all count.",
        rate_limits(),
    );
    let concurrency_max = f.optional(
        "concurrency",
        "Requests of this route at a time; further ones are answered with 503. Default: no limit.",
        Whole { min: 1, max: CONCURRENCY_MAX },
    );
    f.count(Count::One, &["to", "redirect"]);
    if f.place_of("redirect").is_some() {
        for name in WITH_SERVICE {
            if let (Some(place), Some((_, cx))) = (f.place_of(name), f.reading()) {
                let message = format!("`{name}` beside `redirect`: no service is asked");
                cx.reports.error_hint(place, message, "remove it");
            }
        }
    }

    let path = path.unwrap_or_else(|| PathMatch::Prefix("/".to_owned()));
    let filters = Filters {
        request_headers: request_headers.unwrap_or_default(),
        response_headers: response_headers.unwrap_or_default(),
        rewrite,
        redirect,
        mirror,
    };
    swaps_a_prefix(f, &path, &filters);
    if to.is_none() && filters.redirect.is_none() {
        return None;
    }
    Some(Route {
        scheme: scheme.map(str::to_owned),
        host: host.map(|host| host.to_ascii_lowercase()),
        path,
        method: method.map(str::to_owned),
        headers: headers.unwrap_or_default(),
        query: query.unwrap_or_default(),
        to: to.unwrap_or_default(),
        filters,
        timeout,
        priority,
        rate_limits: rate_limits.unwrap_or_default(),
        concurrency_max,
    })
}

/// A prefix takes the place of a prefix only.
fn swaps_a_prefix(f: &mut Fields<'_, '_>, path: &PathMatch, filters: &Filters) {
    let rewrite = filters.rewrite.as_ref().and_then(|rewrite| rewrite.path.as_ref());
    let redirect = filters.redirect.as_ref().and_then(|redirect| redirect.path.as_ref());
    for (name, change) in [("rewrite", rewrite), ("redirect", redirect)] {
        if let (Some(PathRewrite::Prefix(_)), PathMatch::Exact(_) | PathMatch::Regex(_)) = (change, path)
            && let (Some(place), Some((_, cx))) = (f.place_of(name), f.reading())
        {
            let message = "`path_prefix` takes the place of a prefix, and this route's path is none";
            cx.reports.error_hint(place, message, "write `path` for the whole path");
        }
    }
}

fn path_match() -> impl Shape<Value = PathMatch> {
    Kinds::new("a path, or a mapping with `prefix`, `exact` or `regex`")
        .text(PATH.and_then(|path, _, _| Some(PathMatch::Prefix(path))))
        .mapping(PATH_MATCH)
}

const PATH_MATCH: Object<PathMatch> = Object {
    doc: "Which paths a route is for.",
    read: |f| {
        let prefix = f.optional("prefix", "This path and all under it.", PATH);
        let exact = f.optional("exact", "This path.", PATH);
        let regex = f.optional(
            "regex",
            "Paths that this regular expression matches as a whole.",
            Expression.and_then(begins),
        );
        f.count(Count::One, &["prefix", "exact", "regex"]);
        let prefix = prefix.map(PathMatch::Prefix);
        prefix.or(exact.map(PathMatch::Exact)).or(regex.map(PathMatch::Regex))
    },
};

/// A regular expression that begins with a letter or digit which must be there matches no path.
fn begins(regex: String, span: Span, cx: &mut Context<'_>) -> Option<String> {
    let mut chars = regex.chars();
    let is_literal = chars.next().is_some_and(|c| c.is_ascii_alphanumeric());
    let is_optional = chars.next().is_some_and(|c| matches!(c, '?' | '*' | '{'));
    if is_literal && !is_optional && !regex.contains('|') {
        let message = format!("{} matches no path", cx.subject());
        cx.reports.error_hint(span, message, "paths begin with `/`");
    }
    Some(regex)
}

fn header_matches() -> impl Shape<Value = Vec<FieldMatch>> {
    let value = Kinds::new("a text, or a mapping with `exact`, `regex` or `present`")
        .text(field_value().and_then(|text, _, _| Some(ValueMatch::Exact(text))))
        .mapping(HEADER_MATCH);
    Keyed { keys: FIELD_NAMES, item: value, min: 0 }.and_then(|pairs, _, cx: &mut Context<'_>| {
        let mut seen = BTreeSet::new();
        let mut matches = Vec::with_capacity(pairs.len());
        for (At { value: name, span }, value) in pairs {
            let lower = name.to_ascii_lowercase();
            if lower == "host" {
                cx.reports.error_hint(span, "the header field `host` is the route's `host`", "set that");
            }
            if !seen.insert(lower.clone()) {
                let message = format!("the header field `{}` is there twice", shown(&name));
                cx.reports.error_hint(span, message, "names of header fields do not tell cases apart");
            }
            matches.extend(value.map(|value| FieldMatch { name: lower, value }));
        }
        Some(matches)
    })
}

fn query_matches() -> impl Shape<Value = Vec<FieldMatch>> {
    let keys = TextKeys {
        what: "the name of a query parameter",
        pattern: r"^[^\u0000-\u0020&=#]+$",
        matches: |text| !text.is_empty() && !text.contains(|c: char| c <= ' ' || "&=#".contains(c)),
    };
    let value = Kinds::new("a text, or a mapping with `exact`, `regex` or `present`")
        .text(query_value().and_then(|text, _, _| Some(ValueMatch::Exact(text))))
        .mapping(QUERY_MATCH);
    Keyed { keys, item: value, min: 0 }.and_then(|pairs, _, _| {
        let one = |(name, value): (At<String>, Option<ValueMatch>)| {
            Some(FieldMatch { name: name.value, value: value? })
        };
        Some(pairs.into_iter().filter_map(one).collect())
    })
}

fn query_value() -> impl Shape<Value = String> {
    Loose { what: "a text" }.and_then(|text, span, cx: &mut Context<'_>| {
        let is_short = text.len() <= QUERY_BYTES_MAX;
        if !is_short {
            cx.reports.error(span, format!("{} is longer than {QUERY_BYTES_MAX} bytes", cx.subject()));
        }
        is_short.then_some(text)
    })
}

const HEADER_MATCH: Object<ValueMatch> =
    Object { doc: "What a header field must be.", read: |f| value_match(f, field_value()) };

const QUERY_MATCH: Object<ValueMatch> =
    Object { doc: "What a query parameter must be.", read: |f| value_match(f, query_value()) };

fn value_match(f: &mut Fields<'_, '_>, text: impl Shape<Value = String>) -> Option<ValueMatch> {
    let exact = f.optional("exact", "This text, case and all.", text);
    let regex = f.optional("regex", "A text that this regular expression matches as a whole.", Expression);
    let present = f.optional("present", "Only `true`: anything, as long as it is there.", Present);
    f.count(Count::One, &["exact", "regex", "present"]);
    exact.map(ValueMatch::Exact).or(regex.map(ValueMatch::Regex)).or(present)
}

/// A regular expression.
struct Expression;

impl FromText for Expression {
    type Value = String;

    fn parse(&self, text: &str) -> Result<String, Option<String>> {
        if text.len() > REGEX_BYTES_MAX || text.is_empty() {
            return Err(None);
        }
        let compiles = |pattern: &str| {
            let built = RegexBuilder::new(pattern).size_limit(REGEX_SIZE_MAX).build();
            built.map(drop).map_err(|why| Some(why.to_string()))
        };
        // By itself too: `a)(b` would be legal between the brackets that make it match as a whole.
        compiles(text)?;
        compiles(&whole(text))?;
        Ok(text.to_owned())
    }

    fn expected(&self) -> String {
        format!("a regular expression of at most {REGEX_BYTES_MAX} bytes")
    }

    fn json_schema(&self) -> Value {
        json!({"type": "string", "minLength": 1})
    }
}

/// `true`.
struct Present;

impl FromText for Present {
    type Value = ValueMatch;

    fn parse(&self, text: &str) -> Result<ValueMatch, Option<String>> {
        match text.to_ascii_lowercase().as_str() {
            "true" => Ok(ValueMatch::Present),
            "false" => Err(Some("no route asks for what is not there: remove it".to_owned())),
            _ => Err(None),
        }
    }

    fn expected(&self) -> String {
        "`true`".to_owned()
    }

    fn json_schema(&self) -> Value {
        json!({"anyOf": [{"const": true}, {"type": "string", "pattern": or_variable("^[tT][rR][uU][eE]$")}]})
    }

    fn accepts(&self, kind: Kind) -> bool {
        matches!(kind, Kind::Bool | Kind::Text)
    }
}

/// The name of a service that requests go to.
pub(super) fn target_name() -> Refers<ServiceName> {
    Refers::new("a service name", Referent::Target)
}

fn targets() -> impl Shape<Value = Vec<Target>> {
    let whole = |service: ServiceName, _: Span, _: &mut Context<'_>| Some(Target { service, weight: 1 });
    let one = Kinds::new("a service, or a mapping with `service` and `weight`")
        .text(target_name().and_then(whole))
        .mapping(TARGET);
    Kinds::new("a service, or a list of services with weights")
        .text(target_name().and_then(whole).and_then(|target, _, _| Some(vec![target])))
        .mapping(TARGET.and_then(|target, _, _| Some(vec![target])))
        .list(List { item: one.at(), min: 1 }.and_then(distinct))
}

/// The targets of one route: each service once, and not all of them without a share.
fn distinct(targets: Vec<At<Target>>, span: Span, cx: &mut Context<'_>) -> Option<Vec<Target>> {
    if !targets.is_empty() && targets.iter().all(|target| target.value.weight == 0) {
        cx.reports.error_hint(span, "all targets have weight 0", "give one of them a share");
    }
    let mut seen = BTreeSet::new();
    for At { value, span } in &targets {
        if !seen.insert(&value.service) {
            let message = format!("`{}` is there twice in this route", value.service);
            cx.reports.error_hint(*span, message, "add their weights");
        }
    }
    Some(targets.into_iter().map(|target| target.value).collect())
}

const TARGET: Object<Target> = Object { doc: "A service and its share of the requests.", read: target };

fn target(f: &mut Fields<'_, '_>) -> Option<Target> {
    let service = f.required("service", "The service.", target_name());
    let weight =
        f.or("weight", "Its share relative to the other weights.", Whole { min: 0, max: WEIGHT_MAX }, 1);
    Some(Target { service: service?, weight })
}

fn rate_limits() -> impl Shape<Value = Vec<RateLimit>> {
    Kinds::new("a mapping with `rate`, or a list of these")
        .mapping(RATE_LIMIT.and_then(|limit, _, _| Some(vec![limit])))
        .list(List { item: RATE_LIMIT, min: 1 })
}

const RATE_LIMIT: Object<RateLimit> =
    Object { doc: "At most so many requests of a kind in a time.", read: rate_limit };

fn rate_limit(f: &mut Fields<'_, '_>) -> Option<RateLimit> {
    let rate = f.required(
        "rate",
        "Requests: `100/s`, `6000/m`, or a number a second.",
        Rate { per_second_max: RATE_PER_SECOND_MAX.into() },
    );
    let burst = f.optional(
        "burst",
        "How many may come at once. Default: those of a second, at least 1.",
        Whole { min: 1, max: RATE_PER_SECOND_MAX },
    );
    let per = f.optional(
        "per",
        "What is counted by itself: the `route`, each `client` address, or each value of a header field, `{header: x-tenant}`. \
         Default: route.",
        Kinds::new("`route`, `client` or a mapping with `header`")
            .text(
                Choice(&[("route", RatePer::Route), ("client", RatePer::Client)])
                    .or("a mapping with `header`"),
            )
            .mapping(RATE_PER),
    );
    let rate_per_second = rate?;
    Some(RateLimit {
        rate_per_second,
        // At least 1 and at most `RATE_PER_SECOND_MAX`, as the rate is.
        burst: burst.unwrap_or(rate_per_second.ceil().max(1.0) as u32),
        per: per.unwrap_or_default(),
    })
}

const RATE_PER: Object<RatePer> = Object {
    doc: "Each value of a header field.",
    read: |f| {
        let header =
            f.required("header", "The header field. Requests without it count together.", FIELD_NAME);
        Some(RatePer::Header(header?))
    },
};
