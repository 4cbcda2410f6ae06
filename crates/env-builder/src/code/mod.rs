//! Getting the code of a task: repositories, uncommitted changes, literal scripts, notebooks.

pub(crate) mod acquire;
pub mod askpass;
pub(crate) mod cache;
pub mod convert;
pub mod credentials;
pub(crate) mod custom;
pub mod diff;
pub(crate) mod evict;
pub(crate) mod existing;
pub mod git;
pub(crate) mod git_clone;
pub(crate) mod hg;
pub mod info;
pub mod literal;
pub(crate) mod notebook;
pub mod patch;
pub(crate) mod place;
pub mod repo_url;
pub(crate) mod secret_file;
pub mod source;
pub(crate) mod submodules;
pub(crate) mod transfer;
