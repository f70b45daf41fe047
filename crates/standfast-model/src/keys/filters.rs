use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::http::{FIELD_NAME, FIELD_NAMES, HOST, PATH, field_value};
use super::route::target_name;
use crate::diagnostics::shown;
use crate::shape::{
    Choice, Context, Count, Fields, FromText, Keyed, Kinds, List, Object, Percent, Shape, Whole, or_variable,
};
use crate::source::{At, Span};
use crate::traffic::{HeaderChanges, Mirror, PathRewrite, Redirect, Rewrite};
use crate::yaml::Kind;

/// Header fields that say where a message ends, for whom it is and whether it may be repeated: the gateway sets them.
const OWNED: &[&str] = &[
    "connection",
    "content-length",
    "expect",
    "forwarded",
    "host",
    "idempotency-key",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// Beginnings of names that are the gateway's.
const OWNED_PREFIXES: [&str; 2] = ["standfast-", "x-forwarded-"];

const DEFAULT_STATUS: u16 = 302;
/// What a mirror copies when its writer does not say.
const DEFAULT_PERCENT: f64 = 100.0;

pub(crate) const CHANGES: Object<HeaderChanges> =
    Object { doc: "Changes of header fields: `remove`, then `set`, then `add`.", read: changes };

fn changes(f: &mut Fields<'_, '_>) -> Option<HeaderChanges> {
    let set = f.optional("set", "Put in place of all of that name.", fields());
    let add = f.optional("add", "Put beside those of that name.", fields());
    let remove = f.optional("remove", "Names of those that are taken out.", names());
    Some(HeaderChanges {
        remove: remove.unwrap_or_default(),
        set: set.unwrap_or_default(),
        add: add.unwrap_or_default(),
    })
}

fn fields() -> impl Shape<Value = BTreeMap<String, String>> {
    Keyed { keys: FIELD_NAMES, item: field_value(), min: 0 }.and_then(|pairs, _, cx: &mut Context<'_>| {
        let mut seen = BTreeSet::new();
        let mut fields = BTreeMap::new();
        for (At { value: name, span }, value) in pairs {
            let lower = name.to_ascii_lowercase();
            changeable(&lower, span, &mut seen, cx);
            fields.extend(value.map(|value| (lower, value)));
        }
        Some(fields)
    })
}

fn names() -> impl Shape<Value = Vec<String>> {
    List { item: FIELD_NAME.at(), min: 0 }.and_then(|names: Vec<At<String>>, _, cx: &mut Context<'_>| {
        let mut seen = BTreeSet::new();
        for name in &names {
            changeable(&name.value, name.span, &mut seen, cx);
        }
        Some(names.into_iter().map(|name| name.value).collect())
    })
}

/// Reports a name that is there twice, or that is not the user's to change.
fn changeable(name: &str, span: Span, seen: &mut BTreeSet<String>, cx: &mut Context<'_>) {
    if OWNED.contains(&name) || OWNED_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
        let message = format!("the header field `{}` is the gateway's own", shown(name));
        let hint = if name == "host" { "write `rewrite: {host: …}`" } else { "remove it" };
        cx.reports.error_hint(span, message, hint);
    }
    if !seen.insert(name.to_owned()) {
        let message = format!("the header field `{}` is there twice", shown(name));
        cx.reports.error_hint(span, message, "names of header fields do not tell cases apart");
    }
}

pub(crate) const REWRITE: Object<Rewrite> =
    Object { doc: "Another host, path or prefix for the service.", read: rewrite };

fn rewrite(f: &mut Fields<'_, '_>) -> Option<Rewrite> {
    let host = f.optional("host", "The host that the service sees.", HOST);
    let path = path_rewrite(f);
    f.count(Count::Some, &["host", "path", "path_prefix"]);
    Some(Rewrite { host: host.map(|host| host.to_ascii_lowercase()), path })
}

fn path_rewrite(f: &mut Fields<'_, '_>) -> Option<PathRewrite> {
    let path = f.optional("path", "The whole path; the query stays.", PATH);
    let prefix = f.optional("path_prefix", "This takes the place of the route's path prefix.", PATH);
    f.count(Count::AtMostOne, &["path", "path_prefix"]);
    path.map(PathRewrite::Full).or(prefix.map(PathRewrite::Prefix))
}

pub(crate) const REDIRECT: Object<Redirect> = Object {
    doc: "The answer is a redirect, and no service is asked. What is not given stays the request's own.",
    read: redirect,
};

fn redirect(f: &mut Fields<'_, '_>) -> Option<Redirect> {
    let schemes = Choice(&[("http", "http"), ("https", "https")]);
    let scheme = f.optional("scheme", "`http` or `https`. Default: the request's own.", schemes);
    let host = f.optional("host", "Default: the request's own.", HOST);
    let port = f.optional(
        "port",
        "Default: the usual one of `scheme` where that is given, else the request's own.",
        Whole { min: 1, max: u16::MAX.into() },
    );
    let path = path_rewrite(f);
    let status = f.or("status", "301, 302, 303, 307 or 308.", Status, DEFAULT_STATUS);
    // Without any of these clients would be sent to where they are, for ever.
    f.count(Count::Some, &["scheme", "host", "port", "path", "path_prefix"]);
    Some(Redirect {
        scheme: scheme.map(str::to_owned),
        host: host.map(|host| host.to_ascii_lowercase()),
        port: port.and_then(|port| u16::try_from(port).ok()),
        path,
        status,
    })
}

/// The status of a redirect.
struct Status;

impl Status {
    const ALL: [u16; 5] = [301, 302, 303, 307, 308];
}

impl FromText for Status {
    type Value = u16;

    fn parse(&self, text: &str) -> Result<u16, Option<String>> {
        Self::ALL.into_iter().find(|status| status.to_string() == text).ok_or(None)
    }

    fn expected(&self) -> String {
        "301, 302, 303, 307 or 308".to_owned()
    }

    fn json_schema(&self) -> Value {
        json!({"anyOf": [
            {"enum": Self::ALL},
            {"type": "string", "pattern": or_variable("^(301|302|303|307|308)$")},
        ]})
    }

    fn accepts(&self, kind: Kind) -> bool {
        matches!(kind, Kind::Integer | Kind::Text)
    }

    fn shown(&self, value: &u16) -> Value {
        (*value).into()
    }
}

pub(crate) const MIRROR: Object<Mirror> = Object {
    doc: "A copy of a share of the requests goes to another service, whose answers are dropped.",
    read: |f| {
        let to = f.required("to", "Which service.", target_name());
        let percent = f.or("percent", "The share of requests that is copied.", Percent, DEFAULT_PERCENT);
        Some(Mirror { to: to?, percent })
    },
};

pub(crate) fn mirror() -> impl Shape<Value = Mirror> {
    Kinds::new("a service, or a mapping with `to`")
        .text(target_name().and_then(|to, _, _| Some(Mirror { to, percent: DEFAULT_PERCENT })))
        .mapping(MIRROR)
}
