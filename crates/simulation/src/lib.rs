//! Whole histories of agents, a server and programs under faults, in virtual time.
//!
//! # What it is for
//!
//! A proof by many examples that the decisions of the agent lose no task, run none twice, give each the status
//! that its program has earned, and bring each line of its console to the server once and in order: whatever dies,
//! whatever is late, and whatever people do meanwhile. [`play`] plays the history of a seed and tells which rules
//! were broken. The same seed is the same history, everywhere and for ever.
//!
//! # What it is not for
//!
//! It tests decisions, not system calls. That locks, pipes, signals and HTTP do what the model takes for granted is
//! shown by the tests of the crates that use them, which kill real processes. Nothing here is meant to be used by
//! the agent.
//!
//! # How it works
//!
//! `kernel` is an executor in which time only passes when nothing else is to be done, and in which a process, a
//! future, can be dropped at any place where it waits. `world` has what outlives processes: disks, on which what
//! was written stays, the network's moods, and the notes of the audit. `server` is a model of the server: a queue
//! whose pop has no acknowledgement, statuses without conditions, events that it appends blindly and that can be
//! found after a while. `daemon`, `runner`, `shipper` and `shim` make the calls and do the waiting of their
//! counterparts in the product. What to do next they ask the product: the pop protocol
//! ([`clearml_intake::popper`]), [`clearml_task_runner::decisions`] and [`clearml_worker::decisions`] are the very
//! code that the agent runs. `history` has the people, the chaos and the audit.
//!
//! A [`Plant`] replaces one careful step by a careless one. The tests show that each is found, so that histories
//! without broken rules mean something.
//!
//! # What is not modelled
//!
//! * A loss of power that takes what was written but not yet brought to the disk.
//! * A call that arrives later than a second after its sender has given up (a pop: five seconds), and a batch of
//!   events, a pop or a return that the network itself delivers twice. The protocol rests on the first, HTTP over
//!   TCP on the second.
//! * Agents that leave no mark, several queues, working hours, many tasks at once in services mode, `execute`.
//! * A pop that arrives late, after its sender has got the task by another attempt, and takes it out of the queue
//!   into which a person has put it once more in those seconds.
//! * It is modelled, but counted and not held against the agent: a person resets a task in the instant between the
//!   mark and the start of a worker, which dies in the next instant. Nothing in the task tells then whose it is, and
//!   it stays in progress.
//! * So is a stop, a reset, or a place in the queue for one more run, that is accepted between the moment in which a
//!   worker takes a task and the one call by which it says that the task has started, or between the last look and the
//!   call that tells how it has ended or puts it back.
//! * What a person does between the look at a task and the call that follows it: the server has no conditions, so
//!   nobody can close that window. A call that comes at most seven seconds after its look is not counted.

mod daemon;
mod history;
mod kernel;
mod pop;
mod runner;
mod server;
mod shim;
mod shipper;
mod tell;
mod world;

/// A careless step in place of a careful one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plant {
    /// The agent as it is.
    Nothing,
    /// A pop without answer is sent again at once.
    PopRepeated,
    /// The end is reported without a look at the verdict.
    NoVerdict,
    /// A batch that may have arrived is sent again without asking what the server has.
    NoReadBack,
    /// The status is set without looking whose the task is by now.
    OwnerUnread,
    /// What a dead supervisor has left is taken for dead.
    LeftoversLive,
    /// A run whose supervisor could not be started is given up without claiming it first.
    NoClaim,
    /// A runner says that its task has started although whoever has taken it has said so.
    StartedOften,
}

impl Plant {
    /// All but [`Self::Nothing`].
    pub const BUGS: [Self; 7] = [
        Self::PopRepeated,
        Self::NoVerdict,
        Self::NoReadBack,
        Self::OwnerUnread,
        Self::LeftoversLive,
        Self::NoClaim,
        Self::StartedOften,
    ];
}

/// How much has happened in a history.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Told {
    /// Virtual time, in milliseconds.
    pub virtual_ms: u64,
    /// Programs of users that were started.
    pub programs: usize,
    /// Tasks that went back to the queue because their run had died.
    pub put_back: u32,
    /// Tasks that were left in progress with nobody, by the one known way: see "What is not modelled".
    pub gaps: usize,
    /// Wishes to stop a task, or to run it once more, that were lost between a look at it and the one call that followed.
    pub wiped: usize,
}

/// Plays the history of this seed; with `tracing` it is told on standard output.
///
/// # Errors
///
/// The rules that were broken, one per line.
pub fn play(seed: u64, plant: Plant, tracing: bool) -> Result<Told, String> {
    let (broken, told) = history::play(seed, plant, tracing);
    if broken.is_empty() {
        Ok(told)
    } else {
        Err(broken.join("\n"))
    }
}
