//! Why a request for GPUs is refused. The codes in brackets are stable; texts may gain words.

use std::fmt;

use crate::pool::MAX_DEVICES;

/// One thing that is wrong with a request for GPUs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// A queue without an amount.
    #[error(
        "[E-GPU-01] queue \"{queue}\": with --dynamic-gpus the queue must be in format <queue_name>=<num_gpus>"
    )]
    NoAmount {
        /// The argument.
        queue: String,
    },
    /// No pool, or one that does not name its devices.
    #[error(
        "[E-GPU-02] --dynamic-gpus needs explicit --gpus: a list such as 0,1,2 or one range such as 0-7 (got \"{gpus}\")"
    )]
    NotExplicit {
        /// The value of `--gpus`.
        gpus: String,
    },
    /// A device that can't be read.
    #[error("[E-GPU-03] Failed parsing --gpus \"{gpus}\": bad item \"{item}\"")]
    BadItem {
        /// The value of `--gpus`.
        gpus: String,
        /// The part that is wrong.
        item: String,
    },
    /// More devices than a machine can have.
    #[error(
        "[E-GPU-03] Failed parsing --gpus \"{gpus}\": bad item \"{item}\": more than {MAX_DEVICES} devices"
    )]
    TooMany {
        /// The value of `--gpus`.
        gpus: String,
        /// The part that goes beyond the limit.
        item: String,
    },
    /// A device named twice.
    #[error("[E-GPU-04] --gpus lists {item} more than once")]
    Twice {
        /// The second mention.
        item: String,
    },
    /// A GPU and a slice of it.
    #[error("[E-GPU-05] --gpus: no such GPU \"{item}\": it is listed together with its MIG instance {slice}")]
    WithItsSlice {
        /// The GPU.
        item: String,
        /// The first slice of it that is listed.
        slice: String,
    },
    /// An amount that is no number.
    #[error("[E-GPU-06] queue \"{queue}\": \"{spec}\" is not a number of GPUs")]
    NotANumber {
        /// The argument.
        queue: String,
        /// What follows the last `=`.
        spec: String,
    },
    /// An amount of nothing.
    #[error("[E-GPU-07] queue \"{queue}\": number of gpus <= 0 is not allowed")]
    Zero {
        /// The argument.
        queue: String,
    },
    /// An amount such as 1.5.
    #[error(
        "[E-GPU-08] queue \"{queue}\": fractional gpu cannot be > 1 (got {amount}; above one GPU only whole numbers)"
    )]
    BrokenAboveOne {
        /// The argument.
        queue: String,
        /// The side that is wrong.
        amount: String,
    },
    /// An amount such as 0.3.
    #[error(
        "[E-GPU-09] queue \"{queue}\": fraction {amount} is not a multiple of 0.125 (nearest: {nearest})"
    )]
    NotEighths {
        /// The argument.
        queue: String,
        /// The side that is wrong.
        amount: String,
        /// What can be asked for instead.
        nearest: String,
    },
    /// A minimum above the maximum.
    #[error("[E-GPU-11] queue \"{queue}\": minimum {min} is larger than maximum {max}")]
    Reversed {
        /// The argument.
        queue: String,
        /// The lower side.
        min: String,
        /// The upper side.
        max: String,
    },
    /// A minimum that the pool can never meet.
    #[error("[E-GPU-12] queue \"{queue}\": needs {needed} GPUs but --gpus has {listed}")]
    TooFew {
        /// The argument.
        queue: String,
        /// The minimum.
        needed: u32,
        /// Devices in the pool.
        listed: usize,
    },
    /// A queue named twice.
    #[error("[E-GPU-13] queue \"{name}\" is listed more than once")]
    QueueTwice {
        /// Its name.
        name: String,
    },
    /// A queue without a name.
    #[error("[E-GPU-14] queue \"{queue}\": empty queue name")]
    NoName {
        /// The argument.
        queue: String,
    },
    /// A part of a GPU for a task that runs outside of a container.
    #[error(
        "[E-GPU-15] Fractional GPUs are only supported in docker-mode (queue \"{queue}\"; pass --docker or --podman)"
    )]
    FractionWithoutContainer {
        /// The argument.
        queue: String,
    },
    /// Together with `--services-mode`.
    #[error("[E-GPU-16] Combining --dynamic-gpus and --services-mode is not supported")]
    WithServices,
    /// Together with `--cpu-only`.
    #[error("[E-GPU-17] --dynamic-gpus cannot be combined with --cpu-only")]
    WithCpuOnly,
    /// A part of a GPU from a pool of nothing but slices.
    #[error("[E-GPU-19] queue \"{queue}\": a MIG instance ({device}) cannot be split further")]
    SliceOfSlice {
        /// The argument.
        queue: String,
        /// The first device of the pool.
        device: String,
    },
    /// No queue.
    #[error("[E-GPU-22] --dynamic-gpus needs at least one --queue <name>=<gpus>")]
    NoQueue,
}

/// All that is wrong with a request, at least one problem. Displayed with one per line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<RequestError>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
