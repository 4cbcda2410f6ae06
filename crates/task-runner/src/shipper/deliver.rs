//! Getting one batch onto the server, once.

use std::time::Duration;

use clearml_api_client::{ApiError, Client, LogEvent};
use clearml_task_model::TaskId;

use super::pending::missing;

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
pub(super) struct Delivery<'a> {
    pub(super) client: &'a Client,
    pub(super) task: &'a TaskId,
    /// A server makes new events findable with a delay.
    pub(super) readback_delay: Duration,
}

impl Delivery<'_> {
    /// Repeats until the server has every event once, or refuses them for good. `maybe_sent` = an earlier
    /// runner may have sent them.
    pub(super) async fn deliver(&self, mut events: Vec<LogEvent>, maybe_sent: bool) -> Fate {
        if maybe_sent {
            events = match self.read_back(events).await {
                Ok(events) => events,
                Err(fate) => return fate,
            };
        }
        let mut pause = FIRST_PAUSE;
        while !events.is_empty() {
            match self.client.events_add_batch(&events).await {
                Ok(result) => {
                    if result.errors > 0 {
                        tracing::warn!(
                            "the server took {} events and refused {:?}",
                            result.added,
                            result.errors_info
                        );
                    }
                    return Fate::Accepted;
                }
                Err(e) if is_task_gone(&e) => return Fate::Refused(e.to_string()),
                Err(e) if is_refusal(&e) => {
                    tracing::warn!("{e}");
                    let Some(fewer) = self.deliver_singly(events).await else {
                        return Fate::Accepted;
                    };
                    events = fewer;
                }
                Err(e) => {
                    tracing::debug!("console of task {}: {e}", self.task);
                    tokio::time::sleep(e.retry_after().unwrap_or(pause).min(LONGEST_PAUSE * 6)).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    if !e.was_not_applied() {
                        events = match self.read_back(events).await {
                            Ok(events) => events,
                            Err(fate) => return fate,
                        };
                    }
                }
            }
        }
        Fate::Accepted
    }

    /// The server refuses something about a batch, so each event goes by itself, and the one that it
    /// can't take is left out instead of blocking all others. Returns what is still to be sent when
    /// something else than a refusal comes up.
    async fn deliver_singly(&self, events: Vec<LogEvent>) -> Option<Vec<LogEvent>> {
        for (index, event) in events.iter().enumerate() {
            match self.client.events_add_batch(std::slice::from_ref(event)).await {
                Ok(_) => {}
                Err(e) if is_refusal(&e) => {
                    tracing::warn!("a console message of {} bytes is not sent: {e}", event.msg.len());
                }
                Err(e) if e.was_not_applied() => return Some(events[index..].to_vec()),
                // This one may have arrived. A task that is gone shows again with the next batch.
                Err(_) => return self.read_back(events[index..].to_vec()).await.ok(),
            }
        }
        None
    }

    /// Asks the server which of these events it has, and returns the others.
    async fn read_back(&self, events: Vec<LogEvent>) -> Result<Vec<LogEvent>, Fate> {
        let (Some(first), Some(last)) = (events.first(), events.last()) else {
            return Ok(events);
        };
        let (first, last) = (first.timestamp, last.timestamp);
        tokio::time::sleep(self.readback_delay).await;
        let mut found = Vec::new();
        let mut from = first - 1;
        let mut pause = FIRST_PAUSE;
        loop {
            match self
                .client
                .events_get_task_log(self.task, Some(from), false, PAGE)
                .await
            {
                Ok(log) => {
                    let newest = log.events.iter().map(|e| e.timestamp).max();
                    found.extend(
                        log.events
                            .into_iter()
                            .filter(|e| (first..=last).contains(&e.timestamp)),
                    );
                    match newest {
                        Some(newest) if newest > from && newest < last => from = newest,
                        _ => return Ok(missing(events, &found)),
                    }
                }
                Err(e) if is_task_gone(&e) => return Err(Fate::Refused(e.to_string())),
                Err(e) if e.is_transient() || e.code().is_some_and(|(code, _)| matches!(code, 401 | 403)) => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                Err(e) => {
                    tracing::warn!(
                        "the server can't be asked what it has, so some lines may appear twice: {e}"
                    );
                    return Ok(missing(events, &found));
                }
            }
        }
    }
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
