use std::future::Future;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use standfast_model::Stamp;
use tokio::time::Instant;

/// Where time comes from: wall time when the clock was made, carried on by the machine's clock that is never set and that goes on
/// while the machine sleeps. So stamps of one process never go backwards, and after a sleep they agree with those of a process
/// that was started since.
///
/// Timers do not go on in a machine's sleep: what waits then wakes later, never earlier.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    origin: Stamp,
    carrier: Carrier,
}

/// What carries a clock on from its origin.
#[derive(Debug, Clone, Copy)]
enum Carrier {
    /// The time since the machine's start, as it was at the origin.
    Machine(Duration),
    /// tokio's time, which tests can pause.
    Runtime(Instant),
}

/// The time allowed was over before the work was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not done within {0:?}")]
pub struct Elapsed(pub Duration);

impl Clock {
    /// The machine's time. It goes on under tokio's paused time; tests that pause want [`Clock::starting_at`].
    pub fn system() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let carrier = Carrier::Machine(since_machine_start());
        Self { origin: Stamp::EPOCH.plus(since_epoch), carrier }
    }

    /// A clock that shows `origin` now: for tests under paused time.
    pub fn starting_at(origin: Stamp) -> Self {
        Self { origin, carrier: Carrier::Runtime(Instant::now()) }
    }

    /// What time it is. Reads one clock, without a system call.
    pub fn now(&self) -> Stamp {
        let elapsed = match self.carrier {
            Carrier::Machine(then) => since_machine_start().saturating_sub(then),
            Carrier::Runtime(then) => then.elapsed(),
        };
        self.origin.plus(elapsed)
    }

    /// Waits.
    pub async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    /// Waits until `at`; not at all when that is past.
    pub async fn sleep_until(&self, at: Stamp) {
        tokio::time::sleep(at.since(self.now())).await;
    }

    /// Runs `work` for at most `limit`; after that it is dropped.
    ///
    /// # Errors
    /// [`Elapsed`] when the limit passed first.
    pub async fn timeout<T>(&self, limit: Duration, work: impl Future<Output = T>) -> Result<T, Elapsed> {
        tokio::time::timeout(limit, work).await.map_err(|_| Elapsed(limit))
    }

    /// Blocks the calling thread: only for threads that run no async code.
    pub fn block(&self, duration: Duration) {
        std::thread::sleep(duration);
    }
}

/// The time since the machine's start, its sleeps included.
fn since_machine_start() -> Duration {
    let at = clock_gettime(ClockId::Boottime);
    Duration::new(u64::try_from(at.tv_sec).unwrap_or(0), u32::try_from(at.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Child, Command, Stdio};

    use super::*;

    const SLEEP: Duration = Duration::from_secs(8 * 3_600);

    /// A process in whose time the machine has slept for so long; `None` where that is not permitted.
    fn sleeper() -> Option<Child> {
        [&[][..], &["-r"]].into_iter().find_map(|how| {
            let mut command = Command::new("unshare");
            command.args(how).args(["--time", "--boottime", &SLEEP.as_secs().to_string(), "cat"]);
            let mut child =
                command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
            // It is in its namespace as soon as `cat` answers.
            child.stdin.as_mut()?.write_all(b"there?\n").ok()?;
            let answer = BufReader::new(child.stdout.take()?).lines().next();
            answer.is_some_and(|line| line.is_ok()).then_some(child)
        })
    }

    /// The process under test moves to where the machine has slept, as if that had just happened.
    #[test]
    fn a_clock_has_gone_on_when_the_machine_wakes_from_sleep() {
        let Some(mut sleeper) = sleeper() else {
            println!("time namespaces are not permitted here");
            return;
        };
        let deps = std::env::current_exe().unwrap();
        let program = deps.parent().unwrap().parent().unwrap().join("examples/clock_across_sleep");
        assert!(program.is_file(), "{} is not built: run all of this crate's tests", program.display());
        let ran = Command::new(&program).arg(sleeper.id().to_string()).output().unwrap();
        sleeper.kill().and_then(|()| sleeper.wait()).unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        let said = String::from_utf8(ran.stdout).unwrap();
        let moved: Vec<u64> = said.split_whitespace().map(|word| word.parse().unwrap()).collect();
        let [moved, of_a_new_clock] = moved[..] else { panic!("{said}") };
        assert!((SLEEP.as_secs()..SLEEP.as_secs() + 60).contains(&moved), "moved by {moved} s");
        assert_eq!(of_a_new_clock, 0, "the origin is wall time, which is the same everywhere");
    }

    #[tokio::test]
    async fn nothing_wakes_before_its_time() {
        let clock = Clock::system();
        for millis in [0, 1, 3, 7] {
            let at = clock.now().plus(Duration::from_millis(millis));
            clock.sleep_until(at).await;
            let now = clock.now();
            assert!(now >= at, "{now} is before {at}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn paused_time_moves_only_by_sleeping() {
        let clock = Clock::starting_at(Stamp::from_micros(5));
        clock.sleep(Duration::from_secs(3_600)).await;
        assert_eq!(clock.now(), Stamp::from_micros(3_600_000_005));
        let late = clock.timeout(Duration::from_millis(2), std::future::pending::<()>()).await;
        assert_eq!(late, Err(Elapsed(Duration::from_millis(2))));
    }
}
