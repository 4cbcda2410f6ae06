//! `agent.default_python` as people see it: the version of the interpreter that is used where nothing else says one.

use std::time::Duration;

use clearml_agent_config::Settings;
use clearml_support::command::Command;

/// An interpreter says its version at once; what does not is a script that waits for something.
const PATIENCE: Duration = Duration::from_secs(2);

/// The settings with that version, where no version is configured and there is an interpreter.
pub(crate) fn shown(settings: &Settings) -> Settings {
    if settings.agent.default_python.is_some() {
        return settings.clone();
    }
    match version() {
        Some(version) => settings.showing_default_python(&version),
        None => settings.clone(),
    }
}

fn version() -> Option<String> {
    let output = Command::new("python3").arg("-V").timeout(PATIENCE).check().ok()?;
    major_and_minor(&String::from_utf8(output.stdout).ok()?)
}

/// Of a line like `Python 3.11.2`.
fn major_and_minor(line: &str) -> Option<String> {
    let version = line.trim().strip_prefix("Python ")?;
    let parts: Vec<&str> = version.split('.').take(2).collect();
    let numbers = parts.iter().all(|part| part.parse::<u16>().is_ok());
    (parts.len() == 2 && numbers).then(|| parts.join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_interpreters_say() {
        for (line, version) in [
            ("Python 3.11.2\n", Some("3.11")),
            ("Python 3.14.0rc1", Some("3.14")),
            ("Python 3", None),
            ("python: not found", None),
            ("Python a.b", None),
        ] {
            assert_eq!(major_and_minor(line).as_deref(), version, "{line:?}");
        }
    }
}
