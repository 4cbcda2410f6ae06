//! Following a task: its console as it grows, until the task has ended.

use std::collections::VecDeque;
use std::time::Duration;

use clearml_task_model::{TaskId, TaskStatus};

use crate::client::Client;
use crate::error::ApiError;
use crate::events::LogEvent;
use crate::tasks::TasksQuery;

/// Events per request.
const WINDOW: u32 = 500;

/// The console of a task from its beginning, line by line; made by [`Client::follow`].
#[derive(Debug)]
pub struct Follow {
    client: Client,
    task: TaskId,
    interval: Duration,
    ready: VecDeque<LogEvent>,
    /// The newest time seen, and how many events of that time. The next window begins with these again:
    /// more of them may have come.
    newest: Option<(i64, usize)>,
    status: Option<TaskStatus>,
    ended: bool,
}

impl Client {
    /// Follows a task's console from its beginning.
    #[must_use]
    pub fn follow(&self, task: &TaskId) -> Follow {
        Follow {
            client: self.clone(),
            task: task.clone(),
            interval: Duration::from_secs(1),
            ready: VecDeque::new(),
            newest: None,
            status: None,
            ended: false,
        }
    }
}

impl Follow {
    /// Looks this often; otherwise once a second.
    #[must_use]
    pub fn every(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// The task's status, as last seen.
    #[must_use]
    pub fn status(&self) -> Option<&TaskStatus> {
        self.status.as_ref()
    }

    /// The next event of the console. Waits for it; `None` when the task has ended (stopped, completed,
    /// failed, published, closed) and everything has been read. Events with older times than those already
    /// seen are not found.
    ///
    /// # Errors
    /// 400/101 when there is no such task, also when it was deleted meanwhile. See [`ApiError`].
    pub async fn next(&mut self) -> Result<Option<LogEvent>, ApiError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            // The status first: what was written before the end is then in the window.
            if !self.ended {
                let query = TasksQuery::one(&self.task, ["status"]);
                let found = self.client.tasks_get_all(&query).await?.pop();
                self.status = found.and_then(|task| task.status);
                self.ended = self.status.as_ref().is_some_and(is_end);
                self.read().await?;
                if self.ready.is_empty() && !self.ended {
                    tokio::time::sleep(self.interval).await;
                }
                continue;
            }
            self.read().await?;
            if self.ready.is_empty() {
                return Ok(None);
            }
        }
    }

    async fn read(&mut self) -> Result<(), ApiError> {
        let from = self.newest.map(|(time, _)| time - 1).unwrap_or(0);
        let log = self
            .client
            .events_get_task_log(&self.task, Some(from), false, WINDOW)
            .await?;
        let mut again = self.newest.map_or(0, |(_, count)| count);
        for event in log.events {
            match &mut self.newest {
                Some((time, _)) if event.timestamp == *time && again > 0 => {
                    again -= 1;
                    continue;
                }
                Some((time, count)) if event.timestamp == *time => *count += 1,
                newest => *newest = Some((event.timestamp, 1)),
            }
            self.ready.push_back(event);
        }
        Ok(())
    }
}

fn is_end(status: &TaskStatus) -> bool {
    matches!(
        status,
        TaskStatus::Stopped
            | TaskStatus::Completed
            | TaskStatus::Failed
            | TaskStatus::Published
            | TaskStatus::Closed
    )
}
