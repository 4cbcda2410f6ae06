//! Runs one ClearML task: from "it is ours" to "the server knows how it ended".
//!
//! # What it is for
//!
//! Everything that happens to one task on one machine: preparing code and environment (by
//! `clearml-env-builder`), running the user's program under supervision, shipping its console, aborting
//! it, and reporting its end. A daemon creates a run ([`RunStore::create`]), stores what the run needs
//! ([`RunDir::write_inputs`]), claims the task, and starts a runner ([`spawn_runner`]); [`execute`] does
//! the same for one task in the foreground.
//!
//! # What it is not for
//!
//! Queues, the decision which task to run, and the daemon's own status reports are not its business.
//!
//! # How it works
//!
//! Three processes, of which any may die at any moment:
//!
//! ```text
//! daemon ── starts ──> runner ── starts ──> shim ── parent of ──> user's program
//! ```
//!
//! * The [run directory](run_dir) is what they share. It says who the run is ([`record`]) and how far it
//!   has come ([`Phase`]). Each file is replaced as a whole; phases only go forward.
//! * The [shim] is small, synchronous, and needs nothing but that folder. It is the reaper of everything
//!   below it, appends what the program prints to the [console] on disk, and writes the verdict. Two
//!   shims never run the same program: the first to link its claim into place wins.
//! * The [runner] is a loop over the phases. A replaced runner finds in the folder all that it needs:
//!   before the launch it prepares anew; after it, it adopts the living shim, or reads the verdict of one
//!   that has ended, or reports an infrastructure failure for one that was killed.
//! * The shipper is a cursor over the console. Each batch is written down before it is sent, and
//!   rendering is pure, so after an unclear answer or a crash the very same events can be made again and
//!   looked for on the server. A line is therefore delivered once; only a server that can't be read back
//!   may get one twice.
//!
//! In a container the shim is the first process, and its child ([`inside`]) prepares the environment there and becomes
//! the user's program. The runner stays outside and takes the same steps: it creates the container, starts it, follows
//! it. What goes in and comes out are files of the run directory; what comes out is not trusted. Nothing inside needs
//! the server.
//!
//! What the server says, or doesn't, delays nothing else: status polls, shipping, and the wait for the
//! program are independent. A program is stopped at once when the agent is told to end, also while the
//! server is away; what could not be delivered stays on disk for the next runner.
//!
//! # Limits
//!
//! A machine that loses power loses what it had not yet brought to its disk; such a run ends as an
//! infrastructure failure. A killed shim takes the exit code with it; its leftovers are found by control group
//! where there may be one, by session, by a variable in their environment, and as orphans that come to the runner.
//! Without a group, a process that has changed session and environment is not found when shim and runner both died.

pub mod console;
mod execute;
pub mod glance;
mod inside;
mod os_text;
pub mod owner;
pub mod phase;
pub mod record;
pub mod requeue;
pub mod run_dir;
pub mod runner;
pub mod settings;
pub mod shim;
mod shipper;
mod slurm;
mod spawn;
mod told;
pub mod umask;

pub use clearml_env_builder::askpass;
pub use execute::{
    BuildOnlyOptions, Built, Busy, ExecuteError, ExecuteOptions, MachineFigures, build_only, execute,
    reset_ended,
};
pub use inside::inside;
pub use phase::Phase;
pub use record::{ContainerOptions, RunInputs, RunOptions, RunRecord, Timeline, service_worker};
pub use run_dir::{Keeper, NewRun, RunDir, RunDirError, RunStore};
pub use runner::contained::bake::{BuildImageOptions, BuiltImage, EntryPoint, ImageProgram, build_image};
pub use runner::contained::left::remove_left_containers;
pub use runner::leftovers::kill_leftovers;
pub use runner::many::{lock_of_many, raise_open_files, run_many};
pub use runner::report::{observe, tell};
pub use runner::{RunnerError, RunnerExit, RunnerOptions, run, run_with};
/// The decisions of runner and shipper, without I/O: for the simulation, not for use.
#[doc(hidden)]
pub mod decisions {
    pub use crate::runner::abort::{Interpreter, Meaning};
    pub use crate::runner::decide::{
        Becomes, Gone, Launching, Prepared, ShipPatience, Step, abort_to_note, claimed_to_end, launching,
        leftovers_killed, may_launch, next_step, no_shim, shim_gone, shim_started, stopped_by,
    };
    pub use crate::runner::outcome::{Facts, decide};
    pub use crate::runner::start::{MayStart, is_revived, may_start};
    pub use crate::runner::tell::{Answer, Tell, Teller};
    pub use crate::shipper::batch::{Batch, View, next_batch};
    pub use crate::shipper::delivery::{Delivery, Next, ReadAnswer, SendAnswer};
    pub use crate::shipper::pending::{Cursor, Pending, missing, to_events};
}

pub use settings::is_heard;
pub use shim::shim_main;
pub use shipper::ShipError;
pub use spawn::{spawn_runner, spawn_runner_of_many, spawn_shim, this_program};
