//! The official agent, where it is wanted: what is installed in the container, and is then the user's program.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use clearml_agent_config::Settings;
use clearml_container::gpus::Gpus;
use clearml_container::request::Bind;
use clearml_env_builder::pip_requirements;

use super::machine::{skips_gpus, wanted_gpus};
use super::mounts::{at_home, bind};
use crate::inside::{OFFICIAL_FILE, Official};
use crate::run_dir::RunDir;

/// The version whose behaviour this agent stands for.
const VERSION: &str = "3.0.3";
const PACKAGE: &str = "clearml-agent";
/// Where a wheel is mounted.
const WHEELS: &str = "/tmp";
/// Options of pip that are followed by no value.
const LONE: [&str; 4] = ["--pre", "--no-index", "--prefer-binary", "--require-hashes"];

/// What pip is to install.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// As it stands on a command line.
    pub(super) text: String,
    /// A file of this machine that is mounted for it, and where.
    wheel: Option<(PathBuf, String)>,
}

/// What is wanted: a wheel, before another source, before the package; `None` = this program runs the task.
pub(super) fn wanted(
    settings: &Settings,
    current: bool,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<Wanted>, String> {
    let key = settings.agent.containers.docker_install_agent;
    let set = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
    let package = |text: String| Wanted { text, wheel: None };
    // Nothing is installed then: who says nothing else means the agent of the image.
    if settings.agent.standalone_mode {
        return Ok(key.then(|| package(PACKAGE.to_owned())));
    }
    if let Some(path) = set("FORCE_LOCAL_CLEARML_AGENT_WHEEL") {
        let path = at_home(path.trim());
        let plain = |name: &&str| {
            let known = |c: char| c.is_ascii_alphanumeric() || "._-+!".contains(c);
            name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(known)
        };
        let name = path.file_name().and_then(|name| name.to_str()).filter(plain);
        let name = name.ok_or_else(|| {
            format!(
                "FORCE_LOCAL_CLEARML_AGENT_WHEEL is {}: not the name of a wheel",
                path.display()
            )
        })?;
        let target = format!("{WHEELS}/{name}");
        return Ok(Some(Wanted {
            text: target.clone(),
            wheel: Some((path, target)),
        }));
    }
    let source = ["FORCE_CLEARML_AGENT_REPO", "CLEARML_AGENT_DOCKER_AGENT_REPO"]
        .into_iter()
        .find_map(set);
    Ok(match source {
        Some(source) => Some(package(source)),
        None if key && current => Some(package(format!("{PACKAGE}=={VERSION}"))),
        None => key.then(|| package(PACKAGE.to_owned())),
    })
}

impl Wanted {
    /// Writes what pip reads, since logins in an address are not for command lines. Returns what the agent inside
    /// has to know, and what is to be mounted.
    pub(super) fn give(
        &self,
        run: &RunDir,
        settings: &Settings,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<(Official, Option<Bind>), String> {
        let list = list(&self.text)?;
        run.give(OFFICIAL_FILE, list.as_bytes())
            .map_err(|e| e.to_string())?;
        let wheel = match &self.wheel {
            Some((path, target)) => Some(copied(run, path, target).map_err(|e| {
                format!(
                    "the wheel of FORCE_LOCAL_CLEARML_AGENT_WHEEL, {}, can't be given to the container: {e}",
                    path.display()
                )
            })?),
            None => None,
        };
        let official = Official {
            pip: pip_requirements(&settings.agent.package_manager.pip_version),
            visible_gpus: visible_gpus(settings.agent.cpu_only, variable),
        };
        Ok((official, wheel))
    }
}

/// A copy, which stays as it is while the task runs.
fn copied(run: &RunDir, path: &Path, target: &str) -> std::io::Result<Bind> {
    let name = Path::new(target).file_name().unwrap_or_default();
    let copy = run.given_dir().join(name);
    std::fs::copy(path, &copy)?;
    std::fs::set_permissions(&copy, Permissions::from_mode(0o644))?;
    Ok(bind(copy, target, true, false))
}

/// What the official agent sees as its GPUs: those of the container, whichever they are.
fn visible_gpus(cpu_only: bool, variable: &dyn Fn(&str) -> Option<String>) -> String {
    let skips = skips_gpus(variable);
    let visible = variable("NVIDIA_VISIBLE_DEVICES").filter(|value| !value.is_empty());
    match wanted_gpus(cpu_only, variable) {
        Gpus::None => "none".to_owned(),
        _ if skips => visible.unwrap_or_else(|| "all".to_owned()),
        _ => "all".to_owned(),
    }
}

/// Words of a command line as lines of a list for pip: an option stands beside its value, all else alone.
fn list(text: &str) -> Result<String, String> {
    let words = shlex::split(text).filter(|words| !words.iter().any(|word| word.contains(['\n', '\r'])));
    let words =
        words.ok_or("what is to be installed as agent has a quote without end, or lines within quotes")?;
    let mut list = String::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        list.push_str(word);
        let takes_one = word.starts_with('-') && !word.contains('=') && !LONE.contains(&word.as_str());
        if let Some(value) = takes_one.then(|| words.next()).flatten() {
            list.push(' ');
            list.push_str(value);
        }
        list.push('\n');
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use clearml_agent_config::Sources;
    use serde_json::Value;

    use super::*;

    fn settings(flags: &[&str]) -> Settings {
        let set = |key: &&str| (format!("agent.{key}"), Value::Bool(true), "test".to_owned());
        Settings::load(&Sources {
            home: Some("/nowhere".into()),
            overrides: flags.iter().map(set).collect(),
            ..Sources::default()
        })
        .unwrap()
    }

    #[test]
    fn the_first_that_is_named_is_installed() {
        let all = [
            ("CLEARML_AGENT_DOCKER_AGENT_REPO", "git+https://host/second"),
            ("FORCE_CLEARML_AGENT_REPO", "git+https://host/first"),
            ("FORCE_LOCAL_CLEARML_AGENT_WHEEL", "/wheels/agent-1.whl"),
        ];
        let of = |flags: &[&str], current: bool, count: usize| {
            let variable = |name: &str| {
                let found = all[..count].iter().find(|(known, _)| *known == name)?;
                Some(found.1.to_owned())
            };
            let wanted = wanted(&settings(flags), current, &variable).unwrap();
            wanted.map(|wanted| wanted.text)
        };
        let key = ["docker_install_agent"];
        assert_eq!(of(&[], true, 0), None, "this program is this version");
        assert_eq!(of(&key, false, 0).as_deref(), Some("clearml-agent"));
        assert_eq!(of(&key, true, 0).as_deref(), Some("clearml-agent==3.0.3"));
        assert_eq!(of(&key, true, 1).as_deref(), Some("git+https://host/second"));
        assert_eq!(of(&[], false, 2).as_deref(), Some("git+https://host/first"));
        assert_eq!(of(&key, false, 3).as_deref(), Some("/tmp/agent-1.whl"));
        assert_eq!(of(&["standalone_mode"], false, 3), None);
        let standalone = ["standalone_mode", "docker_install_agent"];
        assert_eq!(of(&standalone, false, 3).as_deref(), Some("clearml-agent"));
        let hostile = |_: &str| Some("/wheels/a.whl --index-url evil".to_owned());
        assert!(wanted(&settings(&[]), false, &hostile).is_err());
    }

    #[test]
    fn words_become_lines() {
        let of = |text: &str| list(text).unwrap();
        assert_eq!(of("clearml-agent==1"), "clearml-agent==1\n");
        assert_eq!(
            of("--pre -i https://a/simple 'x @ git+https://a/b' --index-url=c y"),
            "--pre\n-i https://a/simple\nx @ git+https://a/b\n--index-url=c\ny\n"
        );
        assert!(list("'a").is_err() && list("'a\n-i b'").is_err());
    }

    #[test]
    fn gpus_are_those_of_the_container() {
        let of = |cpu_only: bool, variables: &[(&str, &str)]| {
            visible_gpus(cpu_only, &|name| {
                let found = variables.iter().find(|(known, _)| *known == name)?;
                Some(found.1.to_owned())
            })
        };
        let (list, skip) = (
            ("NVIDIA_VISIBLE_DEVICES", "1,2"),
            ("CLEARML_DOCKER_SKIP_GPUS_FLAG", "1"),
        );
        assert_eq!(of(true, &[list]), "none");
        assert_eq!(of(false, &[list]), "all");
        assert_eq!(of(false, &[list, skip]), "1,2");
        assert_eq!(of(false, &[skip]), "all");
    }
}
