//! Containers for ClearML tasks.
//!
//! # What it is for
//!
//! * [`choice`]: which image a task gets, with which arguments: its own, those of a rule, or the default ones.
//! * [`words`]: what a task may ask for and what this machine adds, as one list of arguments.
//! * [`template`]: references to fields of the task in arguments. [`name`]: names of containers.
//! * [`gpus`]: the devices of a container. [`ports`]: published ports that are taken on this machine.
//! * [`flags`]: arguments as people write them for `docker run` become fields of the Engine API. Every option of
//!   that program is in a table with what becomes of it, so that none is dropped in silence.
//!
//! * [`request`]: those fields together with what the agent needs in every container.
//! * [`engine`]: the Docker Engine: images and containers.
//!
//! # What it is not for
//!
//! What happens inside of a container is the business of `clearml-task-runner`.

pub mod choice;
pub mod engine;
pub mod flags;
pub mod gpus;
pub mod name;
pub mod ports;
pub mod request;
pub mod template;
pub mod words;
