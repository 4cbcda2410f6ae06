//! Making a working copy's `.git` from a cached clone: objects never change, so they are hard-linked;
//! everything else is small and is copied.

use std::fs;
use std::io;
use std::path::Path;

use crate::error::{FileError, at};

/// Entries of `.git` that belong to the cached clone's own work tree, or that we do not want to run.
const SKIPPED: [&str; 6] = [
    "index",
    "hooks",
    "worktrees",
    "modules",
    "FETCH_HEAD",
    "ORIG_HEAD",
];

/// Transfers the folder `from` to `to`, which does not exist yet.
///
/// # Errors
///
/// When the file system refuses.
pub(crate) fn git_folder(from: &Path, to: &Path) -> Result<(), FileError> {
    fs::create_dir_all(to).map_err(at("creating", to))?;
    for entry in fs::read_dir(from).map_err(at("reading", from))? {
        let entry = entry.map_err(at("reading", from))?;
        let name = entry.file_name();
        if SKIPPED.iter().any(|skipped| name == *skipped) {
            continue;
        }
        tree(&entry.path(), &to.join(&name), name == "objects")?;
    }
    Ok(())
}

fn tree(from: &Path, to: &Path, link: bool) -> Result<(), FileError> {
    let kind = fs::symlink_metadata(from)
        .map_err(at("reading", from))?
        .file_type();
    if kind.is_dir() {
        fs::create_dir(to).map_err(at("creating", to))?;
        for entry in fs::read_dir(from).map_err(at("reading", from))? {
            let name = entry.map_err(at("reading", from))?.file_name();
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
