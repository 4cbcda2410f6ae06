//! Submissions: the glue against a loop that makes the same calls of the server and a bare `sbatch` for each task.

use std::io::Write;
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{Bench, GLUE, SUBMISSIONS};
use crate::terminal::{note, step};
use crate::workbench::TaskSpec;

impl Bench {
    pub(super) fn submissions(&mut self) -> Result<()> {
        let count = self.effort.submissions;
        step(&format!("Submitting {count} jobs"));
        let template = self.template("held", "#SBATCH --hold", "")?;
        self.queue_tasks(count)?;
        let before = self.calls()?;
        let begun = Instant::now();
        let glue = self.start(&template, "state", None)?;
        self.until_logged("state", "is job", count)?;
        let took = begun.elapsed().as_secs_f64();
        let calls = difference(&before, &self.calls()?);
        glue.stop()?;
        let bare = self.bare_loop(count, &calls)?;
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let rates = (count as f64 / took, count as f64 / bare);
        note(&format!(
            "{:.1} jobs/s, a loop of bare sbatch {:.1}",
            rates.0, rates.1
        ));
        self.add(SUBMISSIONS, took / bare);
        Ok(())
    }

    /// The same calls, and sbatch with a script of the same length.
    fn bare_loop(&self, count: usize, calls: &[(String, u64)]) -> Result<f64> {
        let each: u64 = calls.iter().map(|(_, count)| count).sum();
        note(&format!(
            "{} calls of the server for each: {calls:?}",
            each / count as u64
        ));
        let spec = TaskSpec::script("print('done')");
        let mut task = self.api.create_task("bare", &spec)?;
        let bare = self.api.create_queue("bare")?;
        let parking = self.api.create_queue("parking")?;
        for _ in 0..count {
            self.api.submit("bare", &spec, &bare)?;
        }
        let script = format!(
            "#!/bin/bash\n#SBATCH --hold\n#SBATCH --output=/dev/null\n#SBATCH --mem=200\n{}exit 0\n",
            "# as long as a script of the glue\n".repeat(150)
        );
        let begun = Instant::now();
        for round in 0..count as u64 {
            for (endpoint, of) in calls {
                // Spread evenly: what is not called once for each task is called for some of them.
                let now = (round + 1) * of / count as u64 - round * of / count as u64;
                for _ in 0..now {
                    self.same_call(endpoint, &mut task, &bare, &parking)?;
                }
            }
            let mut child = self
                .cluster
                .command("sbatch")
                .args(["--parsable", "--job-name", "bare"])
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .spawn()?;
            child
                .stdin
                .take()
                .context("no pipe to sbatch")?
                .write_all(script.as_bytes())?;
            ensure!(child.wait()?.success(), "sbatch failed");
        }
        let took = begun.elapsed().as_secs_f64();
        self.cluster.output("scancel", &["--name", "bare"])?;
        Ok(took)
    }

    fn same_call(&self, endpoint: &str, task: &mut String, queue: &str, parking: &str) -> Result<()> {
        let one = json!({"task": task});
        let (endpoint, body): (&'static str, Value) = match endpoint {
            "queues.get_all" => (
                "queues.get_all",
                json!({"id": [queue], "only_fields": ["id", "name", "entries"], "max_task_entries": 1}),
            ),
            "queues.get_next_task" => {
                let reply = self.api.call("queues.get_next_task", json!({"queue": queue}))?;
                let popped = reply["entry"]["task"].as_str().context("the queue is empty")?;
                popped.clone_into(task);
                return Ok(());
            }
            "queues.get_by_id" => ("queues.get_by_id", json!({"queue": queue})),
            "tasks.get_all" => (
                "tasks.get_all",
                json!({"id": [task], "only_fields": ["id", "status"]}),
            ),
            "tasks.enqueue" => (
                "tasks.enqueue",
                json!({"task": task, "queue": parking, "update_execution_queue": false, "status_reason": "parked"}),
            ),
            "tasks.edit_hyper_params" => (
                "tasks.edit_hyper_params",
                json!({"task": task, "hyperparams": [
                    {"section": "properties", "name": "slurm-job-id", "value": "1"},
                    {"section": "properties", "name": "slurm-cluster", "value": "lab"},
                    {"section": "properties", "name": "slurm-queue", "value": "bench"},
                ]}),
            ),
            "tasks.edit" | "tasks.edit_runtime" | "tasks.update" => (
                "tasks.edit",
                json!({"task": task, "runtime": {"_slurm_job": "lab/1"}, "force": true}),
            ),
            "events.add_batch" | "events.add" => (
                "events.add",
                json!({"type": "log", "task": task, "level": "info", "msg": "Slurm job 1 submitted", "worker": GLUE}),
            ),
            _ => ("tasks.get_by_id", one),
        };
        self.api.call(endpoint, body).map(drop)
    }
}

/// How often each endpoint was called between two counts.
fn difference(before: &Value, after: &Value) -> Vec<(String, u64)> {
    let count = |counts: &Value, name: &str| counts[name].as_u64().unwrap_or(0);
    let names = after.as_object().into_iter().flatten();
    names
        .map(|(name, _)| (name.clone(), count(after, name) - count(before, name)))
        .filter(|(name, count)| *count > 0 && !name.starts_with("auth.") && !name.starts_with("workers."))
        .collect()
}
