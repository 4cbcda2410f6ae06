//! What placeholders can say, and how a path finds it.

use serde_json::{Map, Value};

use crate::grammar::{Object, Placeholder, Segment, Single, Source};
use crate::operators::is_forbidden;

/// Everything that a template can show. Objects are as the server sends them.
#[derive(Debug, Clone, Default)]
pub struct Values {
    /// The task, all fields.
    pub task: Value,
    /// Its owner.
    pub user: Value,
    /// The configuration; secrets in it are never shown.
    pub config: Value,
    /// The vaults of the owner; secrets in them are never shown.
    pub user_vaults: Value,
    /// What identity providers say about the owner.
    pub providers_info: Value,
    /// The name of the task's project.
    pub project_name: Option<String>,
    /// Name of the queue that the task came from.
    pub queue_name: String,
    /// Its id.
    pub queue_id: String,
    /// The worker id of the agent in the job.
    pub worker_id: String,
    /// The Linux user of the job.
    pub slurm_user: String,
    /// The worker id of the glue.
    pub glue_id: String,
    /// `agent.default_docker.image`.
    pub default_image: Option<String>,
}

/// A value as text, and what was left out of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resolved {
    pub(crate) text: String,
    /// It is the default of the template, not a value.
    pub(crate) is_default: bool,
}

impl Values {
    /// The text of a placeholder before operators; `Err` says why there is none.
    pub(crate) fn resolve(
        &self,
        placeholder: &Placeholder,
        default_if_empty: bool,
    ) -> Result<Resolved, String> {
        let value = |text: String| Resolved {
            text,
            is_default: false,
        };
        let found = self.find(placeholder);
        let default = placeholder.default.as_ref().map(|text| Resolved {
            text: text.clone(),
            is_default: true,
        });
        match (found, default) {
            // Control characters alone are nothing as well.
            (Ok(text), Some(default)) if default_if_empty && text.chars().all(is_forbidden) => Ok(default),
            (Ok(text), _) => Ok(value(text)),
            (Err(_), Some(default)) => Ok(default),
            (Err(cause), None) => match &self.default_image {
                Some(image) if placeholder.is_container_image() => Ok(value(image.clone())),
                _ => Err(cause),
            },
        }
    }

    fn find(&self, placeholder: &Placeholder) -> Result<String, String> {
        match &placeholder.source {
            Source::Part(_) => Err("it is no value".to_owned()),
            Source::Single(single) => self.single(*single),
            Source::Object(object, path) => self.in_object(*object, path),
        }
    }

    fn single(&self, single: Single) -> Result<String, String> {
        let text = match single {
            Single::QueueName => Some(&self.queue_name),
            Single::QueueId => Some(&self.queue_id),
            Single::WorkerId => Some(&self.worker_id),
            Single::SlurmUser => Some(&self.slurm_user),
            Single::GlueId => Some(&self.glue_id),
            Single::ProjectName => self.project_name.as_ref(),
            Single::ProjectId => return text_of(self.task.get("project").unwrap_or(&Value::Null)),
        };
        text.cloned()
            .ok_or_else(|| "the task has no project, or its name is not known".to_owned())
    }

    fn in_object(&self, object: Object, path: &[Segment]) -> Result<String, String> {
        let project = (object == Object::Task).then(|| self.project(path)).flatten();
        if let Some(text) = project {
            return text;
        }
        let root = match object {
            Object::Task => &self.task,
            Object::User => &self.user,
            Object::Config => &self.config,
            Object::UserVaults => &self.user_vaults,
            Object::ProvidersInfo => &self.providers_info,
        };
        let secret = matches!(
            object,
            Object::Config | Object::UserVaults | Object::ProvidersInfo
        );
        let mut keys = Vec::new();
        let value = walk(root, path, &mut keys).ok_or_else(|| "there is no such value".to_owned())?;
        if secret && is_secret(&keys) {
            return Err("it may hold a secret, which is never shown".to_owned());
        }
        text_of(value)
    }

    /// `project` is an id; `project.id` and `project.name` are understood as well.
    fn project(&self, path: &[Segment]) -> Option<Result<String, String>> {
        let [first, second] = path else { return None };
        if first.name != "project" || !self.task.get("project").is_some_and(Value::is_string) {
            return None;
        }
        match second.name.as_str() {
            "id" => Some(self.single(Single::ProjectId)),
            "name" => Some(self.single(Single::ProjectName)),
            _ => None,
        }
    }
}

/// Follows a path. A key may itself contain dots: at every object the shortest key that leads to a value wins.
fn walk<'a>(value: &'a Value, path: &[Segment], keys: &mut Vec<String>) -> Option<&'a Value> {
    let Some(first) = path.first() else {
        return Some(value);
    };
    match value {
        Value::Array(list) => {
            let item = list.get(first.name.parse::<usize>().ok()?)?;
            keys.push(first.name.clone());
            let found = walk(item, &path[1..], keys);
            if found.is_none() {
                keys.pop();
            }
            found
        }
        Value::Object(map) => in_map(map, path, keys),
        _ => None,
    }
}

fn in_map<'a>(map: &'a Map<String, Value>, path: &[Segment], keys: &mut Vec<String>) -> Option<&'a Value> {
    let mut key = String::new();
    for (index, segment) in path.iter().enumerate() {
        if index > 0 {
            if segment.quoted || path[index - 1].quoted {
                return None;
            }
            key.push('.');
        }
        key.push_str(&segment.name);
        if let Some(inner) = map.get(&key) {
            keys.push(key.clone());
            // A null is not there.
            match walk(inner, &path[index + 1..], keys) {
                Some(found) if !found.is_null() => return Some(found),
                _ => drop(keys.pop()),
            }
        }
    }
    None
}

fn is_secret(keys: &[String]) -> bool {
    let path = keys.join(".").to_lowercase();
    path.starts_with("api.credentials")
        || ["secret", "password", "token", "git_pass", "passwd", "credential"]
            .iter()
            .any(|word| path.contains(word))
}

/// A value as text, or why it has none.
fn text_of(value: &Value) -> Result<String, String> {
    match value {
        Value::Null => Err("it is not set".to_owned()),
        Value::String(text) => Ok(text.clone()),
        Value::Bool(_) => Ok(value.to_string()),
        Value::Number(number) => Ok(number_text(number)),
        Value::Array(items) => items
            .iter()
            .map(|item| match item {
                Value::Array(_) | Value::Object(_) => Err("it is a list of objects".to_owned()),
                scalar => text_of(scalar),
            })
            .collect::<Result<Vec<_>, _>>()
            .map(|items| items.join(",")),
        Value::Object(map) if map.contains_key("value") && map.contains_key("name") => {
            Err("it is a parameter; add `.value`".to_owned())
        }
        Value::Object(_) => Err("it is an object; add the name of a field".to_owned()),
    }
}

fn number_text(number: &serde_json::Number) -> String {
    match number.as_f64() {
        Some(float) if number.is_f64() => {
            let text = float.to_string();
            if text.contains('.') {
                text
            } else {
                format!("{text}.0")
            }
        }
        _ => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_are_as_short_as_they_can_be() {
        for (value, text) in [
            (json!(true), "true"),
            (json!(3), "3"),
            (json!(2.50), "2.5"),
            (json!(1e3), "1000.0"),
            (json!([]), ""),
            (json!(["x", 1]), "x,1"),
        ] {
            assert_eq!(text_of(&value).as_deref(), Ok(text));
        }
        assert!(text_of(&json!([{}])).is_err());
    }
}
