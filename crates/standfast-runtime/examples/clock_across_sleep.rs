//! Makes a clock, moves into the time namespace of another process, where the machine has slept, and says by how many seconds the
//! clock has moved, and by how many a clock made only now. A program of its own, since only one without threads may move.

use std::fs::File;
use std::os::fd::AsFd;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use standfast_runtime::Clock;

fn main() -> anyhow::Result<()> {
    let pid = std::env::args().nth(1).ok_or_else(|| anyhow::anyhow!("give a process number"))?;
    let there = File::open(format!("/proc/{pid}/ns/time"))?;
    let clock = Clock::system();
    let before = clock.now();
    move_into_link_name_space(there.as_fd(), Some(LinkNameSpaceType::Time))?;
    let (after, of_a_new_clock) = (clock.now(), Clock::system().now());
    println!("{} {}", after.since(before).as_secs(), of_a_new_clock.since(before).as_secs());
    Ok(())
}
