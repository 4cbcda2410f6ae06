//! From the script section of a ClearML task to something that can be started: checked-out code, a
//! Python environment, a command line and its variables.
//!
//! [`build`] is the one way in. It takes a [`BuildRequest`] and a [`Host`] (console, phases, reports,
//! cancellation) and gives a [`PreparedEnvironment`]. It knows no server and starts no user code.
//!
//! # What it is not for
//!
//! Running the code, supervising it and shipping its console belong to the task runner; reading
//! `clearml.conf` belongs to the configuration. Containers are built elsewhere.
//!
//! # How it works
//!
//! 1. [`code::info`] reads the task; nothing after it looks at the task again.
//! 2. [`python::find`] chooses an interpreter. What it says about itself is remembered
//!    ([`python::probe`]), so a warm build starts no interpreter at all.
//! 3. The environment is made in process (links, `pyvenv.cfg`, folders), and pip is put into it as
//!    hard links to a copy that is unpacked once. Both together take some twenty milliseconds, which
//!    is why every environment has a pip, as user code expects, even if nothing is installed.
//! 4. The repository comes from a cache of clones that all agents of the machine share, under a lock.
//!    A complete commit id that is already there needs no network. The working copy's `.git` shares its
//!    objects with the cache by hard links.
//! 5. `script.diff` is told apart ([`code::diff`]): changes are applied by `git apply`, all or nothing;
//!    a literal script is written ([`code::literal`]), never outside of the code folder.
//! 6. pip or uv installs. Lists, index addresses and logins are never arguments.
//! 7. What is installed is read from the environment without starting anything, and reported.
//! 8. The command line and the variables follow from all that.
//!
//! Every build owns its folder. Shared are only the caches, and those are changed under locks or by
//! renaming whole things into place.
//!
//! # Limits
//!
//! Not built: conda, poetry, uv project mode (`uv sync`), submodules, Mercurial, notebooks, the cache of
//! whole environments, special treatment of torch, logins for packages from version control. Where a
//! setting asks for one of these, the build is refused or says so on the console.
//!
//! `agent.package_manager.pip_version` does not exist here: pip is the one that comes with the
//! interpreter, unless the list of the task has a line for `pip`.
//!
//! Logins for git need git 2.31 or newer; everything else 2.17.

mod build;
pub mod code;
mod error;
mod host;
pub mod launch;
pub mod packages;
pub mod python;
mod request;
mod tools;
pub mod trial;

pub use build::build;
pub use error::{BuildError, FileError, Stage};
pub use host::{Host, Level, Phase, PhaseEvent};
pub use request::{
    BuildRequest, EnvSettings, GitSettings, PackageManagerKind, PackageManagerSettings, PreparedEnvironment,
    VcsCacheSettings,
};
