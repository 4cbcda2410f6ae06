//! Literal scripts: programs whose whole text is in the task.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::code::info::{ExecutionInfo, Interpreter, normal_path};
use crate::error::{FileError, at};

/// A literal script could not be written.
#[derive(Debug, thiserror::Error)]
pub enum LiteralError {
    /// The folder it belongs to does not exist.
    #[error("writing the script of the task: folder {} does not exist; correct the working folder of the task", folder.display())]
    NoFolder {
        /// The folder.
        folder: PathBuf,
    },
    /// A link would take the file out of the code folder.
    #[error("writing the script of the task: {} leads out of the code folder; correct the entry point", path.display())]
    Escapes {
        /// The folder that leads out.
        path: PathBuf,
    },
    /// The file system refused.
    #[error(transparent)]
    File(#[from] FileError),
}

/// How the script is started once it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LiteralEntry {
    /// By the entry point of the task as it is.
    AsGiven,
    /// By the absolute path of the written file, followed by this text.
    File {
        /// Arguments, still unsplit.
        arguments: String,
    },
}

/// Where a literal script goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiteralPlan {
    /// File below the working folder; never absolute, never with `..`.
    pub file: String,
    /// Working folder without the `:file` part.
    pub working_dir: String,
    /// How to start it.
    pub entry: LiteralEntry,
}

/// Decides name and folder of a literal script. Pure.
#[must_use]
pub fn plan(info: &ExecutionInfo) -> LiteralPlan {
    let shell = info.interpreter == Interpreter::Shell;
    let untitled = if shell { "untitled.sh" } else { "untitled.py" };
    let entry = info.entry_point.as_str();
    let by_path = |arguments: &str| LiteralEntry::File {
        arguments: arguments.trim().to_owned(),
    };
    let in_dir = |file: String, entry| LiteralPlan {
        file,
        working_dir: info.working_dir.clone(),
        entry,
    };
    if entry.is_empty() {
        return in_dir(untitled.to_owned(), by_path(""));
    }
    if info.entry_is_option('m') || info.entry_is_option('c') {
        let name = if shell && info.entry_is_option('c') {
            "untitled.sh"
        } else {
            "untitled.py"
        };
        let (folder, file) = info
            .working_dir
            .split_once(':')
            .unwrap_or((&info.working_dir, ""));
        let file = inside(file).unwrap_or_else(|| name.to_owned());
        return LiteralPlan {
            file,
            working_dir: normal_path(folder),
            entry: LiteralEntry::AsGiven,
        };
    }
    let end = entry.find(char::is_whitespace).unwrap_or(entry.len());
    let (word, arguments) = entry.split_at(end);
    let fits = if shell {
        word.ends_with(".sh") || word.ends_with(".bash")
    } else {
        word.ends_with(".py")
    };
    let (path, arguments) = if fits { (word, arguments) } else { (entry, "") };
    match inside(path) {
        Some(file) if fits => in_dir(file, LiteralEntry::AsGiven),
        Some(file) => in_dir(file, by_path("")),
        None => {
            let last = path.rsplit('/').next().and_then(inside);
            in_dir(last.unwrap_or_else(|| untitled.to_owned()), by_path(arguments))
        }
    }
}

/// The path in normal form if it names something below its folder.
fn inside(path: &str) -> Option<String> {
    let normal = normal_path(path);
    let outside = normal.is_empty() || normal == "." || normal == ".." || normal.starts_with("../");
    (!outside && !normal.starts_with('/') && !normal.contains('\0')).then_some(normal)
}

/// Writes `text` to `file` below `folder`, which lies in `root`. Returns the path and whether it was
/// written: an existing file is left as it is.
///
/// # Errors
///
/// When the folder does not exist, a link leads out of `root`, or the file system refuses.
pub(crate) fn write(
    root: &Path,
    folder: &Path,
    file: &str,
    text: &str,
) -> Result<(PathBuf, bool), LiteralError> {
    let root = root.canonicalize().map_err(at("opening", root))?;
    let mut current = folder.canonicalize().map_err(|_| LiteralError::NoFolder {
        folder: folder.to_owned(),
    })?;
    let mut parts: Vec<&str> = file.split('/').collect();
    let name = parts.pop().unwrap_or(file);
    for part in parts {
        current.push(part);
        match fs::create_dir(&current) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                return Err(at("creating", &current)(e).into());
            }
            _ => current = current.canonicalize().map_err(at("opening", &current))?,
        }
        if !current.starts_with(&root) {
            return Err(LiteralError::Escapes { path: current });
        }
    }
    if !current.starts_with(&root) {
        return Err(LiteralError::Escapes { path: current });
    }
    let path = current.join(name);
    // `create_new` also refuses to follow a link.
    match OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(&path)
    {
        Ok(mut target) => {
            target.write_all(text.as_bytes()).map_err(at("writing", &path))?;
            Ok((path, true))
        }
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok((path, false)),
        Err(e) => Err(at("creating", &path)(e).into()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use clearml_task_model::Script;
    use proptest::prelude::*;

    use super::*;

    fn planned(binary: &str, entry: &str, folder: &str) -> LiteralPlan {
        let script = Script {
            binary: Some(binary.into()),
            entry_point: Some(entry.into()),
            working_dir: Some(folder.into()),
            ..Script::default()
        };
        plan(&ExecutionInfo::new(&script, &BTreeMap::new()).0)
    }

    #[test]
    fn names_follow_the_entry_point() {
        let file = |arguments: &str| LiteralEntry::File {
            arguments: arguments.into(),
        };
        for (binary, entry, folder, name, working_dir, how) in [
            (
                "python3.9",
                "train.py",
                ".",
                "train.py",
                ".",
                LiteralEntry::AsGiven,
            ),
            ("python3", "", ".", "untitled.py", ".", file("")),
            ("bash", "", ".", "untitled.sh", ".", file("")),
            (
                "python3",
                "train.py --lr 0.1",
                ".",
                "train.py",
                ".",
                LiteralEntry::AsGiven,
            ),
            (
                "/bin/bash",
                "run.sh --x 1",
                ".",
                "run.sh",
                ".",
                LiteralEntry::AsGiven,
            ),
            (
                "python3",
                "-m torch.distributed.run ./train.py",
                ".",
                "untitled.py",
                ".",
                LiteralEntry::AsGiven,
            ),
            (
                "python3",
                "-m train",
                ".:train.py",
                "train.py",
                ".",
                LiteralEntry::AsGiven,
            ),
            (
                "bash",
                "-c echo hi",
                ".",
                "untitled.sh",
                ".",
                LiteralEntry::AsGiven,
            ),
            (
                "python3",
                "sub/train.py",
                ".",
                "sub/train.py",
                ".",
                LiteralEntry::AsGiven,
            ),
            ("python3", "nb.ipynb", ".", "nb.ipynb", ".", file("")),
            ("python3", "/abs/train.py --a", ".", "train.py", ".", file("--a")),
            ("python3", "../../etc/x.py", ".", "x.py", ".", file("")),
            ("python3", "..", ".", "untitled.py", ".", file("")),
            (
                "python3",
                "-m x",
                "a:../../x.py",
                "untitled.py",
                "a",
                LiteralEntry::AsGiven,
            ),
        ] {
            let expected = LiteralPlan {
                file: name.into(),
                working_dir: working_dir.into(),
                entry: how,
            };
            assert_eq!(
                planned(binary, entry, folder),
                expected,
                "{binary} {entry:?} {folder:?}"
            );
        }
    }

    #[test]
    fn existing_files_are_kept_and_links_do_not_lead_out() {
        let temp = tempfile::tempdir().unwrap();
        let (root, outside) = (temp.path().join("root"), temp.path().join("outside"));
        fs::create_dir_all(&root).unwrap();
        fs::create_dir_all(&outside).unwrap();
        fs::write(root.join("a.py"), "old").unwrap();
        assert!(!write(&root, &root, "a.py", "new").unwrap().1);
        assert_eq!(fs::read_to_string(root.join("a.py")).unwrap(), "old");
        std::os::unix::fs::symlink(&outside, root.join("link")).unwrap();
        let error = write(&root, &root, "link/deep/a.py", "x").unwrap_err();
        assert!(matches!(error, LiteralError::Escapes { .. }), "{error}");
        let error = write(&root, &root.join("link"), "a.py", "x").unwrap_err();
        assert!(matches!(error, LiteralError::Escapes { .. }), "{error}");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    }

    proptest! {
        #[test]
        fn a_script_never_leaves_the_code_folder(
            binary in prop_oneof!["python3", "bash", "\\PC{0,8}"],
            entry in prop_oneof!["[./a-c ~$:-]{0,24}", "\\PC{0,24}", "(\\.\\./){1,4}[a-z/]{1,8}\\.py.{0,6}", "-[mc] .{0,10}"],
            folder in prop_oneof![Just(String::new()), Just(".".to_owned()), "[./a-c:]{0,16}"],
        ) {
            let temp = tempfile::tempdir().unwrap();
            let root = temp.path().join("x/y/code");
            fs::create_dir_all(&root).unwrap();
            let plan = planned(&binary, &entry, &folder);
            if let Ok((path, _)) = write(&root, &root, &plan.file, "text") {
                prop_assert!(path.starts_with(root.canonicalize().unwrap()), "{}", path.display());
                prop_assert!(!path.components().any(|c| c == std::path::Component::ParentDir));
            }
            prop_assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1);
            prop_assert_eq!(fs::read_dir(temp.path().join("x/y")).unwrap().count(), 1);
        }
    }
}
