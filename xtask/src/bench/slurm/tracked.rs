//! Memory: jobs that carry the glue's mark are submitted, and a glue without memory takes them up.

use std::fs;
use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use super::{Bench, GLUE, MEMORY, PARKING, PERIOD};
use crate::terminal::step;
use crate::workbench::TaskSpec;

impl Bench {
    pub(super) fn memory(&mut self) -> Result<()> {
        let count = self.effort.tracked;
        step(&format!("Having {count} jobs taken up"));
        let parking = self.parking()?;
        let script = self.run.join("bare.sh");
        fs::write(
            &script,
            "#!/bin/bash\n#SBATCH --hold\n#SBATCH --output=/dev/null\nexit 0\n",
        )?;
        for index in 0..count {
            let task = self
                .api
                .submit("bench", &TaskSpec::script("print('done')"), &parking)?;
            let comment = format!("--comment=clearml:v1 task={task} glue={GLUE} nonce={index:032x}");
            let name = format!("--job-name=clearml_task_{task}");
            let script = script.to_string_lossy();
            self.cluster
                .output("sbatch", &["--parsable", &name, &comment, &script])?;
        }
        let template = self.template("held", "#SBATCH --hold", "")?;
        let glue = self.start(&template, "adopted", None)?;
        self.until_logged("adopted", "is taken up", count)?;
        // Two complete looks, with their listings.
        std::thread::sleep(Duration::from_secs(PERIOD * 4));
        let mut most: f64 = 0.0;
        for _ in 0..20 {
            most = most.max(glue.memory()?);
            std::thread::sleep(Duration::from_millis(500));
        }
        self.add(MEMORY, most);
        glue.stop()?;
        self.cluster.output("scancel", &["--user", "root"])?;
        Ok(())
    }

    /// The id of the parking queue.
    fn parking(&self) -> Result<String> {
        let query = json!({"name": PARKING, "search_hidden": true, "only_fields": ["id"]});
        let reply = self.api.call("queues.get_all", query)?;
        match reply["queues"][0]["id"].as_str() {
            Some(id) => Ok(id.to_owned()),
            None => self.api.create_queue(PARKING),
        }
    }
}
