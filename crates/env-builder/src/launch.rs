//! The command line and the environment of the user's code.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::code::info::{ExecutionInfo, Interpreter, expand};
use crate::code::literal::LiteralEntry;
use crate::packages::select::Environment;
use crate::tools::{Context, is_true};

/// There is nothing to start.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// No entry point and no script.
    #[error("the task has no entry point and no script, so there is nothing to run")]
    NothingToRun,
    /// The entry point is not there.
    #[error("entry point {entry:?} does not exist in {}; correct the entry point, or commit and push the file", folder.display())]
    NoEntryPoint {
        /// The entry point.
        entry: String,
        /// Where it was looked for.
        folder: PathBuf,
    },
    /// The working folder is not there.
    #[error("working folder {folder:?} does not exist in {}; correct the working folder of the task", root.display())]
    NoFolder {
        /// The working folder of the task.
        folder: String,
        /// The root of the code.
        root: PathBuf,
    },
    /// No code, where none may be fetched.
    #[error(
        "there is no copy of {repository} in {}, and nothing is fetched in standalone mode; name the folder with the \
         code in CLEARML_AGENT_FORCE_CODE_DIR, or leave --standalone-mode away", builds.display()
    )]
    NoCopy {
        /// The repository.
        repository: String,
        /// Where earlier builds are.
        builds: PathBuf,
    },
    /// No shell.
    #[error("the task wants a shell, but there is no {tried:?} on this machine")]
    NoShell {
        /// What was looked for.
        tried: String,
    },
    /// A notebook could not be converted.
    #[error("converting notebook {entry:?} to a script with nbconvert: {reason}")]
    Notebook {
        /// The entry point.
        entry: String,
        /// Why.
        reason: String,
    },
}

/// Variables that steer our own use of tools and would only confuse the task.
const REMOVED: [&str; 6] = [
    "PYTHONHOME",
    "CLEARML_APT_INSTALL",
    "TRAINS_APT_INSTALL",
    "UV_CACHE_DIR",
    "UV_PYTHON_CACHE_DIR",
    "UV_PYTHON_INSTALL_DIR",
];

/// What runs the user's code.
#[derive(Debug)]
pub(crate) enum Runtime<'a> {
    /// An environment that was made or chosen.
    Environment(&'a Environment),
    /// An interpreter of the machine.
    System(PathBuf),
    /// A shell without Python.
    None,
}

impl Runtime<'_> {
    pub(crate) fn python(&self) -> Option<&Path> {
        match self {
            Self::Environment(environment) => Some(&environment.venv.python),
            Self::System(python) => Some(python),
            Self::None => None,
        }
    }

    /// What starts the interpreter.
    fn command(&self) -> Option<Vec<OsString>> {
        match self {
            Self::Environment(environment) => Some(environment.command.clone()),
            Self::System(python) => Some(vec![python.into()]),
            Self::None => None,
        }
    }
}

/// The code of a task, where it lies.
#[derive(Debug, Clone)]
pub(crate) struct Code {
    /// Root of the working copy, or the folder of the literal script.
    pub(crate) root: PathBuf,
    /// Working folder below (or beside) it.
    pub(crate) working_dir: String,
    /// A written literal script and how to start it.
    pub(crate) literal: Option<(PathBuf, LiteralEntry)>,
    /// Whether `root` is a repository.
    pub(crate) is_repository: bool,
    /// Below it, files are the agent's to change. A folder that somebody has prepared is not.
    pub(crate) own: Option<PathBuf>,
    /// Where a script that lies elsewhere would have been started, so that it finds its modules first there.
    pub(crate) beside: Option<PathBuf>,
}

impl Code {
    /// The folder in which the code is started.
    pub(crate) fn folder(&self) -> PathBuf {
        match self.working_dir.split(':').next().unwrap_or_default() {
            "" | "." => self.root.clone(),
            folder => self.root.join(folder),
        }
    }

    /// Whether a file may be written under this name: in the agent's own folder, and not through a link.
    pub(crate) fn owns(&self, file: &Path) -> bool {
        let (Some(own), Some(folder)) = (&self.own, file.parent()) else {
            return false;
        };
        let is_link = file.symlink_metadata().is_ok_and(|meta| meta.is_symlink());
        match (own.canonicalize(), folder.canonicalize()) {
            (Ok(own), Ok(folder)) => !is_link && folder.starts_with(own),
            _ => false,
        }
    }
}

/// Program, arguments and folder.
pub(crate) struct Launch {
    pub(crate) argv: Vec<OsString>,
    pub(crate) cwd: PathBuf,
    /// The script, if the entry point is a file.
    pub(crate) script: Option<PathBuf>,
}

/// Decides what to start. `task_id` fills `$CLEARML_TASK_ID` in module entry points.
pub(crate) fn launch(
    context: &Context<'_>,
    info: &ExecutionInfo,
    code: &Code,
    runtime: &Runtime<'_>,
    task_id: &str,
) -> Result<Launch, LaunchError> {
    let cwd = code.folder();
    let outside = matches!(code.working_dir.split('/').next(), Some(".."));
    if outside || !cwd.is_dir() {
        return Err(LaunchError::NoFolder {
            folder: code.working_dir.clone(),
            root: code.root.clone(),
        });
    }
    let mut argv: Vec<OsString> = Vec::new();
    match (info.interpreter, runtime.command()) {
        (Interpreter::Python, Some(command)) => {
            argv.extend(command);
            argv.push("-u".into());
            match context.settings.optimization {
                0 => {}
                1 => argv.push("-O".into()),
                _ => argv.push("-OO".into()),
            }
        }
        _ => argv.push(shell(context, &info.binary)?.into()),
    }
    let (words, script) = words(context, info, code, &cwd, task_id)?;
    argv.extend(words.into_iter().map(OsString::from));
    Ok(Launch { argv, cwd, script })
}

type Words = (Vec<String>, Option<PathBuf>);

fn words(
    context: &Context<'_>,
    info: &ExecutionInfo,
    code: &Code,
    cwd: &Path,
    task_id: &str,
) -> Result<Words, LaunchError> {
    if let Some((file, LiteralEntry::File { arguments })) = &code.literal {
        let mut words = vec![file.to_string_lossy().into_owned()];
        words.extend(split(arguments).unwrap_or_else(|| vec![arguments.clone()]));
        return Ok((words, Some(file.clone())));
    }
    let entry = info.entry_point.as_str();
    if entry.is_empty() {
        return Err(LaunchError::NothingToRun);
    }
    if info.interpreter == Interpreter::Shell && info.entry_is_option('c') {
        // The text is a program: not a character of it is ours to change.
        return Ok((vec!["-c".to_owned(), entry[2..].trim().to_owned()], None));
    }
    if info.interpreter == Interpreter::Python && (info.entry_is_option('m') || info.entry_is_option('c')) {
        let mut text = entry.to_owned();
        if info.entry_is_option('m') && entry.contains('$') {
            text = expand(entry, &job_variables(context, task_id));
            context.info(&format!("INFO: parsing environment variables: {text}"));
        }
        return Ok((split(&text).unwrap_or_else(|| vec![text.clone()]), None));
    }
    if cwd.join(entry).exists() {
        return Ok((vec![entry.to_owned()], Some(cwd.join(entry))));
    }
    let words = split(entry).unwrap_or_else(|| vec![entry.to_owned()]);
    match words.first() {
        Some(script) if cwd.join(script).exists() => {
            context.info(&format!("INFO: the entry point contains arguments: {entry}"));
            let script = cwd.join(script);
            Ok((words, Some(script)))
        }
        _ => Err(LaunchError::NoEntryPoint {
            entry: entry.to_owned(),
            folder: cwd.to_owned(),
        }),
    }
}

fn split(text: &str) -> Option<Vec<String>> {
    shlex::split(text)
}

fn job_variables(context: &Context<'_>, task_id: &str) -> BTreeMap<String, String> {
    let mut variables = context.settings.env.clone();
    for name in ["CLEARML_TASK_ID", "TRAINS_TASK_ID"] {
        variables.insert(name.to_owned(), task_id.to_owned());
    }
    variables
}

/// The shell that the task names if this machine has it, else the user's, else any.
fn shell(context: &Context<'_>, binary: &str) -> Result<PathBuf, LaunchError> {
    let candidates = [
        Some(binary),
        context.var("SHELL"),
        Some("/bin/bash"),
        Some("/bin/sh"),
    ];
    candidates
        .into_iter()
        .flatten()
        .filter(|name| !name.is_empty())
        .find_map(|name| context.find_program(name))
        .ok_or_else(|| LaunchError::NoShell {
            tried: binary.to_owned(),
        })
}

/// The variables of the task that follow from its environment and its code.
pub(crate) fn variables(
    context: &Context<'_>,
    launch: &Launch,
    code: &Code,
    runtime: &Runtime<'_>,
) -> Vec<(OsString, Option<OsString>)> {
    let mut env: Vec<(OsString, Option<OsString>)> = Vec::new();
    if let Runtime::Environment(environment) = runtime {
        let venv = &environment.venv;
        let bin = venv.root.join("bin");
        let path = context
            .var("PATH")
            .map(std::env::split_paths)
            .into_iter()
            .flatten();
        env.push(("PATH".into(), joined([bin].into_iter().chain(path))));
        if environment.is_virtual {
            env.push(("VIRTUAL_ENV".into(), Some(venv.root.clone().into())));
        }
    }
    if let Some(path) = joined(python_path(context, launch, code, runtime)) {
        env.push(("PYTHONPATH".into(), Some(path)));
    }
    env.extend(REMOVED.iter().map(|name| (OsString::from(name), None)));
    env
}

/// Joins what can be joined: a folder whose name contains a colon can't be in a search path.
fn joined(paths: impl IntoIterator<Item = PathBuf>) -> Option<OsString> {
    let mut seen = Vec::new();
    for path in paths {
        if !path.as_os_str().is_empty() && !seen.contains(&path) && std::env::join_paths([&path]).is_ok() {
            seen.push(path);
        }
    }
    std::env::join_paths(&seen).ok().filter(|path| !path.is_empty())
}

fn python_path(context: &Context<'_>, launch: &Launch, code: &Code, runtime: &Runtime<'_>) -> Vec<PathBuf> {
    let listed = |name: &str| -> Vec<PathBuf> {
        context
            .var(name)
            .map(std::env::split_paths)
            .into_iter()
            .flatten()
            .collect()
    };
    let mut path: Vec<PathBuf> = code.beside.iter().cloned().collect();
    path.extend(listed("PYTHONPATH"));
    if context.settings.force_git_root_python_path && code.is_repository {
        path.push(code.root.clone());
    } else {
        path.push(launch.cwd.clone());
        let folder = launch.script.as_deref().and_then(Path::parent);
        path.extend(folder.map(Path::to_owned));
    }
    if let Runtime::Environment(Environment {
        venv, own_path: true, ..
    }) = runtime
    {
        path.extend(venv.interpreter.stdlib.iter().cloned());
        path.push(venv.site_packages.clone());
        if venv.system_site_packages {
            path.extend(venv.interpreter.base_sites.iter().cloned());
        }
    }
    path.extend(listed("CLEARML_AGENT_EXTRA_PYTHON_PATH"));
    path
}

/// Whether the Python environment is skipped: by request, or because nothing needs it.
pub(crate) fn skips_python(context: &Context<'_>, info: &ExecutionInfo, has_pip_list: bool) -> bool {
    let asked = context
        .var("CLEARML_AGENT_SKIP_PYTHON_ENV_INSTALL")
        .is_some_and(is_true);
    let shell_only = info.repository.is_empty()
        && !has_pip_list
        && !info.binary.is_empty()
        && !info.binary.contains("python");
    asked || shell_only || context.settings.standalone.is_some()
}
