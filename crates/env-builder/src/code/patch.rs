//! Applying uncommitted changes to a working copy.

use std::fs::OpenOptions;
use std::path::Path;

use clearml_support::command::CommandError;

use crate::code::git::{Git, GitError};
use crate::tools::Context;

/// How much of a diff that does not apply is shown on the console.
const SHOWN_LINES: usize = 400;

/// The uncommitted changes of a task can't be reproduced.
#[derive(Debug, thiserror::Error)]
pub enum PatchError {
    /// git refuses the diff.
    #[error("Failed applying git diff: {reason}{}", hint.map(|h| format!(" ({h})")).unwrap_or_default())]
    DoesNotApply {
        /// What git said.
        reason: String,
        /// What may be the cause.
        hint: Option<&'static str>,
    },
    /// The task carries a remark instead of the changes.
    #[error(
        "Failed applying git diff: the uncommitted changes of the task were too large to be stored in it; \
         commit and push them, and run the task from that commit"
    )]
    LeftOut,
    /// There is no git.
    #[error("Failed applying git diff: {0}")]
    Git(#[source] GitError),
    /// git could not be run.
    #[error("Failed applying git diff: {0}")]
    Command(#[from] CommandError),
}

/// Applies `diff` in the working copy `root`: all of it or nothing.
pub(crate) fn apply(context: &Context<'_>, root: &Path, diff: &str) -> Result<(), PatchError> {
    context.info("Applying uncommitted changes");
    create_added_files(root, diff);
    let git = Git::new(context, None).map_err(PatchError::Git)?;
    let command = git
        .command(root)
        .args(["apply", "--unidiff-zero", "--whitespace=nowarn", "-"])
        .stdin_bytes(format!("{diff}\n"));
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    said.lines().for_each(|line| context.error(line));
    show(context, diff);
    let missing = said.to_ascii_lowercase().contains("no such file or directory");
    let hint = missing.then_some("were the files that it changes ever pushed?");
    let reason = said.lines().next().unwrap_or("git gave no reason");
    Err(PatchError::DoesNotApply {
        reason: context.redactor.redact(reason).into_owned(),
        hint,
    })
}

fn show(context: &Context<'_>, diff: &str) {
    context.error("the diff that does not apply:");
    diff.lines()
        .take(SHOWN_LINES)
        .for_each(|line| context.error(line));
    let more = diff.lines().count().saturating_sub(SHOWN_LINES);
    if more > 0 {
        context.error(&format!("… and {more} more lines"));
    }
}

/// Older git shows a file that was added but not staged (`git add -N`) as a change of an empty file,
/// which `git apply` accepts only if that file exists. Other missing files are left to git to name.
fn create_added_files(root: &Path, diff: &str) {
    let lines: Vec<&str> = diff.lines().collect();
    for window in lines.windows(3) {
        let [old, _, hunk] = window else { continue };
        let Some(name) = old
            .strip_prefix("--- a/")
            .filter(|_| hunk.starts_with("@@ -0,0 "))
        else {
            continue;
        };
        let path = root.join(name.trim_end());
        let inside = match (root.canonicalize(), path.parent().map(Path::canonicalize)) {
            (Ok(root), Some(Ok(parent))) => parent.starts_with(root),
            _ => false,
        };
        if inside {
            // An existing file, or a link, stays as it is; git reports what does not fit.
            drop(OpenOptions::new().write(true).create_new(true).open(&path));
        }
    }
}
