//! The numbers that the planner and its loop go by. They are constants since nothing in a stack has needed another value yet.

use std::time::Duration;

use standfast_runtime::Backoff;

/// From "gets no new requests" to "is stopped": long enough for a gateway to hear of it and for requests under way to end.
pub const DRAIN: Duration = Duration::from_secs(1);

/// A replica that served for less than this before it ended counts as a quick failure, and one that failed quickly before
/// counts as ready again only after it has served for this long.
pub const QUICK: Duration = Duration::from_secs(1);

/// Quick failures in a row from which on a replica is in a crash loop. A new revision in a crash loop pauses its rollout.
pub const CRASH_LOOP: u32 = 3;

/// Waits before the second, third, … new attempt after quick failures; the first new attempt starts at once.
pub(crate) const RESTART: Backoff =
    Backoff { base: Duration::from_millis(100), cap: Duration::from_secs(30) };

/// From this many replicas on, the observer is suspected when more than half of them look dead without proof.
pub(crate) const SUSPECT_MIN: usize = 4;

/// Blueprints, stacks and events that the store keeps; older ones are removed.
pub const HISTORY_MAX: u64 = 200;

/// The loop looks at the world at least this often, whatever wakes it.
pub const PERIOD: Duration = Duration::from_secs(5);

/// How long an answer of the platform is waited for.
pub(crate) const PLATFORM_TIMEOUT: Duration = Duration::from_secs(10);

/// Waits after the platform or the store failed.
pub(crate) const RETRY: Backoff = Backoff { base: Duration::from_millis(50), cap: Duration::from_secs(2) };

/// Commits lost to another control in one tick before the loop waits for its next wake.
pub(crate) const RACES_MAX: u32 = 8;

/// Commands that wait for the loop; a caller beyond that waits for room.
pub(crate) const COMMANDS_MAX: usize = 32;

/// Steps and waits that an event in the store keeps; of the others it keeps the number.
pub(crate) const EVENT_STEPS_MAX: usize = 50;

/// Lines of a replica's last output that are kept.
pub(crate) const OUTPUT_LINES_MAX: usize = 20;

/// Characters of such a line that are kept.
pub(crate) const OUTPUT_CHARS_MAX: usize = 400;

/// Services that are no longer in the stack whose attempt numbers are kept one by one; beyond that, all new services count
/// from the highest of them.
pub(crate) const REMOVED_SERVICES_MAX: usize = 256;
