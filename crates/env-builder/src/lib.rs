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
//! 4. The repository (git or Mercurial) comes from a cache of clones that all agents of the machine share,
//!    under a lock, with its submodules and large files. A complete commit id that is already there needs
//!    no network. The working copy's `.git` shares its objects with the cache by hard links. After a clone
//!    or fetch the cache is brought back within its limits, and what killed builds have left is removed.
//!    Steps 2 and 3 go on meanwhile (`side_by_side`), unless the code decides what the environment is; the
//!    console has the environment first.
//! 5. `script.diff` is told apart ([`code::diff`]): changes are applied by `git apply`, all or nothing
//!    ([`code::patch`]); a literal script is written ([`code::literal`]), never outside of the code folder.
//!    Where the type is `uv` or `poetry` the code comes first, because a repository that is a project of one
//!    of them gets its environment from that tool alone ([`packages`]).
//! 6. The lists of the task or the repository are read and put in order ([`packages::requirements`]), and pip
//!    or uv installs them. Lists, index addresses and logins are never arguments. Where the same has been
//!    installed before, the whole environment comes from a cache (`src/caches`); tasks that want the same at
//!    the same time wait for the one that builds it.
//! 7. What is installed is read from the environment without starting anything, and reported.
//! 8. The command line and the variables follow from all that.
//!
//! A custom build script (`agent.custom_build_script`) replaces steps 2, 3, 6 and 7.
//!
//! A build that stays ([`Layout::Kept`]) is the environment itself, with the code in it, as the Python agent lays
//! it out; [`Kept`] guards its folder, and `standalone` finds it again. Its steps follow each other, and its
//! environment is not kept for other tasks.
//!
//! # Logins
//!
//! A login is never in an argument, a variable, an address or `.git/config`. git asks a program for it
//! ([`askpass`]), which reads it from a file in memory and answers for the hosts that it is meant for:
//! without `git_host` that is the very server of the task's repository. A submodule or a redirection to
//! another server gets nothing, and nothing is sent without encryption to a host that has it. Where the
//! helper is switched off, or a token of Azure is used, the login is a header for the server of the
//! repository, and redirections are not followed.
//!
//! Credential helpers of the user's own configuration come first, as git has it.
//!
//! Logins of package indexes are in private files while an installer runs. A proxy with a password, and the
//! indexes of projects of uv, are variables of that one program, since there is no other way.
//!
//! Every build owns its folder. Shared are only the caches, and those are changed under locks or by
//! renaming whole things into place.
//!
//! # Limits
//!
//! Wheels of torch for `pytorch_resolve: direct` come from pages only, not from addresses made up from a
//! pattern. Packages from Subversion or Bazaar get no login of the configuration, and one in their
//! address is an argument of those tools.
//!
//! Logins never go into addresses. git-lfs asks for logins like git; Mercurial's sub-repositories get none of
//! their own.
//!
//! git 2.17 or newer is needed. A cache that belongs to another user needs 2.38.
//!
//! Environments of conda and Poetry are not kept for other tasks, and one whose files a task changed in
//! place, although they are read-only, is built anew for the next one.
//! Addresses of submodules are rewritten to the protocol of their repository only for the host of that
//! repository, `git_host`, and the hosts of extra logins.

mod build;
mod caches;
pub mod code;
mod error;
mod host;
mod kept;
pub mod launch;
pub mod packages;
pub mod python;
mod relay;
mod request;
mod side_by_side;
mod tools;
pub mod trial;

pub use build::build;
pub use caches::store::kept_environments;
pub use code::askpass;
pub use error::{BuildError, FileError, Stage};
pub use host::{Host, Level, Phase, PhaseEvent};
pub use kept::{Kept, KeptError, python_for};
pub use packages::pip::pip_requirements;
pub use packages::requirements::torch::{Templates as TorchTemplates, TorchSettings};
pub use request::{
    BuildRequest, CondaSettings, Credential, EnvSettings, GitSettings, HgSettings, Layout, Lfs, LinkMode,
    PackageManagerKind, PackageManagerSettings, PipBackend, PreparedEnvironment, Submodules,
    VcsCacheSettings, VenvsCacheSettings,
};
