use std::time::Duration;

use super::{Form, Length};

/// What limits runs of a workflow besides themselves.
#[derive(Debug)]
pub(crate) struct RunLimits {
    /// At most so many with the same key go on at a time.
    pub(crate) slots: Option<(u32, Option<Form>)>,
    /// At most so many with the same key begin within so much time.
    pub(crate) rate: Option<(u32, Duration, Option<Form>)>,
    /// How long one may wait for that.
    pub(crate) queue_timeout: Option<Length>,
    /// Between whom runs take turns.
    pub(crate) fairness: Option<Form>,
}
