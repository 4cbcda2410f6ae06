//! Which interpreter a task gets.

use crate::code::info::ExecutionInfo;
use crate::python::PythonError;
use crate::python::probe::{Interpreter, probe};
use crate::tools::Context;

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

/// Finds the interpreter for a task.
pub(crate) fn find(context: &Context<'_>, info: &ExecutionInfo) -> Result<Interpreter, PythonError> {
    let settings = context.settings;
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
    let mut tried = Vec::new();
    for request in requests
        .into_iter()
        .flatten()
        .filter(|request| !request.is_empty())
    {
        if let Some(found) = search(context, &request, &mut tried) {
            return Ok(found);
        }
        context.warn(&format!("no interpreter for Python {request} was found"));
    }
    Err(PythonError::NotFound { tried })
}

fn search(context: &Context<'_>, request: &str, tried: &mut Vec<String>) -> Option<Interpreter> {
    let mut fallback: Option<Interpreter> = None;
    for name in candidates(request) {
        let known = tried.contains(&name);
        if !known {
            tried.push(name.clone());
        }
        let Some(path) = context.find_program(&name) else {
            continue;
        };
        let Some(found) = probe(context, &path) else {
            continue;
        };
        if satisfies(found.version, request) {
            return Some(found);
        }
        fallback.get_or_insert(found);
    }
    if let Some(found) = &fallback {
        context.warn(&format!(
            "Python {request} was requested but not found; {} (version {}) is used instead",
            found.executable.display(),
            found.full_version()
        ));
    }
    fallback
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
