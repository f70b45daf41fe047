//! Another user's stack, and folders that may not be used: what, where, why, and the next step.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::world::{Ran, World};

/// A user that owns nothing here.
const NOBODY: &str = "65534";

/// A stranger to the world: another user where tests run as root; elsewhere folders are closed to everybody instead.
struct Stranger<'w> {
    world: &'w World,
    program: PathBuf,
    is_root: bool,
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

impl<'w> Stranger<'w> {
    fn to(world: &'w World) -> Self {
        set_mode(world.path(), 0o755);
        // Where the program was built may itself be closed to others.
        let program = world.path().join("standfast");
        let built = env!("CARGO_BIN_EXE_standfast");
        std::fs::hard_link(built, &program).or_else(|_| std::fs::copy(built, &program).map(|_| ())).unwrap();
        let is_root = std::fs::metadata(world.path()).unwrap().uid() == 0;
        Self { world, program, is_root }
    }

    /// Closes a folder or file to the stranger.
    fn close(&self, path: &Path) {
        set_mode(path, if self.is_root { 0o700 } else { 0o000 });
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        let mut command = if self.is_root {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]).arg(&self.program);
            command
        } else {
            Command::new(&self.program)
        };
        command
            .args(arguments)
            .current_dir(self.world.path())
            .env("STANDFAST_STATE", self.world.state())
            .env("TMPDIR", std::env::temp_dir());
        let ran = Ran::of(command.output().unwrap());
        assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
        ran
    }
}

#[test]
fn the_running_stack_of_another_user_is_told_as_that() {
    let world = World::with_quick("");
    world.up().expect(0);
    let stranger = Stranger::to(&world);
    stranger.close(&world.state()); // as it is already for others
    let folder = world.state().display().to_string();
    for command in [
        &["status", "stack"][..],
        &["plan", "stack"],
        &["apply", "stack", "--yes"],
        &["restart", "stack"],
        &["logs", "stack"],
        &["down", "stack"],
        &["down", "stack", "--forget"],
        &["up", "stack", "-d", "--listen", "127.0.0.1:0"],
    ] {
        let ran = stranger.run(command).expect(2);
        let ran =
            ran.says(&["no permission", &folder, "Permission denied", "belongs to user", "hint", "--state"]);
        assert!(!ran.stderr.contains("does not run"), "{command:?}: {}", ran.stderr);
    }
    set_mode(&world.state(), 0o700);
    assert_eq!(world.status()["all_ready"], true, "nothing happened to it");
}

#[test]
fn a_stack_that_may_not_be_read_is_told_with_the_next_step() {
    let world = World::with_quick("");
    let stranger = Stranger::to(&world);
    for closed in [world.stack().join("standfast.yaml"), world.stack()] {
        stranger.close(&closed);
        for command in ["check", "up", "status", "plan", "prove"] {
            stranger.run(&[command, "stack"]).expect(2).says(&["cannot read", "stack", "may not", "ls -ld"]);
        }
        set_mode(&closed, if closed.is_dir() { 0o755 } else { 0o644 });
    }
}

#[test]
fn a_state_folder_that_may_not_be_made_or_written_is_told_before_anything_starts() {
    let world = World::with_quick("");
    let stranger = Stranger::to(&world);
    let closed = world.path().join("closed");
    std::fs::create_dir(&closed).unwrap();
    set_mode(&closed, 0o555);
    for state in [closed.join("state"), closed.clone()] {
        let state = state.display().to_string();
        let ran =
            stranger.run(&["up", "stack", "-d", "--listen", "127.0.0.1:0", "--state", &state]).expect(2);
        ran.says(&["cannot use the state folder", &state, "Permission denied", "hint", "--state DIR"]);
    }
    assert!(world.processes().is_empty(), "{:?}", world.processes());
}

#[test]
fn a_report_that_could_not_be_written_is_told_before_the_proof() {
    let world = World::with_quick("load: {work: {path: /who, rate: 50/s}}");
    let stranger = Stranger::to(&world);
    let closed = world.path().join("closed");
    std::fs::create_dir(&closed).unwrap();
    set_mode(&closed, 0o555);
    for (report, option) in [("closed/report", "--report DIR"), ("closed", "--report DIR")] {
        let ran = stranger.run(&["prove", "stack", "--report", report]).expect(2);
        ran.says(&[report, "Permission denied", option]);
    }
    let open = world.path().join("open");
    std::fs::create_dir(&open).unwrap();
    set_mode(&open, 0o777);
    let junit = ["prove", "stack", "--report", "open", "--junit", "closed/junit.xml"];
    stranger.run(&junit).expect(2).says(&["closed", "Permission denied", "--junit FILE"]);
}

#[test]
fn a_port_that_only_root_may_open_is_told_with_its_address() {
    let world = World::with_quick("");
    let stranger = Stranger::to(&world);
    let first: u16 = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start")
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    // Where all ports are for everybody, an address that is not this machine's is refused in the same way.
    let (address, why) = if first > 81 {
        ("127.0.0.1:81", "Permission denied")
    } else {
        ("192.0.2.1:8080", "Cannot assign requested address")
    };
    let open = world.path().join("open");
    std::fs::create_dir(&open).unwrap();
    set_mode(&open, 0o777);
    let state = open.join("state").display().to_string();
    let ran = stranger.run(&["up", "stack", "-d", "--listen", address, "--state", &state]).expect(2);
    ran.says(&["cannot listen on", address, why, "hint", "--listen"]);
}
