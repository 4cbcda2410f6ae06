//! Applying uncommitted changes to a working copy.
//!
//! The rules are those of `git apply`: all or nothing, lines may have moved but not changed. Where it
//! refuses, and only then, other readings of the same text are tried, each named on the console; a task
//! never runs without its changes.

use std::fs::OpenOptions;
use std::path::Path;

use clearml_support::command::{CommandError, Output};

use crate::code::cache::Vcs;
use crate::code::diff::{self, Section};
use crate::code::git::{Git, GitError};
use crate::code::hg;
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
        "Failed applying git diff: the uncommitted changes of the task were too large to be stored in it{}; \
         commit and push them, and run the task from that commit", why.as_ref().map(|why| format!(", and reading them \
         from its artifact failed: {why}")).unwrap_or_default()
    )]
    LeftOut {
        /// Why the artifact that holds them instead can't be used; `None` without an artifact.
        why: Option<String>,
    },
    /// There is no git.
    #[error("Failed applying git diff: {0}")]
    Git(#[source] GitError),
    /// git could not be run.
    #[error("Failed applying git diff: {0}")]
    Command(#[from] CommandError),
}

/// What is needed to apply a diff.
pub(crate) struct Patch<'a> {
    pub(crate) context: &'a Context<'a>,
    pub(crate) vcs: Vcs,
    pub(crate) root: &'a Path,
    /// Folders below the root that paths may be relative to, if they are not to the root.
    pub(crate) folders: Vec<String>,
}

impl Patch<'_> {
    /// Applies `text` in the working copy: all of it or nothing.
    pub(crate) fn apply(&self, text: &str) -> Result<(), PatchError> {
        let context = self.context;
        context.info("Applying uncommitted changes");
        for name in diff::lost_pointers(text) {
            context.warn(&format!(
                "submodule {name} points to another commit in the uncommitted changes, which can't be reproduced"
            ));
        }
        let output = match self.vcs {
            Vcs::Git => {
                create_added_files(self.root, text);
                let git = Git::new(context, None).map_err(PatchError::Git)?;
                let sections = diff::sections(text);
                let bare = !sections.is_empty() && sections.iter().all(Section::has_bare_names);
                // The usual reading would take the first folder of such paths for a prefix.
                if bare && self.try_reading(&git, text, &["-p0"], "taking its paths as they are")? {
                    return Ok(());
                }
                let plain = self.git_apply(&git, text, &[])?;
                if plain.status.success()
                    || self.try_other_readings(&git, text, bare)?
                    || self.without_binaries(&git, &sections)?
                {
                    return Ok(());
                }
                plain
            }
            Vcs::Mercurial => {
                let output = hg::import(context, self.root, text).map_err(PatchError::Git)?;
                if output.status.success() {
                    return Ok(());
                }
                output
            }
        };
        Err(self.refused(text, &output))
    }

    /// Whether all of `text` is in the working copy already, in any of the readings by which it may have come there.
    pub(crate) fn is_applied(&self, text: &str) -> Result<bool, PatchError> {
        if self.vcs != Vcs::Git {
            return Ok(true);
        }
        let git = Git::new(self.context, None).map_err(PatchError::Git)?;
        let directories = self.folders.iter().map(|folder| format!("--directory={folder}"));
        let readings = ["-p1", "-p0", "--ignore-whitespace"].map(str::to_owned);
        for reading in readings.into_iter().chain(directories) {
            let options = ["--reverse", "--check", &reading];
            if self.git_apply(&git, text, &options)?.status.success() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn git_apply(&self, git: &Git<'_>, text: &str, more: &[&str]) -> Result<Output, PatchError> {
        let command = git
            .command(self.root)
            .args(["apply", "--unidiff-zero", "--whitespace=nowarn"])
            .args(more)
            .arg("-")
            .stdin_bytes(format!("{text}\n"));
        Ok(command.output()?)
    }

    /// Whether one of them applies.
    fn try_other_readings(&self, git: &Git<'_>, text: &str, bare: bool) -> Result<bool, PatchError> {
        let loosely = ["--ignore-whitespace"];
        if self.try_reading(git, text, &loosely, "ignoring white space and line ends")? {
            return Ok(true);
        }
        for folder in &self.folders {
            let directory = format!("--directory={folder}");
            let options: &[&str] = if bare { &["-p0", &directory] } else { &[&directory] };
            let how = format!("taking its paths as relative to {folder}");
            if self.try_reading(git, text, options, &how)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn try_reading(
        &self,
        git: &Git<'_>,
        text: &str,
        options: &[&str],
        how: &str,
    ) -> Result<bool, PatchError> {
        let applied = self.git_apply(git, text, options)?.status.success();
        if applied {
            self.context
                .warn(&format!("the uncommitted changes were applied {how}"));
        }
        Ok(applied)
    }

    /// Binary files whose content is not in the task are left out if the user wants that.
    fn without_binaries(&self, git: &Git<'_>, sections: &[Section<'_>]) -> Result<bool, PatchError> {
        let (binaries, rest): (Vec<&Section<'_>>, Vec<&Section<'_>>) =
            sections.iter().partition(|section| section.is_binary_marker());
        if binaries.is_empty() || !self.context.settings.git.apply_skip_binary {
            return Ok(false);
        }
        let text: String = rest.iter().map(|section| section.text).collect();
        if !text.is_empty() && !self.git_apply(git, &text, &[])?.status.success() {
            return Ok(false);
        }
        for section in binaries {
            let header = section.text.lines().next().unwrap_or_default();
            self.context
                .warn(&format!("changes of a binary file are left out: {header}"));
        }
        Ok(true)
    }

    fn refused(&self, text: &str, output: &Output) -> PatchError {
        let context = self.context;
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        said.lines().for_each(|line| context.error(line));
        context.error("the diff that does not apply:");
        text.lines()
            .take(SHOWN_LINES)
            .for_each(|line| context.error(line));
        let more = text.lines().count().saturating_sub(SHOWN_LINES);
        if more > 0 {
            context.error(&format!("… and {more} more lines"));
        }
        let lower = said.to_ascii_lowercase();
        let hint = if lower.contains("no such file or directory") {
            Some("were the files that it changes ever pushed?")
        } else if lower.contains("binary patch") {
            Some("the task holds no content of binary files; commit and push them")
        } else {
            Some("were these changes made on top of the task's commit? If not, commit and push them")
        };
        let reason = said.lines().next().unwrap_or("git gave no reason");
        PatchError::DoesNotApply {
            reason: context.redactor.redact(reason).into_owned(),
            hint,
        }
    }
}

/// Older git shows a file that was added but not staged (`git add -N`) as a change of an empty file,
/// which `git apply` accepts only if that file exists. Other missing files are left to git to name.
fn create_added_files(root: &Path, text: &str) {
    let lines: Vec<&str> = text.lines().collect();
    for window in lines.windows(3) {
        let [old, _, hunk] = window else { continue };
        let Some(name) = old
            .strip_prefix("--- ")
            .filter(|_| hunk.starts_with("@@ -0,0 "))
            .and_then(|name| diff::unquoted(name.trim_end()))
            .and_then(|name| name.strip_prefix("a/").map(str::to_owned))
        else {
            continue;
        };
        let path = root.join(name);
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
