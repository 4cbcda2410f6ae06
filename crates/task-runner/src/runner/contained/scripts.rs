//! What runs in a container before the task: scripts of the configuration and of the task, in one shell, so that
//! variables that one of them exports are there for the next and for the task.
//!
//! Each script is a file of its own and is run as it was written. Where there is none, no shell is started at all.

use clearml_agent_config::ContainerSettings;

use crate::inside;

/// The scripts for one container.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Scripts {
    /// Names and texts of files.
    pub(super) files: Vec<(&'static str, String)>,
    /// Whether a shell is needed.
    pub(super) needed: bool,
}

const START: &str = "start.sh";

impl Scripts {
    /// The scripts that are wanted, and the variables of the configuration that they see. The official agent is
    /// there before the scripts that may want it, if it is installed at all.
    pub(super) fn new(
        settings: &ContainerSettings,
        official: Option<&str>,
        setup: Option<&str>,
        pip: &str,
        variables: &[(String, String)],
    ) -> Self {
        let lines = |lines: &[String]| (!lines.is_empty()).then(|| lines.join("\n"));
        let agent = official.unwrap_or("clearml-agent");
        let formatted = |lines: &[String]| {
            let filled: Vec<String> = lines
                .iter()
                .map(|line| fill(line, settings, pip, agent))
                .collect();
            (!filled.is_empty()).then(|| filled.join("\n"))
        };
        let mut scripts = Self::default();
        let mut steps: Vec<String> = variables.iter().filter_map(export).collect();
        let mut add = |name: &'static str, text: Option<String>, steps: &mut Vec<String>| {
            if let Some(text) = text.filter(|text| !text.trim().is_empty()) {
                // Texts that people have typed into a browser on Windows.
                let text = text.replace("\r\n", "\n");
                steps.push(step(name, &text));
                scripts.files.push((name, text));
            }
        };
        add(
            "preprocess.sh",
            formatted(&settings.docker_preprocess_bash_script),
            &mut steps,
        );
        let init = formatted(&settings.docker_init_bash_script);
        let provides = init.is_none() || official.is_some();
        add("init.sh", init, &mut steps);
        if provides {
            steps.push("export CLEARML_APT_INSTALL LOCAL_PYTHON".to_owned());
            steps.push(format!("{} --tools || exit $?", inside_command()));
        }
        add("extra.sh", lines(&settings.extra_docker_shell_script), &mut steps);
        add("setup.sh", setup.map(str::to_owned), &mut steps);
        scripts.needed = !scripts.files.is_empty();
        if scripts.needed {
            steps.push("export CLEARML_APT_INSTALL LOCAL_PYTHON".to_owned());
            steps.push(format!("exec {}", inside_command()));
            scripts.files.push((START, steps.join("\n") + "\n"));
        }
        scripts
    }

    /// The command where no shell is needed.
    pub(super) fn direct(&self) -> Vec<String> {
        inside_command().split(' ').map(str::to_owned).collect()
    }

    /// The command with this shell.
    pub(super) fn by(&self, shell: &str) -> Vec<String> {
        vec![shell.to_owned(), format!("{}/{START}", inside::GIVEN)]
    }
}

/// Words without anything that a shell would see something in.
fn inside_command() -> String {
    format!(
        "{} inside --run {} --given {}",
        inside::PROGRAM,
        inside::RUN,
        inside::GIVEN
    )
}

/// One variable for the shell; `None` for what shells don't take.
fn export((name, value): &(String, String)) -> Option<String> {
    let word = |byte: u8| byte == b'_' || byte.is_ascii_alphanumeric();
    let is_name =
        name.bytes().all(word) && !name.starts_with(|c: char| c.is_ascii_digit()) && !name.is_empty();
    let value = shlex::try_quote(value).ok()?;
    is_name.then(|| format!("export {name}={value}"))
}

/// A script for shells becomes part of the one that runs; one for another interpreter is run.
fn step(name: &str, text: &str) -> String {
    let path = format!("{}/{name}", inside::GIVEN);
    let interpreter = text.strip_prefix("#!").and_then(|rest| rest.lines().next());
    let is_shell = interpreter.is_none_or(|line| {
        line.split([' ', '/', '\t'])
            .any(|word| ["sh", "bash", "dash", "ash"].contains(&word))
    });
    if is_shell { format!(". {path}") } else { path }
}

/// Fills what stands in braces, as the official agent does; doubled braces are braces.
fn fill(line: &str, settings: &ContainerSettings, pip: &str, agent: &str) -> String {
    let mut filled = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find(['{', '}']) {
        filled.push_str(&rest[..at]);
        let tail = &rest[at..];
        if let Some(after) = tail.strip_prefix("{{").or_else(|| tail.strip_prefix("}}")) {
            filled.push_str(&tail[..1]);
            rest = after;
            continue;
        }
        let inner = tail.strip_prefix('{').and_then(|tail| tail.split_once('}'));
        let value = inner.and_then(|(name, _)| {
            Some(match name {
                "python_single_digit" | "python" => "python3",
                "pip_version" => pip,
                "clearml_agent_wheel" => agent,
                "mount_ssh" => &settings.mounts.ssh_folder,
                "mount_ssh_ro" => &settings.mounts.ssh_ro_folder,
                "mount_git_ro" => GIT_FOLDER,
                _ => return None,
            })
        });
        match (value, inner) {
            (Some(value), Some((_, after))) => {
                filled.push_str(value);
                rest = after;
            }
            _ => {
                filled.push_str(&tail[..1]);
                rest = &tail[1..];
            }
        }
    }
    filled + rest
}

/// Where the files of git are mounted that are copied home.
pub(super) const GIT_FOLDER: &str = "/.ssh.git";

#[cfg(test)]
mod tests {
    use clearml_agent_config::{Settings, Sources};
    use serde_json::{Value, json};

    use super::*;

    fn scripts(overrides: &[(&str, Value)], setup: Option<&str>) -> Scripts {
        let settings = Settings::load(&Sources {
            home: Some("/nowhere".into()),
            overrides: overrides
                .iter()
                .map(|(key, value)| (format!("agent.{key}"), value.clone(), "test".to_owned()))
                .collect(),
            ..Sources::default()
        })
        .unwrap();
        let variables = [("TOKEN", "a 'b' $(c)\nd"), ("not a name", "x")];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Scripts::new(&settings.agent.containers, None, setup, "pip<23", &variables)
    }

    #[test]
    fn without_scripts_there_is_no_shell() {
        let none = scripts(&[], Some(" \n"));
        assert!(!none.needed && none.files.is_empty(), "{none:?}");
        assert_eq!(
            none.direct()[..2],
            ["/.clearml-agent/bin/clearml-agent", "inside"]
        );
    }

    #[test]
    fn scripts_run_in_their_order_and_as_they_are() {
        let setup = "if [ 1 = 1 ]; then\r\n  export A=\"b ; c\"\r\nfi\n";
        let all = scripts(
            &[
                (
                    "docker_preprocess_bash_script",
                    json!(["echo {{x}} {python} {y}", "two"]),
                ),
                ("extra_docker_shell_script", json!(["echo {z}"])),
            ],
            Some(setup),
        );
        let text = |name: &str| {
            all.files
                .iter()
                .find(|(file, _)| *file == name)
                .unwrap()
                .1
                .as_str()
        };
        assert_eq!(text("preprocess.sh"), "echo {x} python3 {y}\ntwo");
        assert_eq!(text("extra.sh"), "echo {z}");
        assert_eq!(text("setup.sh"), setup.replace('\r', ""));
        assert!(
            text("start.sh").starts_with("export TOKEN="),
            "variables of the configuration come first, and what is no name is left out: {}",
            text("start.sh")
        );
        let start: Vec<&str> = text("start.sh").lines().collect();
        let at = |what: &str| start.iter().position(|line| line.contains(what)).unwrap();
        assert!(at(". /.clearml-agent/in/preprocess.sh") < at("--tools || exit"));
        assert!(at("--tools || exit") < at(". /.clearml-agent/in/extra.sh"));
        assert!(at("extra.sh") < at("setup.sh") && at("setup.sh") < at("exec /.clearml-agent"));
        assert_eq!(all.by("/bin/sh"), ["/bin/sh", "/.clearml-agent/in/start.sh"]);
    }

    #[test]
    fn an_own_preparation_replaces_that_of_the_agent() {
        let own = scripts(
            &[(
                "docker_init_bash_script",
                json!("cp -r {mount_ssh_ro} {mount_ssh}; pip install '{pip_version}'"),
            )],
            Some("#!/usr/bin/env python3\nprint()"),
        );
        let text = |name: &str| {
            own.files
                .iter()
                .find(|(file, _)| *file == name)
                .unwrap()
                .1
                .as_str()
        };
        assert_eq!(text("init.sh"), "cp -r /.ssh ~/.ssh; pip install 'pip<23'");
        assert!(!text("start.sh").contains("--tools"));
        assert!(
            text("start.sh").contains("\n/.clearml-agent/in/setup.sh\n"),
            "a script for another interpreter is started: {}",
            text("start.sh")
        );
    }

    #[test]
    fn the_official_agent_is_there_before_the_scripts_of_people_and_after_an_own_preparation() {
        let settings = Settings::load(&Sources {
            home: Some("/nowhere".into()),
            overrides: vec![(
                "agent.docker_init_bash_script".to_owned(),
                json!("echo {clearml_agent_wheel}"),
                "test".to_owned(),
            )],
            ..Sources::default()
        })
        .unwrap();
        let containers = &settings.agent.containers;
        let scripts = Scripts::new(containers, Some("clearml-agent==1"), Some("true"), "", &[]);
        let text = |name: &str| scripts.files.iter().find(|(file, _)| *file == name).unwrap();
        assert_eq!(text("init.sh").1, "echo clearml-agent==1");
        let start = &text("start.sh").1;
        let at = |what: &str| start.find(what).unwrap();
        assert!(
            at("init.sh") < at("--tools || exit") && at("--tools || exit") < at("setup.sh"),
            "{start}"
        );
    }
}
