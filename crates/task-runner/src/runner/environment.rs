//! The environment of the user's process. Pure.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use clearml_task_model::{Task, TaskId, WorkerId};

use crate::record::{OsText, RunOptions};

/// Set in every process of a run, so that what escapes its supervision can be recognised.
pub(crate) const RUN_ID: &str = "CLEARML_AGENT_RUN_ID";

/// Variables of the agent that mean something else, or nothing, to the user's program.
const REMOVED: [&str; 6] = [
    "CLEARML_APT_INSTALL",
    "TRAINS_APT_INSTALL",
    "UV_CACHE_DIR",
    "UV_PYTHON_CACHE_DIR",
    "UV_PYTHON_INSTALL_DIR",
    "CLEARML_AGENT_STATE_DIR",
];

type Variables = BTreeMap<OsString, OsString>;

/// What the environment is made of.
pub(crate) struct Parts<'a> {
    /// The environment in which the agent was started.
    pub(crate) base: &'a [(OsText, OsText)],
    pub(crate) options: &'a RunOptions,
    pub(crate) task: &'a TaskId,
    pub(crate) worker: &'a WorkerId,
    /// None where nobody supervises the process.
    pub(crate) run_id: Option<&'a str>,
    /// None where the configuration comes from variables alone.
    pub(crate) config: Option<&'a Path>,
    /// The section `environment` of the configuration, if it applies.
    pub(crate) configured: &'a BTreeMap<String, String>,
}

/// The environment for tools that prepare the code, before anything is known about the code.
pub(crate) fn base(parts: &Parts<'_>) -> Variables {
    let mut variables: Variables = parts
        .base
        .iter()
        .map(|(k, v)| (k.0.clone(), v.0.clone()))
        .collect();
    for name in REMOVED {
        variables.remove(OsStr::new(name));
    }
    for (name, value) in old_names(&variables) {
        variables.entry(name).or_insert(value);
    }
    let mut both = |name: &str, value: &OsStr| {
        for prefix in ["CLEARML", "TRAINS"] {
            variables.insert(format!("{prefix}_{name}").into(), value.to_owned());
        }
    };
    both("TASK_ID", parts.task.as_str().as_ref());
    if let Some(config) = parts.config {
        both("CONFIG_FILE", config.as_os_str());
    }
    both(
        "LOG_LEVEL",
        parts.options.log_level.as_deref().unwrap_or("INFO").as_ref(),
    );
    // The agent ships the console; if the SDK did too, every line would be there twice.
    both("LOG_TASK_TO_BACKEND", "0".as_ref());
    both("WORKER_ID", parts.worker.as_str().as_ref());
    let mut set = |name: &str, value: &str| variables.insert(name.into(), value.into());
    set("CUDA_DEVICE_ORDER", "PCI_BUS_ID");
    if let Some(run_id) = parts.run_id {
        set(RUN_ID, run_id);
    }
    if !parts.options.worker_tags.is_empty() {
        set(
            "CLEARML_WORKER_TAGS",
            &parts
                .options
                .worker_tags
                .iter()
                .map(|tag| quote(tag))
                .collect::<Vec<_>>()
                .join(" "),
        );
    }
    for (name, value) in parts.configured {
        set(name, value);
    }
    if has_ascii_locale(&variables) {
        variables
            .entry("PYTHONIOENCODING".into())
            .or_insert_with(|| "utf-8".into());
    }
    variables
}

/// Whether a program takes text for ASCII, and would fail to print anything else.
fn has_ascii_locale(variables: &Variables) -> bool {
    let set = |name: &str| variables.get(OsStr::new(name)).filter(|value| !value.is_empty());
    ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .find_map(set)
        .is_none_or(|locale| locale == "C" || locale == "POSIX")
}

/// Adds what the prepared environment needs and what the task itself sets.
pub(crate) fn complete(
    mut variables: Variables,
    prepared: &[(OsString, Option<OsString>)],
    task: Option<&Task>,
) -> Vec<(OsText, OsText)> {
    for (name, value) in prepared {
        match value {
            Some(value) => variables.insert(name.clone(), value.clone()),
            None => variables.remove(name),
        };
    }
    let own = task
        .and_then(|task| task.hyperparams.get("Environment"))
        .into_iter()
        .flatten();
    for (name, parameter) in own {
        // A name with '=' or a zero byte can't be in an environment. The name of the run is how processes
        // are recognised that would get away otherwise.
        if !name.is_empty() && !name.contains(['=', '\0']) && name != RUN_ID {
            let value = parameter.value.clone().unwrap_or_default().replace('\0', "");
            variables.insert(name.into(), value.into());
        }
    }
    variables
        .into_iter()
        .map(|(k, v)| (OsText(k), OsText(v)))
        .collect()
}

/// `TRAINS_X` for every `CLEARML_X`: programs written before the product had its present name.
fn old_names(variables: &Variables) -> Vec<(OsString, OsString)> {
    let old = |name: &OsString| {
        let rest = name.as_bytes().strip_prefix(b"CLEARML_")?;
        Some(OsString::from_vec([b"TRAINS_", rest].concat()))
    };
    variables
        .iter()
        .filter_map(|(name, value)| Some((old(name)?, value.clone())))
        .collect()
}

/// One word for a shell, as readers of the variable expect it.
fn quote(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "@%_-+=:,./".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\"'\"'"))
}

/// A command line for people.
pub(crate) fn show_command(argv: &[OsString]) -> String {
    argv.iter()
        .map(|word| quote(&word.to_string_lossy()))
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn environment(base_variables: &[(&str, &str)], configured: &[(&str, &str)]) -> Variables {
        let variables: Vec<_> = base_variables
            .iter()
            .map(|(k, v)| ((*k).into(), (*v).into()))
            .collect();
        let configured = configured
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        let options = RunOptions {
            worker_tags: vec!["a".into(), "b c".into()],
            ..RunOptions::default()
        };
        base(&Parts {
            base: &variables,
            options: &options,
            task: &TaskId::new("t1"),
            worker: &WorkerId::new("w:0"),
            run_id: Some("r1"),
            config: Some(Path::new("/run/config.json")),
            configured: &configured,
        })
    }

    fn get<'a>(variables: &'a Variables, name: &str) -> Option<&'a str> {
        variables.get(OsStr::new(name)).and_then(|value| value.to_str())
    }

    #[test]
    fn documented_variables_are_set_under_both_names() {
        let got = environment(
            &[
                ("CLEARML_WORKER_ID", "outer"),
                ("CLEARML_X", "1"),
                ("TRAINS_Y", "2"),
            ],
            &[],
        );
        for (name, value) in [
            ("CLEARML_TASK_ID", "t1"),
            ("TRAINS_TASK_ID", "t1"),
            ("CLEARML_CONFIG_FILE", "/run/config.json"),
            ("CLEARML_LOG_LEVEL", "INFO"),
            ("CLEARML_LOG_TASK_TO_BACKEND", "0"),
            ("CLEARML_WORKER_ID", "w:0"),
            ("TRAINS_WORKER_ID", "w:0"),
            ("CUDA_DEVICE_ORDER", "PCI_BUS_ID"),
            ("CLEARML_WORKER_TAGS", "a 'b c'"),
            ("TRAINS_X", "1"),
            ("TRAINS_Y", "2"),
        ] {
            assert_eq!(get(&got, name), Some(value), "{name}");
        }
    }

    #[test]
    fn python_prints_any_text_where_the_locale_is_ascii() {
        let encoding = |variables: &[(&str, &str)]| {
            let got = environment(variables, &[]);
            get(&got, "PYTHONIOENCODING").map(str::to_owned)
        };
        for ascii in [
            &[][..],
            &[("LANG", "C")],
            &[("LC_ALL", "POSIX"), ("LANG", "de_DE.UTF-8")],
        ] {
            assert_eq!(encoding(ascii).as_deref(), Some("utf-8"), "{ascii:?}");
        }
        assert_eq!(
            encoding(&[("LC_ALL", ""), ("LC_CTYPE", "C.UTF-8"), ("LANG", "C")]),
            None
        );
        let own = [("LANG", "C"), ("PYTHONIOENCODING", "latin-1")];
        assert_eq!(encoding(&own).as_deref(), Some("latin-1"));
    }

    #[test]
    fn the_agents_own_paths_do_not_reach_the_program() {
        let got = environment(
            &[
                ("CLEARML_AGENT_STATE_DIR", "/x"),
                ("UV_CACHE_DIR", "/y"),
                ("HOME", "/h"),
            ],
            &[],
        );
        assert_eq!(get(&got, "CLEARML_AGENT_STATE_DIR"), None);
        assert_eq!(get(&got, "TRAINS_AGENT_STATE_DIR"), None);
        assert_eq!(get(&got, "UV_CACHE_DIR"), None);
        assert_eq!(get(&got, "HOME"), Some("/h"));
    }

    #[test]
    fn later_sources_win_task_over_environment_over_configuration() {
        let variables = environment(
            &[("PATH", "/bin"), ("A", "base")],
            &[("A", "conf"), ("B", "conf"), ("PATH", "/conf")],
        );
        let prepared = [("PATH".into(), Some("/venv/bin".into())), ("A".into(), None)];
        let task: Task = serde_json::from_value(json!({"hyperparams": {"Environment": {
            "B": {"section": "Environment", "name": "B", "value": "task"}, "bad=name": {"value": "x"},
            "CLEARML_AGENT_RUN_ID": {"value": "another"}
        }}}))
        .unwrap();
        let got = complete(variables, &prepared, Some(&task));
        let find = |name: &str| {
            got.iter()
                .find(|(k, _)| k.0 == name)
                .map(|(_, v)| v.0.to_str().unwrap())
        };
        assert_eq!(
            (find("PATH"), find("A"), find("B")),
            (Some("/venv/bin"), None, Some("task"))
        );
        assert_eq!(find(RUN_ID), Some("r1"));
        assert!(got.iter().all(|(k, _)| !k.0.to_str().unwrap().contains('=')));
    }

    #[test]
    fn commands_are_shown_as_a_shell_would_take_them() {
        let argv = ["python", "-u", "my script.py", "it's", ""].map(OsString::from);
        assert_eq!(show_command(&argv), r#"python -u 'my script.py' 'it'"'"'s' ''"#);
    }
}
