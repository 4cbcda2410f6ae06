//! When a call is repeated and after what wait. Pure: no clock, no randomness, no I/O.

use std::time::Duration;

use crate::error::ApiError;

/// Waits between attempts, and how patient the very first login is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Longest wait before the first repetition; it doubles with every further one.
    pub base: Duration,
    /// No wait of our own is longer than this.
    pub cap: Duration,
    /// A server's `Retry-After` is honoured up to this.
    pub max_retry_after: Duration,
    /// How often the first login is repeated while the server cannot be reached; `None` waits for
    /// ever. Once a login has succeeded, this no longer matters.
    pub initial_retries: Option<u32>,
    /// How often one call is repeated after the first login; without limits until an answer comes.
    pub limits: RetryLimits,
    /// Whether maintenance of the server (503) is waited out whatever the limits say. Otherwise it counts
    /// as a status, and without a limit for these [`MAINTENANCE_RETRIES`] is the limit.
    pub wait_on_maintenance_forever: bool,
}

/// Repetitions of a 503 when maintenance is not waited out for ever.
pub const MAINTENANCE_RETRIES: u32 = 240;

/// How often one call is repeated, in all and by cause. `None` = as often as it takes. A call that reaches
/// a limit fails with the error of its last attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RetryLimits {
    /// Repetitions for any cause.
    pub total: Option<u32>,
    /// Repetitions because no connection could be made.
    pub connect: Option<u32>,
    /// Repetitions because no usable answer came.
    pub read: Option<u32>,
    /// Repetitions because the server or a gateway answered that it cannot at the moment.
    pub status: Option<u32>,
}

/// The failures of one call so far.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    /// All of them; decides the length of the next wait.
    pub(crate) all: u32,
    counted: u32,
    connect: u32,
    read: u32,
    status: u32,
}

impl Failures {
    /// Counts a failure and says whether the policy allows another attempt.
    pub(crate) fn add(&mut self, error: &ApiError, policy: &RetryPolicy) -> bool {
        self.all = self.all.saturating_add(1);
        let maintenance = error.code().is_some_and(|(code, _)| code == 503);
        if maintenance && policy.wait_on_maintenance_forever {
            return true;
        }
        let limits = &policy.limits;
        let (count, limit) = match cause(error) {
            Cause::Connect => (&mut self.connect, limits.connect),
            Cause::Read => (&mut self.read, limits.read),
            Cause::Status if maintenance => (
                &mut self.status,
                Some(limits.status.unwrap_or(MAINTENANCE_RETRIES)),
            ),
            Cause::Status => (&mut self.status, limits.status),
        };
        *count = count.saturating_add(1);
        self.counted = self.counted.saturating_add(1);
        limit.is_none_or(|limit| *count <= limit) && limits.total.is_none_or(|limit| self.counted <= limit)
    }
}

enum Cause {
    Connect,
    Read,
    Status,
}

fn cause(error: &ApiError) -> Cause {
    match error {
        ApiError::Connect { .. } | ApiError::Tls { .. } => Cause::Connect,
        ApiError::Status { .. } => Cause::Status,
        ApiError::Login { source, .. } => cause(source),
        _ => Cause::Read,
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            base: Duration::from_millis(500),
            cap: Duration::from_secs(10),
            max_retry_after: Duration::from_secs(60),
            initial_retries: Some(4),
            limits: RetryLimits::default(),
            wait_on_maintenance_forever: true,
        }
    }
}

impl RetryPolicy {
    /// The wait after the `failures`-th failure in a row (1 = the first). `unit` is a random number
    /// from 0 to 1: many agents that lost the same server must not come back in step, so only half of
    /// the wait is fixed.
    #[must_use]
    pub fn delay(&self, failures: u32, retry_after: Option<Duration>, unit: f64) -> Duration {
        let unit = unit.clamp(0.0, 1.0);
        if let Some(asked) = retry_after {
            return asked.min(self.max_retry_after) + self.base.mul_f64(unit);
        }
        let doublings = failures.saturating_sub(1).min(31);
        let full = self.base.saturating_mul(1 << doublings).min(self.cap);
        full / 2 + (full / 2).mul_f64(unit)
    }

    /// Whether an absent server is waited for, however long that takes, before the first login.
    pub(crate) fn waits_for_ever_at_first(&self) -> bool {
        self.initial_retries.or(self.limits.total).is_none()
    }

    /// Whether the first login is tried again after its `failures`-th failure.
    pub(crate) fn waits_for_first_login(&self, failures: u32, error: &ApiError) -> bool {
        // A certificate or a web page in the wrong place is a matter of configuration; waiting for it
        // only delays the message.
        let may_come_up =
            repeatable(error) && !matches!(error, ApiError::Tls { .. } | ApiError::Protocol { .. });
        let broken_for_now = self.initial_retries.is_none() && error.is_transient();
        let limit = self.initial_retries.or(self.limits.total);
        (may_come_up || broken_for_now) && limit.is_none_or(|limit| failures <= limit)
    }
}

/// Whether a call that is safe to repeat is repeated after this error. An internal server error (500)
/// is not: it usually means that this very request upsets the server, and the caller decides.
pub(crate) fn repeatable(error: &ApiError) -> bool {
    match error {
        ApiError::Status { http: 500, .. } => false,
        ApiError::Login { source, .. } => repeatable(source),
        other => other.is_transient(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::Interruption;

    fn status(http: u16) -> ApiError {
        ApiError::Status {
            endpoint: "tasks.get_all".into(),
            http,
            code: http,
            subcode: 0,
            message: String::new(),
            retry_after: None,
            enveloped: true,
        }
    }

    fn ambiguous(cause: Interruption) -> ApiError {
        ApiError::Ambiguous {
            endpoint: "e".into(),
            server: "s".into(),
            cause,
            reason: "r".into(),
        }
    }

    fn protocol() -> ApiError {
        ApiError::Protocol {
            endpoint: "e".into(),
            server: "s".into(),
            reason: "HTML".into(),
        }
    }

    fn connect() -> ApiError {
        ApiError::Connect {
            endpoint: "e".into(),
            server: "s".into(),
            reason: "refused".into(),
        }
    }

    #[test]
    fn what_is_repeated_and_what_is_certain() {
        let login = |source| ApiError::Login {
            endpoint: "e".into(),
            source: Box::new(source),
        };
        // (error, repeated by the client, transient, certainly not applied)
        let table = [
            (connect(), true, true, true),
            (ambiguous(Interruption::Timeout), true, true, false),
            (ambiguous(Interruption::Disconnected), true, true, false),
            (ambiguous(Interruption::Truncated), true, true, false),
            (protocol(), true, true, false),
            (status(400), false, false, true),
            (status(404), false, false, true),
            (status(408), true, true, false),
            (status(413), false, false, true),
            (status(429), true, true, true),
            (status(500), false, true, false),
            (status(502), true, true, false),
            (status(503), true, true, true),
            (status(504), true, true, false),
            (status(509), true, true, true),
            (login(connect()), true, true, true),
            (login(ambiguous(Interruption::Timeout)), true, true, true),
            (login(status(500)), false, true, true),
        ];
        for (error, repeated, transient, not_applied) in table {
            assert_eq!(repeatable(&error), repeated, "repeatable {error:?}");
            assert_eq!(error.is_transient(), transient, "transient {error:?}");
            assert_eq!(error.was_not_applied(), not_applied, "not applied {error:?}");
        }
    }

    #[test]
    fn an_unclear_answer_becomes_ambiguous_and_a_clear_one_stays() {
        for (error, expected) in [
            (status(500), Some(Interruption::Gateway(500))),
            (status(502), Some(Interruption::Gateway(502))),
            (status(504), Some(Interruption::Gateway(504))),
            (protocol(), Some(Interruption::Unreadable)),
            (status(503), None),
            (status(429), None),
            (status(400), None),
            (connect(), None),
        ] {
            match (error.or_ambiguous("s"), expected) {
                (ApiError::Ambiguous { cause, .. }, Some(expected)) => assert_eq!(cause, expected),
                (ApiError::Ambiguous { .. }, None) => panic!("a clear answer was called ambiguous"),
                (other, expected) => assert!(expected.is_none(), "{other:?}"),
            }
        }
    }

    #[test]
    fn first_login_fails_fast_unless_told_otherwise() {
        let fast = RetryPolicy::default();
        assert!(fast.waits_for_first_login(4, &connect()));
        assert!(!fast.waits_for_first_login(5, &connect()));
        assert!(!fast.waits_for_first_login(1, &protocol()));
        assert!(!fast.waits_for_first_login(1, &status(500)));
        let patient = RetryPolicy {
            initial_retries: None,
            ..RetryPolicy::default()
        };
        assert!(patient.waits_for_first_login(1000, &connect()));
        assert!(patient.waits_for_first_login(1000, &status(500)));
        assert!(patient.waits_for_first_login(1000, &protocol()));
        assert!(!patient.waits_for_first_login(1, &status(400)));
    }

    #[test]
    fn limits_count_by_cause_and_maintenance_is_a_cause_of_its_own() {
        let limits = |total, connect, read, status| RetryLimits {
            total,
            connect,
            read,
            status,
        };
        let timeout = || ambiguous(Interruption::Timeout);
        // (limits, maintenance for ever, failures in order, whether each may be followed by another attempt)
        let table: [(RetryLimits, bool, Vec<ApiError>, &[bool]); 6] = [
            (
                limits(None, None, None, None),
                true,
                vec![connect(), timeout(), status(502)],
                &[true; 3],
            ),
            (
                limits(Some(2), None, None, None),
                true,
                vec![connect(), timeout(), status(502)],
                &[true, true, false],
            ),
            (
                limits(None, Some(1), None, None),
                true,
                vec![connect(), status(502), connect()],
                &[true, true, false],
            ),
            (
                limits(None, None, Some(0), None),
                true,
                vec![connect(), timeout()],
                &[true, false],
            ),
            (
                limits(Some(1), None, None, Some(0)),
                true,
                vec![status(503), status(503), status(429)],
                &[true, true, false],
            ),
            (
                limits(None, None, None, Some(1)),
                false,
                vec![status(503), status(503)],
                &[true, false],
            ),
        ];
        for (limits, wait_on_maintenance_forever, errors, expected) in table {
            let policy = RetryPolicy {
                limits,
                wait_on_maintenance_forever,
                ..RetryPolicy::default()
            };
            let mut failures = Failures::default();
            let allowed: Vec<bool> = errors.iter().map(|error| failures.add(error, &policy)).collect();
            assert_eq!(allowed, expected, "{limits:?}");
        }
        let policy = RetryPolicy {
            wait_on_maintenance_forever: false,
            ..RetryPolicy::default()
        };
        let mut failures = Failures::default();
        let allowed = (0..300)
            .take_while(|_| failures.add(&status(503), &policy))
            .count();
        assert_eq!(allowed, 240);
    }

    proptest! {
        #[test]
        fn waits_are_bounded_and_never_zero(failures in 1u32..10_000, unit in 0.0f64..=1.0) {
            let policy = RetryPolicy::default();
            let wait = policy.delay(failures, None, unit);
            prop_assert!(wait <= policy.cap);
            prop_assert!(wait >= policy.base / 2);
            // Whatever the dice say, a later wait is never shorter than half of an earlier one.
            prop_assert!(policy.delay(failures + 1, None, 0.0) >= wait / 2);
        }

        #[test]
        fn the_servers_wish_is_a_lower_bound(failures in 1u32..100, asked_ms in 0u64..600_000, unit in 0.0f64..=1.0) {
            let policy = RetryPolicy::default();
            let asked = Duration::from_millis(asked_ms);
            let wait = policy.delay(failures, Some(asked), unit);
            prop_assert!(wait >= asked.min(policy.max_retry_after));
            prop_assert!(wait <= policy.max_retry_after + policy.base);
        }
    }
}
