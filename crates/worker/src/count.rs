//! Counting services by a command of the operator's own (`CLEARML_AGENT_CHILD_AGENTS_COUNT_CMD`), where others than
//! this daemon have a part in the limit as well.

use std::time::Duration;

use clearml_agent_config::Settings;
use clearml_support::command::Command;
use clearml_task_model::WorkerId;

const VARIABLE: &str = "CLEARML_AGENT_CHILD_AGENTS_COUNT_CMD";
/// What stands in the command for the label of the daemon's containers.
const PLACEHOLDER: &str = "{parent_worker_label}";
const LIMIT: Duration = Duration::from_secs(10);

/// The command.
#[derive(Debug)]
pub(crate) struct Counter {
    words: Vec<String>,
    failing: bool,
}

impl Counter {
    /// The configured one. No shell has a part in it, unless the command is one.
    pub(crate) fn of(settings: &Settings, worker: &WorkerId) -> Option<Self> {
        let text = settings.variable_text(VARIABLE)?;
        let label = format!("clearml-parent-worker-id={worker}");
        let Some(words) = shlex::split(&text) else {
            tracing::warn!("{VARIABLE} is not run: the quotes in {text:?} have no end");
            return None;
        };
        let words: Vec<String> = words
            .iter()
            .map(|word| word.replace(PLACEHOLDER, &label))
            .collect();
        (!words.is_empty()).then_some(Self {
            words,
            failing: false,
        })
    }

    /// How many lines it prints; none where it fails, which is said once.
    pub(crate) async fn count(&mut self) -> usize {
        let command = Command::new(&self.words[0]).args(&self.words[1..]).timeout(LIMIT);
        let counting = tokio::task::spawn_blocking(move || command.check());
        let failure = match counting.await {
            Ok(Ok(output)) => {
                self.failing = false;
                let text = String::from_utf8_lossy(&output.stdout);
                return text.lines().filter(|line| !line.trim().is_empty()).count();
            }
            Ok(Err(e)) => e.to_string(),
            Err(e) => e.to_string(),
        };
        if !std::mem::replace(&mut self.failing, true) {
            tracing::warn!("counting services by {VARIABLE}: {failure}; only those of this daemon count");
        }
        0
    }
}
