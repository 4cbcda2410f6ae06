//! What every consumer of ClearML queues has in common, be it a daemon, a Slurm or a Kubernetes glue.
//!
//! # What it is for
//!
//! Finding the queues ([`queues`]), seeing the right GPUs ([`visible`](mod@visible)), being known on this
//! machine ([`slot`]) and to the server ([`report`]), saying how busy the machine is ([`metrics`]),
//! choosing which queue is served next ([`order`]), when ([`hours`]) and how often ([`schedule`]), and
//! above all taking a task out of a queue so that it is never lost and never run twice ([`pop`],
//! [`popper`]).
//!
//! It is not for running tasks: what it hands over is an [`pop::Intent`] whose task is claimed.
//!
//! # How a pop works
//!
//! The server's pop has no acknowledgement: once the entry is removed, only the answer knows who has it.
//! So there are two memories beside the queue: a journal on the consumer's disk ([`popper::Journal`]) and
//! an owner mark in the task itself ([`owner`]).
//!
//! 1. Look at the task at the head; write the intent to the journal.
//! 2. Pop with the task's id: nothing is removed if the head has changed. Sent exactly once.
//! 3. Write the confirmation to the journal; write the owner mark into the task.
//! 4. Turn `queued` into `created` in one step of the server (`tasks.dequeue` with `new_status`), so that an
//!    abort which came first stands; then `tasks.started`, which wipes out a wish to stop a running task. That
//!    is why the task is a draft in between: the server refuses to stop one, and whoever asks hears so.
//! 5. Write the claim to the journal. From here on the task belongs to whoever runs it.
//!
//! After a crash, or an answer that got lost, [`pop::resolve`] compares the intent with what the server
//! shows: the task is still at the head (pop again, under the same intent), carries our mark (go on),
//! was marked and taken by another (forget it), or is in no queue and nobody's. In the last case it is
//! ours if no other worker listens to the queue; otherwise a competitor may be just about to write its
//! mark, so it is watched for a grace time and then put back at the head: the queue gives an entry to
//! one consumer only, which settles what two of them could not. A mark alone does not make it another's:
//! who gives a task back leaves the mark, and our pop may be what took the entry away after that.
//!
//! A task that was claimed but can't be launched goes back the same way ([`popper::Popper::give_back`]). A
//! run in phase *claimed* that nobody has begun may be such a task, caught by a crash in the middle, so it
//! goes through [`popper::Popper::recover`] before it is run.
//!
//! The server offers no exclusive write, so this rests on one assumption about time: no call is applied
//! later than the grace time after it was sent. Agents that write no marks are recognised by the status
//! that they set. `tests/pop_model.rs` runs the protocol against a model that breaks everything else.

pub mod hours;
pub mod machine;
pub mod metrics;
pub mod order;
pub mod owner;
pub mod pop;
pub mod popper;
pub mod presence;
pub mod queues;
pub mod report;
pub mod schedule;
pub mod server;
pub mod slot;
pub mod vaults;
pub mod visible;

pub use hours::{Force, LocalHour, Schedule, WorkingHours};
pub use metrics::{Monitor, MonitorOptions};
pub use order::{Choice, QueueOrder};
pub use owner::OwnerMark;
pub use pop::{Intent, Phase};
pub use popper::{Journal, Outcome, PopError, Popper, Timing};
pub use presence::{Pause, Presence, QueuePresence};
pub use queues::{QueueError, ServedQueue, resolve_queues};
pub use report::{About, Activity, Reporter};
pub use server::{ApiQueueServer, QueueServer};
pub use slot::{Identity, Register, Slot, SlotError, take_slot};
pub use visible::{GpuOptions, Visible, visible};
