//! How often to ask, and how to step back after errors. Pure: time is an argument.

use std::time::Duration;

/// The shortest pause after an error.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// The longest pause after errors, unless the poll interval itself is longer.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Counts failures in a row and says how long to leave something alone.
///
/// The pauses double from half a second to ten seconds: a server that comes back is noticed soon, one
/// that is overloaded is not hammered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Notes a failure. Returns the pause before the next attempt.
    pub fn failed(&mut self) -> Duration {
        let pause = FIRST_PAUSE
            .saturating_mul(1 << self.failures.min(8))
            .min(LONGEST_PAUSE);
        self.failures = self.failures.saturating_add(1);
        pause
    }

    /// Notes a success. Returns whether it ended a row of failures.
    pub fn succeeded(&mut self) -> bool {
        std::mem::take(&mut self.failures) > 0
    }

    /// Whether the last attempt failed.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.failures > 0
    }
}

/// A [`Backoff`] that remembers until when it holds, on any monotonic clock.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Paused {
    backoff: Backoff,
    until: Option<Duration>,
}

impl Paused {
    /// Notes a failure at `now`. Returns whether it is the first in a row, the one worth reporting.
    pub fn failed(&mut self, now: Duration) -> bool {
        let first = !self.backoff.is_failing();
        self.until = Some(now + self.backoff.failed());
        first
    }

    /// Notes a success. Returns whether it ended a row of failures.
    pub fn succeeded(&mut self) -> bool {
        self.until = None;
        self.backoff.succeeded()
    }

    /// Whether the last attempt failed.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.backoff.is_failing()
    }

    /// Whether an attempt may be made at `now`.
    #[must_use]
    pub fn is_due(&self, now: Duration) -> bool {
        self.until.is_none_or(|until| now >= until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_start_over_after_a_success() {
        let mut backoff = Backoff::default();
        let pauses: Vec<u128> = (0..7).map(|_| backoff.failed().as_millis()).collect();
        assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 10_000, 10_000]);
        assert!(backoff.succeeded());
        assert!(!backoff.succeeded());
        assert_eq!(backoff.failed(), FIRST_PAUSE);
    }

    #[test]
    fn an_hour_of_errors_costs_few_requests_and_one_report() {
        let mut queue = Paused::default();
        let (mut attempts, mut reports) = (0, 0);
        for second in 0..3600 {
            let now = Duration::from_secs(second);
            if queue.is_due(now) {
                attempts += 1;
                reports += u32::from(queue.failed(now));
            }
        }
        assert_eq!(reports, 1);
        assert!(attempts < 3600 / 10 + 10, "{attempts}");
        assert!(queue.succeeded() && queue.is_due(Duration::ZERO));
    }
}
