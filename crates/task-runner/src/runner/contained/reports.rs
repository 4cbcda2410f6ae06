//! What the preparation inside has told, for the task.

use std::convert::Infallible;
use std::time::Duration;

use clearml_support::fs::{create_private_file, read_json};
use clearml_task_model::Task;

use super::super::Runner;
use super::super::build_host::write_back;
use crate::inside::{REPORTS_FILE, Reports, State, TASK_FILE};
use crate::record::Mark;

/// Lists of packages are long, but not that long.
const MAX_BYTES: u64 = 8 << 20;
const LOOK: Duration = Duration::from_millis(500);
/// The stations that people want to know the duration of.
const STATIONS: [&str; 2] = ["clone", "environment"];

impl Runner {
    /// Writes the reports back to the task as soon as they are there.
    pub(super) async fn take_reports(&self) -> Infallible {
        while !self.write_back_reports().await {
            tokio::time::sleep(LOOK).await;
        }
        std::future::pending().await
    }

    /// What the preparation has told by now. Something else in its place is nothing.
    pub(super) fn reports(&self) -> Option<Reports> {
        self.run.read_out(REPORTS_FILE, MAX_BYTES).unwrap_or_else(|e| {
            tracing::debug!("{e}");
            None
        })
    }

    /// Once, because the program may change its task after that. Returns whether there is nothing more to do.
    pub(super) async fn write_back_reports(&self) -> bool {
        let done = self.run.path().join("reported");
        if done.exists() {
            return true;
        }
        let Some(reports) = self.reports().filter(|reports| reports.state != State::Preparing) else {
            return false;
        };
        let marks: Vec<Mark> = reports
            .marks
            .iter()
            .filter(|mark| STATIONS.contains(&mark.name.as_str()))
            .take(STATIONS.len())
            .cloned()
            .collect();
        self.note(&marks);
        if let Some(limit_sec) = reports.abort_limit_sec {
            self.calling().register(limit_sec).await;
        }
        if self.settings.rank == 0 {
            match read_json::<Task>(&self.run.given_dir().join(TASK_FILE)) {
                Ok(task) => write_back(&self.client, &task, reports.reported()).await,
                Err(e) => tracing::warn!("{e}"),
            }
        }
        if let Err(e) = create_private_file(&done) {
            tracing::debug!("noting that the reports are written back: {e}");
        }
        true
    }
}
