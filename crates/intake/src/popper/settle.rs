//! Finding out what has become of a pop whose end is open.

use std::sync::PoisonError;
use std::time::Duration;

use super::{Clock, Journal, Outcome, PopResult, Popper, unresolved};
use crate::pop::{Action, Intent, Phase, Sighting, Why, resolve_sent};
use crate::server::{PopAnswer, QueueServer};

impl<S: QueueServer, J: Journal, C: Clock> Popper<S, J, C> {
    /// Looks, decides, acts, until the fate of the intent is known.
    pub(super) async fn settle(&self, mut intent: Intent, mut phase: Phase) -> PopResult<S, J> {
        let mut watch = Watch::default();
        loop {
            let seen = match self.observe(&intent).await {
                Ok(seen) => seen,
                Err(source) => return Err(unresolved(intent, phase, source)),
            };
            let waited_out =
                watch.unchanged_for(&seen, self.clock.now(), self.timing.claim_within) >= self.timing.grace;
            match resolve_sent(&intent, phase, &seen, waited_out, self.is_quiet(&intent)) {
                Action::Ours => {
                    let task = intent.task.clone();
                    intent = self.confirm(intent, task).await?;
                    match self.try_claim(&intent).await {
                        Ok(None) => return self.claimed(intent).await,
                        Ok(Some(why)) if why == Why::Gone || self.is_quiet(&intent) => {
                            return self.not_ours(intent, why);
                        }
                        Ok(Some(_)) => phase = self.linger(&mut watch).await,
                        Err(source) => return Err(unresolved(intent, Phase::Popped, source)),
                    }
                }
                // Its runner may be under way: a journal that refuses must not lead to a return.
                Action::AlreadyStarted if phase == Phase::Claimed => return Ok(Outcome::Ours(intent)),
                Action::AlreadyStarted => return self.claimed(intent).await,
                Action::NotOurs(why) => return self.not_ours(intent, why),
                Action::PutBackAtHead => return self.give_back(intent, phase).await,
                Action::Wait => self.clock.sleep(self.timing.look_every).await,
                Action::Retry => {
                    let sent = self.clock.now();
                    match self.server.pop(&intent.queue, &intent.task).await {
                        PopAnswer::Popped(popped) => {
                            intent = self.confirm(intent, popped).await?;
                            phase = Phase::Popped;
                            if self.clock.now() - sent >= self.timing.claim_within {
                                watch = Watch::default();
                                continue;
                            }
                            match self.try_claim(&intent).await {
                                Ok(None) => return self.claimed(intent).await,
                                Ok(Some(why)) if why == Why::Gone || self.is_quiet(&intent) => {
                                    return self.not_ours(intent, why);
                                }
                                Ok(Some(_)) => phase = self.linger(&mut watch).await,
                                Err(source) => return Err(unresolved(intent, phase, source)),
                            }
                        }
                        // Somebody was faster, or our earlier pop has arrived: look again.
                        PopAnswer::Nothing => {}
                        PopAnswer::Refused(source) => return Err(unresolved(intent, phase, source)),
                        PopAnswer::Ambiguous(_) => {
                            self.doubt(&intent);
                            watch = Watch::default();
                            self.clock.sleep(self.timing.look_every).await;
                        }
                    }
                }
            }
        }
    }

    /// The task is not for us, but an earlier pop of ours may still arrive: then it matters again what becomes of
    /// the entry. So the watch begins anew, as if the pop had just been sent.
    async fn linger(&self, watch: &mut Watch) -> Phase {
        *watch = Watch::default();
        self.clock.sleep(self.timing.look_every).await;
        Phase::Popping
    }

    /// Whether no earlier pop of this intent can arrive any more.
    pub(super) fn is_quiet(&self, intent: &Intent) -> bool {
        self.doubted(intent)
            .is_none_or(|sent| self.clock.now() >= sent + self.timing.grace)
    }

    pub(super) fn doubt(&self, intent: &Intent) {
        let mut doubt = self.doubt.lock().unwrap_or_else(PoisonError::into_inner);
        *doubt = Some((intent.run.clone(), self.clock.now()));
    }

    pub(super) fn doubted(&self, intent: &Intent) -> Option<Duration> {
        let doubt = self.doubt.lock().unwrap_or_else(PoisonError::into_inner);
        doubt
            .as_ref()
            .filter(|(run, _)| *run == intent.run)
            .map(|(_, since)| *since)
    }

    async fn observe(&self, intent: &Intent) -> Result<Sighting, S::Error> {
        // The queue first: a task that moves from queue to owner between the two looks is then seen as
        // waiting, which is harmless, and not as lost.
        let place = self.server.place(&intent.queue, &intent.task).await?;
        let task = self.server.look(&intent.task).await?;
        let competitors = self.server.competitors(&intent.queue, &self.worker).await?;
        Ok(Sighting {
            task,
            place,
            competitors,
        })
    }
}

/// How long one sighting has been the only one.
#[derive(Default)]
struct Watch {
    last: Option<(Sighting, Duration)>,
    since: Option<Duration>,
}

impl Watch {
    /// Notes a sighting. A gap longer than `longest_gap` could hide anything, so it starts anew.
    fn unchanged_for(&mut self, seen: &Sighting, now: Duration, longest_gap: Duration) -> Duration {
        let same = self
            .last
            .as_ref()
            .is_some_and(|(last, at)| last == seen && now.saturating_sub(*at) < longest_gap);
        if !same {
            self.since = None;
        }
        self.last = Some((seen.clone(), now));
        now.saturating_sub(*self.since.get_or_insert(now))
    }
}
