//! The table of who may use whom. Change it only together with `ARCHITECTURE.md`, and for a reason in `docs/decisions/`.

use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Crate → the crates of this workspace that it may use.
const ALLOWED: &[(&str, &[&str])] = &[
    ("standfast-model", &[]),
    ("standfast-runtime", &["standfast-model"]),
    ("standfast-store", &["standfast-model", "standfast-runtime"]),
    ("standfast-platform", &["standfast-model", "standfast-runtime"]),
    ("standfast-control", &["standfast-model", "standfast-runtime", "standfast-store", "standfast-platform"]),
    ("standfast-gateway", &["standfast-model", "standfast-runtime"]),
    ("standfast-prove", &["standfast-model", "standfast-runtime"]),
    ("standfast-workflow", &["standfast-model", "standfast-runtime", "standfast-store"]),
    (
        "standfast-node",
        &[
            "standfast-model",
            "standfast-runtime",
            "standfast-store",
            "standfast-platform",
            "standfast-control",
            "standfast-gateway",
            "standfast-prove",
            "standfast-workflow",
        ],
    ),
    (
        "standfast",
        &[
            "standfast-model",
            "standfast-runtime",
            "standfast-store",
            "standfast-platform",
            "standfast-control",
            "standfast-gateway",
            "standfast-prove",
            "standfast-workflow",
            "standfast-node",
        ],
    ),
    ("xtask", &[]),
    ("shop", &[]),
    ("bench-tools", &[]),
];

/// Third-party crates that may be used directly by one crate only: heavy or dangerous ones.
const LEAVES: &[(&str, &str)] = &[
    ("rusqlite", "standfast-store"),
    ("jaq-core", "standfast-workflow"),
    ("prost-reflect", "standfast-workflow"),
    ("protox", "standfast-workflow"),
    ("clap", "standfast"),
    ("indicatif", "standfast"),
    ("axum", "shop"),
    ("hdrhistogram", "standfast-prove"),
];

/// Fails on any edge outside the table.
pub(crate) fn check() -> Result<()> {
    let output = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()))
        .args(["metadata", "--format-version=1", "--no-deps"])
        .output()
        .context("cannot run cargo metadata")?;
    let metadata: Value = serde_json::from_slice(&output.stdout).context("cargo metadata printed no JSON")?;
    let mut wrong = Vec::new();
    let mut edges = 0;
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        let Some((_, allowed)) = ALLOWED.iter().find(|(known, _)| *known == name) else {
            wrong.push(format!("crate `{name}` is not in the table"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let used = dependency["name"].as_str().unwrap_or_default();
            let is_ours = dependency["path"].is_string();
            let is_for_tests = dependency["kind"] == "dev";
            if is_ours && used != name {
                edges += 1;
                if !allowed.contains(&used) {
                    wrong.push(format!("`{name}` may not use `{used}`"));
                }
            }
            let leaf = LEAVES.iter().find(|(heavy, _)| *heavy == used);
            if let Some((_, owner)) = leaf.filter(|(_, owner)| *owner != name && !is_for_tests) {
                wrong.push(format!("`{name}` may not use `{used}` directly: it belongs to `{owner}`"));
            }
        }
    }
    if wrong.is_empty() {
        println!("deps: {edges} edges between crates, all in the table");
        return Ok(());
    }
    bail!("dependencies outside the table in xtask/src/deps.rs:\n  {}", wrong.join("\n  "))
}
