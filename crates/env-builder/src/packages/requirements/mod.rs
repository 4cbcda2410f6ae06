//! Requirements: from the text of a list to calls of an installer.
//!
//! ```text
//! text ── logical ──> lines ── line ──> requirements and options ── list ──> with includes and real paths
//!      ── torch ──> with the index for this machine's GPU ── plan ──> early, main, external, late
//!      ── flow ──> one Step after the other, which pip or uv carries out
//! ```
//!
//! Everything but [`list`] (which reads files), the two parts of [`torch`] that ask, and `flow` is pure.
//! Versions, markers and names are compared as the standards of Python say, by the crates `pep440_rs` and
//! `pep508_rs`; resolving is the installer's business.
//!
//! # Order
//!
//! Packages that others need while they are built (`priority_packages`) are installed first, one by one,
//! and stay in the list; then the list; then what comes from a repository or a folder; then
//! `post_packages`. `clearml`, `trains`, `nbconvert` and `ipython` go to the end of the list, once.
//!
//! # Decisions
//!
//! * A line that is not understood is reported with its place and left to the installer: old versions of
//!   pip understand more than the standards.
//! * Packages from repositories, folders and `post_packages` get their condition (`; python_version < "3"`)
//!   evaluated here, and are left out where it does not hold.
//! * `--hash` keeps torch lines as they are: a hash has chosen the file already.
//! * If an installation fails over torch with the index that was chosen here, it is repeated once as if the
//!   index did not exist.

use std::path::{Path, PathBuf};

pub mod compare;
pub mod external;
pub mod line;
pub mod list;
pub mod logical;
pub mod logins;
pub mod pep;
pub mod plan;
pub mod restore;
pub mod source;
pub mod torch;

pub(crate) mod download;
pub(crate) mod flow;

pub(crate) mod step;

/// A list of requirements and what to call it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequirementSet {
    /// For people.
    pub what: String,
    /// Its text.
    pub text: String,
    /// Where local packages are looked for.
    pub folder: PathBuf,
    /// Where lists that it includes are looked for first.
    pub includes: PathBuf,
    /// Whether the packages are there already, from a cache: then only what may have changed since is
    /// installed again.
    pub restored: bool,
}

impl RequirementSet {
    /// A list whose paths start in `folder`.
    #[must_use]
    pub fn new(what: &str, text: &str, folder: &Path) -> Self {
        Self {
            what: what.to_owned(),
            text: text.to_owned(),
            folder: folder.to_owned(),
            includes: folder.to_owned(),
            restored: false,
        }
    }
}

/// What a list has asked for, for whoever reads the environment afterwards.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Requested {
    /// Names that the list asks for, normalised, with their lines.
    pub names: Vec<(String, String)>,
    /// Local folders by what the list calls them.
    pub local: Vec<(PathBuf, String)>,
    /// Archives that were installed from the download cache: address there, address in the list.
    pub archives: Vec<(String, String)>,
}
