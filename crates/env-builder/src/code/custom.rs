//! `agent.custom_build_script`: a program of the user that prepares the environment in place of the
//! builder, and says what to start.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use clearml_support::fs::{create_private_file, read_limited};
use clearml_task_model::Task;
use serde::Deserialize;

use crate::code::info::{ExecutionInfo, expand};
use crate::error::{BuildError, at};
use crate::launch::Code;
use crate::tools::Context;

const VARIABLE: &str = "CLEARML_AGENT_CUSTOM_BUILD_SCRIPT";
/// The task is given as a variable too if it is smaller than this; all variables together have a limit.
const MAX_VARIABLE: usize = 100_000;
/// What the program writes is a small object.
const MAX_OUTPUT: u64 = 1 << 20;

/// What to start, as the program says: absolute paths that exist.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Custom {
    pub(crate) binary: PathBuf,
    pub(crate) entry_point: PathBuf,
    pub(crate) working_dir: PathBuf,
}

/// The configured program, if any.
pub(crate) fn configured(context: &Context<'_>) -> Option<PathBuf> {
    let settings = context.settings;
    let text = settings
        .custom_build_script
        .as_deref()
        .filter(|text| !text.trim().is_empty())
        .or(context.var(VARIABLE))
        .map(str::trim)
        .filter(|text| !text.is_empty())?;
    Some(expand(text, &settings.env).into())
}

/// Runs it. `None`, with a warning, when it leaves the work to the builder or can't be used.
pub(crate) fn run(
    context: &Context<'_>,
    task: &Task,
    info: &ExecutionInfo,
    code: &Code,
    run_dir_env: &Path,
) -> Result<Option<Custom>, BuildError> {
    let Some(script) = configured(context) else {
        return Ok(None);
    };
    let Ok(status) = fs::metadata(&script) else {
        context.warn(&format!(
            "custom build script {} does not exist: the environment is built as usual",
            script.display()
        ));
        return Ok(None);
    };
    let temp = run_dir_env.join("tmp");
    let (task_file, output) = (temp.join("task.json"), temp.join("custom-build-output.json"));
    let json = serde_json::to_string(task).unwrap_or_default();
    for (path, text) in [(&task_file, json.as_str()), (&output, "")] {
        create_private_file(path)
            .and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()))
            .map_err(at("writing", path))?;
    }
    let executable = status.permissions().mode() & 0o111 != 0;
    let mut command = if executable {
        context.command(&script)
    } else {
        let bash = context.find_program("bash");
        context
            .command(&bash.unwrap_or_else(|| "/bin/sh".into()))
            .arg(&script)
    }
    .cwd(&code.root)
    .env("CLEARML_TASK_SCRIPT_ENTRY", &info.entry_point)
    .env("CLEARML_TASK_WORKING_DIR", &info.working_dir)
    .env("CLEARML_VENV_PATH", run_dir_env.join("venv"))
    .env("CLEARML_GIT_ROOT", &code.root)
    .env(VARIABLE, &script)
    .env("CLEARML_CUSTOM_BUILD_TASK_CONFIG_FILE", &task_file)
    .env("CLEARML_CUSTOM_BUILD_OUTPUT", &output);
    if json.len() <= MAX_VARIABLE {
        command = command.env("CLEARML_CUSTOM_BUILD_TASK_CONFIG_JSON", &json);
    }
    context.info(&format!("running custom build script {}", script.display()));
    let ended = context.stream(&command).map_err(BuildError::CustomScriptStart)?;
    if !ended.status.success() {
        // As a shell counts: a signal is a code above 128.
        let signal = std::os::unix::process::ExitStatusExt::signal(&ended.status);
        let code = ended.status.code().or(signal.map(|number| 128 + number));
        return Err(BuildError::CustomScript {
            code: code.unwrap_or(1),
        });
    }
    match read(&output) {
        Ok(custom) => Ok(Some(custom)),
        Err(reason) => {
            context.warn(&format!(
                "custom build script {}: {reason}; the environment is built as usual",
                script.display()
            ));
            Ok(None)
        }
    }
}

fn read(output: &Path) -> Result<Custom, String> {
    let bytes =
        read_limited(output, MAX_OUTPUT).map_err(|error| format!("reading what it wrote: {error}"))?;
    if bytes.is_empty() {
        return Err("it wrote nothing to CLEARML_CUSTOM_BUILD_OUTPUT".to_owned());
    }
    let custom: Custom =
        serde_json::from_slice(&bytes).map_err(|error| format!("what it wrote can't be used: {error}"))?;
    let is_file: fn(&Path) -> bool = Path::is_file;
    for (name, path, good) in [
        ("binary", &custom.binary, is_file),
        ("entry_point", &custom.entry_point, is_file),
        ("working_dir", &custom.working_dir, Path::is_dir),
    ] {
        if !path.is_absolute() || !good(path) {
            return Err(format!(
                "{name} {} is not an absolute path of what it shall be",
                path.display()
            ));
        }
    }
    Ok(custom)
}
