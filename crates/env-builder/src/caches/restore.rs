//! Getting an environment back: from its entry, or after waiting for whoever builds it.

use std::fs;
use std::time::{Duration, Instant};

use clearml_support::fs::{create_private_dir, remove_tree};

use crate::caches::locks::{self, BuildRight, Waited};
use crate::caches::store::Store;
use crate::caches::tree::{self, Kind, Orders};
use crate::caches::{Active, Cached, Outcome, Trouble, place};
use crate::error::{BuildError, at};

/// How long a build waits for another one of the same environment before it builds its own.
const BUILD_PATIENCE: Duration = Duration::from_secs(3600);

impl Cached<'_> {
    /// Restores the environment if it is kept. If it is not, this build has to build it; should another one
    /// be at it already, that one is waited for.
    ///
    /// # Errors
    ///
    /// Only when the build is cancelled.
    pub(crate) fn restore(&mut self) -> Result<bool, BuildError> {
        let Some(active) = self.active.take() else {
            return Ok(false);
        };
        let restored = self.restore_or_wait(&active);
        self.active = Some(active);
        match restored {
            Ok(true) => {
                self.outcome = Outcome::Restored;
                self.right = None;
                Ok(true)
            }
            Ok(false) => Ok(false),
            Err(Trouble::Cancelled) => Err(BuildError::Cancelled),
            Err(error) => {
                self.context
                    .warn(&format!("the cache of environments is not used: {error}"));
                Ok(false)
            }
        }
    }

    fn restore_or_wait(&mut self, active: &Active) -> Result<bool, Trouble> {
        if self.restore_entry(active)? {
            return Ok(true);
        }
        let context = self.context;
        let begun = Instant::now();
        let waited = BuildRight::wait(
            &active.store.build_lock(&active.key),
            BUILD_PATIENCE,
            context.host.cancel(),
            &mut || context.info("another task builds the same environment: waiting for it"),
        )?;
        let right = match waited {
            Waited::Cancelled => return Err(Trouble::Cancelled),
            Waited::TooLong => {
                context.warn("the other build takes too long: the environment is built here as well");
                return Ok(false);
            }
            Waited::Got(right) => right,
        };
        if right.waited {
            let seconds = begun.elapsed().as_secs_f64();
            context.info(&format!("waited {seconds:.1} s for another build"));
            if self.restore_entry(active)? {
                return Ok(true);
            }
        }
        // Without the right nobody waits for us either.
        self.right = Some(right).filter(|right| !right.has_failed);
        Ok(false)
    }

    /// Whether there is an entry and it could be restored. One that is damaged is removed.
    fn restore_entry(&self, active: &Active) -> Result<bool, Trouble> {
        let store = &active.store;
        let Some(id) = store.find(&active.key) else {
            return Ok(false);
        };
        let settings = &self.context.settings.venvs_cache;
        let cancel = self.context.host.cancel();
        let lock = match locks::shared(&store.entry_lock(&id), settings.lock_timeout, cancel)? {
            Waited::Got(lock) => lock,
            Waited::Cancelled => return Err(Trouble::Cancelled),
            Waited::TooLong => {
                self.context.warn(
                    "the cached environment is still locked by another process: the environment is built anew",
                );
                return Ok(false);
            }
        };
        let begun = Instant::now();
        match self.restore_from(active, &id) {
            Ok((means, files)) => {
                let seconds = begun.elapsed().as_secs_f64();
                self.context.info(&format!(
                    "environment restored from the cache in {seconds:.2} s: {files} files by {means}"
                ));
                if let Err(error) = store.touch(&id) {
                    tracing::warn!(%error, "the use of a cached environment can't be noted");
                }
                Ok(true)
            }
            Err(Trouble::Cancelled) => Err(Trouble::Cancelled),
            Err(error) => {
                drop(lock);
                self.give_up(store, &id, &error)?;
                Ok(false)
            }
        }
    }

    fn give_up(&self, store: &Store, id: &str, error: &Trouble) -> Result<(), Trouble> {
        self.context.warn(&format!(
            "the cached environment can't be used and is removed: {error}; the environment is built anew"
        ));
        let staging = self.run.join("tmp").join("restored");
        remove_tree(&staging).map_err(at("removing", &staging))?;
        store.remove(id)?;
        Ok(())
    }

    fn restore_from(&self, active: &Active, id: &str) -> Result<(&'static str, usize), Trouble> {
        let store = &active.store;
        let Some((meta, items)) = store.read(id) else {
            return Err(Trouble::Reason("its description is damaged".to_owned()));
        };
        let settings = &self.context.settings.venvs_cache;
        let is_expired = settings.unpinned_ttl > Duration::ZERO
            && !meta.pinned
            && meta.is_older_than(settings.unpinned_ttl);
        if is_expired {
            let reason = "it is too old for requirements without exact versions";
            return Err(Trouble::Reason(reason.to_owned()));
        }
        if meta.python != active.inputs.python {
            return Err(Trouble::Reason("it was made for another interpreter".to_owned()));
        }
        let staging = self.run.join("tmp").join("restored");
        create_private_dir(&staging).map_err(at("creating", &staging))?;
        let means = self.means(settings);
        let orders = Orders {
            check: true,
            record: false,
            cancel: self.context.host.cancel(),
        };
        let env = store.entry(id).join("env");
        tree::transfer(&items, &env, &staging, &means, &orders)?;
        for item in items.iter().filter(|item| item.kind == Kind::Placed) {
            place::replace_in(&staging.join(&item.path), item.mode, &meta.base, &self.root)?;
        }
        remove_tree(&self.root).map_err(at("removing", &self.root))?;
        fs::rename(&staging, &self.root).map_err(at("creating", &self.root))?;
        Ok((means.name(), items.len()))
    }
}
