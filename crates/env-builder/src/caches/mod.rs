//! The cache of environments: what one task has installed, the next one gets back in a fraction of a second.
//!
//! # How it works
//!
//! * An environment is known by a key ([`key`], made of what [`inputs`] finds), of which it has two: one of the
//!   requirements as they were asked for, and one of what is installed, which is what a clone of the task asks
//!   for.
//! * Whoever finds nothing builds, with a lock on the key ([`locks`]); others that want the same wait and then
//!   restore ([`restore`]). A build that fails says so in the lock, so that those who wait try at the same time
//!   and not one by one.
//! * An entry is made beside the others ([`keep`]) and appears by one renaming ([`store`]).
//! * Files are shared with entries by reflinks where the file system has them. Else they are hard links: such
//!   files are made read-only, and before each restoration it is looked whether all are as they were. What
//!   installers or we change in place (scripts, `.pth`, `RECORD`, `pyvenv.cfg`) is always copied.
//! * What names its place gets the new one ([`place`]).
//! * Packages that may be others tomorrow under the same line are not in an entry ([`external`]).
//!
//! Nothing here is a reason for a task not to run: every trouble is a line on the console and a build as if
//! there were no cache.
//!
//! # What is not kept
//!
//! Environments of conda and Poetry, those with packages in the way of `setup.py develop`, those whose files
//! lead into folders of their task, and those with nothing installed, which are made faster than restored.

mod external;
mod inputs;
mod keep;
mod key;
mod locks;
mod place;
mod restore;
pub(crate) mod store;
mod tree;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::caches::key::KeyInputs;
use crate::caches::locks::BuildRight;
use crate::caches::store::Store;
use crate::caches::tree::{Means, TreeError};
use crate::error::{FileError, at};
use crate::packages::RequirementSet;
use crate::python::probe::Interpreter;
use crate::request::VenvsCacheSettings;
use crate::tools::Context;

/// What an environment is wanted for.
pub(crate) struct Wanted<'w> {
    /// `pip`, or the tool whose project it is.
    pub(crate) manager: &'w str,
    pub(crate) interpreter: &'w Interpreter,
    pub(crate) sets: &'w [RequirementSet],
    /// The image that the task names, if any.
    pub(crate) image: Option<&'w str>,
    /// What a project with a lock file is known by.
    pub(crate) lock: Option<String>,
}

/// What came of the cache, for the summary.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It played no part.
    #[default]
    Unused,
    Restored,
    /// Built, and there for the next one.
    Kept,
    /// Built, and not kept.
    Built,
}

/// An environment that is ready, for people.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Made {
    pub(crate) outcome: Outcome,
    /// How many packages the task has in it.
    pub(crate) packages: usize,
}

/// The dealings of one build with the cache.
pub(crate) struct Cached<'a> {
    context: &'a Context<'a>,
    /// Where the environment is to be.
    root: PathBuf,
    /// What nothing that is kept may lead to.
    run: PathBuf,
    active: Option<Active>,
    right: Option<BuildRight>,
    pub(crate) outcome: Outcome,
}

struct Active {
    store: Store,
    inputs: KeyInputs,
    key: String,
}

/// Trouble that costs the cache, not the task.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{0}")]
    Cache(#[from] io::Error),
    #[error("{0}")]
    Reason(String),
    #[error("the build was cancelled")]
    Cancelled,
}

impl From<TreeError> for Trouble {
    fn from(error: TreeError) -> Self {
        match error {
            TreeError::File(error) => Self::File(error),
            TreeError::Cancelled => Self::Cancelled,
            changed @ TreeError::Changed(_) => Self::Reason(changed.to_string()),
        }
    }
}

impl<'a> Cached<'a> {
    /// `root` is where the environment is to be, or is already without packages, below the folder `run` of the
    /// task, in which there is a folder `tmp`.
    pub(crate) fn new(context: &'a Context<'a>, wanted: &Wanted<'_>, root: &Path, run: &Path) -> Self {
        let mut cached = Self::none(context);
        root.clone_into(&mut cached.root);
        run.clone_into(&mut cached.run);
        if wanted.sets.is_empty() && wanted.lock.is_none() {
            return cached;
        }
        let settings = &context.settings.venvs_cache;
        let Some(path) = &settings.path else {
            context.info(
                "environments are not kept for other tasks; agent.venvs_cache.path names a folder to keep them in",
            );
            return cached;
        };
        cached.outcome = Outcome::Built;
        match cached.activate(wanted, path) {
            Ok(active) => cached.active = active,
            Err(error) => context.warn(&format!("the cache of environments is not used: {error}")),
        }
        cached
    }

    fn activate(&self, wanted: &Wanted<'_>, path: &Path) -> Result<Option<Active>, FileError> {
        let Some(inputs) = inputs::of_task(self.context, wanted) else {
            self.context
                .info("the requirements include a list from elsewhere: this environment is not kept");
            return Ok(None);
        };
        if !place::is_plain(&self.root) {
            self.context
                .info("the path of the environment has special characters in it: it is not kept");
            return Ok(None);
        }
        let store = Store::open(path)?;
        store.sweep().map_err(at("tidying", store.root()))?;
        let key = key::key(&inputs);
        tracing::debug!(key, ?inputs, "the key of the environment");
        Ok(Some(Active { store, inputs, key }))
    }

    /// No dealings at all.
    pub(crate) fn none(context: &'a Context<'a>) -> Self {
        Self {
            context,
            root: PathBuf::new(),
            run: PathBuf::new(),
            active: None,
            right: None,
            outcome: Outcome::Unused,
        }
    }

    fn means(&self, settings: &VenvsCacheSettings) -> Means {
        Means::new(settings.link_mode, settings.allow_hardlink)
    }
}

impl Drop for Cached<'_> {
    /// A build that ends early has failed; those who wait shall not queue up.
    fn drop(&mut self) {
        if let Some(right) = self.right.take() {
            right.ended(false);
        }
    }
}

/// How many packages a list of installed ones has.
pub(crate) fn count(lines: &[String]) -> usize {
    lines.iter().filter(|line| !line.starts_with('#')).count()
}

/// The line that people look for.
pub(crate) fn summary(made: Made, took: Duration) -> String {
    let how = match made.outcome {
        Outcome::Unused => None,
        Outcome::Restored => Some("cache hit"),
        Outcome::Kept => Some("built and cached"),
        Outcome::Built => Some("built"),
    };
    let packages = match made.packages {
        0 => "no packages".to_owned(),
        1 => "1 package".to_owned(),
        count => format!("{count} packages"),
    };
    let parts: Vec<String> = how.map(str::to_owned).into_iter().chain([packages]).collect();
    format!(
        "environment ready in {:.1} s: {}",
        took.as_secs_f64(),
        parts.join(", ")
    )
}
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_says_how_and_how_many() {
        for (outcome, packages, expected) in [
            (
                Outcome::Restored,
                12,
                "environment ready in 1.8 s: cache hit, 12 packages",
            ),
            (
                Outcome::Kept,
                1,
                "environment ready in 1.8 s: built and cached, 1 package",
            ),
            (Outcome::Unused, 0, "environment ready in 1.8 s: no packages"),
        ] {
            let made = Made { outcome, packages };
            assert_eq!(summary(made, Duration::from_millis(1810)), expected);
        }
    }
}
