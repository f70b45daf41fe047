use super::*;
use standfast_model::{Mirror, RatePer, Target};

/// A request to ask for.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    method: &'static str,
    host: String,
    path: String,
    query: Option<String>,
    headers: Vec<(&'static str, &'static [u8])>,
}

impl Asked {
    pub(crate) fn new(method: &'static str, host: &str, target: &str) -> Self {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (target, None),
        };
        Self { method, host: host.into(), path: path.into(), query, headers: Vec::new() }
    }
}

impl RequestView for Asked {
    fn method(&self) -> &str {
        self.method
    }
    fn host(&self) -> &str {
        &self.host
    }
    fn path(&self) -> &str {
        &self.path
    }
    fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }
    fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|(own, _)| *own == name).map(|(_, value)| *value)
    }
}

fn to(service: &str) -> Vec<Target> {
    vec![Target { service: service.parse().unwrap(), weight: 1 }]
}

fn route(host: Option<&str>, path: &str, service: &str) -> Route {
    Route { host: host.map(Into::into), ..Route::prefix(path, to(service)) }
}

fn pathed(path: PathMatch, service: &str) -> Route {
    Route { path, ..route(None, "/", service) }
}

fn field(name: &str, value: ValueMatch) -> FieldMatch {
    FieldMatch { name: name.into(), value }
}

fn exactly(name: &str, value: &str) -> FieldMatch {
    field(name, ValueMatch::Exact(value.into()))
}

fn asked(routes: &[Route], asked: &Asked) -> Option<String> {
    let table = RouteTable::new(routes, ToString::to_string);
    table.find("http", asked)?.pick(&mut Rng::seeded(1)).cloned()
}

fn found(routes: &[Route], host: &str, target: &str) -> Option<String> {
    asked(routes, &Asked::new("GET", host, target))
}

#[test]
fn the_most_specific_host_then_the_longest_prefix_wins() {
    let routes = [
        route(None, "/", "web"),
        route(None, "/orders/", "orders"),
        route(Some("shop.test"), "/orders", "shop-orders"),
    ];
    for (host, path, service) in [
        ("x", "/orders/1", "orders"),
        ("x", "/orders", "orders"),
        ("x", "/ordersX", "web"),
        ("SHOP.test.:8080", "/orders/7", "shop-orders"),
        ("shop.test", "/other", "web"),
        ("[::1]:80", "/", "web"),
        ("", "/", "web"),
        (&"a".repeat(300), "/", "web"),
    ] {
        assert_eq!(found(&routes, host, path).as_deref(), Some(service), "{host} {path}");
    }
    assert_eq!(found(&routes[1..], "x", "/"), None);
}

#[test]
fn a_host_that_is_written_out_then_the_longest_with_a_star_wins() {
    let routes = [
        route(Some("*"), "/", "any"),
        route(Some("*.test"), "/", "test"),
        route(Some("*.Shop.test."), "/", "shop"),
        route(Some("a.shop.test"), "/", "a"),
        route(Some("*.b.shop.test"), "/only", "b"),
    ];
    for (host, path, service) in [
        ("a.shop.test", "/", "a"),
        ("c.shop.test:1", "/", "shop"),
        ("C.D.shop.test", "/", "shop"),
        ("shop.test", "/", "test"),
        ("test", "/", "any"),
        (".test", "/", "any"),
        ("x.b.shop.test", "/only/1", "b"),
        ("x.b.shop.test", "/else", "shop"),
        ("x.shop.test.org", "/", "any"),
        ("shop.testx", "/", "any"),
    ] {
        assert_eq!(found(&routes, host, path).as_deref(), Some(service), "{host} {path}");
    }
}

#[test]
fn exact_paths_win_over_prefixes_and_those_over_regular_expressions() {
    let routes = [
        pathed(PathMatch::Regex("/v[0-9]+/.*|/w".into()), "regex"),
        pathed(PathMatch::Prefix("/v1".into()), "prefix"),
        pathed(PathMatch::Exact("/v1/x".into()), "exact"),
        pathed(PathMatch::Regex("(".into()), "illegal"),
        pathed(PathMatch::Regex("a)|(.*".into()), "illegal"),
    ];
    for (path, service) in [
        ("/v1/x", Some("exact")),
        ("/v1/x/", Some("prefix")),
        ("/v1/y", Some("prefix")),
        ("/v2/x", Some("regex")),
        ("/w", Some("regex")),
        ("/wx", None),
        ("/x/v2/x", None),
    ] {
        assert_eq!(found(&routes, "x", path).as_deref(), service, "{path}");
    }
}

#[test]
fn of_many_prefixes_the_longest_on_a_boundary_wins() {
    let prefixes = ["/a", "/a-b", "/a/b", "/a/b/c", "/a.b", "/a/b-c", "/ab", "/b/c/d"];
    let mut routes: Vec<Route> = prefixes
        .iter()
        .enumerate()
        .map(|(number, prefix)| route(None, prefix, &format!("s{number}")))
        .collect();
    for path in [
        "/", "/a", "/a/c", "/a/b/", "/a/b/c/d", "/a/bc", "/a/b-c/x", "/a-b", "/a-c", "/a.b/c", "/b", "/b/c",
        "/b/c/d/",
    ] {
        let fitting = prefixes.iter().enumerate().filter(|(_, prefix)| PathMatch::is_under(prefix, path));
        let longest = fitting.max_by_key(|(_, prefix)| prefix.len()).map(|(number, _)| format!("s{number}"));
        assert_eq!(found(&routes, "x", path), longest, "{path}");
    }
    // The same with hundreds of others around them.
    routes.extend((0..500).map(|number| route(None, &format!("/n{number}/a/b"), "n")));
    assert_eq!(found(&routes, "x", "/a/b/q").as_deref(), Some("s2"));
    assert_eq!(found(&routes, "x", "/n77/a/b/c").as_deref(), Some("n"));
    assert_eq!(found(&routes, "x", "/n77/a"), None);
}

#[test]
fn of_one_path_the_rule_with_more_conditions_wins_then_the_first() {
    let header = || vec![exactly("x-a", "1")];
    let routes = [
        route(None, "/", "plain"),
        Route { query: vec![exactly("q", "1"), exactly("r", "a b")], ..route(None, "/", "query") },
        Route { headers: header(), ..route(None, "/", "header") },
        Route { headers: header(), query: vec![exactly("q", "1")], ..route(None, "/", "both") },
        Route { method: Some("POST".into()), ..route(None, "/", "method") },
        route(None, "/", "second"),
    ];
    let ask = |method, target, has_header| {
        let mut view = Asked::new(method, "x", target);
        if has_header {
            view.headers = vec![("x-a", b"1"), ("x-a", b"2")];
        }
        asked(&routes, &view).unwrap()
    };
    assert_eq!(ask("GET", "/", false), "plain");
    assert_eq!(ask("GET", "/?q=1&r=a%20b", false), "query");
    assert_eq!(ask("GET", "/?r=a+b&q=1&q=2", false), "query");
    assert_eq!(ask("GET", "/?q=2&q=1&r=a+b", false), "plain");
    assert_eq!(ask("GET", "/?q=1&r=a+b", true), "both");
    assert_eq!(ask("GET", "/", true), "header");
    assert_eq!(ask("POST", "/?q=1", true), "method");
    assert_eq!(ask("post", "/", false), "plain");
}

#[test]
fn fields_may_be_there_or_match_a_regular_expression() {
    let with = |value| Route { headers: vec![field("x-a", value)], ..route(None, "/", "up") };
    let has = |route: &Route, value: Option<&'static [u8]>| {
        let mut view = Asked::new("GET", "x", "/");
        view.headers.extend(value.map(|value| ("x-a", value)));
        asked(std::slice::from_ref(route), &view).is_some()
    };
    let present = with(ValueMatch::Present);
    assert!(has(&present, Some(b"\xff")) && !has(&present, None));
    let regex = with(ValueMatch::Regex("[a-c]+".into()));
    assert!(has(&regex, Some(b"abc")) && !has(&regex, Some(b"abcd")) && !has(&regex, Some(b"\xff")));
    assert!(!has(&with(ValueMatch::Regex("[".into())), Some(b"[")));
    let query = |value| [Route { query: vec![field("q x", value)], ..route(None, "/", "up") }];
    assert!(found(&query(ValueMatch::Present), "x", "/?a&q%20x&b").is_some());
    assert!(found(&query(ValueMatch::Present), "x", "/?q").is_none());
    assert!(found(&query(ValueMatch::Regex("50%|é".into())), "x", "/?q+x=50%").is_some());
    assert!(found(&query(ValueMatch::Regex("50%|é".into())), "x", "/?q+x=%c3%A9").is_some());
    assert!(found(&query(ValueMatch::Regex("[".into())), "x", "/?q+x=1").is_none());
}

#[test]
fn no_way_of_writing_a_path_gets_past_the_more_specific_rule() {
    let routes = [
        route(None, "/", "web"),
        route(None, "/admin", "admin"),
        pathed(PathMatch::Exact("/api/%40me".into()), "me"),
        pathed(PathMatch::Prefix("/projects/a%2Fb".into()), "project"),
    ];
    for path in [
        "/admin",
        "//admin",
        "/./admin/x",
        "/x/../admin",
        "/%61dmin",
        "/admin%2Fx",
        "/%2Fadmin",
        "/admin%5cx",
        "/admin//x",
        "/admin/../admin/",
        "/%2F%61dmin",
    ] {
        assert_eq!(found(&routes, "x", path).as_deref(), Some("admin"), "{path}");
    }
    for path in ["/admin/..", "/admin/../x", "/%2561dmin", "/admin%20", "/Admin"] {
        assert_eq!(found(&routes, "x", path).as_deref(), Some("web"), "{path}");
    }
    for path in ["/../admin", "/x%2F..%2Fadmin", "/x/..;/admin", "/x\\..\\admin", "*", "admin"] {
        assert_eq!(found(&routes, "x", path), None, "{path}");
    }
    assert_eq!(found(&routes, "x", "/api/@me").as_deref(), Some("me"));
    assert_eq!(found(&routes, "x", "/projects/a%2fb/c").as_deref(), Some("project"));
    let regex = [pathed(PathMatch::Regex("/projects/[^/]+".into()), "regex")];
    assert_eq!(found(&regex, "x", "/projects/a%2fb").as_deref(), Some("regex"));
    assert_eq!(found(&regex, "x", "/projects/a/b"), None);
}

#[test]
fn requests_are_shared_by_weight() {
    let target = |service: &str, weight| Target { service: service.parse().unwrap(), weight };
    let shared = vec![target("a", 3), target("off", 0), target("b", 1)];
    let table = RouteTable::new(&[Route::prefix("/", shared)], ToString::to_string);
    let rule = table.find("http", &Asked::new("GET", "x", "/")).unwrap();
    assert_eq!(rule.targets().collect::<Vec<_>>(), ["a", "b"]);
    let mut rng = Rng::seeded(5);
    let a = (0..4_000).filter(|_| rule.pick(&mut rng).unwrap() == "a").count();
    assert!((2_850..3_150).contains(&a), "{a}");
}

#[test]
fn a_rule_tells_what_its_route_says_and_keeps_its_place_without_targets() {
    let limit = RateLimit { rate_per_second: 5.0, burst: 2, per: RatePer::Client };
    let mut full = Route {
        method: Some("POST".into()),
        headers: vec![field("x-a", ValueMatch::Present)],
        query: vec![exactly("v", "2")],
        timeout: Some(Duration::from_secs(3)),
        priority: Priority::High,
        rate_limits: vec![limit.clone()],
        concurrency_max: Some(7),
        ..pathed(PathMatch::Regex("/b.*".into()), "up")
    };
    full.filters.mirror = Some(Mirror { to: "copy".parse().unwrap(), percent: 100.0 });
    let none = Route { to: Vec::new(), ..route(Some("*.a.test"), "/x", "gone") };
    let table = RouteTable::new(&[none, full], ToString::to_string);
    let [none, full] = table.rules() else { panic!("two rules") };
    assert_eq!((none.index, &*none.name, none.pick(&mut Rng::seeded(1))), (0, "*.a.test/x", None));
    assert_eq!((full.index, &*full.name), (1, "POST *~/b.* x-a v=2"));
    assert_eq!(
        (full.timeout, full.priority, full.concurrency_max),
        (Some(Duration::from_secs(3)), Priority::High, Some(7))
    );
    assert_eq!(*full.rate_limits, [limit]);
    assert_eq!(full.mirror(&mut Rng::seeded(1)).map(String::as_str), Some("copy"));
    assert_eq!(none.mirror(&mut Rng::seeded(1)), None);
    let asked = table.find("http", &Asked::new("GET", "b.a.test", "/x/1")).unwrap();
    assert_eq!(asked.index, 0);
}

#[test]
fn a_route_for_the_scheme_comes_before_all_that_name_none() {
    let of = |scheme: &str, host, path, service| Route {
        scheme: Some(scheme.into()),
        ..route(host, path, service)
    };
    let routes = [
        route(None, "/", "up"),
        route(Some("shop.test"), "/deep/er", "shop"),
        of("http", None, "/", "redirect"),
        of("http", None, "/.well-known/acme-challenge", "acme"),
        of("https", Some("shop.test"), "/secret", "secret"),
    ];
    let table = RouteTable::new(&routes, ToString::to_string);
    for (scheme, host, path, service) in [
        ("http", "shop.test", "/deep/er", "redirect"),
        ("http", "other.test", "/", "redirect"),
        ("http", "shop.test", "/.well-known/acme-challenge/x", "acme"),
        ("http", "shop.test", "/secret", "redirect"),
        ("https", "shop.test", "/secret", "secret"),
        ("https", "shop.test", "/deep/er", "shop"),
        ("https", "other.test", "/secret", "up"),
    ] {
        let rule = table.find(scheme, &Asked::new("GET", host, path)).unwrap();
        assert_eq!(rule.pick(&mut Rng::seeded(1)).unwrap(), service, "{scheme}://{host}{path}");
    }
    assert_eq!(&*table.rules()[2].name, "http://*/");
}
