//! Measurements, each printed as a line and kept in `bench/README.md` by hand: they depend on the machine, so they are no tests.

mod gateway;

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Runs one measurement.
pub(crate) fn run(root: &Path, words: &[String]) -> Result<()> {
    match words.first().map(String::as_str) {
        Some("heal") => heal(root),
        Some("idle") => idle(root),
        Some("plan") => example(root, "standfast-control", "plan_bench", &[]),
        Some("store") => example(root, "standfast-store", "commit_bench", &[]),
        Some("gateway") => gateway::run(root, words.get(1..).unwrap_or_default()),
        other => bail!("no measurement {other:?}: heal, idle, plan, store, gateway"),
    }
}

fn example(root: &Path, package: &str, name: &str, arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("cargo");
    command.current_dir(root).args(["run", "--release", "--package", package, "--example", name, "--"]);
    let status = command.args(arguments).status().context("cannot run cargo")?;
    if status.success() { Ok(()) } else { bail!("{name} failed") }
}

fn standfast(root: &Path, arguments: &[&str]) -> Result<std::process::Output> {
    let built = Command::new("cargo")
        .current_dir(root)
        .args(["build", "--release", "--package", "standfast"])
        .status();
    if !built.context("cannot run cargo")?.success() {
        bail!("the build failed");
    }
    let program = root.join("target/release/standfast");
    let mut command = Command::new(program);
    command.current_dir(root).args(arguments).stderr(std::process::Stdio::inherit());
    command.output().context("cannot run standfast")
}

/// 50 kills under load: the time from each kill until the replacement serves.
fn heal(root: &Path) -> Result<()> {
    let output =
        standfast(root, &["prove", "bench/heal", "--seed", "1", "--json", "--report", "target/bench-heal"])?;
    let report: Value = serde_json::from_slice(&output.stdout).context("prove printed no JSON")?;
    let faults = report["record"]["faults"].as_array().context("the record has no faults")?;
    let mut millis: Vec<f64> = faults
        .iter()
        .filter_map(|fault| Some(fault["healed_at"].as_f64()? - fault["injected_at"].as_f64()?))
        .map(|micros| micros / 1_000.0)
        .collect();
    millis.sort_by(f64::total_cmp);
    let failed: u64 = report["judgement"]["faults"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|fault| fault["failed"].as_u64())
        .sum();
    let at =
        |share: f64| millis.get(((millis.len() as f64 * share).ceil() as usize).saturating_sub(1)).copied();
    println!(
        "heal: {} kills, p50 {:.0} ms, p99 {:.0} ms, worst {:.0} ms, {failed} of {} requests failed, verdict {}",
        millis.len(),
        at(0.5).unwrap_or(f64::NAN),
        at(0.99).unwrap_or(f64::NAN),
        at(1.0).unwrap_or(f64::NAN),
        report["judgement"]["requests"],
        report["judgement"]["verdict"],
    );
    Ok(())
}

/// What an idle shop costs in Standfast's own processes, over 30 s.
fn idle(root: &Path) -> Result<()> {
    const SECONDS: u64 = 30;
    let state = root.join("target/bench-idle");
    let state = state.to_string_lossy().into_owned();
    let run = |arguments: &[&str]| {
        let all = [arguments, &["examples/shop", "--state", state.as_str()]].concat();
        standfast(root, &all)
    };
    if !run(&["up", "-d", "--listen", "127.0.0.1:0"])?.status.success() {
        bail!("the shop did not come up");
    }
    let status: Value = serde_json::from_slice(&run(&["status", "--json"])?.stdout).context("no status")?;
    let pids: Vec<u64> = ["node_pid", "agent_pid"].iter().filter_map(|name| status[name].as_u64()).collect();
    let before: Vec<f64> = pids.iter().map(|pid| cpu_seconds(*pid)).collect::<Result<_>>()?;
    std::thread::sleep(std::time::Duration::from_secs(SECONDS));
    let after: Vec<f64> = pids.iter().map(|pid| cpu_seconds(*pid)).collect::<Result<_>>()?;
    let memory: Vec<u64> = pids.iter().map(|pid| resident_kib(*pid)).collect::<Result<_>>()?;
    let used: f64 = after.iter().zip(&before).map(|(after, before)| after - before).sum();
    let share = used / SECONDS as f64 * 100.0;
    let total = memory.iter().sum::<u64>() as f64 / 1024.0;
    println!("idle: node and agent use {share:.2} % of a core and {total:.1} MiB ({memory:?} KiB)");
    run(&["down"])?;
    std::fs::remove_dir_all(&state).context("cannot remove the state folder")
}

fn cpu_seconds(pid: u64) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("the process is gone")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    Ok((ticks(11) + ticks(12)) / 100.0)
}

fn resident_kib(pid: u64) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("the process is gone")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}
