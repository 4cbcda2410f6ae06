//! How a container is called: by its format, by its task, or by ours; and that nobody else has that name.

use clearml_agent_config::Settings;
use clearml_container::flags::RunSpec;
use clearml_container::name::container_name;
use clearml_task_model::Task;

use super::super::Runner;
use super::super::setup::failure;
use super::engine_failure;
use crate::console::Level;
use crate::record::Failure;

impl Runner {
    /// The same each time for the same run.
    pub(super) fn name(&self, task: &Task, spec: &RunSpec, settings: &Settings) -> String {
        let containers = &settings.agent.containers;
        let letters: String = self
            .run_id
            .chars()
            .filter_map(|c| char::from_u32(u32::from('a') + c.to_digit(16)?))
            .collect();
        let own = format!(
            "clearml-id-{}-{}",
            self.identity.task,
            &letters[..letters.len().min(8)]
        );
        let Some(format) = &containers.docker_container_name_format else {
            return spec.name.clone().unwrap_or(own);
        };
        let json = serde_json::to_value(task).unwrap_or_default();
        let name = container_name(format, &|key| match key {
            "task_id" => Some(self.identity.task.to_string()),
            "worker_id" => Some(self.identity.worker.to_string()),
            "rand_string" => Some(letters.clone()),
            key => {
                let path = containers.docker_container_name_format_fields.get(key)?;
                let value = path.split('.').try_fold(&json, |value, part| value.get(part))?;
                value
                    .as_str()
                    .map_or_else(|| Some(value.to_string()), |text| Some(text.to_owned()))
            }
        });
        name.unwrap_or_else(|| {
            let text = format!(
                "Warning: agent.docker_container_name_format {format:?} gives no name for a container"
            );
            self.console.line(Level::Warning, &text);
            own
        })
    }

    /// A container that had the name before must be that of this run.
    pub(super) async fn checked(&self, name: &str, id: String, existed: bool) -> Result<String, Failure> {
        if !existed {
            return Ok(id);
        }
        match self.look(name).await {
            Ok(Some(found)) if self.is_ours(&found) => Ok(id),
            Ok(_) => Err(failure(
                "environment",
                &format!(
                    "there is another container of the name {name}; leave --name away, or choose another one"
                ),
            )),
            Err(e) => Err(engine_failure(&e)),
        }
    }
}
