//! Getting the code: what the task asks for, the repository, the uncommitted changes, the literal
//! script.

pub(crate) mod cache;
pub mod diff;
pub mod git;
pub mod info;
pub mod literal;
pub mod patch;
pub mod repo_url;
pub(crate) mod transfer;
