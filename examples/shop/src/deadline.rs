//! How long a request may still take. Whoever asks says so; work that nobody waits for any more is not begun.

use std::time::Duration;

use axum::http::HeaderMap;
use tokio::time::Instant;

/// The header that carries the time left, in milliseconds.
pub const HEADER: &str = "standfast-deadline";

const DEFAULT: Duration = Duration::from_millis(2_000);
const MAX: Duration = Duration::from_secs(60);
const ATTEMPT_MIN: Duration = Duration::from_millis(250);

/// The moment at which the answer is worth nothing any more.
#[derive(Debug, Clone, Copy)]
pub struct Deadline(Instant);

impl Deadline {
    /// The deadline after `left`, at most a minute away. A twentieth is kept back for the answer's way home.
    pub fn after(left: Duration) -> Self {
        let left = left.min(MAX);
        Self(Instant::now() + (left - left / 20))
    }

    /// What the request's `Standfast-Deadline` says, or two seconds when it says nothing legible.
    pub fn of_request(headers: &HeaderMap) -> Self {
        let stated = headers.get(HEADER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        Self::after(stated.map_or(DEFAULT, Duration::from_millis))
    }

    /// The time left; zero when it has passed.
    pub fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// What one attempt of a call may take: half of the time left, so that a silent peer leaves time for another attempt.
    /// `None` when the time is up.
    pub fn attempt(self) -> Option<Duration> {
        let left = self.left();
        (left >= Duration::from_millis(1)).then(|| left.min(ATTEMPT_MIN.max(left / 2)))
    }

    /// The same as a moment.
    pub fn moment(self) -> Instant {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn stated(text: &'static str) -> Deadline {
        Deadline::of_request(&HeaderMap::from_iter([(
            axum::http::HeaderName::from_static(HEADER),
            HeaderValue::from_static(text),
        )]))
    }

    #[tokio::test(start_paused = true)]
    async fn the_stated_time_counts_less_the_way_home() {
        assert_eq!(stated("1000").left(), Duration::from_millis(950));
        assert_eq!(Deadline::of_request(&HeaderMap::new()).left(), Duration::from_millis(1_900));
        assert_eq!(stated("soon").left(), Duration::from_millis(1_900));
        assert_eq!(stated("99999999").left(), Duration::from_millis(57_000));
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_takes_half_of_what_is_left() {
        let deadline = stated("1000");
        assert_eq!(deadline.attempt(), Some(Duration::from_millis(475)));
        tokio::time::advance(Duration::from_millis(800)).await;
        assert_eq!(deadline.attempt(), Some(Duration::from_millis(150)));
        tokio::time::advance(Duration::from_millis(150)).await;
        assert_eq!(deadline.attempt(), None);
        assert_eq!(stated("0").attempt(), None);
    }
}
