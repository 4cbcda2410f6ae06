//! What goes into a container: files, and folders of this machine.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use clearml_agent_config::{Credentials, Settings};
use clearml_container::choice::Choice;
use clearml_container::request::Bind;
use clearml_support::fs::read_json;
use clearml_task_model::Task;
use serde_json::{Map, Value};

use super::super::Runner;
use super::super::setup::{LEFTOVER_GRACE, millis};
use super::scripts::Scripts;
use super::siblings::Surroundings;
use super::{mounts, official};
use crate::inside::{CONFIG_FILE, Given, INPUTS_FILE, TASK_FILE, Tools};
use crate::owner::TOKEN_VARIABLE;
use crate::record::{Launch, OsText, RunInputs, RunOptions, SCHEMA};
use crate::run_dir::{RunDir, RunDirError};

/// The mask of programs in a container, as engines set it.
const UMASK: u32 = 0o022;
const PROGRAM: &str = "clearml-agent";

/// A variable that tasks of this agent would get, as text.
pub(super) fn variable(inputs: &RunInputs, name: &str) -> Option<String> {
    let (_, value) = inputs.environment.iter().find(|(known, _)| known.0 == name)?;
    value.0.to_str().map(str::to_owned)
}

/// The socket of an agent for SSH keys, if there is one.
fn ssh_socket(inputs: &RunInputs) -> Option<String> {
    variable(inputs, "SSH_AUTH_SOCK").filter(|path| Path::new(path).exists())
}

pub(super) fn ssh_variable(inputs: &RunInputs) -> Option<String> {
    ssh_socket(inputs).map(|path| format!("SSH_AUTH_SOCK={path}"))
}

/// Writes the files. Returns the scripts among them, and everything that is to be mounted.
pub(super) fn write(
    runner: &Runner,
    task: &Task,
    choice: &Choice,
    settings: &Settings,
    surroundings: &Surroundings,
) -> Result<(Scripts, Vec<Bind>), String> {
    let text = |e: RunDirError| e.to_string();
    let run = &runner.run;
    // An earlier runner may have left something; nothing of that has run.
    for folder in [run.box_dir(), run.given_dir()] {
        clearml_support::fs::remove_tree(&folder)
            .map_err(|e| format!("removing {}: {e}", folder.display()))?;
    }
    run.make_box().map_err(text)?;
    run.give_json(TASK_FILE, task).map_err(text)?;
    let effective: Value = read_json(&runner.config).map_err(|e| e.to_string())?;
    let wishes = Wishes::new(runner, settings);
    run.give_json(CONFIG_FILE, &config(effective, settings, &wishes))
        .map_err(text)?;
    let containers = &settings.agent.containers;
    let known = |name: &str| variable(&runner.inputs, name);
    // Images are made by this agent.
    let wanted = match &runner.inputs.options.container {
        Some(options) => official::wanted(settings, options.current_version, &known)?,
        None => None,
    };
    let scripts = Scripts::new(
        containers,
        wanted.as_ref().map(|wanted| &*wanted.text),
        choice.setup_script.as_deref(),
        &settings.agent.package_manager.pip_version.join(" "),
        &if settings.flag("agent.docker_apply_environment_from_vault") {
            settings.environment()
        } else {
            Vec::new()
        },
    );
    place_scripts(run, &scripts)?;
    let socket = ssh_socket(&runner.inputs);
    let keys = mounts::keys(run, &runner.inputs, containers, socket.as_deref());
    let tools = containers.docker_init_bash_script.is_empty().then(|| Tools {
        opencv: containers.docker_install_opencv_libs,
        pip: wanted.is_some(),
        keys: keys.copies.clone(),
    });
    let official = wanted
        .map(|wanted| wanted.give(run, settings, &known))
        .transpose()?;
    let (official, wheel) = official.map_or((None, None), |(official, wheel)| (Some(official), wheel));
    let given = Given {
        run_id: runner.run_id.clone(),
        task: runner.identity.task.clone(),
        worker: runner.identity.worker.clone(),
        options: RunOptions {
            container: None,
            open_files: None,
            // Which GPUs there are is decided by the container.
            variables: Vec::new(),
            ..runner.inputs.options.clone()
        },
        environment: secrets(runner, settings)?,
        umask: UMASK,
        tools,
        official,
        bake: None,
    };
    run.give_json(INPUTS_FILE, &given).map_err(text)?;
    let program = place_program(&run.given_dir(), surroundings)
        .map_err(|e| format!("giving the container our program: {e}"))?;
    let mut binds = mounts::own(run, program);
    binds.extend(keys.binds);
    binds.extend(wheel);
    binds.extend(mounts::caches(settings));
    Ok((scripts, binds))
}

fn place_scripts(run: &RunDir, scripts: &Scripts) -> Result<(), String> {
    for (name, script) in &scripts.files {
        let path = run.give(name, script.as_bytes()).map_err(|e| e.to_string())?;
        std::fs::set_permissions(&path, Permissions::from_mode(0o755))
            .map_err(|e| format!("writing {}: {e}", path.display()))?;
    }
    Ok(())
}

/// Variables of the program that must not be seen from outside of the container.
fn secrets(runner: &Runner, settings: &Settings) -> Result<Vec<(OsText, OsText)>, String> {
    let owners = runner.token_for_program().map_err(|e| e.to_string())?;
    let token = owners.or_else(|| match settings.api.require_credentials() {
        Ok(Credentials::Token(token)) => Some(token),
        _ => None,
    });
    let variable = token.map(|token| (OsText::from(TOKEN_VARIABLE), OsText::from(token.expose())));
    Ok(variable.into_iter().collect())
}

/// What the shim inside shall run.
pub(super) fn write_launch(
    runner: &Runner,
    argv: Vec<String>,
    settings: &Settings,
    restarts: bool,
) -> Result<(), RunDirError> {
    let run = runner.run.inside();
    let launch = Launch {
        schema: SCHEMA,
        argv: argv.iter().map(|word| OsText(word.into())).collect(),
        env: Vec::new(),
        cwd: PathBuf::new(),
        umask: UMASK,
        grace_ms: millis(runner.settings.abort_grace),
        leftover_grace_ms: millis(runner.settings.abort_grace.min(LEFTOVER_GRACE)),
        segment_bytes: settings.agent.console.segment_bytes,
        console_max_bytes: settings.agent.console.max_bytes,
        abort_command: None,
        open_files: None,
        contained: true,
        restarts,
    };
    run.write_launch(&launch)?;
    let path = run.path().join("launch.json");
    let readable = std::fs::set_permissions(&path, Permissions::from_mode(0o644));
    readable.map_err(crate::run_dir::io_error("writing", &path))
}

/// The file of our program, as it is now: an upgrade must not change it under a task.
fn place_program(folder: &Path, surroundings: &Surroundings) -> std::io::Result<PathBuf> {
    let (exe, path) = (crate::spawn::this_program(), folder.join(PROGRAM));
    let linked = !exe.starts_with("/proc") && std::fs::hard_link(&exe, &path).is_ok();
    if linked {
        return Ok(path);
    }
    // On another file system, or the file of another user.
    if !exe.starts_with("/proc") && surroundings.knows(&exe) {
        return Ok(exe);
    }
    std::fs::copy(&exe, &path)?;
    std::fs::set_permissions(&path, Permissions::from_mode(0o755))?;
    Ok(path)
}

/// What variables of the agent say about the configuration inside.
#[derive(Default)]
struct Wishes {
    /// Whether environments see the packages of the image, as it is written.
    site_packages: Option<String>,
    /// Whether the pip of a standalone image stays as it is.
    drops_pip_version: bool,
}

impl Wishes {
    fn new(runner: &Runner, settings: &Settings) -> Self {
        let set = |name: &str| variable(&runner.inputs, name).filter(|value| !value.trim().is_empty());
        // As the official agent has it: only for servers that are not the open one.
        let session = runner.client.session();
        let other_server = session.is_some_and(|session| session.feature_set != "basic");
        Self {
            site_packages: set("CLEARML_AGENT_FORCE_SYSTEM_SITE_PACKAGES"),
            drops_pip_version: settings.agent.standalone_mode
                && other_server
                && set("CLEARML_AGENT_STANDALONE_CONFIG_BC").is_some_and(|text| !is_no(&text)),
        }
    }
}

fn is_no(text: &str) -> bool {
    ["0", "false", "no", "off"].contains(&text.trim().to_ascii_lowercase().as_str())
}

/// The configuration as it is right in the container.
fn config(mut config: Value, settings: &Settings, inside: &Wishes) -> Value {
    let mounts = &settings.agent.containers.mounts;
    let mut set = |path: &str, value: Value| set(&mut config, path, value);
    set(
        "sdk.storage.cache.default_base_dir",
        mounts.sdk_cache.clone().into(),
    );
    set(
        "agent.pip_download_cache.path",
        mounts.pip_download.clone().into(),
    );
    set("agent.vcs_cache.path", mounts.vcs_cache.clone().into());
    set("agent.venvs_dir", mounts.venv_build.clone().into());
    if settings.agent.venvs_cache.path.is_some() {
        set("agent.venvs_cache.path", mounts.venvs_cache.clone().into());
    }
    // The agent's own caches live as long as the container, at a place where its user may write.
    let state = format!("{}/.agent", mounts.venv_build.trim_end_matches('/'));
    set("agent.state_dir", state.into());
    set("agent.package_manager.conda_env_as_base_docker", false.into());
    set("agent.default_python", "".into());
    set("agent.python_binary", "".into());
    // What the container has is looked for there.
    set("agent.cuda_version", "".into());
    set("agent.cudnn_version", "".into());
    if inside.drops_pip_version {
        set("agent.package_manager.pip_version", Value::Null);
    }
    let refused = inside.site_packages.as_deref().is_some_and(is_no);
    if !refused {
        set("agent.package_manager.system_site_packages", true.into());
    }
    config
}

fn set(root: &mut Value, path: &str, value: Value) {
    let mut place = root;
    for part in path.split('.') {
        if !place.is_object() {
            *place = Value::Object(Map::new());
        }
        let Value::Object(map) = place else { return };
        place = map.entry(part).or_insert(Value::Null);
    }
    *place = value;
}

#[cfg(test)]
mod tests {
    use clearml_agent_config::Sources;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_configuration_says_what_is_right_inside() {
        let sources = Sources {
            home: Some("/home/me".into()),
            ..Sources::default()
        };
        let settings = Settings::load(&sources).unwrap();
        let effective = settings.effective_json();
        let at = |config: &Value, path: &str| {
            path.split('.')
                .try_fold(config, |value, part| value.get(part))
                .cloned()
                .unwrap_or_default()
        };
        let inside = config(effective.clone(), &settings, &Wishes::default());
        for (path, expected) in [
            (
                "sdk.storage.cache.default_base_dir",
                json!("/clearml_agent_cache"),
            ),
            (
                "agent.pip_download_cache.path",
                json!("/root/.clearml/pip-download-cache"),
            ),
            ("agent.vcs_cache.path", json!("/root/.clearml/vcs-cache")),
            ("agent.venvs_cache.path", json!("/root/.clearml/venvs-cache")),
            ("agent.venvs_dir", json!("~/.clearml/venvs-builds")),
            ("agent.default_python", json!("")),
            ("agent.python_binary", json!("")),
            ("agent.cuda_version", json!("")),
            ("agent.cudnn_version", json!("")),
            ("agent.package_manager.system_site_packages", json!(true)),
            ("agent.package_manager.conda_env_as_base_docker", json!(false)),
        ] {
            assert_eq!(at(&inside, path), expected, "{path}");
        }
        let wishes = Wishes {
            site_packages: Some("False".to_owned()),
            drops_pip_version: true,
        };
        let without = config(effective.clone(), &settings, &wishes);
        let key = "agent.package_manager.system_site_packages";
        assert_eq!(at(&without, key), at(&effective, key));
        let key = "agent.package_manager.pip_version";
        assert!(!at(&inside, key).is_null() && at(&without, key).is_null());
    }
}
