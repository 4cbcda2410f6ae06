//! What a ClearML task, queue and worker are.
//!
//! Pure data and pure rules, no I/O: identifiers as types of their own ([`TaskId`], [`QueueId`],
//! [`WorkerId`]), the objects of the API ([`Task`], [`Script`], [`Queue`]), the status machine
//! ([`status`]) and dotted property paths ([`path`]).
//!
//! Every object keeps the fields that it does not know, so that reading and writing one back loses
//! nothing that a newer server or SDK has put there.

pub mod ids;
pub mod path;
pub mod queue;
pub mod requirements;
pub mod status;
pub mod task;

pub use ids::{ProjectId, QueueId, TaskId, UserId, WorkerId};
pub use queue::{Queue, QueueEntry};
pub use requirements::{Requirements, TextOrLines};
pub use status::{IllegalTransition, TaskStatus, Transition};
pub use task::{Container, HyperParam, OWNER_KEY, Script, Task};
