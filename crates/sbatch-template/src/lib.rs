//! Templates of batch scripts for Slurm, filled in from ClearML tasks that are not trusted.
//!
//! # What it is for
//!
//! An operator writes a batch script with placeholders such as `${CLEARML_TASK.hyperparams.properties.nodes.value:1}`.
//! [`Template::parse`] reads it and says everything that is wrong or odd about it, with the places, before any
//! task is taken. [`Template::render`] fills in a task ([`Values`]) and the parts that start the agent in the job
//! ([`Setup`]), and returns the [`Script`] with its directives read back as sbatch reads them.
//!
//! It is not for submitting anything: no I/O, no clock, no environment.
//!
//! # How it is safe
//!
//! Names, parameters, images: whatever comes from a task was written by somebody who may not be the one as whom
//! the script runs. So a value never changes the structure of the script:
//!
//! * A directive line is split into words as sbatch splits it. A value is a part of one argument; it is
//!   quoted there, and never an option, a second word or a comment. Options that decide about privileges take no
//!   values at all.
//! * The body is read as a shell reads it. Every placeholder knows whether it stands in a word, in quotes, in a
//!   here-document or in something nested, and its value is quoted for exactly that place.
//! * Where quoting does not help (backticks, arithmetic, `${…}`, arguments of `eval`, code given to an inner shell,
//!   names of commands and variables) the template is refused when it is read, with a hint.
//! * What the reader does not understand, or what stays open at the end, is refused too.
//!
//! What is not followed: a value that the template stores in a variable or file at run time, and then runs itself.
//!
//! # Decisions
//!
//! * A comment is what the shell takes for one: a `#` inside of a here-document is text and filled in.
//! * `|raw` opens arithmetic, `$'…'`, `${…}` for harmless values, but never backticks and never code for another
//!   program: even a harmless word may be a command.
//! * An empty value of a task is one empty word; an explicitly empty default is nothing.
//! * In a script for another interpreter than a POSIX shell the agent is started with its plain command line.

mod container;
mod directive;
mod finding;
mod grammar;
mod operators;
mod piece;
mod quote;
mod render;
mod setup;
mod shell;
mod template;
mod values;

pub use directive::{SbatchOption, read_directives};
pub use finding::{Finding, Position, RenderError, TemplateError};
pub use grammar::Separator;
pub use setup::{Container, JobFile, Setup};
pub use template::{Mode, Options, Script, Template};
pub use values::Values;
