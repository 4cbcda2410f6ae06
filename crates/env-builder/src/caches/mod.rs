//! The cache of environments: what one task has installed, the next one gets back in a fraction of a second.
//!
//! # How it works
//!
//! * An environment is known by a key ([`key`]), of which it has two: one of the requirements as they were
//!   asked for, and one of what is installed, which is what a clone of the task asks for.
//! * Whoever finds nothing builds, with a lock on the key; others that want the same wait and then restore.
//!   A build that fails says so in the lock, so that those who wait try at the same time and not one by one.
//! * An entry is made beside the others and appears by one renaming ([`store`]).
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
mod key;
mod locks;
mod place;
mod store;
mod tree;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use clearml_support::fs::{create_private_dir, remove_tree};

use crate::caches::key::{KeyInputs, Lists, Platform, Python};
use crate::caches::locks::{BuildRight, Waited};
use crate::caches::store::{Meta, Store};
use crate::caches::tree::{Kind, Means, Orders, TreeError};
use crate::error::{BuildError, FileError, at};
use crate::packages::RequirementSet;
use crate::packages::requirements::torch;
use crate::python::probe::Interpreter;
use crate::request::VenvsCacheSettings;
use crate::tools::Context;

/// How long a build waits for another one of the same environment before it builds its own.
const BUILD_PATIENCE: Duration = Duration::from_secs(3600);

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
        let Some(inputs) = inputs(self.context, wanted) else {
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

    fn means(&self, settings: &VenvsCacheSettings) -> Means {
        Means::new(settings.link_mode, settings.allow_hardlink)
    }

    /// Keeps the environment that was built, unless that can't be. `frozen` is what is installed, if that
    /// is reported.
    pub(crate) fn keep(&mut self, site_packages: &Path, frozen: Option<&[String]>, folder: &Path) {
        let right = self.right.take();
        if self.outcome != Outcome::Built {
            return;
        }
        let Some(active) = &self.active else { return };
        let kept = self.try_keep(active, site_packages, frozen, folder);
        if let Some(right) = right {
            right.ended(kept.is_ok());
        }
        match kept {
            Ok(()) => self.outcome = Outcome::Kept,
            Err(error) => self
                .context
                .warn(&format!("the environment is not kept for other tasks: {error}")),
        }
    }

    fn try_keep(
        &self,
        active: &Active,
        site_packages: &Path,
        frozen: Option<&[String]>,
        folder: &Path,
    ) -> Result<(), Trouble> {
        let begun = Instant::now();
        let store = &active.store;
        let installed = frozen.and_then(|lines| frozen_key(&active.inputs, lines, folder));
        let mut keys = vec![active.key.clone()];
        keys.extend(installed.filter(|key| *key != active.key));
        // Somebody was faster, or another list has led to the same.
        for key in &keys {
            if let Some(id) = store.find(key)
                && store.read(&id).is_some()
            {
                for key in &keys {
                    store.point(key, &id)?;
                }
                return Ok(());
            }
        }
        let settings = &self.context.settings.venvs_cache;
        if !store::make_room(store, settings.max_entries, settings.min_free_bytes, &|| {
            store.free_bytes()
        })? {
            let gigabytes = settings.min_free_bytes.unwrap_or(0) >> 20;
            return Err(Trouble::Reason(format!(
                "less than {gigabytes} MiB (agent.venvs_cache.free_space_threshold_gb) are free in {}; \
                 make room, for example by removing old environments there",
                store.root().display()
            )));
        }
        let foreign = external::paths(&self.root, site_packages).map_err(Trouble::Reason)?;
        let kind_of = |path: &Path| {
            if place::is_own(path) {
                Kind::Own
            } else {
                Kind::File
            }
        };
        let mut items = tree::list(&self.root, &|path| foreign.contains(path), &kind_of)?;
        if let Some(path) = place::mark(&mut items, &self.root, &self.run) {
            return Err(Trouble::Reason(format!(
                "{} leads to a folder of this task",
                path.display()
            )));
        }
        let draft = store.draft()?;
        let means = self.means(settings);
        let orders = Orders {
            check: false,
            record: true,
            cancel: self.context.host.cancel(),
        };
        let items = tree::transfer(&items, &self.root, &draft.env, &means, &orders)?;
        let pinned = active.inputs.lists.are_pinned();
        let meta = Meta::new(keys, &self.root, active.inputs.python.clone(), pinned);
        draft.publish(meta, &items)?;
        store.sweep_names()?;
        let seconds = begun.elapsed().as_secs_f64();
        self.context.info(&format!(
            "environment kept for other tasks in {seconds:.2} s: {} files by {}",
            items.len(),
            means.name()
        ));
        Ok(())
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

/// The key of a task that asks for what is installed.
fn frozen_key(inputs: &KeyInputs, frozen: &[String], folder: &Path) -> Option<String> {
    let mut lists = Lists::default();
    let known = lists.add(&frozen.join("\n"), folder);
    known.then(|| {
        key::key(&KeyInputs {
            lists,
            ..inputs.clone()
        })
    })
}

fn inputs(context: &Context<'_>, wanted: &Wanted<'_>) -> Option<KeyInputs> {
    let interpreter = wanted.interpreter;
    let mut lists = Lists::default();
    for set in wanted.sets {
        if !lists.add(&set.text, &set.folder) {
            return None;
        }
    }
    // Asking the driver takes longer than all the rest.
    let cuda = match lists.have_any(&torch::FAMILY) {
        true => format!("{:?}", torch::cuda::detect(context)),
        false => String::new(),
    };
    Some(KeyInputs {
        manager: wanted.manager.to_owned(),
        python: Python {
            implementation: interpreter.implementation.clone(),
            version: interpreter.version,
            cache_tag: interpreter.cache_tag.clone(),
            executable: interpreter.executable.display().to_string(),
        },
        platform: Platform {
            os: std::env::consts::OS.to_owned(),
            arch: std::env::consts::ARCH.to_owned(),
            libc: libc().to_owned(),
        },
        cuda,
        image: wanted.image.unwrap_or_default().to_owned(),
        site: site(context, interpreter),
        options: options(context),
        lists,
        lock: wanted.lock.clone(),
    })
}

/// The interpreter's own packages, by the names of their folders, if environments see them.
fn site(context: &Context<'_>, interpreter: &Interpreter) -> Vec<String> {
    if !context.settings.package_manager.system_site_packages {
        return Vec::new();
    }
    let folders = interpreter.base_sites.iter();
    let entries = folders.filter_map(|folder| fs::read_dir(folder).ok()).flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.ends_with(".dist-info") || name.ends_with(".egg-info"))
        .collect();
    names.sort_unstable();
    names
}

/// Settings that reach the installer, and its own variables.
fn options(context: &Context<'_>) -> BTreeMap<String, String> {
    // Where things are kept, what is said, and how long is waited does not change what is installed.
    const NEUTRAL: [&str; 12] = [
        "PIP_CACHE_DIR",
        "PIP_NO_CACHE_DIR",
        "PIP_RETRIES",
        "PIP_TIMEOUT",
        "PIP_DEFAULT_TIMEOUT",
        "PIP_NO_INPUT",
        "PIP_PROGRESS_BAR",
        "PIP_DISABLE_PIP_VERSION_CHECK",
        "PIP_ROOT_USER_ACTION",
        "UV_CACHE_DIR",
        "UV_LINK_MODE",
        "UV_NO_PROGRESS",
    ];
    let settings = &context.settings.package_manager;
    let addresses = |list: &[String]| {
        list.iter()
            .map(|url| key::address(url))
            .collect::<Vec<_>>()
            .join("\n")
    };
    let mut options: BTreeMap<String, String> = [
        ("kind", format!("{:?}", settings.kind)),
        ("pip", settings.pip_version.join("\n")),
        ("flags", addresses(&settings.extra_pip_install_flags)),
        ("indexes", addresses(&settings.extra_index_url)),
        ("upgrade", settings.force_upgrade.to_string()),
        ("best-match", settings.uv_unsafe_best_match.to_string()),
        ("legacy", settings.pip_legacy_resolver.join("\n")),
        ("priority", settings.priority_packages.join("\n")),
        (
            "priority-optional",
            settings.priority_optional_packages.join("\n"),
        ),
        ("post", settings.post_packages.join("\n")),
        ("post-optional", settings.post_optional_packages.join("\n")),
        ("torch", format!("{:?}", context.settings.torch)),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    for (name, value) in &context.settings.env {
        let is_installers = name.starts_with("PIP_") || name.starts_with("UV_");
        if is_installers && !NEUTRAL.contains(&name.as_str()) {
            options.insert(name.clone(), key::address(value));
        }
    }
    options
}

/// Family and version of the C library that programs of this machine get.
fn libc() -> &'static str {
    static FOUND: OnceLock<String> = OnceLock::new();
    FOUND.get_or_init(|| {
        let arch = std::env::consts::ARCH;
        let glibc = [
            "/lib64",
            &format!("/lib/{arch}-linux-gnu"),
            "/lib",
            "/usr/lib",
            "/usr/lib64",
        ]
        .map(|folder| PathBuf::from(folder).join("libc.so.6"));
        for path in glibc {
            let Ok(bytes) = clearml_support::fs::read_limited(&path, 64 << 20) else {
                continue;
            };
            let mark = b"release version ";
            if let Some(begin) = bytes.windows(mark.len()).position(|window| window == mark) {
                let version = &bytes[begin + mark.len()..];
                let end = version
                    .iter()
                    .position(|byte| !byte.is_ascii_digit() && *byte != b'.');
                let version = String::from_utf8_lossy(&version[..end.unwrap_or(0)]);
                return format!("glibc {}", version.trim_end_matches('.'));
            }
        }
        if Path::new(&format!("/lib/ld-musl-{arch}.so.1")).exists() {
            return "musl".to_owned();
        }
        "unknown".to_owned()
    })
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

    #[test]
    fn the_c_library_is_known() {
        assert!(libc().starts_with("glibc 2.") || libc() == "musl", "{}", libc());
    }
}
