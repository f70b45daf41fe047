use std::collections::BTreeMap;
use std::time::Duration;

use standfast_model::{
    AccessFormat, Dependency, DependsOn, EdgeLimits, Experiment, Fault, Load, PathMatch, Priority, Probe,
    PublishedPort, RateLimit, RatePer, RestartCondition, Service, Stack, Traffic, UpdateOrder,
};

use crate::{brief, corpus, parse, parse_with};

fn stack(text: &str) -> Stack {
    parse(text).unwrap_or_else(|found| panic!("{found}")).stack
}

/// The service `a` with these keys.
fn service(keys: &str) -> Service {
    let mut stack = stack(&format!("services: {{a: {{command: x, {keys}}}}}\n"));
    stack.services.pop_first().expect("the service `a`").1
}

/// The load `l` with these keys.
fn load(keys: &str) -> Load {
    let text = format!(
        "services: {{a: {{command: x}}}}\nroutes: [{{to: a}}]\nload: {{l: {{path: /, rate: 1, {keys}}}}}\n"
    );
    stack(&text).load.pop_first().expect("the load `l`").1
}

#[test]
fn every_key_arrives_where_it_belongs() {
    let loaded = parse_with(&corpus("good/shop.yaml"), &[], &[("HOME", "/home/me")]).unwrap();
    assert_eq!(brief(&loaded.warnings), [""; 0]);
    insta::assert_snapshot!(serde_json::to_string_pretty(&loaded.stack).unwrap());
}

#[test]
fn a_stack_without_anything_else_has_the_documented_defaults() {
    let stack = stack("services: {a: {command: x}}\n");
    assert_eq!(stack.name.as_str(), "stack"); // its folder's name
    assert_eq!(stack.zones.iter().map(|zone| zone.as_str()).collect::<Vec<_>>(), ["a"]);
    let a = &stack.services[&"a".parse().unwrap()];
    assert_eq!(a.deploy.replicas, 1);
    assert_eq!((a.deploy.update.parallelism, a.deploy.update.order), (1, UpdateOrder::StartFirst));
    assert_eq!((a.deploy.restart.condition, a.deploy.restart.max_attempts), (RestartCondition::Any, None));
    assert_eq!(a.healthcheck.probe, Probe::Tcp);
    assert_eq!(a.healthcheck.interval, Duration::from_secs(1));
    assert_eq!(a.healthcheck.timeout, Duration::from_secs(1));
    assert_eq!((a.healthcheck.retries, a.healthcheck.start_period), (3, Duration::from_secs(30)));
    assert_eq!(a.stop_grace_period, Duration::from_secs(10));
    assert_eq!(a.working_dir, stack.root);
    assert_eq!(load("").timeout, Duration::from_secs(5));
}

#[test]
fn builtin_experiments_are_what_a_mapping_without_more_keys_is() {
    let names = ["replica-kill", "replica-freeze", "zone-loss", "node-kill", "agent-kill"];
    let list = |form: fn(&str) -> String| {
        let entries: Vec<String> = names.iter().map(|name| form(name)).collect();
        stack(&format!("services: {{a: {{command: x}}}}\nexperiments: [{}]\n", entries.join(", ")))
            .experiments
    };
    let builtin = list(|name| format!("'standfast:{name}'"));
    assert_eq!(builtin, list(|name| format!("{{fault: {name}}}")));
    assert_eq!(builtin.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), names);
    let kill = Fault::ReplicaKill { service: None, times: 5, every: Duration::from_secs(1) };
    let freeze = Fault::ReplicaFreeze { service: None, lasts: Duration::from_secs(3) };
    let loss = Fault::ZoneLoss { zone: None, lasts: Duration::from_secs(5) };
    let faults: Vec<Fault> = builtin.into_iter().map(|one| one.fault).collect();
    assert_eq!(faults, [kill, freeze, loss, Fault::NodeKill, Fault::AgentKill]);
}

#[test]
fn an_experiment_comes_from_a_file_and_so_do_its_mistakes() {
    let text = "services: {a: {command: x}}\nexperiments: [chaos/slow.yaml]\n";
    let file = "fault: replica-freeze\nservice: a\nlasts: 3s\n";
    let good = parse_with(text, &[("chaos/slow.yaml", file)], &[]).unwrap().stack.experiments;
    let fault = Fault::ReplicaFreeze { service: Some("a".parse().unwrap()), lasts: Duration::from_secs(3) };
    assert_eq!(good, [Experiment { name: "slow".to_owned(), fault }]);

    let bad = parse_with(text, &[("chaos/slow.yaml", "fault: replica-freeze\nservice: b\nlast: 3s\n")], &[]);
    assert_eq!(
        brief(&bad.unwrap_err()),
        [
            "chaos/slow.yaml:2:10 there is no service `b` (there is only `a`)",
            "chaos/slow.yaml:3:1 unknown key `last` (did you mean `lasts`?)",
        ]
    );
}

#[test]
fn variables_come_from_files_then_from_the_stack_and_from_the_caller() {
    let text = "services: {a: {command: x, env_file: [one.env, {path: two.env}, {path: no.env, required: false}], \
                environment: {C: own, HOME: , GONE: }}}\n";
    let one = "A=1\nB=$A-${CALLER}\n# c\nC='$raw'\n";
    let files = [("one.env", one), ("two.env", "export A=\"two\\nlines\"\nCALLER\n")];
    let stack = parse_with(text, &files, &[("CALLER", "me"), ("HOME", "/home/me")]).unwrap().stack;
    let expected = [("A", "two\nlines"), ("B", "1-me"), ("C", "own"), ("CALLER", "me"), ("HOME", "/home/me")];
    let expected: BTreeMap<String, String> = expected.map(|(name, value)| (name.into(), value.into())).into();
    assert_eq!(stack.services[&"a".parse().unwrap()].environment, expected);
}

#[test]
fn a_mistake_in_a_file_of_variables_is_named_there() {
    let text = "services: {a: {command: x, env_file: .env}}\n";
    let found = parse_with(text, &[(".env", "A=1\nB C=2\nD=${E:?is needed}\n")], &[]).unwrap_err();
    assert_eq!(
        brief(&found),
        [
            ".env:2:1 this is neither `NAME=value` nor `NAME` (each line is `NAME=value`, a comment after `#`, or empty)",
            ".env:3:1 the variable `E` is required: is needed (set `E` in the environment)",
        ]
    );
}

#[test]
fn interpolation_does_what_compose_does_and_leaves_the_id_of_a_load_alone() {
    let text = "services: {a: {command: [\"${P:-p}\", \"$$HOME\", \"${id:-x}\"], deploy: {replicas: \"$N\"}}}\nroutes: [{to: a}]\n\
                load: {l: {path: \"/${id}\", rate: 1, headers: {h: \"${id} $N\"}, body: {a: \"${id}\", n: \"${N}\", m: $N}}}\n";
    let stack = parse_with(text, &[], &[("N", "7")]).unwrap().stack;
    let a = &stack.services[&"a".parse().unwrap()];
    assert_eq!(
        (a.command.as_slice(), a.deploy.replicas),
        (["p", "$HOME", "x"].map(str::to_owned).as_slice(), 7)
    );
    let load = &stack.load[&"l".parse().unwrap()];
    assert_eq!(load.path, "/${id}");
    assert_eq!(load.headers["h"], "${id} 7");
    assert_eq!(load.body.as_ref().unwrap().text, r#"{"a":"${id}","m":7,"n":"7"}"#);
}

#[test]
fn a_variable_without_value_is_a_warning_at_its_place() {
    let loaded = parse("services:\n  a:\n    command: run --x=${NOBODY} $ALSO\n").unwrap();
    let hint = |name: &str| format!("set it, or write `${{{name}:-default}}`");
    let line = |column, name: &str| {
        format!(
            "3:{column} warning: the variable `{name}` is not set; nothing is put in its place ({})",
            hint(name)
        )
    };
    assert_eq!(brief(&loaded.warnings), [line(22, "NOBODY"), line(32, "ALSO")]);
}

#[test]
fn a_body_is_a_text_or_json_or_a_file() {
    let body = |keys: &str| load(keys).body.unwrap();
    assert_eq!(body("body: hello").content_type, "text/plain; charset=utf-8");
    assert_eq!(body("body: [1, 0x10, 1.5, null, 'x', yes]").text, r#"[1,16,1.5,null,"x","yes"]"#);
    assert_eq!(body("body: {}").content_type, "application/json");
    assert_eq!(body("body: {}, headers: {Content-Type: text/x}").content_type, "text/x");
    assert_eq!((load("body: x").method.as_str(), load("").method.as_str()), ("POST", "GET"));

    let text = "services: {a: {command: x}}\nroutes: [{to: a}]\nload: {l: {path: /, rate: 1, body: {file: b.json}}}\n";
    let good = parse_with(text, &[("b.json", "{\"id\": \"${id}\", \"n\": ${id}}\n")], &[]).unwrap().stack;
    let body = good.load[&"l".parse().unwrap()].body.clone().unwrap();
    assert_eq!(
        (body.text.as_str(), body.content_type.as_str()),
        ("{\"id\": \"${id}\", \"n\": ${id}}\n", "application/json")
    );
    let bad = parse_with(text, &[("b.json", "{\"id\": \"${id}\",\n  \"n\" ${id}}\n")], &[]).unwrap_err();
    assert_eq!(brief(&bad), ["b.json:2:7 this is not JSON: expected `:`"]);
}

#[test]
fn a_command_in_one_text_is_split_as_in_a_shell() {
    assert_eq!(service("environment: {A: 1}").command, ["x"]);
    let a = service("build: {command: 'make \"all of\" it', working_dir: ../src}");
    let build = a.build.unwrap();
    assert_eq!(build.command, ["make", "all of", "it"]);
    assert_eq!(build.working_dir, std::path::Path::new("/stack/../src"));
}

#[test]
fn compose_forms_mean_what_they_mean_in_compose() {
    assert_eq!(
        service("ports: ['9000:8080', 9001]").ports,
        [9000, 9001].map(|published| PublishedPort { published })
    );
    assert_eq!(service("healthcheck: {disable: true}").healthcheck.probe, Probe::None);
    assert_eq!(service("restart: 'on-failure:3'").deploy.restart.max_attempts, Some(3));
    assert_eq!(service("restart: no").deploy.restart.condition, RestartCondition::None);
    assert_eq!(
        service("deploy: {resources: {limits: {memory: 1gb}}}").deploy.limits.memory_bytes,
        Some(1 << 30)
    );
    let shell = ["/bin/sh", "-c", "a | b"].map(str::to_owned).to_vec();
    assert_eq!(service("healthcheck: {test: a | b}").healthcheck.probe, Probe::Command { command: shell });
    let two = stack("services: {a: {command: x, depends_on: [b]}, b: {command: x}}\n");
    let dependency = &two.services[&"a".parse().unwrap()].depends_on[&"b".parse().unwrap()];
    assert_eq!(*dependency, Dependency { condition: DependsOn::ServiceStarted });
}

#[test]
fn a_route_without_a_path_takes_everything() {
    let stack = stack("services: {a: {command: x}}\nroutes: [{host: Shop.Example, to: a}]\n");
    assert_eq!(stack.routes[0].path, PathMatch::Prefix("/".to_owned()));
    assert_eq!(stack.routes[0].host.as_deref(), Some("shop.example"));
}

/// Files that good stacks name.
const FILES: [(&str, &str); 6] = [
    ("tls/a.pem", ""),
    ("tls/a.key", ""),
    ("tls/b.pem", ""),
    ("tls/b.key", ""),
    ("tls/ca.pem", ""),
    ("faults.key", "0123456789abcdef"),
];

#[test]
fn every_key_of_traffic_arrives_where_it_belongs() {
    let loaded = parse_with(&corpus("good/edge.yaml"), &FILES, &[]).unwrap();
    assert_eq!(brief(&loaded.warnings), [""; 0]);
    insta::assert_snapshot!(serde_json::to_string_pretty(&loaded.stack).unwrap());
}

#[test]
fn traffic_and_the_edge_have_the_documented_defaults() {
    let text = "services: {a: {command: x}, b: {external: 'b:1'}}\nroutes: [{to: a, mirror: b, rate_limit: {rate: 2.5}}, \
                {path: /x, redirect: {scheme: https}}]\n\
                gateway: {tls: {certificates: [{cert: tls/a.pem, key: tls/a.key}]}, access_log: logs/a.log}\n";
    let stack = parse_with(text, &FILES, &[]).unwrap().stack;
    let (a, b) = (&stack.services[&"a".parse().unwrap()], &stack.externals[&"b".parse().unwrap()]);
    assert_eq!((&a.traffic, &b.traffic), (&Traffic::default(), &Traffic::default()));
    assert_eq!((&b.healthcheck, b.ports.len(), b.addresses[0].to_string()), (&None, 0, "b:1".to_owned()));

    let route = &stack.routes[0];
    let limit = RateLimit { rate_per_second: 2.5, burst: 3, per: RatePer::Route };
    assert_eq!((route.priority, &route.rate_limits), (Priority::Normal, &vec![limit]));
    assert_eq!((route.timeout, route.concurrency_max), (None, None));
    assert!(route.filters.request_headers.is_empty() && route.filters.response_headers.is_empty());
    assert!(route.filters.mirror.as_ref().is_some_and(|mirror| mirror.percent == 100.0));
    assert_eq!(stack.routes[1].filters.redirect.as_ref().unwrap().status, 302);

    let tls = stack.edge.tls.unwrap();
    assert_eq!((tls.port, tls.client_ca), (8_443, None));
    assert_eq!(tls.certificates[0].key, std::path::Path::new("/stack/tls/a.key"));
    let log = stack.edge.access_log.unwrap();
    assert_eq!(log.path, std::path::Path::new("/stack/logs/a.log"));
    assert_eq!((log.format, log.sample), (AccessFormat::Json, 1));
    assert_eq!((stack.edge.limits, stack.edge.proxy_protocol), (EdgeLimits::default(), false));
}

#[test]
fn a_stack_of_external_services_alone_is_one() {
    let stack = stack(
        "services: {b: {external: ['B.internal:80', '[FD00::0:1]:8080'], ports: [9000]}}\nroutes: [{to: b}]\n",
    );
    let b = &stack.externals[&"b".parse().unwrap()];
    assert!(stack.services.is_empty());
    assert_eq!(b.ports, [PublishedPort { published: 9_000 }]);
    let shown: Vec<String> = b.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["b.internal:80", "[fd00::1]:8080"]);
}

#[test]
fn a_wildcard_is_for_hosts_under_it_and_not_for_itself() {
    let stack = stack("services: {a: {command: x}}\nroutes: [{host: '*.Shop.test', to: a}]\n");
    let is_for = |host| stack.routes[0].is_for_host(host);
    assert!(is_for(Some("a.shop.test")) && is_for(Some("a.b.shop.test")));
    assert!(!is_for(Some("shop.test")) && !is_for(Some(".shop.test")) && !is_for(Some("ashop.test")));
    assert!(!is_for(None));
}

#[test]
fn a_secret_that_is_named_is_looked_at_but_not_kept() {
    let text =
        "services: {a: {command: x}}\ngateway: {tls: {certificates: [{cert: a.pem, key: a.key}]}, tsl: 1}\n";
    let found = parse_with(text, &[("a.pem", ""), ("a.key", "SECRET")], &[]).unwrap_err();
    assert_eq!(brief(&found).len(), 1);
    assert!(![found.to_string(), format!("{found:?}")].iter().any(|text| text.contains("SECRET")));
}

#[test]
fn a_key_that_is_too_short_for_one_is_told_with_the_next_step() {
    let text = "services: {a: {command: x}}\ngateway: {fault_key_file: f.key}\n";
    let found = parse_with(text, &[("f.key", "  0123456789abcde\n")], &[]).unwrap_err().to_string();
    assert!(found.contains("f.key is no key") && found.contains("openssl rand"), "{found}");
    assert!(!found.contains("0123456789"), "{found}");
    let edge = parse_with(text, &[("f.key", "0123456789abcdef\n")], &[]).unwrap().stack.edge;
    assert_eq!(edge.fault_key_file.as_deref(), Some(std::path::Path::new("/stack/f.key")));
}

#[test]
fn a_stack_is_read_from_its_folder_or_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("standfast.yaml");
    std::fs::write(&file, "name: shop\nservices: {a: {command: x, working_dir: bin}}\n").unwrap();
    let none = BTreeMap::new();
    let by_folder = standfast_model::load(folder.path(), &none).unwrap().stack;
    let by_file = standfast_model::load(&file, &none).unwrap().stack;
    assert_eq!(by_folder, by_file);
    assert_eq!(by_folder.root, folder.path());
    assert_eq!(by_folder.services[&"a".parse().unwrap()].working_dir, folder.path().join("bin"));
}

#[test]
fn what_cannot_be_read_is_an_error_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let none = BTreeMap::new();
    let said = |path: &std::path::Path| {
        let found = standfast_model::load(path, &none).unwrap_err();
        assert_eq!(found.len(), 1);
        found.to_string().replace(&folder.path().display().to_string(), "FOLDER")
    };
    insta::assert_snapshot!(said(folder.path()));
    let file = folder.path().join("standfast.yaml");
    std::fs::write(&file, b"name: \xff\n").unwrap();
    insta::assert_snapshot!(said(&file));
    std::fs::write(&file, "x".repeat(standfast_model::FILE_BYTES_MAX + 1)).unwrap();
    insta::assert_snapshot!(said(&file));
    // Reading a device would never end.
    assert!(said(std::path::Path::new("/dev/zero")).contains("it is not a file"));
}

#[test]
fn lifecycle_events_go_where_the_stack_says() {
    let text = |lifecycle: &str| {
        format!(
            "services: {{a: {{command: x}}}}\nsecrets: {{key: {{file: k}}}}\nworkflows: {{lifecycle: {lifecycle}}}\n"
        )
    };
    let read = |lifecycle: &str| parse_with(&text(lifecycle), &[("k", "hunter2")], &[]);
    let sink = read("{sink: http://a/events}").unwrap().stack.lifecycle.unwrap();
    assert_eq!(
        (sink.sink.as_str(), sink.types.len(), sink.batch, sink.bearer),
        ("http://a/events", 0, 100, None)
    );
    let whole = "{sink: 'https://events.example:8443/x?y=1', types: [workflow.faulted, io.serverlessworkflow.task.retried.v1], batch: 1, bearer: key}";
    let sink = read(whole).unwrap().stack.lifecycle.unwrap();
    assert_eq!((sink.types, sink.batch), (vec!["workflow.faulted".to_owned(), "task.retried".to_owned()], 1));
    assert_eq!(sink.bearer.as_deref(), Some("key"));
    for (lifecycle, says) in [
        ("{}", "sink"),
        ("{sink: events.example}", "`http://HOST/PATH`"),
        ("{sink: 'http://me:pass@events.example'}", "`http://HOST/PATH`"),
        ("{sink: 'http://a:0/x'}", "`http://HOST/PATH`"),
        ("{sink: http://a, types: [workflow.complete]}", "did you mean `workflow.completed`?"),
        ("{sink: http://a, batch: 0}", "from 1 to 1000"),
        ("{sink: http://a, bearer: kye}", "did you mean `key`?"),
        ("{sink: http://a, tpyes: []}", "did you mean `types`?"),
    ] {
        let found = read(lifecycle).unwrap_err().to_string();
        assert!(found.contains(says) && found.contains(":3:"), "{lifecycle}: {found}");
    }
}

#[test]
fn a_secret_is_known_by_its_file_and_its_value_is_kept_nowhere() {
    let text = "services: {a: {command: x}}\nsecrets: {key: {file: k/a}, login: {file: /run/l.json, format: json}}\n";
    let files = [("k/a", "hunter2"), ("/run/l.json", "{\"username\": \"hunter2\"}")];
    let loaded = parse_with(text, &files, &[]).unwrap();
    assert_eq!(loaded.stack.secrets["key"].file, loaded.stack.root.join("k/a"));
    assert_eq!(loaded.stack.secrets["login"].file, std::path::Path::new("/run/l.json"));
    assert!(!serde_json::to_string(&loaded.stack).unwrap().contains("hunter2"));
    for (text, files, says) in [
        ("{'a b': {file: k}}", [("k", "x")], "is not a secret's name"),
        ("{key: {}}", [("k", "x")], "file"),
        ("{key: {file: k, fromat: json}}", [("k", "x")], "did you mean `format`?"),
        ("{key: {environment: KEY}}", [("k", "x")], "write the secret into a file"),
    ] {
        let text = format!("services: {{a: {{command: x}}}}\nsecrets: {text}\n");
        let found = parse_with(&text, &files, &[]).unwrap_err().to_string();
        assert!(found.contains(says) && found.contains(":2:"), "{text}: {found}");
    }
    // These are told, but a stack that runs must be seen and stopped all the same.
    for (keys, files, says) in [
        ("", [("k", "\n")], "it is empty"),
        (", format: json", [("k", "hunter2")], "it is not JSON: see line 1, column 1"),
        ("", [("other", "hunter2")], "there is no such file"),
    ] {
        let text = format!("services: {{a: {{command: x}}}}\nsecrets: {{key: {{file: k{keys}}}}}\n");
        let found = parse_with(&text, &files, &[]).unwrap().secrets;
        assert!(found.has_errors(), "{text}");
        let found = found.to_string();
        assert!(
            found.contains(says) && found.contains(":2:23") && !found.contains("hunter2"),
            "{text}: {found}"
        );
    }
}
