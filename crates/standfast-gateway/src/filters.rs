//! What a route does to its requests and answers, made ready for use: nothing is parsed or checked per request. Pure.

use std::fmt::Write as _;

use http::StatusCode;
use http::header::{HeaderName, HeaderValue};
use standfast_model::{HeaderChanges, PathMatch, PathRewrite, Route};
use standfast_runtime::Rng;

use crate::path;
use crate::routes::RequestView;

/// Fields that decide where a message ends, whom it is for or what becomes of its connection: changes of them would make two
/// parties read a message differently, so they are left out. (The host has a rewrite of its own.)
const UNTOUCHABLE: [&str; 10] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "proxy-connection",
    "upgrade",
    "te",
    "trailer",
    "expect",
];

/// A route's filters.
#[derive(Debug, Default)]
pub(crate) struct Filters {
    /// Changes of the request's header fields.
    pub(crate) request: HeaderEdits,
    /// Changes of the answer's header fields.
    pub(crate) response: HeaderEdits,
    rewrite_host: Option<Box<str>>,
    rewrite_path: Option<PathEdit>,
    redirect: Option<Redirect>,
    /// The share of requests that is copied, from 0 to 1; `None` where nothing is.
    mirror_share: Option<f64>,
}

/// A name or a value.
type Bytes = Box<[u8]>;

/// Changes of header fields, to be done in this order. Names are lower case; all are legal and may be written as they are.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct HeaderEdits {
    /// Names to take out.
    pub(crate) remove: Box<[Bytes]>,
    /// Names and values to put in place of all of that name.
    pub(crate) set: Box<[(Bytes, Bytes)]>,
    /// Names and values to put beside those of that name.
    pub(crate) add: Box<[(Bytes, Bytes)]>,
}

#[derive(Debug)]
enum PathEdit {
    /// The whole path.
    Full(Box<str>),
    /// `new` (without a slash at its end) for `old`.
    Prefix { old: Box<str>, new: Box<str> },
}

#[derive(Debug)]
struct Redirect {
    status: StatusCode,
    scheme: Option<Box<str>>,
    host: Option<Box<str>>,
    port: Option<u16>,
    path: Option<PathEdit>,
}

impl Filters {
    /// The filters of `route`. What is not legal (the stack's checks let nothing of that through) is left out.
    pub(crate) fn new(route: &Route) -> Self {
        let filters = &route.filters;
        let rewrite = filters.rewrite.as_ref();
        let path = |rewrite: &PathRewrite| PathEdit::new(rewrite, &route.path);
        Self {
            request: HeaderEdits::new(&filters.request_headers),
            response: HeaderEdits::new(&filters.response_headers),
            rewrite_host: rewrite.and_then(|rewrite| rewrite.host.as_deref()).map(Into::into),
            rewrite_path: rewrite.and_then(|rewrite| rewrite.path.as_ref()).and_then(path),
            redirect: filters.redirect.as_ref().map(|redirect| Redirect {
                status: StatusCode::from_u16(redirect.status).unwrap_or(StatusCode::FOUND),
                scheme: redirect.scheme.as_deref().map(Into::into),
                host: redirect.host.as_deref().map(Into::into),
                port: redirect.port,
                path: redirect.path.as_ref().and_then(path),
            }),
            mirror_share: filters.mirror.as_ref().map(|mirror| mirror.percent / 100.0),
        }
    }

    /// Whether requests are answered with a redirect, so that no service is asked.
    pub(crate) const fn redirects(&self) -> bool {
        self.redirect.is_some()
    }

    /// The answer that sends the client elsewhere: status and `Location`. `scheme` and `local_port` are those that the request
    /// came by. The port follows the Gateway API: the one given, else the given scheme's usual one, else the one that the client
    /// named, else `local_port`; usual ones are not written.
    pub(crate) fn redirect(
        &self,
        view: &impl RequestView,
        scheme: &str,
        local_port: u16,
    ) -> Option<(StatusCode, String)> {
        let redirect = self.redirect.as_ref()?;
        let (own_host, own_port) = split_port(view.host());
        let target = redirect.scheme.as_deref().unwrap_or(scheme);
        let usual = if target == "https" { 443 } else { 80 };
        let port = match (redirect.port, &redirect.scheme) {
            (Some(port), _) => port,
            (None, Some(_)) => usual,
            (None, None) => own_port.unwrap_or(local_port),
        };
        let mut location = String::with_capacity(64);
        location.push_str(target);
        location.push_str("://");
        match &redirect.host {
            Some(host) => location.push_str(host),
            // What a client writes into `Host` comes back to nobody but itself, but never as more than a host.
            None => location
                .extend(own_host.chars().filter(|c| c.is_ascii_alphanumeric() || "-._:[]".contains(*c))),
        }
        if port != usual {
            let _strings_take_all = write!(location, ":{port}");
        }
        let path = redirect.path.as_ref().and_then(|edit| edit.apply(view.path()));
        location.push_str(&path::sendable(path.as_deref().unwrap_or(view.path())));
        if let Some(query) = view.query() {
            location.push('?');
            location.extend(query.chars().filter(char::is_ascii_graphic));
        }
        Some((redirect.status, location))
    }

    /// The host that the service sees instead of the one that the client named.
    pub(crate) fn rewrite_host(&self) -> Option<&str> {
        self.rewrite_host.as_deref()
    }

    /// The path and query that the service sees, if not what the client sent.
    pub(crate) fn rewrite_target(&self, path_and_query: &str) -> Option<String> {
        let (path, query) = match path_and_query.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (path_and_query, None),
        };
        let mut target = self.rewrite_path.as_ref()?.apply(path)?;
        if let Some(query) = query {
            target.push('?');
            target.push_str(query);
        }
        Some(target)
    }

    /// Whether this request is one of those that are copied.
    pub(crate) fn mirrors(&self, rng: &mut Rng) -> bool {
        self.mirror_share.is_some_and(|share| rng.fraction() < share)
    }
}

impl PathEdit {
    /// `None` for a new prefix where the route has none: the path stays.
    fn new(rewrite: &PathRewrite, of: &PathMatch) -> Option<Self> {
        match (rewrite, of) {
            (PathRewrite::Full(path), _) => Some(Self::Full(rooted(path).into())),
            (PathRewrite::Prefix(new), PathMatch::Prefix(old) | PathMatch::Exact(old)) => {
                Some(Self::Prefix { old: old.as_str().into(), new: new.trim_end_matches('/').into() })
            }
            (PathRewrite::Prefix(_), PathMatch::Regex(_)) => None,
        }
    }

    fn apply(&self, path: &str) -> Option<String> {
        match self {
            Self::Full(path) => Some(path.to_string()),
            Self::Prefix { old, new } => {
                let rest = path::after_prefix(path, old)?;
                Some(rooted(&format!("{new}{rest}")))
            }
        }
    }
}

/// A path that begins with one slash: two would begin a host to those who read the target as a reference.
fn rooted(path: &str) -> String {
    format!("/{}", path.trim_start_matches('/'))
}

/// A host as clients write it, and its port.
fn split_port(host: &str) -> (&str, Option<u16>) {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, port.parse().ok()),
        _ => (host, None),
    }
}

impl HeaderEdits {
    fn new(changes: &HeaderChanges) -> Self {
        let pair = |(name, value): (&String, &String)| Some((legal_name(name)?, legal_value(value)?));
        Self {
            remove: changes.remove.iter().filter_map(|name| legal_name(name)).collect(),
            set: changes.set.iter().filter_map(pair).collect(),
            add: changes.add.iter().filter_map(pair).collect(),
        }
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }
}

fn legal_name(name: &str) -> Option<Bytes> {
    let name = HeaderName::try_from(name).ok()?;
    (!UNTOUCHABLE.contains(&name.as_str())).then(|| name.as_str().as_bytes().into())
}

fn legal_value(value: &str) -> Option<Bytes> {
    let value = HeaderValue::from_str(value.trim_matches([' ', '\t'])).ok()?;
    Some(value.as_bytes().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::tests::Asked;
    use standfast_model::{Mirror, Rewrite};

    fn route(path: PathMatch) -> Route {
        Route { path, ..Route::prefix("/", Vec::new()) }
    }

    fn rewriting(of: PathMatch, path: PathRewrite) -> Filters {
        let mut route = route(of);
        route.filters.rewrite = Some(Rewrite { host: Some("inner.test".into()), path: Some(path) });
        Filters::new(&route)
    }

    #[test]
    fn a_new_prefix_is_put_in_as_the_gateway_api_says() {
        // The table at `HTTPPathModifier.replacePrefixMatch`, Gateway API 1.x.
        for (path, old, new, result) in [
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "", "/bar"),
            ("/foo/", "/foo", "", "/"),
            ("/foo", "/foo", "", "/"),
            ("/foo/", "/foo", "/", "/"),
            ("/foo", "/foo", "/", "/"),
            // Beyond the table.
            ("/foo/bar?q=/foo", "/foo", "/xyz", "/xyz/bar?q=/foo"),
            ("/foo?q", "/foo", "/", "/?q"),
            ("/bar", "/", "/xyz", "/xyz/bar"),
            ("/", "/", "/xyz", "/xyz/"),
            ("/foo/a%2Fb", "/foo", "/", "/a%2Fb"),
            ("/foo//host.test/", "/foo", "/", "/host.test/"),
            ("/foo//b", "/foo", "/x", "/x//b"),
            ("/%66oo/b", "/foo", "/x", "/x/b"),
            ("/foo%2Fb", "/foo", "/x", "/x/b"),
        ] {
            let filters = rewriting(PathMatch::Prefix(old.into()), PathRewrite::Prefix(new.into()));
            assert_eq!(filters.rewrite_target(path).as_deref(), Some(result), "{path} {old} {new}");
        }
    }

    #[test]
    fn a_full_path_keeps_the_query_and_a_regex_has_no_prefix() {
        let full = rewriting(PathMatch::Prefix("/a".into()), PathRewrite::Full("/z".into()));
        assert_eq!(full.rewrite_target("/a/b?c=d?e").as_deref(), Some("/z?c=d?e"));
        assert_eq!(full.rewrite_host(), Some("inner.test"));
        let exact = rewriting(PathMatch::Exact("/a".into()), PathRewrite::Prefix("/z".into()));
        assert_eq!(exact.rewrite_target("/a").as_deref(), Some("/z"));
        let regex = rewriting(PathMatch::Regex("/a.*".into()), PathRewrite::Prefix("/z".into()));
        assert_eq!(regex.rewrite_target("/ab"), None);
        assert_eq!(Filters::default().rewrite_target("/a"), None);
    }

    fn location(redirect: standfast_model::Redirect, host: &str, target: &str) -> String {
        let mut route = route(PathMatch::Prefix("/old".into()));
        route.filters.redirect = Some(redirect);
        let filters = Filters::new(&route);
        assert!(filters.redirects());
        filters.redirect(&Asked::new("GET", host, target), "http", 8080).unwrap().1
    }

    const SAME: standfast_model::Redirect =
        standfast_model::Redirect { scheme: None, host: None, port: None, path: None, status: 301 };

    #[test]
    fn a_redirect_says_all_that_is_not_usual() {
        let https = || standfast_model::Redirect { scheme: Some("https".into()), ..SAME };
        assert_eq!(location(https(), "a.test:8080", "/x?y=z"), "https://a.test/x?y=z");
        assert_eq!(location(SAME, "a.test", "/x"), "http://a.test:8080/x");
        assert_eq!(location(SAME, "a.test:80", "/x"), "http://a.test/x");
        let https_443 = standfast_model::Redirect { port: Some(443), ..https() };
        assert_eq!(location(https_443, "[::1]:8080", "/"), "https://[::1]/");
        let elsewhere = standfast_model::Redirect {
            host: Some("b.test".into()),
            port: Some(81),
            path: Some(PathRewrite::Prefix("/new".into())),
            ..SAME
        };
        assert_eq!(location(elsewhere, "a.test", "/old/1?q"), "http://b.test:81/new/1?q");
        let full = standfast_model::Redirect { path: Some(PathRewrite::Full("/n".into())), ..https() };
        assert_eq!(location(full, "[::1]", "/old/1"), "https://[::1]/n");
    }

    #[test]
    fn a_redirect_carries_no_more_than_a_location() {
        assert_eq!(location(SAME, "a\"\r\nb/@c:80", "/\u{e9}\"?q\r\nx"), "http://abc/%C3%A9%22?qx");
        assert!(Filters::default().redirect(&Asked::new("GET", "a", "/"), "http", 80).is_none());
        let mut odd = route(PathMatch::Prefix("/".into()));
        odd.filters.redirect = Some(standfast_model::Redirect { status: 5, ..SAME });
        let (status, _) = Filters::new(&odd).redirect(&Asked::new("GET", "a", "/"), "http", 80).unwrap();
        assert_eq!(status, StatusCode::FOUND);
    }

    #[test]
    fn header_edits_are_legal_and_leave_the_framing_alone() {
        let changes = HeaderChanges {
            remove: vec!["X-Old".into(), "content-length".into(), "a b".into()],
            set: [("X-Env", " prod "), ("Host", "evil"), ("x-split", "a\r\nb")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            add: [("via".to_owned(), "standfast".to_owned())].into(),
        };
        let edits = HeaderEdits::new(&changes);
        assert_eq!(*edits.remove, [Box::from(&b"x-old"[..])]);
        assert_eq!(*edits.set, [(Box::from(&b"x-env"[..]), Box::from(&b"prod"[..]))]);
        assert_eq!(*edits.add, [(Box::from(&b"via"[..]), Box::from(&b"standfast"[..]))]);
        assert!(!edits.is_empty() && HeaderEdits::default().is_empty());
        let mut route = route(PathMatch::Prefix("/".into()));
        (route.filters.request_headers, route.filters.response_headers) = (changes, HeaderChanges::default());
        let filters = Filters::new(&route);
        assert_eq!(filters.request, edits);
        assert!(filters.response.is_empty() && !filters.redirects());
    }

    #[test]
    fn a_share_of_requests_is_mirrored() {
        let mut rng = Rng::seeded(4);
        let mut share = |percent: f64| {
            let mut route = route(PathMatch::Prefix("/".into()));
            route.filters.mirror = Some(Mirror { to: "copy".parse().unwrap(), percent });
            let filters = Filters::new(&route);
            (0..10_000).filter(|_| filters.mirrors(&mut rng)).count()
        };
        assert_eq!((share(0.0), share(100.0)), (0, 10_000));
        assert!((2_350..2_650).contains(&share(25.0)));
        assert!(!Filters::default().mirrors(&mut Rng::seeded(1)));
    }
}
