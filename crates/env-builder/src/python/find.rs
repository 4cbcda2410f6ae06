//! Which interpreter a task gets.

use std::path::Path;
use std::time::Duration;

use crate::code::info::ExecutionInfo;
use crate::python::PythonError;
use crate::python::probe::{Interpreter, probe};
use crate::request::EnvSettings;
use crate::tools::Context;

const UV_TIMEOUT: Duration = Duration::from_secs(30);

/// The version that a task asks for with `script.binary`: `3.10` from `/usr/bin/python3.10.4`. Pure.
#[must_use]
pub fn requested_version(binary: &str) -> Option<String> {
    let name = binary
        .rsplit('/')
        .next()
        .filter(|name| name.starts_with("python"))?;
    let text = name.replace("python", "");
    let mut numbers = text.split('.').map(str::parse::<u32>);
    let major = numbers.next()?.ok()?;
    match numbers.next() {
        None => Some(major.to_string()),
        Some(minor) => Some(format!("{major}.{}", minor.ok()?)),
    }
}

/// The names to look for, in order: `python3.10`, `python3`, `python` for `3.10`. A path stands for
/// itself. Pure.
#[must_use]
pub fn candidates(request: &str) -> Vec<String> {
    if request.contains('/') {
        return vec![request.to_owned()];
    }
    let mut names = Vec::new();
    if request.contains(|c: char| !c.is_ascii_digit() && c != '.') && !request.starts_with("python") {
        names.push(request.to_owned());
    }
    let mut version = request.trim_start_matches("python").to_owned();
    if !version.starts_with(|c: char| c.is_ascii_digit()) {
        version.clear();
    }
    loop {
        names.push(format!("python{version}"));
        match version.rfind('.') {
            Some(dot) => version.truncate(dot),
            None if version.is_empty() => break,
            None => version.clear(),
        }
    }
    if !names.iter().any(|name| name == "python3") {
        names.push("python3".to_owned());
    }
    names
}

/// Whether a version is what was asked for: `3.1` is not satisfied by 3.10. Pure.
#[must_use]
pub fn satisfies(version: [u32; 3], request: &str) -> bool {
    let wanted = request
        .rsplit('/')
        .next()
        .unwrap_or_default()
        .trim_start_matches("python");
    if request.contains('/') || wanted.is_empty() {
        return true;
    }
    let wanted: Result<Vec<u32>, _> = wanted.split('.').map(str::parse).collect();
    // A name that is not a version was found by that name, which is all it asks for.
    wanted.is_ok_and(|wanted| version.starts_with(&wanted[..wanted.len().min(3)]))
        || !request_is_version(request)
}

fn request_is_version(request: &str) -> bool {
    request
        .trim_start_matches("python")
        .chars()
        .all(|c| c.is_ascii_digit() || c == '.')
}

/// The interpreter for a task, and whether it is what was asked for.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) interpreter: Interpreter,
    /// The version that was asked for and is not there.
    pub(crate) missing: Option<String>,
}

/// Finds the interpreter for a task, and says so where it is not the one that was asked for.
pub(crate) fn find(context: &Context<'_>, info: &ExecutionInfo) -> Result<Interpreter, PythonError> {
    let found = look(context, info)?;
    if let Some(request) = &found.missing {
        warn_of_other(context, request, &found.interpreter);
    }
    Ok(found.interpreter)
}

/// Says that the task gets another interpreter than it asks for.
pub(crate) fn warn_of_other(context: &Context<'_>, request: &str, found: &Interpreter) {
    context.warn(&format!(
        "Python {request} was requested but not found; {} (version {}) is used instead; install Python {request} \
         on this worker if the task needs it",
        found.executable.display(),
        found.full_version()
    ));
}

/// Finds the interpreter for a task.
pub(crate) fn look(context: &Context<'_>, info: &ExecutionInfo) -> Result<Found, PythonError> {
    let settings = context.settings;
    let mut tried = Vec::new();
    for request in requests(settings, info) {
        if let Some(found) = search(context, &request, &mut tried) {
            return Ok(found);
        }
        context.warn(&format!("no interpreter for Python {request} was found"));
    }
    Err(PythonError::NotFound { tried })
}

/// What is asked for, in order: by the task, by the configuration, any.
pub(crate) fn requests(settings: &EnvSettings, info: &ExecutionInfo) -> Vec<String> {
    let by_task = requested_version(&info.binary).filter(|_| !settings.ignore_requested_python_version);
    let configured = settings
        .python_binary
        .as_ref()
        .map(|path| path.to_string_lossy().into_owned());
    let requests = [
        by_task,
        configured,
        settings.default_python.clone(),
        Some("3".to_owned()),
    ];
    let mut out: Vec<String> = Vec::new();
    for request in requests.into_iter().flatten() {
        if !request.is_empty() && !out.contains(&request) {
            out.push(request);
        }
    }
    out
}

fn search(context: &Context<'_>, request: &str, tried: &mut Vec<String>) -> Option<Found> {
    let mut fallback: Option<Interpreter> = None;
    for name in candidates(request) {
        if !tried.contains(&name) {
            tried.push(name.clone());
        }
        let Some(path) = context.find_program(&name) else {
            continue;
        };
        let Some(found) = probe(context, &path) else {
            continue;
        };
        if satisfies(found.version, request) {
            return Some(Found {
                interpreter: found,
                missing: None,
            });
        }
        fallback.get_or_insert(found);
    }
    if let Some(found) = known_to_uv(context, request).filter(|found| satisfies(found.version, request)) {
        return Some(Found {
            interpreter: found,
            missing: None,
        });
    }
    fallback.map(|interpreter| Found {
        interpreter,
        missing: Some(request.to_owned()),
    })
}

/// An interpreter that uv has downloaded earlier. It downloads nothing here.
fn known_to_uv(context: &Context<'_>, request: &str) -> Option<Interpreter> {
    if request.contains('/') || !request_is_version(request) {
        return None;
    }
    let uv = crate::packages::uv::find(context)?;
    let command = context
        .command(&uv)
        .cwd("/")
        .args(["python", "find", "--no-project", "--system"])
        .arg(request.trim_start_matches("python"))
        .env("UV_PYTHON_DOWNLOADS", "never")
        .timeout(UV_TIMEOUT);
    // Where uv knows none, nothing is lost.
    let output = command.check().ok()?;
    let path = String::from_utf8(output.stdout).ok()?;
    probe(context, Path::new(path.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_from_binaries() {
        for (binary, version) in [
            ("python3.10", Some("3.10")),
            ("/usr/bin/python3.9", Some("3.9")),
            ("python3.10.4", Some("3.10")),
            ("python3", Some("3")),
            ("python", None),
            ("bash", None),
            ("python3.x", None),
            ("", None),
        ] {
            assert_eq!(requested_version(binary).as_deref(), version, "{binary:?}");
        }
    }

    #[test]
    fn names_to_look_for() {
        assert_eq!(candidates("3.10"), ["python3.10", "python3", "python"]);
        assert_eq!(candidates("3"), ["python3", "python"]);
        assert_eq!(candidates("2"), ["python2", "python", "python3"]);
        assert_eq!(candidates("python3.9"), ["python3.9", "python3", "python"]);
        assert_eq!(candidates("/opt/py"), ["/opt/py"]);
        assert_eq!(candidates("pypy3"), ["pypy3", "python", "python3"]);
    }

    #[test]
    fn versions_match_by_component() {
        for (version, request, expected) in [
            ([3, 10, 6], "3.1", false),
            ([3, 11, 7], "3", true),
            ([3, 10, 6], "3.10", true),
            ([3, 10, 6], "3.10.6", true),
            ([3, 10, 6], "3.8", false),
            ([2, 7, 0], "/any/path3.9", true),
            ([3, 9, 1], "python3.9", true),
            ([3, 9, 1], "pypy3", true),
        ] {
            assert_eq!(satisfies(version, request), expected, "{version:?} {request}");
        }
    }
}
