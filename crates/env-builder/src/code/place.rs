//! A locked place in the cache of clones.
//!
//! `<vcs cache>/<name>.<md5 of the address>/<name>` is a full clone, guarded by
//! `<vcs cache>/<md5>.lock`. Names and lock are those of the Python agent.

use std::fs::{self, File, FileTimes};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use clearml_support::fs::{create_private_dir, remove_tree};
use clearml_support::id::hex32;
use clearml_support::lock::FileLock;

use crate::code::git::GitError;
use crate::code::repo_url::{cache_id, folder_name};
use crate::error::{FileError, at};
use crate::tools::Context;

/// How long another task may use the same clone before this one makes a temporary clone of its own.
pub(crate) const LOCK_PATIENCE: Duration = Duration::from_secs(300);
/// How often a waiting build asks for the lock.
const LOCK_POLL: Duration = Duration::from_millis(50);
/// Names of clones that are being made begin with this.
const STAGING: &str = ".staging";
/// Held while a temporary clone is used.
pub(crate) const IN_USE: &str = ".in-use";

/// A clone that nobody else uses.
#[derive(Debug)]
pub(crate) struct Place {
    /// The folder of the cache.
    pub(crate) outer: PathBuf,
    /// The clone in it, which need not exist yet.
    pub(crate) clone: PathBuf,
    one_off: bool,
    _lock: FileLock,
}

impl Place {
    /// Waits for the lock of a repository; after too long, gives out a place of our own.
    pub(crate) fn lock(
        context: &Context<'_>,
        repository: &str,
        patience: Duration,
    ) -> Result<Self, GitError> {
        let cache = &context.settings.vcs_cache.path;
        create_private_dir(cache).map_err(at("creating", cache))?;
        let name = folder_name(repository);
        let id = cache_id(repository);
        let lock = wait(context, &cache.join(format!("{id}.lock")), patience)?;
        let one_off = lock.is_none();
        let folder = if one_off {
            context.warn("the cached repository is still locked: a temporary clone is used instead");
            format!("{name}.{id}_{}", hex32())
        } else {
            format!("{name}.{id}")
        };
        let outer = cache.join(folder);
        create_private_dir(&outer).map_err(at("creating", &outer))?;
        let lock = match lock {
            Some(lock) => lock,
            None => {
                let file = outer.join(IN_USE);
                FileLock::acquire(&file, LOCK_POLL).map_err(at("locking", &file))?
            }
        };
        let place = Self {
            clone: outer.join(&name),
            outer,
            one_off,
            _lock: lock,
        };
        place.mark_used();
        Ok(place)
    }

    /// The time of the folder says when the clone was used last.
    fn mark_used(&self) {
        let now = FileTimes::new().set_modified(SystemTime::now());
        if let Err(error) = File::open(&self.outer).and_then(|folder| folder.set_times(now)) {
            tracing::debug!(%error, folder = %self.outer.display(), "the time of use can't be noted");
        }
    }
}

impl Place {
    /// A new name for a clone that is being made. What is left under such a name may still be written to,
    /// by a child of a builder that was killed, so the name is never used again.
    pub(crate) fn staging(&self) -> PathBuf {
        self.outer.join(format!("{STAGING}{}", hex32()))
    }

    /// Removes the clone and what is left of earlier attempts.
    pub(crate) fn clear(&self) -> Result<(), FileError> {
        remove_tree(&self.clone).map_err(at("removing", &self.clone))?;
        self.clear_staging()
    }

    /// Removes what is left of earlier attempts, as far as nobody writes to it any more.
    pub(crate) fn clear_staging(&self) -> Result<(), FileError> {
        let entries = fs::read_dir(&self.outer).map_err(at("reading", &self.outer))?;
        for entry in entries {
            let entry = entry.map_err(at("reading", &self.outer))?;
            let left = entry.file_name().to_string_lossy().starts_with(STAGING);
            if left && let Err(error) = remove_tree(&entry.path()) {
                tracing::debug!(%error, "somebody still writes to an abandoned clone");
            }
        }
        Ok(())
    }
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

fn wait(
    context: &Context<'_>,
    file: &std::path::Path,
    patience: Duration,
) -> Result<Option<FileLock>, GitError> {
    let deadline = Instant::now() + patience;
    let mut told = false;
    loop {
        if context.host.cancel().is_cancelled() {
            return Err(GitError::Cancelled);
        }
        let lock = FileLock::try_acquire(file).map_err(at("locking", file))?;
        if lock.is_some() || Instant::now() >= deadline {
            return Ok(lock);
        }
        if !told {
            context.info("waiting for another task that uses the same repository");
            told = true;
        }
        std::thread::sleep(LOCK_POLL);
    }
}

#[cfg(test)]
mod tests {
    use clearml_support::redact::Redactor;

    use super::*;
    use crate::code::evict;
    use crate::request::EnvSettings;
    use crate::tools::tests::Silent;

    #[test]
    fn a_repository_that_stays_locked_is_cloned_for_one_task_alone() {
        let temp = tempfile::tempdir().unwrap();
        let mut settings = EnvSettings::default();
        settings.vcs_cache.path = temp.path().to_owned();
        let (host, redactor) = (Silent::default(), Redactor::new());
        let context = Context {
            settings: &settings,
            host: &host,
            redactor: &redactor,
        };
        let lock = |patience| Place::lock(&context, "https://h/r.git", patience).unwrap();
        let first = lock(Duration::from_secs(5));
        let second = lock(Duration::from_millis(60));
        assert!(!first.one_off && second.one_off);
        assert_ne!(first.outer, second.outer);
        let (kept, removed) = (first.outer.clone(), second.outer.clone());
        evict::sweep(&context);
        assert!(kept.exists() && removed.exists(), "both are in use");
        drop((first, second));
        assert!(kept.exists() && !removed.exists());
        assert!(
            !lock(Duration::from_secs(5)).one_off,
            "the lock went with its holder"
        );
    }
}
