//! Everything that CI does, as one program: `cargo xtask test|ci|deps|…`.
#![expect(clippy::disallowed_methods, reason = "xtask is a main program of its own, outside the seams")]

mod bench;
mod deps;
mod needs;
mod steps;

use anyhow::{Result, bail};

const HELP: &str = "\
cargo xtask COMMAND

  test [ARGS]   get what the tests need, then run all tests; ARGS narrow them down as `cargo test` does
  planted       prove the prover: build with planted bugs and see each one caught (minutes)
  prove         the main job: build for release, then `standfast prove examples/shop`
  deps          hold the table of allowed dependencies between crates against `cargo metadata`
  deny          licences, bans and sources of all third-party crates (cargo-deny)
  tidy          lengths of files, leftovers
  bench NAME    measure: heal, idle, plan, store (figures are kept in bench/README.md), gateway (bench/gateway/README.md)
  fmt, clippy, docs
  ci            all of it: what .ci/run calls

Examples:
  cargo xtask test
  cargo xtask test -p standfast-store
";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let rest = arguments.get(1..).unwrap_or_default();
    match arguments.first().map(String::as_str) {
        Some("test") => steps::test(rest),
        Some("planted") => steps::planted(),
        Some("prove") => steps::prove(),
        Some("deps") => deps::check(),
        Some("deny") => steps::deny(),
        Some("bench") => bench::run(&steps::root(), rest),
        Some("tidy") => steps::tidy(),
        Some("fmt") => steps::fmt(),
        Some("clippy") => steps::clippy(),
        Some("docs") => steps::docs(),
        Some("ci") => steps::ci(),
        Some("help" | "--help" | "-h") => {
            println!("{HELP}");
            Ok(())
        }
        other => bail!("unknown command {other:?}\n\n{HELP}"),
    }
}
