//! The command for aborts of a task in a container. It runs there, beside the program: a process of the agent inside
//! has written down where and how, and the engine starts another one that does it.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use clearml_container::engine::{Engine, EngineError};

use super::super::Runner;
use super::super::callback::Called;
use crate::console::Level;
use crate::inside;

/// How much longer than the command itself its end may take to arrive.
const SLACK: Duration = Duration::from_secs(5);

impl Runner {
    /// Whether the program in the container has such a command, and how many seconds it may take.
    pub(in crate::runner) fn command_inside(&self) -> Option<u64> {
        if !self.is_contained() {
            return None;
        }
        self.reports()?.abort_limit_sec
    }

    /// Runs it.
    pub(in crate::runner) async fn call_inside(&self, limit: Duration) -> Called {
        match tokio::time::timeout(limit + SLACK, self.exec_callback(limit)).await {
            Ok(Ok(inside::TIMED_OUT)) | Err(_) => Called::TimedOut,
            // As wait(2) has it.
            Ok(Ok(code)) => Called::Ended(ExitStatus::from_raw((code & 0xff) << 8)),
            Ok(Err(e)) => Called::Not(format!("did not run: {e}")),
        }
    }

    async fn exec_callback(&self, limit: Duration) -> Result<i32, EngineError> {
        let name = match self.run.container() {
            Ok(Some(record)) => record.name,
            Ok(None) => String::new(),
            Err(e) => {
                tracing::warn!("{e}");
                String::new()
            }
        };
        let limit = limit.as_millis().to_string();
        let argv = [
            inside::PROGRAM,
            "inside",
            "--run",
            inside::RUN,
            "--given",
            inside::GIVEN,
            "--callback",
            &limit,
        ];
        let calling = self.calling();
        let mut say = |line: &str| (calling.say)(Level::Info, &calling.redactor.redact(line));
        let code = Engine::connect().await?.exec(&name, &argv, &mut say).await?;
        Ok(i32::try_from(code).unwrap_or(1))
    }
}
