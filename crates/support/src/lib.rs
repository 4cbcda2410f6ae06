//! The few things that every part of the agent needs and that no library gives in the form we want.
//!
//! * [`command`]: run an external program from an argument vector, with a time limit, cancellation,
//!   and the guarantee that the whole process tree is gone afterwards.
//! * [`process`]: recognise a process across restarts (pid, start time, boot), find its descendants.
//! * [`secret`] and [`redact`]: values that never show themselves, and text that is cleaned before it
//!   leaves the process.
//! * [`text`]: text from elsewhere that must not steer a terminal.
//! * [`fs`] and [`lock`]: files that are whole or absent, folders that are private, locks that die
//!   with their holder.
//! * [`id`] and [`time`]: object ids and millisecond time stamps as the ClearML API uses them.
//!
//! It is not a place for shared code in general: what belongs to one concern lives in that concern's
//! crate.

pub mod command;
pub mod fs;
pub mod id;
pub mod lock;
pub mod process;
pub mod redact;
pub mod secret;
pub mod text;
pub mod time;
