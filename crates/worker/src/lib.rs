//! The daemon of the agent: it polls ClearML queues, launches tasks, looks after them, and takes them up
//! again after a restart.
//!
//! It holds no state that matters in memory. What it has pulled and how far each task has come is in the
//! run directories ([`clearml_task_runner::RunStore`]), which are also the journal of the pop protocol
//! (`journal`). Each task is looked after by a runner, a process of its own that outlives the daemon;
//! the daemon watches it and replaces it when it dies (`watch`). So a daemon that is killed at any moment
//! is continued by the next one of the same worker id, with no task lost or run twice. If that one does not
//! come back, another daemon of the machine takes its tasks over (`adopt`).
//!
//! One pass over the queues is one request, however many queues there are (`pull`). The loop never ends
//! because of an error: what fails is reported once, left alone for a while, and tried again (`serve`, `in_hand`,
//! `earlier`).
//!
//! In services mode it has many tasks in hand at the same time, looked after by one runner (`concurrent`,
//! `services`, `count`).
//!
//! Around the loop: what is checked at the start (`startup`) and why there may be none (`refused`), which queues
//! rest at the moment (`active`), the log file and `--detached` (`background`), and `--stop` (`terminate`). What
//! people and their programs see of a daemon is in `observe`, `metrics` (Prometheus) and `notify` (systemd).
//!
//! Where the daemon works in the names of the owners of tasks, `owner` logs in for each of them.
//!
//! Not here: what happens inside a run (`clearml-task-runner`), and everything that other consumers of
//! queues need as well (`clearml-intake`).

mod active;
mod adopt;
mod background;
mod concurrent;
mod count;
mod daemon;
mod decide;
mod earlier;
mod in_hand;
mod journal;
mod metrics;
mod notify;
mod observe;
mod owner;
mod pull;
mod refused;
mod reload;
mod serve;
mod services;
mod startup;
mod stop;
mod terminate;
mod watch;

/// The decisions of the daemon, without I/O: for the simulation, not for use.
#[doc(hidden)]
pub mod decisions {
    pub use crate::decide::{
        AfterRunner, Deaths, Kept, MOST_DEATHS, Waiting, done, given_up, is_untouched, kept, pop_phase,
    };
}

pub use background::{Output, leave_terminal, start_detached};
pub use daemon::{DaemonOptions, ServicesMode, daemon, status};
pub use owner::OwnerRefused;
pub use refused::DaemonError;
pub use serve::ANNOUNCEMENTS;
pub use terminate::{StopRequest, stop_daemons};
