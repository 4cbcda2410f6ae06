//! The cache of clones, shared by all agents of this machine, and the working copy made from it.
//!
//! `<vcs cache>/<name>.<md5 of the address>/<name>` is a full clone, guarded by
//! `<vcs cache>/<md5>.lock`. Names and lock are those of the Python agent.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clearml_support::fs::{create_private_dir, remove_tree};
use clearml_support::id::hex32;
use clearml_support::lock::FileLock;

use crate::code::git::{Git, GitError, is_full_id};
use crate::code::info::ExecutionInfo;
use crate::code::repo_url::{Access, access, cache_id, convert, folder_name, refusal, without_password};
use crate::code::transfer;
use crate::error::{BuildError, FileError, at};
use crate::host::Phase;
use crate::tools::Context;

/// How long another task may use the same clone before this one makes a temporary clone of its own.
const LOCK_PATIENCE: Duration = Duration::from_secs(300);
/// How often a waiting build asks for the lock.
const LOCK_POLL: Duration = Duration::from_millis(50);

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
    let access = prepare_access(context, &info.repository).map_err(&failed)?;
    let git = Git::new(context, Some(&access)).map_err(&failed)?;
    let clone = CachedClone {
        context,
        git: &git,
        access: &access,
        info,
    };
    let root = parent.join(folder_name(&info.repository));

    // The phases hand their own error type on as it is.
    let place = clone.lock(LOCK_PATIENCE).map_err(&failed)?;
    let commit = context.phase(Phase::Clone, || clone.update(&place).map_err(&failed))?;
    context.phase(Phase::Checkout, || {
        clone.check_out(&place, &root, &commit).map_err(&failed)
    })?;
    drop(place);
    for line in [
        "type: git",
        &format!("url: {shown}"),
        "branch: HEAD",
        &format!("commit: {commit}"),
        &format!("root: {}", root.display()),
    ] {
        context.info(line);
    }
    if root.join(".gitmodules").exists() {
        context.warn("the repository has submodules, which this version does not fetch");
    }
    Ok(WorkingCopy { root, commit })
}

/// The address for git and the login for it, as the settings want them.
pub(crate) fn prepare_access(context: &Context<'_>, repository: &str) -> Result<Access, GitError> {
    if let Some(reason) = refusal(repository) {
        return Err(GitError::Refused(reason));
    }
    let settings = &context.settings.git;
    let scheme = context
        .var("CLEARML_AGENT_SSH_URL_REPLACEMENT_SCHEME")
        .unwrap_or("https");
    let url = match convert(repository, settings, scheme) {
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
    Ok(access(&url, settings))
}

/// A locked place in the cache.
struct Place {
    outer: PathBuf,
    clone: PathBuf,
    one_off: bool,
    _lock: Option<FileLock>,
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.one_off
            && let Err(error) = remove_tree(&self.outer)
        {
            tracing::warn!(%error, folder = %self.outer.display(), "a temporary clone can't be removed");
        }
    }
}

struct CachedClone<'a> {
    context: &'a Context<'a>,
    git: &'a Git<'a>,
    access: &'a Access,
    info: &'a ExecutionInfo,
}

impl CachedClone<'_> {
    /// Waits for the lock of this repository; after too long, gives out a place of our own.
    fn lock(&self, patience: Duration) -> Result<Place, GitError> {
        let cache = &self.context.settings.vcs_cache.path;
        create_private_dir(cache).map_err(at("creating", cache))?;
        let name = folder_name(&self.info.repository);
        let id = cache_id(&self.info.repository);
        let file = cache.join(format!("{id}.lock"));
        let deadline = Instant::now() + patience;
        let mut told = false;
        let lock = loop {
            if self.context.host.cancel().is_cancelled() {
                return Err(GitError::Cancelled);
            }
            let lock = FileLock::try_acquire(&file).map_err(at("locking", &file))?;
            if lock.is_some() || Instant::now() >= deadline {
                break lock;
            }
            if !told {
                self.context
                    .info("waiting for another task that uses the same repository");
                told = true;
            }
            std::thread::sleep(LOCK_POLL);
        };
        let one_off = lock.is_none();
        let folder = if one_off {
            self.context
                .warn("the cached repository is still locked: a temporary clone is used instead");
            format!("{name}.{id}_{}", hex32())
        } else {
            format!("{name}.{id}")
        };
        let outer = cache.join(folder);
        create_private_dir(&outer).map_err(at("creating", &outer))?;
        Ok(Place {
            clone: outer.join(&name),
            outer,
            one_off,
            _lock: lock,
        })
    }

    /// Makes sure that the wanted commit is in the clone, with as little network as possible.
    fn update(&self, place: &Place) -> Result<String, GitError> {
        let settings = &self.context.settings.vcs_cache;
        let usable = settings.enabled && place.clone.join(".git/HEAD").is_file();
        if !usable {
            self.clone_anew(place)?;
            return self.find_or_ask(place);
        }
        clear_leftovers(&place.clone.join(".git"))?;
        self.context.info(&format!(
            "using the cached repository in {}",
            place.clone.display()
        ));
        let complete = is_full_id(&self.info.version);
        if complete
            && !settings.always_fetch
            && let Some(commit) = self.git.resolve(&place.clone, &self.info.version)?
        {
            return Ok(commit);
        }
        match self.set_address(place) {
            // Nothing was asked of the server yet: the clone itself is damaged, by a power failure perhaps.
            Err(GitError::Failed { .. }) => {
                self.context
                    .warn("the cached clone is damaged: the repository is cloned anew");
                self.clone_anew(place)?;
                return self.find_or_ask(place);
            }
            result => result?,
        }
        match self.fetch(place) {
            Err(GitError::Failed { .. }) if settings.clone_on_pull_fail => {
                self.context
                    .warn("fetching failed: the repository is cloned anew");
                self.clone_anew(place)?;
            }
            result => result?,
        }
        self.find_or_ask(place)
    }

    fn clone_anew(&self, place: &Place) -> Result<(), GitError> {
        for entry in fs::read_dir(&place.outer).map_err(at("reading", &place.outer))? {
            let path = entry.map_err(at("reading", &place.outer))?.path();
            remove_tree(&path).map_err(at("removing", &path))?;
        }
        let staging = place.outer.join(".staging");
        self.context.info(&format!("cloning {}", self.access.url));
        let volume = if self.context.var("CLEARML_AGENT_GIT_CLONE_VERBOSE").is_some() {
            "--verbose"
        } else {
            "--quiet"
        };
        let command = self
            .git
            .command(&place.outer)
            .args([
                "clone",
                "--no-checkout",
                volume,
                "--config",
                "submodule.active=.",
                "--",
            ])
            .arg(&self.access.url)
            .arg(&staging);
        self.git.run("cloning", &command)?;
        fs::rename(&staging, &place.clone).map_err(at("renaming", &staging))?;
        Ok(())
    }

    /// Credentials or protocol may have changed since the clone was made.
    fn set_address(&self, place: &Place) -> Result<(), GitError> {
        let set_url = self
            .git
            .command(&place.clone)
            .args(["remote", "set-url", "--", "origin"])
            .arg(&self.access.url);
        self.git.run("setting the address of the cached clone", &set_url)
    }

    fn fetch(&self, place: &Place) -> Result<(), GitError> {
        // `--force`: a tag that was moved on the server must not end the task.
        let fetch = self
            .git
            .command(&place.clone)
            .args(["fetch", "--quiet", "--force"])
            .args(&self.context.settings.git.fetch_args);
        self.git.run("fetching", &fetch)
    }

    /// Finds the wanted revision; a commit that no branch or tag leads to is asked for by its id.
    fn find_or_ask(&self, place: &Place) -> Result<String, GitError> {
        if let Some(commit) = self.find(place)? {
            return Ok(commit);
        }
        if is_full_id(&self.info.version) {
            let fetch = self
                .git
                .command(&place.clone)
                .args(["fetch", "--quiet", "origin"])
                .arg(&self.info.version);
            match self.git.run("fetching the commit", &fetch) {
                Ok(()) | Err(GitError::Failed { .. }) => {}
                Err(e) => return Err(e),
            }
            if let Some(commit) = self.find(place)? {
                return Ok(commit);
            }
        }
        Err(GitError::NoRevision {
            wanted: wanted(self.info),
        })
    }

    fn find(&self, place: &Place) -> Result<Option<String>, GitError> {
        for revision in revisions(self.info) {
            if let Some(commit) = self.git.resolve(&place.clone, &revision)? {
                return Ok(Some(commit));
            }
        }
        Ok(None)
    }

    fn check_out(&self, place: &Place, root: &Path, commit: &str) -> Result<(), GitError> {
        transfer::git_folder(&place.clone.join(".git"), &root.join(".git"))?;
        let command = self
            .git
            .command(root)
            .args(["checkout", "--quiet", "--force", "--detach"])
            .arg(commit);
        self.git.run("checking out", &command)
    }
}

/// Removes what a git that was killed has left in a clone that we alone hold: lock files, which would
/// make every later git refuse to work, and half-received packs.
fn clear_leftovers(git_folder: &Path) -> Result<(), FileError> {
    for (folder, deep) in [
        ("", false),
        ("refs", true),
        ("objects/info", false),
        ("objects/pack", false),
    ] {
        clear_folder(&git_folder.join(folder), deep)?;
    }
    Ok(())
}

fn clear_folder(folder: &Path, deep: bool) -> Result<(), FileError> {
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(at("reading", folder))?,
    };
    for entry in entries {
        let entry = entry.map_err(at("reading", folder))?;
        let (path, name) = (entry.path(), entry.file_name());
        if entry.file_type().map_err(at("reading", &path))?.is_dir() {
            if deep {
                clear_folder(&path, true)?;
            }
            continue;
        }
        // No name of a branch or tag ends like this.
        let lock = path.extension().is_some_and(|extension| extension == "lock");
        if lock || name.to_string_lossy().starts_with("tmp_") {
            remove_tree(&path).map_err(at("removing", &path))?;
        }
    }
    Ok(())
}

/// What to look for, in order: the commit, else the tag, else the branch, else the usual main branches.
fn revisions(info: &ExecutionInfo) -> Vec<String> {
    let branch = info.branch.strip_prefix("origin/").unwrap_or(&info.branch);
    let names = if !info.version.is_empty() {
        vec![info.version.clone()]
    } else if !info.tag.is_empty() {
        vec![format!("refs/tags/{}", info.tag), info.tag.clone()]
    } else if !branch.is_empty() {
        vec![format!("refs/remotes/origin/{branch}")]
    } else {
        ["master", "main", "HEAD"]
            .map(|name| format!("refs/remotes/origin/{name}"))
            .to_vec()
    };
    // A name that begins with a dash can't be a revision, but could be an option.
    names.into_iter().filter(|name| !name.starts_with('-')).collect()
}

fn wanted(info: &ExecutionInfo) -> String {
    if !info.version.is_empty() {
        format!("commit {}", info.version)
    } else if !info.tag.is_empty() {
        format!("tag {}", info.tag)
    } else if !info.branch.is_empty() {
        format!("branch {}", info.branch)
    } else {
        "a branch named master or main".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use clearml_support::command::CancelToken;
    use clearml_support::redact::Redactor;
    use clearml_task_model::Script;

    use super::*;
    use crate::host::{Host, Level, PhaseEvent};
    use crate::request::EnvSettings;

    #[derive(Default)]
    struct Silent(CancelToken);

    impl Host for Silent {
        fn line(&self, _: Level, _: &str) {}
        fn phase(&self, _: Phase, _: PhaseEvent) {}
        fn report_packages(&self, _: &[String]) {}
        fn report_commit(&self, _: &str) {}
        fn cancel(&self) -> &CancelToken {
            &self.0
        }
    }

    #[test]
    fn a_repository_that_stays_locked_is_cloned_for_one_task_alone() {
        let temp = tempfile::tempdir().unwrap();
        let mut settings = EnvSettings {
            env: std::env::vars().collect(),
            ..EnvSettings::default()
        };
        settings.vcs_cache.path = temp.path().to_owned();
        let (host, redactor) = (Silent::default(), Redactor::new());
        let context = Context {
            settings: &settings,
            host: &host,
            redactor: &redactor,
        };
        let script = Script {
            repository: Some("https://h/r.git".into()),
            ..Script::default()
        };
        let info = ExecutionInfo::new(&script, &settings.env).0;
        let access = access(&info.repository, &settings.git);
        let git = Git::new(&context, Some(&access)).unwrap();
        let clone = CachedClone {
            context: &context,
            git: &git,
            access: &access,
            info: &info,
        };

        let first = clone.lock(Duration::from_secs(5)).unwrap();
        let second = clone.lock(Duration::from_millis(60)).unwrap();
        assert!(!first.one_off && second.one_off);
        assert_ne!(first.outer, second.outer);
        let (kept, removed) = (first.outer.clone(), second.outer.clone());
        drop((first, second));
        assert!(kept.exists() && !removed.exists());
        assert!(
            !clone.lock(Duration::from_secs(5)).unwrap().one_off,
            "the lock went with its holder"
        );
    }
}
