//! What the runner does next, and what its steps lead to. Pure: what is on disk, what the server and the
//! operating system have said, go in; the next step or the next state of the record comes out.
//!
//! How the run ends for the server is in [`super::outcome`], and how it is told in [`super::tell`].

use std::time::Duration;

use crate::phase::Phase;
use crate::record::{AbortIntent, AbortReason, Failure, RunRecord, SCHEMA, Verdict};

/// What is to be done in a phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Build code and environment from the beginning.
    Prepare {
        /// An earlier runner has begun that.
        again: bool,
    },
    /// See to it that one shim has claimed the run.
    Launch,
    /// Wait for the end of the shim, or bring it about.
    Supervise,
    /// Decide the outcome, and wait until the console is on the server.
    Conclude,
    /// Tell the server.
    Report,
    /// Remove what only a living run needs.
    Finish,
    /// Nothing is left to do.
    Done,
    /// It is not the runner's turn.
    NotReady(Phase),
}

/// The step of a phase.
#[must_use]
pub fn next_step(phase: Phase) -> Step {
    match phase {
        Phase::Claimed => Step::Prepare { again: false },
        Phase::Preparing => Step::Prepare { again: true },
        Phase::Launching => Step::Launch,
        Phase::Running => Step::Supervise,
        Phase::Exited => Step::Conclude,
        Phase::Shipped => Step::Report,
        Phase::Reported => Step::Finish,
        Phase::Done => Step::Done,
        Phase::Popping | Phase::Popped | Phase::Abandoned => Step::NotReady(phase),
    }
}

/// What the record of a run becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Becomes {
    /// It comes to this phase.
    Phase(Phase),
    /// There will be no (more) user code, for this reason.
    Failed(Failure),
}

impl Becomes {
    /// Changes the record.
    pub fn apply(&self, record: &mut RunRecord) {
        match self {
            Self::Phase(phase) => record.phase = *phase,
            Self::Failed(failure) => {
                record.failure = Some(failure.clone());
                record.phase = Phase::Exited;
            }
        }
    }
}

/// How the preparation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prepared {
    /// `launch.json` is there.
    Ready,
    /// The task can't be run.
    Failed(Failure),
    /// The task is not to be run; the reason has been announced, and is to be written down first.
    Aborted,
}

impl Prepared {
    /// What that makes of the run.
    #[must_use]
    pub fn becomes(self) -> Becomes {
        match self {
            Self::Ready => Becomes::Phase(Phase::Launching),
            Self::Failed(failure) => Becomes::Failed(failure),
            Self::Aborted => Becomes::Phase(Phase::Exited),
        }
    }
}

/// What a runner does in phase [`Phase::Launching`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Launching {
    /// User code may be running already: look after it.
    Supervise,
    /// Ask the server whether the task may still start.
    Ask,
    /// Start a shim.
    Start,
    /// Claim the run, so that no shim that is still under way can; then end it, for this reason if there is one.
    Claim(Option<Failure>),
    /// Look again for the claim.
    Wait,
}

/// The beginning: whether some shim has claimed the run.
#[must_use]
pub fn launching(claimed: bool) -> Launching {
    if claimed {
        Launching::Supervise
    } else {
        Launching::Ask
    }
}

/// The server has answered, and `wish` is the reason to abort, if there is one by now.
#[must_use]
pub fn may_launch(goes_on: bool, wish: Option<AbortReason>) -> Launching {
    if goes_on && wish.is_none() {
        Launching::Start
    } else {
        Launching::Claim(None)
    }
}

/// A shim was started. `ended`, asked before `claimed`, is what is known of one that has ended.
#[must_use]
pub fn shim_started(ended: Option<&str>, claimed: bool) -> Launching {
    match ended {
        _ if claimed => Launching::Supervise,
        None => Launching::Wait,
        Some(how) => no_shim(format!("the process supervisor ended at once {how}")),
    }
}

/// A shim could not be started, or has ended before it did anything. One that an earlier runner has started
/// may still be under way, so the run has to be claimed before it is given up.
#[must_use]
pub fn no_shim(text: String) -> Launching {
    Launching::Claim(Some(Failure {
        over: true,
        ..Failure::infrastructure(text)
    }))
}

/// The runner has tried to claim the run: `ours` = it has. Otherwise a shim was faster, and user code runs.
#[must_use]
pub fn claimed_to_end(ours: bool, failure: Option<Failure>) -> Becomes {
    match (ours, failure) {
        (false, _) => Becomes::Phase(Phase::Running),
        (true, None) => Becomes::Phase(Phase::Exited),
        (true, Some(failure)) => Becomes::Failed(failure),
    }
}

/// What is to be done when the shim is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gone {
    /// The record becomes this.
    Known(Becomes),
    /// It was killed: kill what it has left, then ask [`leftovers_killed`].
    KillLeftovers,
}

/// The shim that had claimed the run in boot `claim_boot` is gone. `boot` is the present one.
#[must_use]
pub fn shim_gone(has_verdict: bool, claim_boot: &str, boot: Option<&str>) -> Gone {
    if has_verdict {
        Gone::Known(Becomes::Phase(Phase::Exited))
    } else if boot.is_some_and(|boot| boot != claim_boot) {
        Gone::Known(Becomes::Failed(Failure {
            over: true,
            ..Failure::infrastructure("the machine was restarted while the task was running")
        }))
    } else {
        Gone::KillLeftovers
    }
}

/// After [`Gone::KillLeftovers`]: `all` = nothing is left.
#[must_use]
pub fn leftovers_killed(all: bool) -> Becomes {
    Becomes::Failed(Failure {
        over: all,
        ..Failure::infrastructure("the process supervisor was killed, so how the task ended is unknown")
    })
}

/// What to write down before a task is aborted, if nothing was: the first reason stands.
#[must_use]
pub fn abort_to_note(
    known: Option<&AbortIntent>,
    wish: Option<AbortReason>,
    now_ms: i64,
) -> Option<AbortIntent> {
    match (known, wish) {
        (None, Some(reason)) => Some(AbortIntent {
            schema: SCHEMA,
            reason,
            decided_ms: now_ms,
        }),
        _ => None,
    }
}

/// Why the run was stopped, if it was. `wish` is in the memory of this runner only: it counts where the disk did
/// not take it, but not where the program has ended before anybody acted on it.
#[must_use]
pub fn stopped_by(
    noted: Option<AbortReason>,
    wish: Option<AbortReason>,
    verdict: Option<&Verdict>,
    failure: Option<&Failure>,
) -> Option<AbortReason> {
    let stopped = match verdict {
        Some(verdict) => verdict.aborted,
        None => failure.is_none(),
    };
    noted.or(wish.filter(|_| stopped))
}

/// How a shipper that has failed goes on.
#[derive(Debug)]
pub struct ShipPatience {
    failures: u32,
    pause: Duration,
}

impl Default for ShipPatience {
    fn default() -> Self {
        Self {
            failures: 0,
            pause: Self::FIRST,
        }
    }
}

impl ShipPatience {
    const FIRST: Duration = Duration::from_secs(1);
    const LONGEST: Duration = Duration::from_secs(10);
    /// Failures in a row; with the pauses between them, several minutes.
    const ATTEMPTS: u32 = 30;
    /// A shipper that has worked this long has got somewhere; its failure starts a new row.
    const WORKED_WELL: Duration = Duration::from_secs(60);

    /// It has failed after working for some time. Gives the pause before the next attempt; `None` = the rest of
    /// the console is not sent. A full disk may have room again at any time, and what it holds is not lost until
    /// then.
    pub fn failed(&mut self, worked: Duration, lack_of_space: bool) -> Option<Duration> {
        if worked > Self::WORKED_WELL {
            *self = Self::default();
        }
        if !lack_of_space {
            self.failures += 1;
        }
        if self.failures >= Self::ATTEMPTS {
            return None;
        }
        let pause = self.pause;
        self.pause = (self.pause * 2).min(Self::LONGEST);
        Some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_claimed_before_it_is_given_up() {
        let Launching::Claim(Some(failure)) = shim_started(Some("(exit 1)"), false) else {
            panic!("a shim of an earlier runner may still come");
        };
        assert_eq!(
            claimed_to_end(false, Some(failure.clone())),
            Becomes::Phase(Phase::Running)
        );
        assert_eq!(
            claimed_to_end(true, Some(failure.clone())),
            Becomes::Failed(failure)
        );
        assert_eq!(shim_started(Some("(exit 3)"), true), Launching::Supervise);
        assert_eq!(
            may_launch(true, Some(AbortReason::Stopped)),
            Launching::Claim(None)
        );
    }

    #[test]
    fn only_a_disk_that_refuses_is_waited_for_without_end() {
        let mut patience = ShipPatience::default();
        for _ in 0..100 {
            assert!(patience.failed(Duration::ZERO, true).is_some());
        }
        let failed = (0..100).take_while(|_| patience.failed(Duration::ZERO, false).is_some());
        assert_eq!(failed.count(), 29);
    }
}
