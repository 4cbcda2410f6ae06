//! Which workers run on this machine, and which worker this one is.
//!
//! The register is the one of the Python agent, so that both kinds of agents on one machine see each
//! other: one file per daemon in the temporary folder, `.clearmlagent_<pid>_<random>.tmp`, with two lines,
//! worker id and slot. While it is read and written, two locks are held: an `flock` that ends with its
//! holder, and the lock file of the Python agent, which is one by its mere existence.

mod register;

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use clearml_support::fs::create_private_file;
use clearml_task_model::WorkerId;

pub use register::{Instance, Register};
use register::{PREFIX, SUFFIX, io_error};

/// The register of workers could not be used, or refuses this worker.
#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    /// This worker is running already.
    #[error(
        "Instance with the same WORKER_ID [{worker}] is already running (pid {pid}); stop it, or choose another id with CLEARML_WORKER_ID"
    )]
    Taken {
        /// The id.
        worker: WorkerId,
        /// The process that has it.
        pid: i32,
    },
    /// The id would not survive in the register, which has one line for it.
    #[error(
        "the worker id {:?} can't be used: it has control characters; change agent.worker_id, agent.worker_name or --gpus",
        worker.as_str()
    )]
    Unusable {
        /// The id.
        worker: WorkerId,
    },
    /// The file system refused.
    #[error("{action} {}: {source}; set TMPDIR to a folder that can be written", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

/// What decides a worker's id, apart from the slot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// `agent.worker_name`.
    pub name: String,
    /// `agent.worker_id`: the whole id.
    pub explicit: Option<String>,
    /// The GPUs that the worker sees, as [`crate::visible::Visible::shown`].
    pub visible: Option<String>,
    /// They are a pool from which every task gets a part.
    pub dynamic: bool,
}

impl Identity {
    /// The id, where the slot has no part in it.
    #[must_use]
    pub fn fixed(&self) -> Option<WorkerId> {
        if let Some(id) = self.explicit.as_deref().filter(|id| !id.is_empty()) {
            return Some(id.into());
        }
        let gpus = self.gpus()?;
        let kind = if self.dynamic { "dgpu" } else { "gpu" };
        Some(format!("{}:{kind}{gpus}", self.name).into())
    }

    /// What the ids of all slots begin with.
    #[must_use]
    pub fn prefix(&self) -> String {
        let cpu = if self.visible.as_deref() == Some("none") {
            "cpu:"
        } else {
            ""
        };
        format!("{}:{cpu}", self.name)
    }

    /// The id in a slot.
    #[must_use]
    pub fn at_slot(&self, slot: u32) -> WorkerId {
        self.fixed()
            .unwrap_or_else(|| format!("{}{slot}", self.prefix()).into())
    }

    /// The id of a process that takes no slot.
    #[must_use]
    pub fn of_process(&self) -> WorkerId {
        match self.explicit.as_deref() {
            Some(id) if !id.is_empty() => id.into(),
            _ => format!("{}:{}", self.name, std::process::id()).into(),
        }
    }

    fn gpus(&self) -> Option<&str> {
        self.visible
            .as_deref()
            .filter(|gpus| !gpus.is_empty() && *gpus != "none")
    }
}

/// The place of this worker in the register; given up when dropped.
#[derive(Debug)]
pub struct Slot {
    worker: WorkerId,
    number: u32,
    path: PathBuf,
}

impl Slot {
    /// The id of this worker.
    #[must_use]
    pub fn worker(&self) -> &WorkerId {
        &self.worker
    }

    /// The smallest number that no other worker of this machine had.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // A file that stays is ignored and removed by the next agent that looks.
        let _ = fs::remove_file(&self.path);
    }
}

/// Enters this process into the register. Waits for at most about ten seconds while another agent does
/// the same; dropping the future ends that. `listed` are the workers that the server knows; they matter where containers share the
/// register ([`Register::is_shared`]).
///
/// # Errors
///
/// When the id is in use on this machine, or the register can't be written.
pub async fn take_slot(
    register: &Register,
    identity: &Identity,
    listed: &[WorkerId],
) -> Result<Slot, SlotError> {
    let _lock = register.lock().await?;
    let running = register.sweep(listed)?;
    let number = free_slot(&running);
    let worker = identity.at_slot(number);
    if worker.as_str().chars().any(char::is_control) {
        return Err(SlotError::Unusable { worker });
    }
    if let Some(other) = running.iter().find(|instance| instance.worker == worker) {
        if !register.is_shared() {
            return Err(SlotError::Taken {
                worker,
                pid: other.pid,
            });
        }
        tracing::warn!(
            "another worker with the id {worker} is registered in {}",
            register.folder().display()
        );
    }
    let random = &clearml_support::id::hex32()[..8];
    let file = format!("{PREFIX}{}_{random}{SUFFIX}", std::process::id());
    let path = register.folder().join(file);
    let slot = Slot { worker, number, path };
    create_private_file(&slot.path)
        .and_then(|mut file| write!(file, "{}\n{number}", slot.worker))
        .map_err(io_error("writing", &slot.path))?;
    Ok(slot)
}

/// The smallest slot that no instance has. Pure.
#[must_use]
pub fn free_slot(running: &[Instance]) -> u32 {
    (0..)
        .find(|slot| running.iter().all(|instance| instance.slot != *slot))
        .unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
