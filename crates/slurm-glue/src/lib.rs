//! ClearML queues on a Slurm cluster: every task becomes one batch job.
//!
//! # What it is for
//!
//! [`Glue`] runs on a machine that can call `sbatch`. It takes tasks from queues ([`clearml_intake`]), fills in the
//! queue's template ([`clearml_sbatch_template`]), submits the job, and follows it until job and task are over. Nothing
//! is installed on compute nodes for it. It is not for running tasks: that is the agent's work inside of the job.
//!
//! # How it works
//!
//! * [`core`] decides: states, ends of jobs, refusals, users, limits, what to do next, what became of a submission whose
//!   answer got lost. Functions without I/O, clock or randomness, tested with tables.
//! * [`journal`] remembers: one file for each task, written before the pop, before sbatch, and after it.
//! * [`slurm`] calls Slurm's commands, [`tell`] the server; [`glue`] brings them together.
//!
//! Tasks become jobs on an assembly line: while sbatch runs for one, the next is prepared, the one after it claimed,
//! another popped, and those before are told about their jobs. Jobs have the order of their tasks.
//!
//! A task whose job waits stands in the parking queue ([`parking`]): people see it as queued, an abort takes effect at
//! once, and the agent in the job takes it from there.
//!
//! # One job for each task
//!
//! Before sbatch the journal says `Submitting`, with a new nonce that goes into the job's comment. If the answer gets
//! lost, or the glue dies, listings of Slurm tell whether the job exists: with the nonce it is adopted; if two complete
//! listings, half a minute apart, do not have it, nor accounting, the task is submitted again under a new nonce. The
//! agent in the job takes the task from the parking queue, which a second job could not.
//!
//! # Decisions
//!
//! * Scripts are handed to sbatch on standard input: a file would have to be readable by whoever submits.
//! * All jobs are listed by one `squeue` a period, and all ends are looked up by one `sacct`. A job that has ended is
//!   looked at once more as soon as its agent's time for a last report is up, not a period later.
//! * Only one sbatch runs at a time, so that jobs have the order of their tasks, and so that the first refusal of a full
//!   cluster is the last. Everything around it goes on meanwhile.
//! * A controller that is slow or silent is asked up to eight times less often, until three answers in a row were good.
//! * sbatch's environment is constructed: its own would go into the job, and `SBATCH_…` would override the template.
//! * Nothing is decided before the controller has said its name: jobs are noted in their tasks as `cluster/number`, and
//!   a glue that does not know the first half would take its own tasks for those of others.
//! * A task is that of its job by that note and by the queue that it names. Somebody may have reset it and started it
//!   elsewhere between two looks; then it is left alone, and the job is cancelled.
//! * The end of a job's output is read from a file of the job's user only: a link of that user could lead to any file
//!   that the glue may read.
//! * A job is ours by name and nonce, never by its number: numbers are given out again after a crash of the controller.
//! * The owner's vaults are asked for the map of Linux users with each task, in a session of the owner where the server
//!   lets us have one. If they can't be had, the task waits, and if they can't be read, it fails: it must not run as
//!   another user than they would say.
//! * What jobs log in with ([`credentials`]) is in files that belong to the job's user, or encoded in the script, never
//!   in arguments, comments or the environment of sbatch. Files go with the job; those that are left go at the start.
//! * How often preemption has sent a task back, and how often Slurm has put its job back, is noted in the task: the
//!   next job has another record, and the agent in it has to know as well.
//! * A task that is parked keeps the queue it came from in `execution.queue`; that is how a task is recognised that a
//!   person has moved.

pub mod core;
pub mod credentials;
pub mod glue;
pub mod journal;
pub mod options;
pub mod parking;
pub mod slurm;
pub mod tell;
pub mod templates;

pub use glue::{Glue, GlueError};
pub use options::{GlueOptions, OptionsError, QueueSetup};
