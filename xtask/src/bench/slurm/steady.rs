//! Steady state: which commands of Slurm are called while nothing changes.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::{Value, json};

use super::{Bench, OTHERS, PERIOD, SACCT, SQUEUE};
use crate::terminal::step;

impl Bench {
    /// What is called while nothing changes.
    pub(super) fn steady(&mut self) -> Result<()> {
        let count = self.effort.steady;
        step(&format!("Letting {count} jobs wait"));
        let template = self.template("held", "#SBATCH --hold", "")?;
        let more = count.saturating_sub(self.effort.submissions);
        self.queue_tasks(more)?;
        let bin = self.run.join("bin");
        let calls = self.run.join("commands");
        fs::create_dir(&bin)?;
        for program in ["sbatch", "squeue", "sacct", "scontrol", "scancel", "getent"] {
            let path = bin.join(program);
            let text = format!(
                "#!/bin/sh\necho {program} >> {}\nexec /usr/bin/{program} \"$@\"\n",
                calls.display()
            );
            fs::write(&path, text)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        }
        let glue = self.start(&template, "state", Some(&bin))?;
        self.until_logged("state", "is job", more)?;
        // Every task hears once that its job waits.
        let mut quiet = 0;
        let mut before = Value::Null;
        while quiet < 2 {
            std::thread::sleep(Duration::from_secs(PERIOD));
            let now = self.calls()?;
            let writes: Vec<_> = now
                .as_object()
                .into_iter()
                .flatten()
                .filter(|(name, _)| {
                    name.starts_with("events.") || name.contains("edit") || name.contains("update")
                })
                .map(|(_, count)| count.clone())
                .collect();
            let now = json!(writes);
            quiet = if now == before { quiet + 1 } else { 0 };
            before = now;
        }
        File::create(&calls)?;
        let begun = Instant::now();
        std::thread::sleep(Duration::from_secs(PERIOD) * self.effort.periods);
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let periods = (begun.elapsed().as_secs_f64() / PERIOD as f64).ceil();
        let text = fs::read_to_string(&calls)?;
        glue.stop()?;
        let of = |name: &str| text.lines().filter(|line| *line == name).count();
        let (squeue, sacct, all) = (of("squeue"), of("sacct"), text.lines().count());
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let per_period = |count: usize| count as f64 / periods;
        self.add(SQUEUE, per_period(squeue));
        self.add(SACCT, per_period(sacct));
        self.add(OTHERS, per_period(all - squeue - sacct));
        self.cluster.output("scancel", &["--user", "root"])?;
        Ok(())
    }
}
