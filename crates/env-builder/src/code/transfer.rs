//! Making a working copy's `.git` from a cached clone: objects never change, so they are hard-linked;
//! everything else is small and is copied.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::code::submodules::BUSY;
use crate::error::{FileError, at};

/// Which commits have all their submodules in this clone: one empty file each. Only in the cache.
pub(crate) const COMPLETE: &str = "clearml-complete";

/// Entries of `.git` that belong to the cached clone's own work tree, or that we do not want to run.
const SKIPPED: [&str; 7] = [
    "index",
    "hooks",
    "worktrees",
    COMPLETE,
    BUSY,
    "FETCH_HEAD",
    "ORIG_HEAD",
];

/// Transfers the folder `from` to `to`, which does not exist yet, with those of its submodules. With `share`,
/// objects are hard links.
///
/// # Errors
///
/// When the file system refuses.
pub(crate) fn git_folder(from: &Path, to: &Path, share: bool) -> Result<(), FileError> {
    fs::create_dir_all(to).map_err(at("creating", to))?;
    for name in names(from)? {
        if SKIPPED.iter().any(|skipped| name == *skipped) {
            continue;
        }
        let (from, to) = (from.join(&name), to.join(&name));
        if name == "modules" {
            modules(&from, &to, share)?;
        } else if name == "lfs" {
            let objects = from.join("objects");
            if objects.is_dir() {
                fs::create_dir(&to).map_err(at("creating", &to))?;
                tree(&objects, &to.join("objects"), share)?;
            }
        } else {
            tree(&from, &to, share && name == "objects")?;
        }
    }
    Ok(())
}

/// Submodules lie under their names, which may contain slashes.
fn modules(from: &Path, to: &Path, share: bool) -> Result<(), FileError> {
    for name in names(from)? {
        let (from, to) = (from.join(&name), to.join(&name));
        if is_git_folder(&from) {
            git_folder(&from, &to, share)?;
        } else if from.is_dir() && !from.is_symlink() {
            modules(&from, &to, share)?;
        }
    }
    Ok(())
}

fn is_git_folder(path: &Path) -> bool {
    path.join("HEAD").is_file() && path.join("objects").is_dir()
}

/// The `.git` folder itself and those of all its submodules.
pub(crate) fn with_modules(git_folder: &Path) -> Result<Vec<PathBuf>, FileError> {
    let mut found = vec![git_folder.to_owned()];
    let mut open = vec![git_folder.join("modules")];
    while let Some(folder) = open.pop() {
        if !folder.is_dir() {
            continue;
        }
        for name in names(&folder)? {
            let path = folder.join(name);
            if is_git_folder(&path) {
                open.push(path.join("modules"));
                found.push(path);
            } else if !path.is_symlink() {
                open.push(path);
            }
        }
    }
    Ok(found)
}

fn names(folder: &Path) -> Result<Vec<std::ffi::OsString>, FileError> {
    let entries = fs::read_dir(folder).map_err(at("reading", folder))?;
    entries
        .map(|entry| {
            entry
                .map(|entry| entry.file_name())
                .map_err(at("reading", folder))
        })
        .collect()
}

fn tree(from: &Path, to: &Path, link: bool) -> Result<(), FileError> {
    let kind = fs::symlink_metadata(from)
        .map_err(at("reading", from))?
        .file_type();
    if kind.is_dir() {
        fs::create_dir(to).map_err(at("creating", to))?;
        for name in names(from)? {
            tree(&from.join(&name), &to.join(&name), link)?;
        }
        return Ok(());
    }
    let temporary = from.extension().is_some_and(|ext| ext == "lock")
        || from
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("tmp_"));
    if !kind.is_file() || temporary {
        return Ok(());
    }
    if link {
        link_or_copy(from, to)
    } else {
        fs::copy(from, to).map(drop).map_err(at("copying", from))
    }
}

/// Hard-links a file; copies it where the file system or its protection does not allow links.
pub(crate) fn link_or_copy(from: &Path, to: &Path) -> Result<(), FileError> {
    match fs::hard_link(from, to) {
        Ok(()) => Ok(()),
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::CrossesDevices
                    | io::ErrorKind::PermissionDenied
                    | io::ErrorKind::TooManyLinks
                    | io::ErrorKind::Unsupported
            ) =>
        {
            fs::copy(from, to).map(drop).map_err(at("copying", from))
        }
        Err(e) => Err(at("linking", from)(e)),
    }
}
