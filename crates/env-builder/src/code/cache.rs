//! From the repository of a task to a working copy: by git or hg, through the cache of clones.

use std::path::{Path, PathBuf};

use crate::code::convert::convert;
use crate::code::credentials::{Access, unusable};
use crate::code::evict;
use crate::code::git::{Git, GitError};
use crate::code::git_clone::GitClone;
use crate::code::hg;
use crate::code::info::ExecutionInfo;
use crate::code::place::{LOCK_PATIENCE, Place};
use crate::code::repo_url::{folder_name, refusal, without_password};
use crate::error::BuildError;
use crate::host::Phase;
use crate::request::GitSettings;
use crate::tools::Context;

/// What keeps the history of a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Vcs {
    Git,
    Mercurial,
}

impl Vcs {
    /// Told by the address or the configuration.
    pub(crate) fn of(context: &Context<'_>, repository: &str) -> Self {
        if context.settings.hg.always || repository.starts_with("hg+") {
            Self::Mercurial
        } else {
            Self::Git
        }
    }
}

/// A checked-out repository.
#[derive(Debug)]
pub(crate) struct WorkingCopy {
    /// Its root.
    pub(crate) root: PathBuf,
    /// The commit.
    pub(crate) commit: String,
}

/// Brings the code of a task to `<parent>/<name>`.
pub(crate) fn retrieve(
    context: &Context<'_>,
    info: &ExecutionInfo,
    parent: &Path,
) -> Result<WorkingCopy, BuildError> {
    let shown = without_password(&info.repository);
    let failed = |source| match source {
        GitError::Cancelled => BuildError::Cancelled,
        source => BuildError::Repository {
            repository: shown.clone(),
            source,
        },
    };
    let root = parent.join(folder_name(&info.repository));
    let commit = match Vcs::of(context, &info.repository) {
        Vcs::Git => by_git(context, info, &root, &failed)?,
        Vcs::Mercurial => hg::retrieve(context, info, &root, &failed)?,
    };
    let (kind, branch) = match Vcs::of(context, &info.repository) {
        Vcs::Git => ("git", "HEAD"),
        Vcs::Mercurial => ("hg", info.branch.as_str()),
    };
    for line in [
        &format!("type: {kind}"),
        &format!("url: {shown}"),
        &format!("branch: {branch}"),
        &format!("commit: {commit}"),
        &format!("root: {}", root.display()),
    ] {
        context.info(line);
    }
    Ok(WorkingCopy { root, commit })
}

fn by_git(
    context: &Context<'_>,
    info: &ExecutionInfo,
    root: &Path,
    failed: &dyn Fn(GitError) -> BuildError,
) -> Result<String, BuildError> {
    let access = prepare_access(context, &info.repository).map_err(failed)?;
    let git = Git::new(context, Some(&access)).map_err(failed)?;
    let place = Place::lock(context, &info.repository, LOCK_PATIENCE).map_err(failed)?;
    let mut clone = GitClone::new(context, &git, &access.url, info, &place);
    let commit = context.phase(Phase::Clone, || clone.update().map_err(failed))?;
    context.phase(Phase::Checkout, || clone.check_out(root, &commit).map_err(failed))?;
    let grown = clone.has_grown();
    drop(place);
    if grown {
        evict::sweep(context);
    }
    Ok(commit)
}

/// The address for git and the login for it, as the settings want them.
pub(crate) fn prepare_access(context: &Context<'_>, repository: &str) -> Result<Access, GitError> {
    if let Some(reason) = refusal(repository) {
        return Err(GitError::Refused(reason));
    }
    let mut settings = context.settings.git.clone();
    if let Some(scheme) = context.var("CLEARML_AGENT_SSH_URL_REPLACEMENT_SCHEME") {
        scheme.clone_into(&mut settings.replacement_scheme);
    }
    warn_about(context, &settings);
    let url = match convert(repository, &settings) {
        Some(converted) => {
            let (old, new) = (without_password(repository), without_password(&converted.url));
            context.info(&format!("using {new} instead of {old}"));
            if converted.dropped_port {
                context
                    .info("the ssh port of the address does not apply to the new protocol and was dropped");
            }
            converted.url
        }
        None => repository.to_owned(),
    };
    Ok(Access::new(&url, &settings, context.redactor)?)
}

fn warn_about(context: &Context<'_>, git: &GitSettings) {
    match unusable(&git.extra_credentials) {
        0 => {}
        count => context.warn(&format!(
            "{count} of the entries of agent.git.extra_credentials lack user, pass or host, and are passed over"
        )),
    }
    if git.use_ms_entra_token && git.use_azure_pat {
        context.warn(
            "both agent.git_use_ms_entra_token and agent.git_use_azure_pat are set: the first one is used",
        );
    }
    if (git.use_ms_entra_token || git.use_azure_pat) && git.pass.as_ref().is_none_or(|pass| pass.is_empty()) {
        context.warn("a token for Azure DevOps is to be used, but agent.git_pass is empty");
    }
}
