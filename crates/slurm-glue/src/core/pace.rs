//! How often Slurm is asked: a slow or silent controller less often.

use std::time::Duration;

/// A controller that takes longer for its listing has too much to do.
const SLOW: Duration = Duration::from_secs(1);

/// The longest pause, and how much longer than usual it gets: whoever wants short pauses misses an outage's end soon.
const LONGEST: Duration = Duration::from_secs(120);
const MOST: u32 = 8;

/// So many good answers in a row, and everything is as usual again.
const GOOD: u32 = 3;

/// The pause between two listings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    usual: Duration,
    factor: u32,
    good: u32,
}

impl Pace {
    /// Begins with the usual pause.
    #[must_use]
    pub fn new(usual: Duration) -> Self {
        Self {
            usual,
            factor: 1,
            good: 0,
        }
    }

    /// Slurm was asked.
    pub fn polled(&mut self, took: Duration, answered: bool) {
        if !answered || took > SLOW {
            self.factor = (self.factor * 2).min(MOST);
            self.good = 0;
        } else {
            self.good += 1;
            if self.good >= GOOD {
                self.factor = 1;
            }
        }
    }

    /// From the beginning of one listing to that of the next.
    #[must_use]
    pub fn pause(&self) -> Duration {
        (self.usual * self.factor).min(LONGEST.max(self.usual))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_controller_is_asked_less_often_until_it_is_well_again() {
        let second = Duration::from_secs;
        let mut pace = Pace::new(second(15));
        let mut pauses = Vec::new();
        for (took, answered) in [(0, true), (2, true), (0, false), (2, true), (9, true)] {
            pace.polled(second(took), answered);
            pauses.push(pace.pause().as_secs());
        }
        assert_eq!(pauses, [15, 30, 60, 120, 120]);
        for expected in [120, 120, 15, 15] {
            pace.polled(second(0), true);
            assert_eq!(pace.pause().as_secs(), expected);
        }
        let mut pace = Pace::new(second(300));
        pace.polled(second(9), true);
        assert_eq!(pace.pause(), second(300), "never more often than usual");
    }
}
