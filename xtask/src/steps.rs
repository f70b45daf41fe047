//! The steps of CI, each of which can be run alone.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::{deps, needs};

/// A source file longer than this is several rooms in one.
const LINES_MAX: usize = 900;

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}

fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command.args(arguments).current_dir(root());
    command
}

fn run(mut command: Command) -> Result<()> {
    let shown = format!("{command:?}").replace('"', "");
    let started = Instant::now();
    println!("── {shown}");
    let status = command.status().with_context(|| format!("cannot run {shown}"))?;
    if !status.success() {
        bail!("failed ({status}): {shown}");
    }
    println!("── done in {:.0} s", started.elapsed().as_secs_f64());
    Ok(())
}

/// All tests. The end-to-end tests start the real binary, so it is built first.
pub(crate) fn test(arguments: &[String]) -> Result<()> {
    needs::ensure()?;
    let narrowed = arguments.iter().any(|argument| argument == "-p" || argument == "--package");
    let mut command = cargo(&["test", "--locked"]);
    if !narrowed {
        command.arg("--workspace");
    }
    command.args(arguments);
    run_counting(command)
}

/// Runs tests, and says in the end how many there were in all.
fn run_counting(mut command: Command) -> Result<()> {
    let shown = format!("{command:?}").replace('"', "");
    let started = Instant::now();
    println!("── {shown}");
    let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot run {shown}"))?;
    let mut total = Total::default();
    let said = child.stdout.take().map(BufReader::new).into_iter().flat_map(BufRead::lines);
    for line in said {
        let line = line.with_context(|| format!("cannot read what {shown} says"))?;
        total.add(&line);
        println!("{line}");
    }
    let status = child.wait().with_context(|| format!("cannot wait for {shown}"))?;
    let Total { parts, passed, failed } = total;
    println!(
        "── {passed} tests passed, {failed} failed, in {parts} parts, {:.0} s",
        started.elapsed().as_secs_f64()
    );
    if !status.success() {
        bail!("failed ({status}): {shown}");
    }
    Ok(())
}

/// What tests came to, by what they say of themselves.
#[derive(Debug, Default, PartialEq, Eq)]
struct Total {
    parts: usize,
    passed: usize,
    failed: usize,
}

impl Total {
    fn add(&mut self, line: &str) {
        let Some((_, counts)) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". "))
        else {
            return;
        };
        let count = |of: &str| {
            let part = counts.split("; ").find_map(|part| part.strip_suffix(of));
            part.and_then(|number| number.trim().parse::<usize>().ok()).unwrap_or(0)
        };
        self.parts += 1;
        self.passed += count(" passed");
        self.failed += count(" failed");
    }
}

/// The prover is proven: a build with planted bugs must be caught at each of them.
pub(crate) fn planted() -> Result<()> {
    // A test that is named does not build the examples, and the services under test are among them.
    run(cargo(&["build", "--locked", "--package=standfast", "--features=planted-bugs", "--examples"]))?;
    run(cargo(&[
        "test",
        "--locked",
        "--package=standfast",
        "--features=planted-bugs",
        "--test=planted",
        "--",
        "--test-threads=1",
    ]))
}

/// The main job, as the README has it.
pub(crate) fn prove() -> Result<()> {
    run(cargo(&["run", "--locked", "--release", "--", "prove", "examples/shop"]))
}

pub(crate) fn fmt() -> Result<()> {
    run(cargo(&["fmt", "--all", "--check"]))
}

pub(crate) fn clippy() -> Result<()> {
    run(cargo(&["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    let mut with_plants = cargo(&["clippy", "--locked", "--package=standfast", "--all-targets"]);
    with_plants.args(["--features=planted-bugs", "--", "-D", "warnings"]);
    run(with_plants)
}

pub(crate) fn docs() -> Result<()> {
    let mut command = cargo(&["doc", "--locked", "--workspace", "--no-deps", "--document-private-items"]);
    command.env("RUSTDOCFLAGS", "-D warnings");
    run(command)
}

pub(crate) fn deny() -> Result<()> {
    let mut command = Command::new(needs::cargo_deny(&root().join("target"))?);
    command.current_dir(root()).args(["--workspace", "check", "--hide-inclusion-graph"]);
    command.args(["licenses", "bans", "sources"]);
    run(command)
}

/// Lengths of files, and leftovers that no lint sees.
pub(crate) fn tidy() -> Result<()> {
    let listed =
        Command::new("git").args(["ls-files"]).current_dir(root()).output().context("cannot run git")?;
    let mut wrong = Vec::new();
    let mut read = 0;
    for name in String::from_utf8_lossy(&listed.stdout).lines().filter(|name| name.ends_with(".rs")) {
        let Ok(text) = std::fs::read_to_string(root().join(name)) else { continue };
        read += 1;
        let lines = text.lines().count();
        if lines > LINES_MAX {
            wrong.push(format!("{name}: {lines} lines, more than {LINES_MAX}"));
        }
        let mut ignored = text.lines().filter(|line| line.trim_start().starts_with("#[ignore"));
        // What a running test starts as its child, and measurements, are no tests of their own.
        let is_fine = |line: &str| line.contains("runs as a child") || line.contains("measures");
        if ignored.any(|line| !is_fine(line)) {
            wrong.push(format!("{name}: an ignored test is no test"));
        }
    }
    if !wrong.is_empty() {
        bail!("tidy:\n  {}", wrong.join("\n  "));
    }
    println!("tidy: {read} source files");
    Ok(())
}

pub(crate) fn ci() -> Result<()> {
    let started = Instant::now();
    fmt()?;
    deps::check()?;
    tidy()?;
    deny()?;
    clippy()?;
    docs()?;
    test(&[])?;
    planted()?;
    prove()?;
    println!("ci: all of it in {:.0} s", started.elapsed().as_secs_f64());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Total;

    #[test]
    fn results_are_added_up() {
        let mut total = Total::default();
        total.add(
            "test result: ok. 54 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.62s",
        );
        total.add("test suite::a ... ok");
        total.add("test result: FAILED. 223 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 67.68s");
        assert_eq!(total, Total { parts: 2, passed: 277, failed: 2 });
    }
}
