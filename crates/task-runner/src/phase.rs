//! The phases of a run: the order in which a task travels through the agent, as it is written down.

use serde::{Deserialize, Serialize};

/// How far a run has come. Phases only move forward, so a crash between two of them repeats at most
/// the step that was under way; each step is safe to repeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The intent to pop the task is recorded; the pop may or may not have happened.
    Popping,
    /// The server has handed the task to us.
    Popped,
    /// The task carries our owner mark and is `in_progress`. The runner takes over from here.
    Claimed,
    /// Code and environment are being built; no user code has started.
    Preparing,
    /// `launch.json` is complete; a shim may or may not have been started.
    Launching,
    /// A shim has claimed the run; user code may be running.
    Running,
    /// There will be no more output; the outcome is known.
    Exited,
    /// The server has the whole console.
    Shipped,
    /// The server has the final status, or has said that it wants none.
    Reported,
    /// Nothing is left to do; what remains in the folder is for people.
    Done,
    /// The task was given back or was never ours.
    Abandoned,
}

impl Phase {
    /// All of them, in order.
    pub const ALL: [Self; 11] = [
        Self::Popping,
        Self::Popped,
        Self::Claimed,
        Self::Preparing,
        Self::Launching,
        Self::Running,
        Self::Exited,
        Self::Shipped,
        Self::Reported,
        Self::Done,
        Self::Abandoned,
    ];

    /// Its name in files and displays.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Popping => "popping",
            Self::Popped => "popped",
            Self::Claimed => "claimed",
            Self::Preparing => "preparing",
            Self::Launching => "launching",
            Self::Running => "running",
            Self::Exited => "exited",
            Self::Shipped => "shipped",
            Self::Reported => "reported",
            Self::Done => "done",
            Self::Abandoned => "abandoned",
        }
    }

    /// Whether a run may go from this phase to `next`. Staying is allowed, because a replaced runner
    /// repeats its step; going back never is. Only a run without user code can be abandoned.
    #[must_use]
    pub fn may_become(self, next: Self) -> bool {
        match (self, next) {
            (Self::Done | Self::Abandoned, _) => self == next,
            (_, Self::Abandoned) => self < Self::Launching,
            _ => next >= self,
        }
    }

    /// Whether nothing is left to do.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::Abandoned)
    }

    /// Whether it is the runner's turn: the task is claimed and not finished.
    #[must_use]
    pub fn belongs_to_runner(self) -> bool {
        self >= Self::Claimed && !self.is_final()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_is_called_the_same_everywhere() {
        for phase in Phase::ALL {
            assert_eq!(serde_json::to_value(phase).unwrap(), phase.as_str());
        }
    }

    #[test]
    fn phases_never_go_back_and_final_ones_stay() {
        use Phase::*;
        let all = [
            Popping, Popped, Claimed, Preparing, Launching, Running, Exited, Shipped, Reported, Done,
        ];
        for (i, from) in all.iter().enumerate() {
            for (j, to) in all.iter().enumerate() {
                let expected = if *from == Done { i == j } else { j >= i };
                assert_eq!(from.may_become(*to), expected, "{from:?} -> {to:?}");
            }
            assert!(!Abandoned.may_become(*from));
        }
        assert!(Claimed.may_become(Abandoned));
        assert!(!Running.may_become(Abandoned), "user code may be running");
    }
}
