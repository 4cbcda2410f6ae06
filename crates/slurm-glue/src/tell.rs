//! What the glue says to the server about tasks: status, message, properties, lines of the console.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use clearml_api_client::{ApiError, Client, HyperParamItem, LogEvent, ReplaceHyperParams, StatusChange};
use clearml_support::text::printable;
use clearml_support::time::now_ms;
use clearml_task_model::{TaskId, WorkerId};
use rustix::fs::OFlags;
use serde_json::{Map, Value, json};

use crate::core::verdict::Verdict;

/// Where the job of a task is noted in its `runtime`, for the agent in it.
pub const JOB_KEY: &str = "_slurm_job";

/// How often Slurm has put the job back, so that an old agent sees that it is not the last.
pub const RESTART_KEY: &str = "_slurm_restart";

/// How often preemption has sent the task back to its queue.
pub const REQUEUES_KEY: &str = "_slurm_requeues";

/// The most of Slurm's or a job's own text that goes into a console.
const MOST_TEXT: usize = 16 << 10;

/// Speaks to the server.
#[derive(Clone)]
pub struct Teller {
    client: Client,
    worker: WorkerId,
}

impl std::fmt::Debug for Teller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Teller")
            .field("worker", &self.worker)
            .finish_non_exhaustive()
    }
}

impl Teller {
    /// Speaks as this worker.
    #[must_use]
    pub fn new(client: Client, worker: WorkerId) -> Self {
        Self { client, worker }
    }

    /// A line in the task's console. Nothing depends on it.
    pub async fn say(&self, task: &TaskId, text: &str) {
        self.say_all([(task, text)]).await;
    }

    /// Lines in the consoles of several tasks, by as few requests as it takes. Nothing depends on them.
    pub async fn say_all(&self, lines: impl IntoIterator<Item = (&TaskId, &str)>) {
        let now = now_ms();
        let event = |(task, text): (&TaskId, &str)| {
            let text: String = text.chars().take(MOST_TEXT).collect();
            LogEvent::new(task, "INFO", self.worker.as_str(), printable(&text), now)
        };
        let events: Vec<LogEvent> = lines.into_iter().map(event).collect();
        let Some(first) = events.first() else { return };
        if let Err(error) = self.client.events_add_batch(&events).await {
            let count = events.len();
            tracing::warn!("console of {count} task(s), {} among them: {error}", first.task);
        }
    }

    /// The message beside the task's status. Nothing depends on it.
    pub async fn message(&self, task: &TaskId, text: &str) {
        let fields = json!({"status_message": text});
        if let Err(error) = self.client.tasks_update(task, fields).await {
            tracing::warn!("message of task {task}: {error}");
        }
    }

    /// Notes the job in the task.
    ///
    /// # Errors
    ///
    /// When the server refuses or can't answer.
    pub async fn note_job(&self, task: &TaskId, job: &str, restarts: u32) -> Result<(), ApiError> {
        let mut entries = Map::new();
        entries.insert(JOB_KEY.to_owned(), Value::from(job));
        entries.insert(RESTART_KEY.to_owned(), Value::from(restarts));
        self.client.tasks_edit_runtime(task, entries, &[]).await
    }

    /// User properties of the task. Nothing depends on them.
    pub async fn properties(&self, task: &TaskId, properties: &[(&str, &str)]) {
        let items: Vec<HyperParamItem> = properties
            .iter()
            .map(|(name, value)| HyperParamItem {
                section: "properties".to_owned(),
                name: (*name).to_owned(),
                value: (*value).to_owned(),
                ..HyperParamItem::default()
            })
            .collect();
        let edit = self
            .client
            .tasks_edit_hyper_params(task, &items, ReplaceHyperParams::None, true);
        if let Err(error) = edit.await {
            tracing::warn!("properties of task {task}: {error}");
        }
    }

    /// Gives the task its final status.
    ///
    /// # Errors
    ///
    /// When the server refuses or can't answer.
    pub async fn conclude(&self, task: &TaskId, verdict: &Verdict) -> Result<(), ApiError> {
        let message = format!("Changed by {}", self.worker);
        match verdict {
            Verdict::Failed(reason) => {
                let change = StatusChange::reason(reason.as_str()).message(message).force();
                self.client.tasks_failed(task, &change).await.map(drop)
            }
            Verdict::Stopped(reason) => {
                let change = StatusChange::reason(reason.as_str()).message(message).force();
                self.client.tasks_stopped(task, &change).await.map(drop)
            }
            Verdict::Requeue(_) | Verdict::Ignore => Ok(()),
        }
    }
}

/// The last lines of a job's own output, made fit for a console; `None` when there is nothing to read here.
/// `owner`: nobody else's file is shown.
#[must_use]
pub fn tail(path: &Path, lines: usize, owner: Option<u32>) -> Option<String> {
    if lines == 0 {
        return None;
    }
    // A pipe would be waited for.
    let without_waiting = i32::try_from(OFlags::NONBLOCK.bits()).ok()?;
    let opened = File::options()
        .read(true)
        .custom_flags(without_waiting)
        .open(path);
    let mut file = opened.ok()?;
    let found = file.metadata().ok()?;
    if !found.is_file() || owner.is_some_and(|owner| owner != found.uid()) {
        return None;
    }
    let most = MOST_TEXT as u64;
    let start = found.len().saturating_sub(most);
    file.seek(SeekFrom::Start(start)).ok()?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let mut shown: Vec<String> = Vec::new();
    let mut room = MOST_TEXT;
    // The last lines say why it ended.
    for line in text.lines().rev().take(lines) {
        let line = format!("[slurm] {}", printable(line));
        let Some(left) = room.checked_sub(line.chars().count() + 1) else {
            break;
        };
        room = left;
        shown.push(line);
    }
    shown.reverse();
    (!shown.is_empty()).then(|| shown.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_an_output_is_shown_without_control_characters() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        std::fs::write(&path, "first\nsec\x1b[2Jond\nthird\n").unwrap();
        let shown = tail(&path, 2, None).unwrap();
        assert!(
            shown.starts_with("[slurm] sec") && shown.ends_with("\n[slurm] third"),
            "{shown}"
        );
        assert!(!shown.contains('\x1b'));
        assert_eq!(tail(&path, 0, None), None);
        assert_eq!(tail(Path::new("/dev/null"), 9, None), None);
        std::fs::write(&path, format!("{}the end", "x\n".repeat(100_000))).unwrap();
        let shown = tail(&path, 1_000_000, None).unwrap();
        assert!(shown.len() <= MOST_TEXT && shown.ends_with("\n[slurm] the end"));
    }

    #[test]
    fn only_files_of_the_user_of_the_job_are_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        std::fs::write(&path, "mine").unwrap();
        let own = rustix::process::geteuid().as_raw();
        assert_eq!(tail(&path, 1, Some(own)).as_deref(), Some("[slurm] mine"));
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert_eq!(tail(&link, 1, Some(own + 1)), None, "of another user");

        let pipe = folder.path().join("pipe");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, mode).unwrap();
        assert_eq!(tail(&pipe, 1, None), None, "and nothing is waited for");
    }
}
