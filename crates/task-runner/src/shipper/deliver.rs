//! Getting one batch onto the server, once: the calls and pauses around [`super::delivery`].

use std::time::Duration;

use clearml_api_client::{ApiError, Client, LogEvent};
use clearml_task_model::TaskId;

use super::delivery::{Delivery, Next, ReadAnswer, SendAnswer};

/// Events per page when reading back.
const PAGE: u32 = 5000;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What became of a batch.
pub(super) enum Fate {
    Accepted,
    Refused(String),
}

/// How to reach the server, and with which task.
pub(super) struct Deliverer<'a> {
    pub(super) client: &'a Client,
    pub(super) task: &'a TaskId,
    /// A server makes new events findable with a delay.
    pub(super) readback_delay: Duration,
}

impl Deliverer<'_> {
    /// Repeats until the server has every event once, or refuses them for good. `maybe_sent` = an earlier
    /// runner may have sent them.
    pub(super) async fn deliver(&self, events: Vec<LogEvent>, maybe_sent: bool) -> Fate {
        let mut delivery = Delivery::new(events, maybe_sent);
        let (mut pause, mut reading_pause) = (FIRST_PAUSE, FIRST_PAUSE);
        loop {
            match delivery.next() {
                Next::Delivered => return Fate::Accepted,
                Next::Refused(reason) => return Fate::Refused(reason.to_owned()),
                Next::Send(events) => {
                    let answer = self.send(events, &mut pause).await;
                    delivery.sent(answer);
                }
                Next::ReadBack { from, first } => {
                    if first {
                        reading_pause = FIRST_PAUSE;
                        tokio::time::sleep(self.readback_delay).await;
                    }
                    let answer = self.read(from).await;
                    if matches!(answer, ReadAnswer::Later) {
                        wait(&mut reading_pause, None).await;
                    }
                    delivery.read(answer);
                }
            }
        }
    }

    async fn send(&self, events: &[LogEvent], pause: &mut Duration) -> SendAnswer {
        let e = match self.client.events_add_batch(events).await {
            Ok(result) => {
                if result.errors > 0 {
                    tracing::warn!(
                        "the server took {} events and refused {:?}",
                        result.added,
                        result.errors_info
                    );
                }
                return SendAnswer::Taken;
            }
            Err(e) => e,
        };
        if is_task_gone(&e) {
            return SendAnswer::TaskGone(e.to_string());
        }
        if is_refusal(&e) {
            match events {
                [event] => {
                    tracing::warn!("a console message of {} bytes is not sent: {e}", event.msg.len());
                }
                _ => tracing::warn!("{e}"),
            }
            return SendAnswer::Refused;
        }
        tracing::debug!("console of task {}: {e}", self.task);
        wait(pause, e.retry_after()).await;
        if e.was_not_applied() {
            SendAnswer::NotApplied
        } else {
            SendAnswer::Unclear
        }
    }

    async fn read(&self, from: i64) -> ReadAnswer {
        let log = self
            .client
            .events_get_task_log(self.task, Some(from), false, PAGE)
            .await;
        match log {
            Ok(log) => ReadAnswer::Page(log.events),
            Err(e) if is_task_gone(&e) => ReadAnswer::TaskGone(e.to_string()),
            Err(e) if e.is_transient() || e.code().is_some_and(|(code, _)| matches!(code, 401 | 403)) => {
                ReadAnswer::Later
            }
            Err(e) => {
                tracing::warn!("the server can't be asked what it has, so some lines may appear twice: {e}");
                ReadAnswer::Never
            }
        }
    }
}

async fn wait(pause: &mut Duration, wanted: Option<Duration>) {
    tokio::time::sleep(wanted.unwrap_or(*pause).min(LONGEST_PAUSE * 6)).await;
    *pause = (*pause * 2).min(LONGEST_PAUSE);
}

/// The task is deleted, or locked because it was published.
fn is_task_gone(error: &ApiError) -> bool {
    error.is_code(400, 131) || error.is_code(400, 101)
}

/// Sending exactly this again will never help.
fn is_refusal(error: &ApiError) -> bool {
    error.was_not_applied()
        && !error.is_transient()
        && error
            .code()
            .is_some_and(|(code, _)| (400..500).contains(&code) && !matches!(code, 401 | 403))
}
