//! The script section of a task, made usable: trimmed, expanded, normalised. Pure.

use std::collections::BTreeMap;

use clearml_task_model::Script;

/// What runs the entry point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interpreter {
    /// Python.
    Python,
    /// `bash`, `zsh` or `sh`.
    Shell,
}

/// What a task wants to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecutionInfo {
    /// Repository address as the task gives it; empty for none.
    pub repository: String,
    /// Branch.
    pub branch: String,
    /// Tag.
    pub tag: String,
    /// Commit id.
    pub version: String,
    /// Interpreter as the task names it.
    pub binary: String,
    /// The class of `binary`.
    pub interpreter: Interpreter,
    /// Script, script with arguments, `-m …` or `-c …`.
    pub entry_point: String,
    /// Folder below the repository root; empty or `.` for the root. May carry `:file`.
    pub working_dir: String,
    /// Uncommitted changes or the whole script.
    pub diff: String,
}

impl ExecutionInfo {
    /// Reads the script section. Variables and `~` in paths come from `env`. The second value is what
    /// deserves a warning.
    #[must_use]
    pub fn new(script: &Script, env: &BTreeMap<String, String>) -> (Self, Vec<String>) {
        let text = |field: &Option<String>| field.as_deref().unwrap_or_default().trim().to_owned();
        let mut warnings = Vec::new();
        let mut entry_point = normal_entry(&text(&script.entry_point), env);
        let mut working_dir = text(&script.working_dir);
        if !working_dir.is_empty() {
            let expanded = expand(&working_dir, env);
            working_dir = match expanded.split_once(':') {
                Some((folder, file)) => format!("{}:{}", normal_path(folder), normal_path(file)),
                None => normal_path(&expanded),
            };
        } else if !entry_point.starts_with('-')
            && !entry_point.contains(char::is_whitespace)
            && let Some((entry, folder)) = entry_point.split_once(':')
        {
            (entry_point, working_dir) = (entry.to_owned(), normal_path(folder));
        }
        if let Some(forced) = env
            .get("CLEARML_AGENT_FORCE_EXEC_SCRIPT")
            .filter(|v| !v.trim().is_empty())
        {
            warnings.push(format!(
                "CLEARML_AGENT_FORCE_EXEC_SCRIPT replaces the entry point by {forced:?}"
            ));
            let (folder, entry) = forced.trim().split_once(':').unwrap_or((".", forced.trim()));
            (working_dir, entry_point) = (normal_path(folder), normal_entry(entry, env));
        }
        if working_dir.contains('\\') {
            warnings.push(format!("the working folder {working_dir:?} contains a backslash"));
        }
        if entry_point.is_empty() {
            warnings.push("the task names no entry point".to_owned());
        }
        let binary = text(&script.binary);
        let interpreter = match class_of(&binary) {
            Some(class) => class,
            None => {
                warnings.push(format!(
                    "interpreter {binary:?} is not supported, Python is used instead"
                ));
                Interpreter::Python
            }
        };
        let info = Self {
            repository: text(&script.repository),
            branch: text(&script.branch),
            tag: text(&script.tag),
            version: text(&script.version_num),
            binary,
            interpreter,
            entry_point,
            working_dir,
            diff: script.diff.clone().unwrap_or_default(),
        };
        (info, warnings)
    }

    /// Whether the entry point is a module or a command (`-m …`, `-c …`) rather than a file.
    #[must_use]
    pub fn entry_is_option(&self, option: char) -> bool {
        is_option(&self.entry_point, option)
    }
}

/// The class of an interpreter name; `None` when it is neither Python nor a known shell.
pub(crate) fn class_of(binary: &str) -> Option<Interpreter> {
    match binary.rsplit('/').next().unwrap_or_default() {
        "" => Some(Interpreter::Python),
        name if name.starts_with("python") => Some(Interpreter::Python),
        "bash" | "zsh" | "sh" => Some(Interpreter::Shell),
        _ => None,
    }
}

fn is_option(text: &str, option: char) -> bool {
    let mut chars = text.chars();
    chars.next() == Some('-') && chars.next() == Some(option) && chars.next().is_none_or(char::is_whitespace)
}

/// Normalises the script word of an entry point and leaves everything else as it is.
fn normal_entry(entry: &str, env: &BTreeMap<String, String>) -> String {
    if entry.is_empty() || entry.starts_with(['-', '"', '\'']) {
        return entry.to_owned();
    }
    let end = entry.find(char::is_whitespace).unwrap_or(entry.len());
    format!("{}{}", normal_path(&expand(&entry[..end], env)), &entry[end..])
}

/// Collapses `//`, `.` and `name/..`, like `os.path.normpath`; empty text stays empty.
#[must_use]
pub fn normal_path(path: &str) -> String {
    if path.is_empty() {
        return String::new();
    }
    let absolute = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if absolute => {}
            part => parts.push(part),
        }
    }
    match (absolute, parts.is_empty()) {
        (true, _) => format!("/{}", parts.join("/")),
        (false, true) => ".".to_owned(),
        (false, false) => parts.join("/"),
    }
}

/// Replaces a leading `~` and `$NAME`, `${NAME}`. Unknown variables stay as they are.
#[must_use]
pub fn expand(text: &str, env: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    if let (Some(after), Some(home)) = (text.strip_prefix('~'), env.get("HOME"))
        && (after.is_empty() || after.starts_with('/'))
    {
        out.push_str(home);
        rest = after;
    }
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let (name, length) = match after.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
            Some((name, _)) => (name, name.len() + 2),
            None => {
                let end = after.find(|c| !word(c)).unwrap_or(after.len());
                (&after[..end], end)
            }
        };
        match env.get(name) {
            Some(value) => out.push_str(value),
            None => out.push_str(&rest[at..=at + length]),
        }
        rest = &after[length..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(entry: &str, folder: &str, binary: &str) -> ExecutionInfo {
        let script = Script {
            entry_point: Some(entry.into()),
            working_dir: Some(folder.into()),
            binary: Some(binary.into()),
            ..Script::default()
        };
        let env = BTreeMap::from([
            ("HOME".to_owned(), "/home/u".to_owned()),
            ("V".to_owned(), "val".to_owned()),
        ]);
        ExecutionInfo::new(&script, &env).0
    }

    #[test]
    fn entry_points_and_folders() {
        for (entry, folder, expected) in [
            ("train.py", ".", ("train.py", ".")),
            (
                "a//b/../train.py --url http://h//x",
                ".",
                ("a/train.py --url http://h//x", "."),
            ),
            ("-m pkg --url http://h/x", "", ("-m pkg --url http://h/x", "")),
            ("-c import a;b:c", "", ("-c import a;b:c", "")),
            ("a.py:sub/dir", "", ("a.py", "sub/dir")),
            ("a.py --x 1:2", "", ("a.py --x 1:2", "")),
            ("$V/a.py", "x/../y/", ("val/a.py", "y")),
            ("~/a.py", "$NONE/${V}", ("/home/u/a.py", "$NONE/val")),
            ("-m x", ".:train.py", ("-m x", ".:train.py")),
            ("", "", ("", "")),
        ] {
            let info = info(entry, folder, "python3");
            assert_eq!(
                (info.entry_point.as_str(), info.working_dir.as_str()),
                expected,
                "{entry:?} {folder:?}"
            );
        }
    }

    #[test]
    fn interpreter_classes() {
        for (binary, class) in [
            ("bash", Some(Interpreter::Shell)),
            ("/usr/bin/zsh", Some(Interpreter::Shell)),
            ("sh", Some(Interpreter::Shell)),
            ("pypy3", None),
            ("", Some(Interpreter::Python)),
            ("/opt/python3.9", Some(Interpreter::Python)),
        ] {
            assert_eq!(class_of(binary), class, "{binary:?}");
        }
    }

    #[test]
    fn forced_script_replaces_both() {
        let env = BTreeMap::from([("CLEARML_AGENT_FORCE_EXEC_SCRIPT".to_owned(), "d:e.py".to_owned())]);
        let (info, warnings) = ExecutionInfo::new(&Script::default(), &env);
        assert_eq!(
            (info.working_dir.as_str(), info.entry_point.as_str()),
            ("d", "e.py")
        );
        assert_eq!(warnings.len(), 1);
    }

    #[test]
    fn text_with_odd_dollars_survives() {
        let env = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
        for (text, expected) in [
            ("$", "$"),
            ("a$", "a$"),
            ("${A", "${A"),
            ("$A$A", "11"),
            ("${A}x", "1x"),
            ("$$A", "$1"),
            ("ä$A", "ä1"),
        ] {
            assert_eq!(expand(text, &env), expected, "{text:?}");
        }
    }
}
