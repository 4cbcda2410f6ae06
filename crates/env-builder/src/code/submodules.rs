//! Submodules: fetched once into the cached clone, checked out from there into every working copy.
//!
//! Logins are bound to hosts ([`credentials`](crate::code::credentials)), so a submodule elsewhere gets
//! none. Addresses relative to the repository are resolved by git against the address it was cloned from.

use std::fs;
use std::path::Path;

use clearml_support::fs::remove_tree;

use crate::code::git::{Git, GitError};
use crate::code::place::Place;
use crate::code::transfer::COMPLETE;
use crate::error::{FileError, at};
use crate::tools::Context;

/// There while submodules are fetched into the clone; left behind by a builder that was killed meanwhile.
pub(crate) const BUSY: &str = "clearml-busy";

/// Brings the submodules of a commit into the cached clone, unless they are there. Whether there was
/// anything to do.
pub(crate) fn complete(
    context: &Context<'_>,
    git: &Git<'_>,
    place: &Place,
    commit: &str,
) -> Result<bool, GitError> {
    let clone = &place.clone;
    let git_folder = clone.join(".git");
    let busy = git_folder.join(BUSY);
    if busy.exists() {
        start_over(place)?;
    }
    let present = git
        .command(clone)
        .args(["cat-file", "-e"])
        .arg(format!("{commit}:.gitmodules"));
    let marks = git_folder.join(COMPLETE);
    let mark = marks.join(commit);
    if mark.exists() || !git.succeeds(&present)? {
        return Ok(false);
    }
    let known = git_folder.join("modules").exists();
    fs::write(&busy, "").map_err(at("writing", &busy))?;
    let mut result = fetch(context, git, clone, commit);
    if let (Err(GitError::Submodule { .. }), true) = (&result, known) {
        // What was there before may be damaged.
        start_over(place)?;
        fs::write(&busy, "").map_err(at("writing", &busy))?;
        result = fetch(context, git, clone, commit);
    }
    remove_tree(&busy).map_err(at("removing", &busy))?;
    if result? {
        fs::create_dir_all(&marks).map_err(at("creating", &marks))?;
        fs::write(&mark, "").map_err(at("writing", &mark))?;
    }
    Ok(true)
}

fn fetch(context: &Context<'_>, git: &Git<'_>, clone: &Path, commit: &str) -> Result<bool, GitError> {
    let checkout = git
        .command(clone)
        .env("GIT_LFS_SKIP_SMUDGE", "1")
        .args(["checkout", "--quiet", "--force", "--detach", commit]);
    git.run("checking out in the cache", &checkout)?;
    update(context, git, clone)
}

/// Forgets all submodules of the cached clone, and its work tree, which has no other use. Moved aside first,
/// because a child of a builder that was killed may still write to them.
fn start_over(place: &Place) -> Result<(), FileError> {
    let git_folder = place.clone.join(".git");
    let modules = git_folder.join("modules");
    if modules.exists() {
        fs::rename(&modules, place.staging()).map_err(at("renaming", &modules))?;
    }
    for name in [COMPLETE, BUSY, "index"] {
        let path = git_folder.join(name);
        remove_tree(&path).map_err(at("removing", &path))?;
    }
    let entries = fs::read_dir(&place.clone).map_err(at("reading", &place.clone))?;
    for entry in entries {
        let path = entry.map_err(at("reading", &place.clone))?.path();
        if path != git_folder {
            remove_tree(&path).map_err(at("removing", &path))?;
        }
    }
    place.clear_staging()
}

/// Checks the submodules of a working copy out. What the cached clone has is not fetched again.
pub(crate) fn check_out(context: &Context<'_>, git: &Git<'_>, root: &Path) -> Result<(), GitError> {
    if root.join(".gitmodules").exists() {
        update(context, git, root)?;
    }
    Ok(())
}

/// Whether all of them came.
fn update(context: &Context<'_>, git: &Git<'_>, root: &Path) -> Result<bool, GitError> {
    let sync = git
        .command(root)
        .args(["submodule", "--quiet", "sync", "--recursive"]);
    let update = git.command(root).args([
        "submodule",
        "--quiet",
        "update",
        "--init",
        "--recursive",
        "--force",
    ]);
    for command in [sync, update] {
        let ended = context.stream(&command)?;
        if ended.status.success() {
            continue;
        }
        let path = ended.tail.iter().rev().find_map(|line| path_in(line));
        let path = path.unwrap_or("(unknown)");
        let inside = Path::new(path).strip_prefix(root).unwrap_or(Path::new(path));
        let path = inside.display().to_string();
        // What comes after the first one only says that the whole failed as well.
        let cause = ended.tail.iter().find(|line| line.starts_with("fatal: "));
        let reason = cause.cloned().unwrap_or_else(|| ended.last_line());
        if !context.settings.git.ignore_submodule_errors {
            return Err(GitError::Submodule {
                path,
                last_line: reason,
            });
        }
        context.warn(&format!("submodule {path} is missing: {reason}"));
        return Ok(false);
    }
    Ok(true)
}

/// Brings those submodules along that the clone came with. What is missing does not matter.
pub(crate) fn check_out_legacy(context: &Context<'_>, git: &Git<'_>, root: &Path) -> Result<(), GitError> {
    if !root.join(".gitmodules").exists() {
        return Ok(());
    }
    let update = git
        .command(root)
        .args(["submodule", "--quiet", "update", "--recursive", "--force"]);
    let ended = context.stream(&update)?;
    if !ended.status.success() {
        context.warn(&format!(
            "submodules are missing (agent.git_submodules: legacy): {}",
            ended.last_line()
        ));
    }
    Ok(())
}

/// The path in `… submodule path 'a/b' …`.
fn path_in(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once("submodule path '")?;
    rest.split_once('\'').map(|(path, _)| path)
}
