//! What is about to be run, for people. Pure.

use std::fmt::Write;

use clearml_env_builder::code::repo_url::without_password;
use clearml_support::text::printable_in_line;
use clearml_task_model::{Task, TaskId};

/// The line that other tools wait for, and what the task says about its code.
pub(crate) fn described(id: &TaskId, task: &Task) -> String {
    let script = task.script.clone().unwrap_or_default();
    let text = Option::unwrap_or_default;
    let execution = task.execution.as_ref();
    let image = execution.and_then(|execution| execution.get("docker_cmd")?.as_str());
    let mut described = format!("Executing task id [{id}]:");
    for (name, value) in [
        ("repository", without_password(text(script.repository).trim())),
        ("branch", text(script.branch)),
        ("version_num", text(script.version_num)),
        ("tag", text(script.tag)),
        ("docker_cmd", image.unwrap_or_default().to_owned()),
        ("entry_point", text(script.entry_point)),
        ("working_dir", text(script.working_dir)),
    ] {
        // Writing to a string does not fail.
        let _ = write!(described, "\n{name} = {}", printable_in_line(value.trim()));
    }
    described
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn all_fields_are_named_and_no_password_is_shown() {
        let task: Task = serde_json::from_value(json!({
            "script": {"repository": "https://me:pa55@example.com/r.git", "entry_point": "a.py ", "working_dir": "."},
            "execution": {"docker_cmd": "image"},
        }))
        .unwrap();
        assert_eq!(
            described(&TaskId::new("t"), &task),
            "Executing task id [t]:\nrepository = https://me@example.com/r.git\nbranch = \nversion_num = \n\
             tag = \ndocker_cmd = image\nentry_point = a.py\nworking_dir = ."
        );
    }
}
