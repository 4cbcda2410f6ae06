//! Which queues are served at the moment: working hours, tags of queues, and the worker's runtime property.

use std::time::Duration;

use clearml_api_client::{ApiError, Client};
use clearml_intake::hours::{ForcedProperty, StatusQueue};
use clearml_intake::{Force, LocalHour, WorkingHours};
use clearml_task_model::{QueueId, TaskId, WorkerId};
use jiff::{SignedDuration, Zoned};
use tokio::time::Instant;

/// How often the property is read; it is somebody's decision, which can wait that long.
const PROPERTY_EVERY: Duration = Duration::from_secs(10);
/// The name of the property.
const FORCE: &str = "force";

/// What decides whether a queue is served.
#[derive(Debug)]
pub(crate) struct Activation {
    hours: WorkingHours,
    force: Option<Force>,
    read_at: Option<Instant>,
    /// A value that means nothing, which is said once.
    odd: Option<String>,
    /// The server has no such thing.
    unsupported: bool,
    resting: Vec<bool>,
}

impl Activation {
    pub(crate) fn new(hours: WorkingHours, queues: usize) -> Self {
        Self {
            hours,
            force: None,
            read_at: None,
            odd: None,
            unsupported: false,
            resting: vec![false; queues],
        }
    }

    /// Which queues are not served now.
    pub(crate) fn resting(&self) -> &[bool] {
        &self.resting
    }

    /// Takes away the heads of queues that are not served now.
    pub(crate) async fn mask(
        &mut self,
        client: &Client,
        worker: &WorkerId,
        queues: &[QueueId],
        tags: &[Vec<String>],
        heads: &mut [Option<TaskId>],
    ) {
        // Asked only when it matters: while there is something to run.
        if heads.iter().any(Option::is_some) {
            self.read_property(client, worker).await;
        }
        let now = LocalHour::from(&Zoned::now());
        for (index, head) in heads.iter_mut().enumerate() {
            let tags = tags.get(index).map(Vec::as_slice).unwrap_or_default();
            let active = self.hours.decide(now, tags, self.force).active;
            if !active {
                *head = None;
            }
            if std::mem::replace(&mut self.resting[index], !active) == active {
                let doing = if active { "is served" } else { "rests" };
                tracing::info!("queue {} {doing} from now on", queues[index]);
            }
        }
    }

    fn adopt(&mut self, worker: &WorkerId, property: Property) {
        self.force = None;
        match property {
            Property::Absent => self.odd = None,
            Property::Odd(value) => {
                if self.odd.as_ref() != Some(&value) {
                    tracing::warn!("{}", Property::odd(worker, &value));
                }
                self.odd = Some(value);
            }
            Property::Says(property) => {
                self.odd = None;
                self.force = Some(property.force);
            }
        }
    }

    async fn read_property(&mut self, client: &Client, worker: &WorkerId) {
        if self.unsupported || self.read_at.is_some_and(|at| at.elapsed() < PROPERTY_EVERY) {
            return;
        }
        self.read_at = Some(Instant::now());
        match forced_property(client, worker).await {
            Ok(property) => self.adopt(worker, property),
            // What was said last holds as long as nobody can be asked.
            Err(e) if e.is_transient() => tracing::debug!("{e}"),
            Err(e) => {
                tracing::debug!("{e}; working without runtime properties");
                self.unsupported = true;
                self.force = None;
            }
        }
    }
}

/// The property that overrides the working hours of a worker.
#[derive(Debug)]
enum Property {
    Absent,
    /// Neither on nor off.
    Odd(String),
    Says(ForcedProperty),
}

impl Property {
    fn odd(worker: &WorkerId, value: &str) -> String {
        format!("runtime property {FORCE} of worker {worker} is {value:?}, neither on nor off; it is ignored")
    }
}

async fn forced_property(client: &Client, worker: &WorkerId) -> Result<Property, ApiError> {
    let properties = client.workers_get_runtime_properties(worker).await?;
    let Some(property) = properties.into_iter().find(|property| property.key == FORCE) else {
        return Ok(Property::Absent);
    };
    let value = property.value.unwrap_or_default();
    let Some(force) = Force::from_property(&value) else {
        return Ok(Property::Odd(value));
    };
    let expires = property
        .expiry
        .and_then(|seconds| Zoned::now().checked_add(SignedDuration::from_secs(seconds)).ok())
        .map(|time| time.time());
    Ok(Property::Says(ForcedProperty { force, expires }))
}

/// What `daemon --status` says.
pub(crate) async fn status_lines(
    client: &Client,
    worker: &WorkerId,
    hours: &WorkingHours,
    queues: &[StatusQueue],
) -> Vec<String> {
    let property = match forced_property(client, worker).await {
        Ok(Property::Says(property)) => Some(property),
        Ok(Property::Absent) => None,
        Ok(Property::Odd(value)) => {
            tracing::warn!("{}", Property::odd(worker, &value));
            None
        }
        Err(e) => {
            tracing::debug!("{e}; the status is without runtime properties");
            None
        }
    };
    clearml_intake::hours::status_lines(
        hours,
        clearml_intake::hours::Forced { property, queues },
        &Zoned::now(),
    )
}
