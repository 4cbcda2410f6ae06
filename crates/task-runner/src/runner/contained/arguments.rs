//! Arguments as people write them, filled in, filtered, and understood.

use clearml_agent_config::Settings;
use clearml_container::choice::Choice;
use clearml_container::flags::{self, RunSpec};
use clearml_container::template;
use clearml_container::words::Rules;
use clearml_task_model::Task;
use regex::Regex;
use serde_json::{Map, Value, json};

use super::super::Runner;
use super::super::setup::failure;
use super::given;
use crate::console::Level;
use crate::record::Failure;

impl Runner {
    /// The options of the task and of this machine, as a request.
    pub(super) async fn spec(
        &self,
        task: &Task,
        choice: &Choice,
        settings: &Settings,
    ) -> Result<RunSpec, Failure> {
        let containers = &settings.agent.containers;
        let mut filters = Vec::new();
        for filter in &containers.docker_args_filters {
            let text = |e| format!("agent.docker_args_filters has the pattern {filter:?}: {e}");
            filters.push(Regex::new(filter).map_err(|e| failure("environment", &text(e)))?);
        }
        let rules = Rules {
            filters,
            forbidden: containers.forbidden_docker_args.clone(),
            protected: containers.protected_docker_extra_args.clone(),
            extra_first: containers.docker_args_extra_precedes_task,
            host_environment_for_tasks: containers.docker_allow_host_environ,
        };
        let said = [&choice.arguments[..], &containers.extra_docker_arguments[..]].concat();
        let values = self.template_values(task, &said).await;
        let secrets = settings.secrets();
        let is_public = |value: &Value| {
            let text = value.to_string();
            secrets.iter().all(|secret| !text.contains(secret.expose()))
        };
        let lookup = |name: &str| match name.strip_prefix("CONFIG.") {
            Some(key) => settings.get(key).filter(|value| is_public(value)).cloned(),
            None => field(&values, name),
        };
        let fill = |words: &[String]| {
            words
                .iter()
                .map(|word| template::fill(word, &lookup))
                .collect::<Vec<_>>()
        };
        // A task must not get what the agent keeps for itself by asking for a variable.
        let environment = |name: &str| {
            given::variable(&self.inputs, name)
                .filter(|value| secrets.iter().all(|secret| !value.contains(secret.expose())))
        };
        let combined = rules.combine(
            &fill(&choice.arguments),
            &containers.extra_docker_arguments,
            &environment,
        );
        if !combined.forbidden.is_empty() {
            let text = format!(
                "clearml-agent: ignoring docker argument(s) {}; they would override the agent startup script and \
                 prevent the task from running",
                combined.forbidden.join(" ")
            );
            tracing::warn!("task {}: {text}", self.identity.task);
            self.console.line(Level::Warning, &text);
        }
        let masked = |words: &[String]| settings.command_mask().words(words).join(" ");
        if !combined.filtered.is_empty() {
            let text = format!(
                "container arguments that agent.docker_args_filters does not let through: {}",
                masked(&combined.filtered)
            );
            self.console.line(Level::Warning, &text);
        }
        let words = fill(&combined.words);
        if given::variable(&self.inputs, "CLEARML_AGENT_DEBUG_INFO").is_some_and(|what| what == "docker") {
            tracing::info!(
                "task {}: container arguments of the task: {}; for all tasks: {}; together: {}",
                self.identity.task,
                masked(&choice.arguments),
                masked(&containers.extra_docker_arguments),
                masked(&words)
            );
        }
        let text = format!("Container: image {}, arguments: {}", choice.image, masked(&words));
        self.console.line(Level::Info, &text);
        let parse = |words: &[String]| {
            flags::parse(words, &environment).map_err(|e| failure("environment", &e.to_string()))
        };
        parse(&words[..combined.front])?;
        let spec = parse(&words)?;
        for notice in &spec.notices {
            self.console.line(Level::Warning, notice);
        }
        Ok(spec)
    }

    /// Values for references in arguments. What nobody refers to is not asked for.
    async fn template_values(&self, task: &Task, words: &[String]) -> Map<String, Value> {
        let mut values = Map::new();
        values.insert("WORKER_ID".into(), self.identity.worker.as_str().into());
        let mut document = serde_json::to_value(task).unwrap_or_default();
        let wants = |name: &str| {
            let begin = format!("${{CLEARML_{name}");
            words.iter().any(|word| word.contains(&begin))
        };
        if let Some(queue) = &self.identity.queue {
            values.insert("QUEUE_ID".into(), queue.as_str().into());
            if wants("QUEUE_NAME")
                && let Ok(queue) = self.client.queues_get_by_id(queue, Some(1)).await
            {
                values.insert("QUEUE_NAME".into(), json!(queue.name));
            }
        }
        if let Some(id) = &task.project {
            values.insert("PROJECT_ID".into(), id.as_str().into());
            if wants("PROJECT_NAME") || wants("TASK.project.") {
                let project = self.client.projects_get_by_id(id).await.ok();
                let name = project.map_or_else(|| json!("unknown"), |project| json!(project.name));
                // Both ways lead there.
                document["project"] = json!({"id": id.as_str(), "name": name});
                values.insert("PROJECT_NAME".into(), name);
            }
        }
        values.insert("TASK".into(), document);
        values
    }
}

/// A single value, or the one at the end of a path such as `TASK.a.b`.
fn field(values: &Map<String, Value>, name: &str) -> Option<Value> {
    // As it was before projects could be looked into.
    if name == "TASK.project" {
        return values.get("PROJECT_ID").cloned();
    }
    let mut parts = name.split('.');
    let first = values.get(parts.next()?)?;
    let nowhere = Value::Object(Map::new());
    let found = parts.try_fold(first, |value, part| match value {
        Value::Object(fields) => fields.get(part),
        Value::Null => None,
        // It ends before the path does.
        _ => Some(&nowhere),
    });
    found.cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_leads_to_a_value_to_none_or_too_far() {
        let values = json!({
            "QUEUE_NAME": "q", "PROJECT_ID": "p",
            "TASK": {"id": "t", "tags": ["a"], "parent": null, "project": {"id": "p", "name": "n"}},
        });
        let values = values.as_object().unwrap();
        for (word, filled) in [
            ("${CLEARML_TASK.id}/${CLEARML_TASK.tags}", "t/a"),
            ("${CLEARML_TASK.project}", "p"),
            ("${CLEARML_TASK.project.name}", "n"),
            ("${CLEARML_TASK.none.at.all:x}", "x"),
            ("${CLEARML_TASK.parent.id:x}", "x"),
            ("${CLEARML_TASK.id.more:x}", "${CLEARML_TASK.id.more:x}"),
            ("${CLEARML_QUEUE_NAME.more:x}", "${CLEARML_QUEUE_NAME.more:x}"),
            ("${CLEARML_USER.id}", "${CLEARML_USER.id}"),
        ] {
            assert_eq!(
                template::fill(word, &|name| field(values, name)),
                filled,
                "{word}"
            );
        }
    }
}
