//! The embedded server and agents as real processes, and what is needed to watch them.

mod agent;
mod api;
mod marked;
mod python;
mod server;

pub use agent::{Agent, AgentKind, AgentOptions};
pub use api::{Api, Scalar, TaskSpec};
pub use marked::{Mark, cpu_seconds};
pub(crate) use marked::{ProcessStat, proportional_memory};
pub use python::PythonEnvironment;
pub use server::LocalServer;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Asks every `pause` until there is an answer.
///
/// # Errors
///
/// When there is none in time, naming what was waited for, or when the question itself fails.
pub fn wait_for<T>(
    what: &str,
    limit: Duration,
    pause: Duration,
    mut question: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let started = Instant::now();
    loop {
        if let Some(answer) = question()? {
            return Ok(answer);
        }
        if started.elapsed() > limit {
            bail!("{what} did not happen within {} s", limit.as_secs());
        }
        std::thread::sleep(pause);
    }
}
