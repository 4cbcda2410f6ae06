//! Ends: from the end of a job to the final status of its task.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use super::{Bench, END_AGENT, END_GLUE};
use crate::terminal::{note, step};
use crate::workbench::TaskSpec;

impl Bench {
    pub(super) fn ends(&mut self) -> Result<()> {
        step("Ending jobs");
        for (row, state, before) in [
            (END_AGENT, "told", ": nothing"),
            (END_GLUE, "silent", "sleep 1; exit 0"),
        ] {
            let template = self.template(state, "", before)?;
            let glue = self.start(&template, state, None)?;
            let mut worst: f64 = 0.0;
            for _ in 0..self.effort.ends {
                let seconds = self.end()?;
                note(&format!("{state}: {seconds:.2} s"));
                worst = worst.max(seconds);
            }
            self.add(row, worst);
            glue.stop()?;
        }
        Ok(())
    }

    /// Seconds from the end of a job to the final status of its task; 0 if that came first.
    fn end(&self) -> Result<f64> {
        let task = self
            .api
            .submit("bench", &TaskSpec::script("print('done')"), &self.queue)?;
        let name = format!("--name=clearml_task_{task}");
        let (mut job_ended, mut task_ended) = (None, None);
        let begun = Instant::now();
        while job_ended.is_none() || task_ended.is_none() {
            ensure!(
                begun.elapsed() < Duration::from_secs(180),
                "task {task} has no end"
            );
            if job_ended.is_none() {
                let listing = self
                    .cluster
                    .output("squeue", &["-h", "-t", "all", "-o", "%T", &name])?;
                let is_over = !listing.trim().is_empty()
                    && !listing.contains("PENDING")
                    && !listing.contains("RUNNING")
                    && !listing.contains("CONFIGURING");
                job_ended = is_over.then(Instant::now);
            }
            if task_ended.is_none() && matches!(&*self.api.status(&task)?, "completed" | "failed" | "stopped")
            {
                task_ended = Some(Instant::now());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let (Some(job), Some(task)) = (job_ended, task_ended) else {
            bail!("task {task} has no end");
        };
        Ok(task.saturating_duration_since(job).as_secs_f64())
    }
}
