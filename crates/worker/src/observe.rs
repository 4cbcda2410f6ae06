//! What the daemon lets people see of itself: the file that `clearml-agent status` reads, and the numbers
//! behind the metrics. It only listens: nothing is decided by what is kept here.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clearml_api_client::{Client, Health};
use clearml_intake::{Pause, Presence};
use clearml_support::time::now_ms;
use clearml_task_model::QueueId;
use clearml_task_runner::record::{End, Outcome};
use clearml_task_runner::{Phase, RunRecord};
use tokio::task::JoinHandle;

/// How often the file is brought up to date, if something has changed.
const PUBLISH_EVERY: Duration = Duration::from_secs(1);
/// That the queues were looked at once more is not worth a write to the disk each time.
const LOOK_STEP_MS: i64 = 30_000;

/// Numbers of waiting tasks hold so long after the queues were looked at.
const COUNT_HOLDS_MS: i64 = 120_000;

/// How tasks have ended here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) started: u64,
    pub(crate) completed: u64,
    pub(crate) failed: u64,
    pub(crate) aborted: u64,
    /// The agent or its machine is to blame.
    pub(crate) infrastructure: u64,
    /// Others have decided about the status, or the program was never started.
    pub(crate) other: u64,
}

impl Totals {
    fn end(&mut self, record: &RunRecord) {
        let counter = match &record.outcome {
            Some(outcome) if is_infrastructure(outcome) => &mut self.infrastructure,
            Some(Outcome {
                end: End::Completed, ..
            }) => &mut self.completed,
            Some(Outcome { end: End::Failed, .. }) => &mut self.failed,
            Some(Outcome {
                end: End::Stopped, ..
            }) => &mut self.aborted,
            Some(Outcome {
                end: End::LeftAlone | End::Requeued,
                ..
            }) => &mut self.other,
            // Nobody could look after it.
            None if record.phase == Phase::Done => &mut self.infrastructure,
            None => &mut self.other,
        };
        *counter += 1;
    }
}

fn is_infrastructure(outcome: &Outcome) -> bool {
    matches!(outcome.end, End::Failed | End::Requeued) && outcome.status_reason.starts_with("infrastructure")
}

/// Everything that can be seen, at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) presence: Presence,
    pub(crate) totals: Totals,
    pub(crate) health: Health,
}

/// What is kept. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Observer {
    client: Client,
    state_dir: PathBuf,
    inner: Arc<Mutex<(Presence, Totals)>>,
}

impl Observer {
    pub(crate) fn new(client: Client, state_dir: PathBuf, presence: Presence) -> Self {
        Self {
            client,
            state_dir,
            inner: Arc::new(Mutex::new((presence, Totals::default()))),
        }
    }

    fn change<T>(&self, change: impl FnOnce(&mut Presence, &mut Totals) -> T) -> T {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let (presence, totals) = &mut *inner;
        change(presence, totals)
    }

    /// The queues were read: so many tasks wait in each, or more if the number is `most`.
    pub(crate) fn looked(&self, waiting: &[usize], most: usize) {
        self.change(|presence, _| {
            presence.looked_ms = Some(now_ms());
            for (queue, count) in presence.queues.iter_mut().zip(waiting) {
                queue.waiting = Some(*count as u64);
                queue.or_more = *count >= most;
            }
        });
    }

    /// One of those that waited in the queue was taken here.
    pub(crate) fn took(&self, queue: &QueueId) {
        self.change(|presence, _| {
            let queue = presence.queues.iter_mut().find(|known| known.id == *queue);
            if let Some(queue) = queue.filter(|queue| !queue.or_more) {
                queue.waiting = queue.waiting.map(|count| count.saturating_sub(1));
            }
        });
    }

    /// Which queues are not served at this hour.
    pub(crate) fn rests(&self, resting: &[bool]) {
        self.change(|presence, _| {
            for (queue, rests) in presence.queues.iter_mut().zip(resting) {
                queue.resting = *rests;
            }
        });
    }

    /// No task is taken for a while.
    pub(crate) fn pauses(&self, pause: Duration, reason: String) {
        let pause = i64::try_from(pause.as_millis()).unwrap_or(i64::MAX);
        let until_ms = now_ms().saturating_add(pause);
        self.change(|presence, _| presence.paused = Some(Pause { until_ms, reason }));
    }

    pub(crate) fn goes_on(&self) {
        self.change(|presence, _| presence.paused = None);
    }

    /// A task is in hand.
    pub(crate) fn begun(&self) {
        self.change(|_, totals| totals.started += 1);
    }

    /// A task is done.
    pub(crate) fn ended(&self, record: &RunRecord) {
        self.change(|_, totals| totals.end(record));
    }

    pub(crate) fn state_dir(&self) -> &std::path::Path {
        &self.state_dir
    }

    pub(crate) fn seen(&self) -> Seen {
        let health = self.client.health();
        let (presence, totals) = self.change(|presence, totals| {
            // The beginning of an outage is worked out once, or it would move with each look.
            presence.server_away_since_ms = health.away_for.map(|away| {
                let away = i64::try_from(away.as_millis()).unwrap_or(0);
                presence.server_away_since_ms.unwrap_or(now_ms() - away)
            });
            (presence.clone(), *totals)
        });
        let presence = without_old_counts(presence, now_ms());
        Seen {
            presence,
            totals,
            health,
        }
    }

    /// Keeps the file up to date until what is returned is dropped; then the file is gone.
    pub(crate) fn publish(&self) -> Publication {
        let path = Arc::new(Mutex::new(None));
        let mut publisher = Publisher {
            observer: self.clone(),
            path: Arc::clone(&path),
            written: None,
            failing: false,
        };
        publisher.look();
        let writing = tokio::spawn(async move {
            loop {
                tokio::time::sleep(PUBLISH_EVERY).await;
                publisher.look();
            }
        });
        Publication { writing, path }
    }
}

/// Writes the file.
struct Publisher {
    observer: Observer,
    path: Arc<Mutex<Option<PathBuf>>>,
    written: Option<Presence>,
    failing: bool,
}

impl Publisher {
    fn look(&mut self) {
        let presence = self.observer.seen().presence;
        if self.written.as_ref().is_some_and(|old| !is_news(old, &presence)) {
            return;
        }
        match presence.write(&self.observer.state_dir) {
            Ok(path) => {
                *self.path.lock().unwrap_or_else(PoisonError::into_inner) = Some(path);
                self.written = Some(presence);
                self.failing = false;
            }
            Err(e) if !std::mem::replace(&mut self.failing, true) => {
                tracing::warn!("{e}; `clearml-agent status` will not show what this daemon does");
            }
            Err(_) => {}
        }
    }
}

/// What nobody has looked at for long is not known.
fn without_old_counts(mut presence: Presence, now: i64) -> Presence {
    if presence
        .looked_ms
        .is_none_or(|looked| now - looked > COUNT_HOLDS_MS)
    {
        for queue in &mut presence.queues {
            (queue.waiting, queue.or_more) = (None, false);
        }
    }
    presence
}

fn is_news(old: &Presence, new: &Presence) -> bool {
    let look = |presence: &Presence| presence.looked_ms.map_or(0, |ms| ms / LOOK_STEP_MS);
    let undated = |presence: &Presence| Presence {
        looked_ms: None,
        ..presence.clone()
    };
    look(old) != look(new) || undated(old) != undated(new)
}

/// See [`Observer::publish`].
#[derive(Debug)]
pub(crate) struct Publication {
    writing: JoinHandle<()>,
    path: Arc<Mutex<Option<PathBuf>>>,
}

impl Drop for Publication {
    fn drop(&mut self) {
        self.writing.abort();
        if let Some(path) = self.path.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // A file that stays names a process that is gone, and is ignored.
            let _ = std::fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use clearml_intake::QueuePresence;
    use clearml_task_runner::{NewRun, RunStore};

    use super::*;

    #[test]
    fn each_end_is_counted_once_and_by_whose_fault_it_is() {
        let state = tempfile::tempdir().unwrap();
        let new = NewRun {
            task: "t".into(),
            queue: None,
            worker: "w".into(),
        };
        let (run, _keeper) = RunStore::open(state.path()).unwrap().create(new).unwrap();
        let mut record = run.record().unwrap();
        let mut totals = Totals::default();
        let mut count = |phase, outcome: Option<(End, &str)>| {
            record.phase = phase;
            record.outcome = outcome.map(|(end, reason)| Outcome {
                end,
                status_reason: reason.to_owned(),
                line: None,
                exit_code: None,
            });
            totals.end(&record);
        };
        count(Phase::Done, Some((End::Completed, "")));
        count(Phase::Done, Some((End::Failed, "worker execution exit code 1")));
        count(
            Phase::Done,
            Some((End::Failed, "infrastructure: the machine restarted")),
        );
        count(Phase::Done, Some((End::Stopped, "")));
        count(Phase::Done, Some((End::LeftAlone, "")));
        count(Phase::Done, None);
        count(Phase::Abandoned, None);
        let expected = Totals {
            started: 0,
            completed: 1,
            failed: 1,
            aborted: 1,
            infrastructure: 2,
            other: 2,
        };
        assert_eq!(totals, expected);
    }

    #[test]
    fn what_waits_is_not_known_for_ever() {
        let mut presence = Presence::of_this_process("w".into(), "1", 0).unwrap();
        presence.looked_ms = Some(1_000);
        presence.queues = vec![QueuePresence {
            id: "q".into(),
            name: "q".to_owned(),
            waiting: Some(100),
            or_more: true,
            resting: false,
        }];
        let at = |ms| without_old_counts(presence.clone(), ms).queues[0].clone();
        assert_eq!((at(61_000).waiting, at(61_000).or_more), (Some(100), true));
        assert_eq!((at(122_000).waiting, at(122_000).or_more), (None, false));
    }

    #[test]
    fn looking_again_is_no_news_and_everything_else_is() {
        let old = Presence::of_this_process("w".into(), "1", 0).unwrap();
        let with = |change: fn(&mut Presence)| {
            let mut new = old.clone();
            new.looked_ms = Some(1_000);
            change(&mut new);
            new
        };
        assert!(!is_news(&with(|_| {}), &with(|new| new.looked_ms = Some(2_000))));
        assert!(is_news(&with(|_| {}), &with(|new| new.looked_ms = Some(40_000))));
        assert!(is_news(
            &with(|_| {}),
            &with(|new| new.server_away_since_ms = Some(5))
        ));
    }
}
