//! What a daemon does about the runs that it finds or has in hand. Pure: what is on the disk, which locks are held
//! and how much time has passed go in.

use std::collections::BTreeMap;
use std::time::Duration;

use clearml_intake::pop::Phase as PopPhase;
use clearml_task_runner::record::{Failure, Verdict};
use clearml_task_runner::{Phase, RunRecord};

/// A runner that has lived this long has done something; its death starts a new count.
const LIVED: Duration = Duration::from_secs(10);
/// So many runners in a row that got nowhere: the next one would not either.
pub const MOST_DEATHS: u32 = 10;

/// What follows the end of a runner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterRunner {
    /// The run is done; the exit code of the user's program, if it ran.
    Done(Option<i32>),
    /// The runner was told to end. The next daemon goes on.
    LeaveForLater,
    /// No runner can live: fail the task.
    GiveUp,
    /// Start another one after this pause.
    Another(Duration),
}

/// Counts runners that got nowhere.
#[derive(Debug, Default)]
pub struct Deaths(u32);

impl Deaths {
    /// A runner has ended that began in phase `before` and has `lived` so long. `stopping`: runners have been told
    /// to end.
    pub fn runner_ended(
        &mut self,
        before: Phase,
        after: &RunRecord,
        lived: Duration,
        stopping: bool,
    ) -> AfterRunner {
        if let Some(done) = done(after) {
            return done;
        }
        if stopping {
            return AfterRunner::LeaveForLater;
        }
        if after.phase == before && lived < LIVED {
            self.0 += 1;
        } else {
            self.0 = 0;
        }
        if self.0 >= MOST_DEATHS {
            return AfterRunner::GiveUp;
        }
        AfterRunner::Another(Duration::from_millis(100) * self.0.pow(2))
    }
}

/// The end of a run that is done.
#[must_use]
pub fn done(record: &RunRecord) -> Option<AfterRunner> {
    let exit_code = record.outcome.as_ref().and_then(|outcome| outcome.exit_code);
    record.phase.is_final().then_some(AfterRunner::Done(exit_code))
}

/// How far a run has come with its pop; `None` when a runner has had it in hand. A task that was claimed may have
/// been on its way back to its queue. One that `has_inputs` may have a runner that was just started: whoever continues
/// the run finds out from the task itself whether it is still to be run.
#[must_use]
pub fn pop_phase(record: &RunRecord, runner_alive: bool, has_inputs: bool) -> Option<PopPhase> {
    match record.phase {
        Phase::Popping => Some(PopPhase::Popping),
        Phase::Popped => Some(PopPhase::Popped),
        Phase::Claimed if record.runner.is_none() && !runner_alive && !has_inputs => Some(PopPhase::Claimed),
        _ => None,
    }
}

/// What to do about a run whose keeper one has become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// It is done: remove what only a living run needs.
    Clean,
    /// Keep a runner on it until it is done.
    Continue,
    /// Find out what has become of its pop.
    Settle(PopPhase),
    /// No pop was ever sent for it: remove it.
    Remove,
    /// Its pop can't be settled, because what was known about it is lost. People have to look.
    Leave,
}

/// See [`Kept`]. `has_intent`: what the pop was about is on the disk.
#[must_use]
pub fn kept(record: &RunRecord, runner_alive: bool, has_inputs: bool, has_intent: bool) -> Kept {
    if record.phase.is_final() {
        return Kept::Clean;
    }
    match pop_phase(record, runner_alive, has_inputs) {
        None => Kept::Continue,
        Some(phase) if has_intent => Kept::Settle(phase),
        // The pop is sent after the intent is complete on the disk.
        Some(PopPhase::Popping) => Kept::Remove,
        Some(_) => Kept::Leave,
    }
}

/// Whether a claimed run can be given back: its program has not started, and nobody is about to start it. To be
/// asked in this order: without a runner, nobody changes the record any more.
#[must_use]
pub fn is_untouched(runner_alive: bool, phase: Phase) -> bool {
    !runner_alive && phase < Phase::Launching
}

/// Remembers since when each run has had no keeper.
#[derive(Debug)]
pub struct Waiting<K>(BTreeMap<K, Duration>);

impl<K> Default for Waiting<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord + Clone> Waiting<K> {
    /// These runs have no keeper at the time `now`. Gives those that have had none for so long that another daemon
    /// than their own takes them over.
    pub fn due(&mut self, orphans: Vec<K>, now: Duration, patience: Duration) -> Vec<K> {
        self.0.retain(|run, _| orphans.contains(run));
        orphans
            .into_iter()
            .filter(|run| {
                let since = *self.0.entry(run.clone()).or_insert(now);
                now.saturating_sub(since) >= patience
            })
            .collect()
    }
}

/// Why a run failed that no runner could bring to its end; `None` when it is known how its program has ended.
/// `shim_over`: the process supervisor, if there was one, has ended and has left nothing alive.
#[must_use]
pub fn given_up(
    record: &RunRecord,
    verdict: Option<&Verdict>,
    shim_over: bool,
    text: String,
) -> Option<Failure> {
    // A supervisor that an earlier runner has started may still come.
    let over = record.phase < Phase::Launching || shim_over;
    verdict.is_none().then(|| Failure {
        over,
        ..Failure::infrastructure(text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(phase: Phase) -> RunRecord {
        serde_json::from_value(serde_json::json!({
            "schema": 1, "run_id": "r", "boot_id": "b", "agent_version": "1", "phase": phase, "created_ms": 0,
            "identity": {"task": "t", "queue": "q", "worker": "w"},
        }))
        .unwrap()
    }

    #[test]
    fn runners_that_get_nowhere_are_given_up_and_progress_starts_anew() {
        let mut deaths = Deaths::default();
        let stuck = record(Phase::Preparing);
        let mut die = |before, lived| deaths.runner_ended(before, &stuck, Duration::from_secs(lived), false);
        for _ in 1..MOST_DEATHS {
            assert!(matches!(die(Phase::Preparing, 1), AfterRunner::Another(_)));
        }
        assert_eq!(die(Phase::Claimed, 1), AfterRunner::Another(Duration::ZERO));
        for _ in 1..MOST_DEATHS {
            die(Phase::Preparing, 1);
        }
        assert_eq!(die(Phase::Preparing, 11), AfterRunner::Another(Duration::ZERO));
        for _ in 1..MOST_DEATHS {
            die(Phase::Preparing, 1);
        }
        assert_eq!(die(Phase::Preparing, 1), AfterRunner::GiveUp);
    }

    #[test]
    fn what_is_found_is_continued_settled_or_left() {
        for (phase, runner, inputs, intent, expected) in [
            (Phase::Popping, false, false, false, Kept::Remove),
            (
                Phase::Popping,
                false,
                false,
                true,
                Kept::Settle(PopPhase::Popping),
            ),
            (Phase::Popped, false, false, false, Kept::Leave),
            (
                Phase::Claimed,
                false,
                false,
                true,
                Kept::Settle(PopPhase::Claimed),
            ),
            (Phase::Claimed, true, true, true, Kept::Continue),
            (Phase::Claimed, false, true, true, Kept::Continue),
            (Phase::Running, false, true, true, Kept::Continue),
            (Phase::Done, false, true, true, Kept::Clean),
        ] {
            assert_eq!(
                kept(&record(phase), runner, inputs, intent),
                expected,
                "{phase:?}"
            );
        }
    }

    #[test]
    fn a_run_is_due_when_nobody_has_kept_it_for_long_enough() {
        let (mut waiting, second) = (Waiting::default(), Duration::from_secs(1));
        assert!(waiting.due(vec![1, 2], second, second * 30).is_empty());
        assert_eq!(waiting.due(vec![1], second * 31, second * 30), [1]);
        assert!(waiting.due(vec![1, 2], second * 32, second * 30).contains(&1));
        assert!(
            !waiting.due(vec![1, 2], second * 33, second * 30).contains(&2),
            "it had a keeper"
        );
    }
}
