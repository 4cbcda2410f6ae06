//! `events.*`: console lines.

use std::collections::BTreeMap;

use bytes::Bytes;
use clearml_task_model::TaskId;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::call::Call;
use crate::client::Client;
use crate::error::{ApiError, Interruption};
use crate::reply::null_as_default;

/// A piece of a task's console.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct LogEvent {
    /// The task.
    pub task: TaskId,
    /// `DEBUG` for the task's output, `INFO` and others for the agent's own lines.
    #[serde(default)]
    pub level: String,
    /// Who ran the task.
    #[serde(default)]
    pub worker: String,
    /// The text.
    #[serde(default)]
    pub msg: String,
    /// When, in milliseconds. The server orders by it.
    #[serde(default)]
    pub timestamp: i64,
    /// Everything else that the server stored with it.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl LogEvent {
    /// An event without extra fields.
    pub fn new(
        task: &TaskId,
        level: impl Into<String>,
        worker: impl Into<String>,
        msg: impl Into<String>,
        timestamp: i64,
    ) -> Self {
        Self {
            task: task.clone(),
            level: level.into(),
            worker: worker.into(),
            msg: msg.into(),
            timestamp,
            extra: Map::new(),
        }
    }

    /// One JSON line with its newline.
    fn append_to(&self, lines: &mut Vec<u8>) {
        #[derive(Serialize)]
        struct Wire<'a> {
            r#type: &'static str,
            #[serde(flatten)]
            event: &'a LogEvent,
        }
        serde_json::to_writer(
            &mut *lines,
            &Wire {
                r#type: "log",
                event: self,
            },
        )
        .expect("writing strings and numbers to memory cannot fail");
        lines.push(b'\n');
    }
}

/// What became of a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct BatchResult {
    /// Stored events.
    pub added: u64,
    /// Refused events.
    pub errors: u64,
    /// How many were refused for which reason.
    #[serde(deserialize_with = "null_as_default")]
    pub errors_info: BTreeMap<String, u64>,
}

impl BatchResult {
    fn add(&mut self, other: Self) {
        self.added += other.added;
        self.errors += other.errors;
        for (reason, count) in other.errors_info {
            *self.errors_info.entry(reason).or_default() += count;
        }
    }
}

/// A window of a task's console.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct TaskLog {
    /// The events, oldest first.
    #[serde(deserialize_with = "null_as_default")]
    pub events: Vec<LogEvent>,
    /// Their number.
    pub returned: u64,
    /// Number of all log events of the task.
    pub total: u64,
}

/// Cuts JSON lines at line ends so that no part is larger than `max` bytes. Lines that are larger by
/// themselves come back as the second value: they cannot be sent.
#[must_use]
pub fn split_lines(lines: &Bytes, max: usize) -> (Vec<Bytes>, usize) {
    let (mut parts, mut oversize) = (Vec::new(), 0);
    let (mut start, mut end) = (0, 0);
    while end < lines.len() {
        let next = lines[end..]
            .iter()
            .position(|byte| *byte == b'\n')
            .map_or(lines.len(), |at| end + at + 1);
        if next - start > max {
            if end > start {
                parts.push(lines.slice(start..end));
            }
            start = end;
            if next - end > max {
                oversize += 1;
                start = next;
            }
        }
        end = next;
    }
    if end > start {
        parts.push(lines.slice(start..end));
    }
    (parts, oversize)
}

impl Client {
    /// Appends events to the console of their tasks.
    ///
    /// **Sent once**, because an event that arrives twice is shown twice. An error whose
    /// [`was_not_applied`](ApiError::was_not_applied) is true left nothing behind; after
    /// [`ApiError::Ambiguous`] read the window back with
    /// [`events_get_task_log`](Self::events_get_task_log) and send what is missing.
    ///
    /// A batch above [`max_request_bytes`](crate::ClientOptions::max_request_bytes) becomes several
    /// requests; an event that is larger by itself is counted as an error and not sent.
    ///
    /// # Errors
    /// 400/131 when no event was accepted: the task is deleted or published. See [`ApiError`].
    pub async fn events_add_batch(&self, events: &[LogEvent]) -> Result<BatchResult, ApiError> {
        let mut lines = Vec::with_capacity(events.iter().map(|event| event.msg.len() + 160).sum());
        for event in events {
            event.append_to(&mut lines);
        }
        self.send_lines(lines).await
    }

    /// JSON lines of events, in as many requests as it takes.
    pub(crate) async fn send_lines(&self, lines: Vec<u8>) -> Result<BatchResult, ApiError> {
        let max = self.inner.options.max_request_bytes;
        let (parts, oversize) = split_lines(&Bytes::from(lines), max);
        let mut result = BatchResult::default();
        if oversize > 0 {
            result.errors = oversize as u64;
            result.errors_info.insert(
                format!("Event larger than {max} bytes was not sent"),
                oversize as u64,
            );
        }
        for (sent, part) in parts.into_iter().enumerate() {
            match self
                .call(Call::once("events.add_batch", (2, 1)).lines(part))
                .await
            {
                Ok(added) => result.add(added),
                Err(error) if sent == 0 => return Err(error.or_ambiguous(self.server())),
                Err(error) => {
                    return Err(ApiError::Ambiguous {
                        endpoint: "events.add_batch".to_owned(),
                        server: self.server().to_owned(),
                        cause: Interruption::PartlySent,
                        reason: error.to_string(),
                    });
                }
            }
        }
        Ok(result)
    }

    /// A window of a task's console, oldest event first. Without `from_timestamp` the newest
    /// (`navigate_earlier`) or oldest events, with it those strictly earlier or later. All events of
    /// the last millisecond of a window are in it, so paging by timestamp loses nothing. API 2.9.
    /// Repeated until answered.
    ///
    /// # Errors
    /// 400/101 when there is no such task. See [`ApiError`].
    pub async fn events_get_task_log(
        &self,
        task: &TaskId,
        from_timestamp: Option<i64>,
        navigate_earlier: bool,
        batch_size: u32,
    ) -> Result<TaskLog, ApiError> {
        let mut body = json!({ "task": task, "navigate_earlier": navigate_earlier, "batch_size": batch_size, "order": "asc" });
        if let Some(from) = from_timestamp {
            body["from_timestamp"] = from.into();
        }
        self.call(Call::safe("events.get_task_log", (2, 9)).body(body))
            .await
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_event_is_one_line_of_the_documented_shape() {
        let mut lines = Vec::new();
        LogEvent::new(&TaskId::new("t1"), "INFO", "w:0", "a\nb", 7).append_to(&mut lines);
        let text = String::from_utf8(lines).unwrap();
        assert_eq!(text.matches('\n').count(), 1);
        let value: Value = serde_json::from_str(&text).unwrap();
        let expected =
            json!({"type":"log","task":"t1","level":"INFO","worker":"w:0","msg":"a\nb","timestamp":7});
        assert_eq!(value, expected);
    }

    proptest! {
        #[test]
        fn parts_are_whole_lines_in_order(lengths in prop::collection::vec(0usize..40, 0..30), max in 1usize..60) {
            let mut all = Vec::new();
            for (index, length) in lengths.iter().enumerate() {
                all.extend(std::iter::repeat_n(b'a' + (index % 26) as u8, *length));
                all.push(b'\n');
            }
            let (parts, oversize) = split_lines(&Bytes::from(all), max);
            let fitting: Vec<usize> = lengths.iter().map(|length| length + 1).filter(|length| *length <= max).collect();
            prop_assert_eq!(oversize, lengths.len() - fitting.len());
            let mut seen = Vec::new();
            for part in &parts {
                prop_assert!(part.len() <= max && part.ends_with(b"\n"));
                seen.extend(part.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::len));
            }
            prop_assert_eq!(seen, fitting);
        }
    }
}
