//! The decisions: functions of what is known, without I/O, clock or randomness.

pub mod decide;
pub mod images;
pub mod jobs;
pub mod limits;
pub mod pace;
pub mod pyxis;
pub mod refusal;
pub mod states;
pub mod users;
pub mod verdict;
