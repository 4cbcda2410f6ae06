//! The whole request of `daemon --dynamic-gpus`: a pool, and for each queue how much of it a task gets.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use crate::amount::{self, Amount, ONE, Refusal};
use crate::error::{Problems, RequestError};
use crate::pool::{Device, Pool};

/// What a task of one queue gets: `name=2`, `name=1-4`, `name=0.5`, `name=-4`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueSpec {
    /// Name or id of the queue. It may contain `=`: the last one separates.
    pub queue: String,
    /// The least that a task is started with.
    pub min: Amount,
    /// The most that a task is given. Not below `min`.
    pub max: Amount,
}

impl FromStr for QueueSpec {
    type Err = RequestError;

    fn from_str(text: &str) -> Result<Self, RequestError> {
        let queue = || text.to_owned();
        let Some((name, spec)) = text.rsplit_once('=') else {
            return Err(RequestError::NoAmount { queue: queue() });
        };
        if name.is_empty() {
            return Err(RequestError::NoName { queue: queue() });
        }
        let side = |side: &str| {
            amount::read(side).map_err(|refusal| match refusal {
                Refusal::NotANumber => RequestError::NotANumber {
                    queue: queue(),
                    spec: spec.to_owned(),
                },
                Refusal::Zero => RequestError::Zero { queue: queue() },
                Refusal::BrokenAboveOne => RequestError::BrokenAboveOne {
                    queue: queue(),
                    amount: side.to_owned(),
                },
                Refusal::NotEighths(nearest) => RequestError::NotEighths {
                    queue: queue(),
                    amount: side.to_owned(),
                    nearest,
                },
            })
        };
        let (min, max) = match spec.split_once('-') {
            Some(("", max)) => (ONE, side(max)?),
            Some((min, max)) => (side(min)?, side(max)?),
            None => (side(spec)?, side(spec)?),
        };
        if min > max {
            return Err(RequestError::Reversed {
                queue: queue(),
                min: min.to_string(),
                max: max.to_string(),
            });
        }
        Ok(Self {
            queue: name.to_owned(),
            min,
            max,
        })
    }
}

impl QueueSpec {
    /// The amount alone: `2`, `1-4`.
    #[must_use]
    pub fn amounts(&self) -> String {
        if self.min == self.max {
            self.min.to_string()
        } else {
            format!("{}-{}", self.min, self.max)
        }
    }
}

impl fmt::Display for QueueSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.queue, self.amounts())
    }
}

/// What else the command line and the configuration say, as far as it decides what may be asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// Tasks run in containers, or parts of GPUs are permitted without.
    pub containers: bool,
    /// `--services-mode` is given.
    pub services_mode: bool,
    /// `--cpu-only` is given.
    pub cpu_only: bool,
}

/// A pool and the queues that share it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The devices.
    pub pool: Pool,
    /// The queues in the order of their priority; none asks for more devices than the pool has.
    pub queues: Vec<QueueSpec>,
    /// What was changed and is worth a warning.
    pub warnings: Vec<String>,
}

impl Request {
    /// Reads the values of `--gpus` and `--queue`.
    ///
    /// # Errors
    ///
    /// Everything that is wrong: first what concerns `--gpus`, then the queues in their order.
    pub fn parse<Q: AsRef<str>>(
        gpus: Option<&str>,
        queues: &[Q],
        surroundings: Surroundings,
    ) -> Result<Self, Problems> {
        let mut problems = Vec::new();
        if surroundings.services_mode {
            problems.push(RequestError::WithServices);
        }
        if surroundings.cpu_only {
            problems.push(RequestError::WithCpuOnly);
        }
        let pool = match gpus.unwrap_or_default().parse::<Pool>() {
            Ok(pool) => Some(pool),
            Err(problem) => {
                problems.push(problem);
                None
            }
        };
        if queues.is_empty() {
            problems.push(RequestError::NoQueue);
        }
        let mut specs = Vec::new();
        let mut names = BTreeSet::new();
        let mut warnings = Vec::new();
        for token in queues.iter().map(AsRef::as_ref) {
            match token.parse::<QueueSpec>() {
                Ok(mut spec) => {
                    if !names.insert(spec.queue.clone()) {
                        problems.push(RequestError::QueueTwice {
                            name: spec.queue.clone(),
                        });
                    }
                    if spec.min.is_fraction() && !surroundings.containers {
                        problems.push(RequestError::FractionWithoutContainer {
                            queue: token.to_owned(),
                        });
                    }
                    if let Some(pool) = &pool {
                        problems.extend(unmet(token, &spec, pool));
                        warnings.extend(clamp(token, &mut spec, pool));
                    }
                    specs.push(spec);
                }
                Err(problem) => problems.push(problem),
            }
        }
        match pool {
            Some(pool) if problems.is_empty() => Ok(Self {
                pool,
                queues: specs,
                warnings,
            }),
            _ => Err(Problems(problems)),
        }
    }
}

/// What the pool can never give to a queue.
fn unmet(token: &str, spec: &QueueSpec, pool: &Pool) -> Option<RequestError> {
    let devices = pool.devices();
    match spec.min {
        Amount::Whole(needed) if u64::from(needed.get()) > devices.len() as u64 => {
            Some(RequestError::TooFew {
                queue: token.to_owned(),
                needed: needed.get(),
                listed: devices.len(),
            })
        }
        // A range up to whole devices can be met by a slice as it is.
        Amount::Fraction(_) if spec.max.is_fraction() && devices.iter().all(Device::is_slice) => {
            Some(RequestError::SliceOfSlice {
                queue: token.to_owned(),
                device: devices[0].to_string(),
            })
        }
        _ => None,
    }
}

fn clamp(token: &str, spec: &mut QueueSpec, pool: &Pool) -> Option<String> {
    let listed = pool.devices().len();
    let all = u32::try_from(listed).ok().and_then(std::num::NonZeroU32::new)?;
    match spec.max {
        Amount::Whole(max) if max > all => {
            spec.max = Amount::Whole(all);
            Some(format!(
                "[E-GPU-20] queue \"{token}\": maximum {max} is lowered to {all}, the number of devices in --gpus"
            ))
        }
        _ => None,
    }
}
