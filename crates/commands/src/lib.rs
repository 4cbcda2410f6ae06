//! The ClearML agent's commands that are not a service: `init`, `doctor`, `status`, and the reference
//! documentation.
//!
//! # What it is for
//!
//! * [`init`] leads a person, or an installation script, from credentials to a `clearml.conf` that works.
//! * [`doctor`] finds out what would stop tasks on this machine, before a task does.
//! * [`status`] shows what the agents of this machine do and what is stuck, without a server.
//! * [`reference`](mod@reference) writes the pages, manual pages and completions that follow from the command line and the
//!   declarations of the configuration.
//!
//! # What it is not for
//!
//! Argument parsing and exit codes belong to the program. Nothing here consumes a queue or runs a task.
//! `doctor` changes nothing but what it removes again, and repairs nothing: it says what to type.
//!
//! # How it works
//!
//! `init` is a dialogue over a reader and a writer (`dialogue`), which makes it testable; the questions
//! (`wizard`), the derivation of one server's address from another's (`hosts`) and the text of the file
//! (`file`, `template`) are separate and, but for the questions, pure. The defaults in the file and the
//! comments over them come from the declarations of `clearml-agent-config`.
//!
//! `doctor` is a number of groups of checks that run at the same time; each has a time limit, and what it
//! has found by then counts. A check is written where its subject is: it asks the same functions that a
//! task would go through, and says ok, warning or problem. A problem is what stops tasks; a warning is
//! what will surprise somebody. That an optional tool is missing is neither.
//!
//! # Decisions
//!
//! * `init` without questions (`--non-interactive`) fails with an error where the dialogue gives up
//!   politely: a script has to notice.
//! * What is pasted is not shown on a terminal, because it holds the secret key.
//! * Of a secret key the dialogue repeats the first four characters, as the Python agent does, but only of
//!   keys that are long enough to bear it.
//! * Where the pasted text names an API server and the web server in it is accepted, that API server is
//!   proposed rather than a derived one; a pasted file server is proposed always.
//! * A configuration file that others can read is a warning and not a problem, because the Python agent
//!   has always written it that way.

pub mod doctor;
pub mod init;
pub mod reference;
pub mod status;
