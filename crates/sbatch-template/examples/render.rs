//! Fills in a small template, and shows what happens to a hostile value.

use clearml_sbatch_template::{Options, Setup, Template, Values};
use serde_json::json;

const TEMPLATE: &str = r#"#!/bin/bash
#SBATCH --job-name=clearml_task_${CLEARML_TASK.id}
#SBATCH --nodes=${CLEARML_TASK.hyperparams.properties.nodes.value:1}
#SBATCH --comment=${CLEARML_TASK.name}
${CLEARML_PRE_SETUP}
echo "This is ${CLEARML_TASK.name}"
${CLEARML_AGENT_EXECUTE}
${CLEARML_POST_SETUP}
"#;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let template = Template::parse("example.sh", TEMPLATE, Options::default())?;
    let values = Values {
        task: json!({"id": "a1b2", "name": "evil\" --uid=0; $(reboot)\n#SBATCH --wrap=x"}),
        ..Values::default()
    };
    let setup = Setup {
        task: "a1b2".to_owned(),
        require_queue: true,
        ..Setup::default()
    };
    let script = template.render(&values, &setup)?;
    for option in &script.directives {
        println!("--{} {:?}", option.name, option.value);
    }
    for line in script.text.lines().filter(|line| line.contains("This is")) {
        println!("{line}");
    }
    Ok(())
}
