//! Placing ClearML tasks on GPUs: what a request for GPUs may say.
//!
//! # What it is for
//!
//! Turning the text of a command line or of the environment into types that carry the rules, before anything
//! else happens: [`Request`] for `daemon --dynamic-gpus`, [`VisibleDevices`] for everything else that names
//! GPUs.
//!
//! It is not for looking at the machine: whether a named GPU exists is not known here.
//!
//! # How it works
//!
//! An amount is a whole number of GPUs or a number of eighths of one ([`Amount`]); decimals are read digit by
//! digit, so that no binary fraction comes between `0.125` and one eighth. A text that is refused becomes a
//! [`RequestError`] with a stable code, and [`Request::parse`] collects all of them, because a person wants to
//! repair a command line once.
//!
//! What is parsed can be displayed, and reads back as the same value. Ranges are bounded by [`MAX_DEVICES`]
//! before they are expanded.
//!
//! ```
//! use clearml_gpu_alloc::{Request, Surroundings};
//!
//! let containers = Surroundings { containers: true, ..Surroundings::default() };
//! let request = Request::parse(Some("0-7"), &["training=4", "notebooks=0.25-1"], containers)?;
//! assert_eq!(request.pool.devices().len(), 8);
//! assert_eq!(request.queues[1].min.eighths(), 2);
//! # Ok::<(), clearml_gpu_alloc::Problems>(())
//! ```

pub mod amount;
pub mod error;
pub mod pool;
pub mod request;
pub mod visible;

pub use amount::{Amount, Eighths};
pub use error::{Problems, RequestError};
pub use pool::{Device, DeviceUuid, MAX_DEVICES, Pool};
pub use request::{QueueSpec, Request, Surroundings};
pub use visible::VisibleDevices;
