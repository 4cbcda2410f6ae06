//! How many jobs there may be.

/// Limits on jobs; 0 means none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Waiting and running jobs.
    pub max_jobs: usize,
    /// Waiting jobs.
    pub max_pending: usize,
}

/// Jobs that count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// Waiting and running ones.
    pub jobs: usize,
    /// Waiting ones.
    pub pending: usize,
}

impl Limits {
    /// Whether one more job may be submitted.
    #[must_use]
    pub fn has_room(self, count: Count) -> bool {
        let below = |limit: usize, count: usize| limit == 0 || count < limit;
        below(self.max_jobs, count.jobs) && below(self.max_pending, count.pending)
    }
}

/// The pause of a queue after the cluster has refused another job: it doubles up to ten minutes.
#[must_use]
pub fn pause_sec(refusals_in_a_row: u32) -> u64 {
    (30u64 << refusals_in_a_row.saturating_sub(1).min(10)).min(600)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_reached_by_either_count() {
        let limits = Limits {
            max_jobs: 3,
            max_pending: 2,
        };
        for (jobs, pending, room) in [(0, 0, true), (2, 1, true), (3, 0, false), (2, 2, false)] {
            assert_eq!(limits.has_room(Count { jobs, pending }), room, "{jobs} {pending}");
        }
        assert!(Limits::default().has_room(Count {
            jobs: 100_000,
            pending: 100_000
        }));
        assert_eq!([1, 2, 3, 6, 60].map(pause_sec), [30, 60, 120, 600, 600]);
    }
}
