//! A client of the ClearML REST API: login and token refresh, retries, typed calls, typed errors.
//!
//! # What it is for
//!
//! Programs that consume queues and run tasks: agents, schedulers, tools. The calls such a program
//! needs are methods of [`Client`]; every other call goes through [`Client::call`]. It is not an SDK:
//! it knows nothing of experiments, artifacts, or the file server.
//!
//! # How it works
//!
//! A call passes three layers, each with one concern:
//!
//! 1. `transport`: one HTTP request, one reply, both bounded, every outcome sorted into [`ApiError`].
//! 2. `client`: the session. A token near its end is replaced before a call, a refused one after it,
//!    once, by one login that concurrent calls share; the call then goes out with the *new* token.
//!    Transient failures of calls that may be repeated are waited out by a [`RetryPolicy`].
//! 3. one module per service: the typed calls, and for each the decision whether it may be repeated.
//!
//! The decision matters because the API has calls that do harm when applied twice.
//! [`Client::queues_get_next_task`] takes a task out of a queue, [`Client::events_add_batch`] appends
//! lines, and neither can be acknowledged. They are sent once, and their errors say exactly what is
//! known: [`ApiError::was_not_applied`] or not. Everything else is repeated until an answer comes,
//! so that a server that is away for an hour is an hour's pause and not an error. The outage is
//! logged once when it begins and once when it ends.
//!
//! Before the first successful login nothing is waited out for long: a wrong address or wrong key
//! should be a message, not a silent program. [`RetryPolicy::initial_retries`] changes that for
//! services that may start before their server.
//!
//! Dropping a future cancels its call. Secrets do not show in `Debug` output or errors.
//!
//! ```no_run
//! use clearml_api_client::{Auth, Client, ClientOptions, QueuesQuery};
//! use clearml_support::secret::Secret;
//!
//! # async fn run() -> Result<(), clearml_api_client::ApiError> {
//! let auth = Auth::Keys { access_key: Secret::new("KEY"), secret_key: Secret::new("SECRET") };
//! let client = Client::new(ClientOptions::new("http://localhost:8008", auth))?;
//! println!("API {}", client.login().await?.api_version);
//! for queue in client.queues_get_all(&QueuesQuery::default()).await? {
//!     println!("{:?}: {} waiting", queue.name, queue.entries.len());
//! }
//! # Ok(()) }
//! ```

mod auth;
mod call;
mod client;
mod error;
mod events;
mod events_manage;
mod feature;
mod files;
mod follow;
mod metrics;
mod models;
mod options;
mod outage;
mod projects;
mod projects_info;
mod proxy;
mod queues;
mod queues_manage;
mod reply;
mod reports;
mod retry;
mod select;
mod session;
mod system;
mod tasks;
mod tls;
mod token;
mod trace;
mod transport;
mod users;
mod words;
mod workers;
mod workers_stats;

pub use auth::{AccessKey, LoginModes, NewCredentials};
pub use call::{Call, Method, Retry};
pub use client::Client;
pub use error::{ApiError, Interruption};
pub use events::{BatchResult, LogEvent, TaskLog, split_lines};
pub use events_manage::{ClearLog, RawCurves, Sample};
pub use feature::Feature;
pub use files::{Files, RemovedFiles};
pub use follow::Follow;
pub use metrics::{
    Axis, ByIteration, Curve, Curves, CurvesOfTasks, Event, EventPage, EventsQuery, SINGLE_VALUE,
    SingleValues,
};
pub use models::{Model, ModelDeleted, ModelFields, ModelId, ModelsAction};
pub use options::{Auth, ClientOptions};
pub use projects::{Project, ProjectDeleted, ProjectFields, ProjectsQuery};
pub use projects_info::{MetricVariant, ParameterName, TagsOf};
pub use queues::{Popped, QueuesQuery, TaskOwner};
pub use queues_manage::{Move, QueueFields, QueueMetrics};
pub use reply::{BatchError, BatchFailure, BatchItem, BatchOutcome, MetadataItem, Named, Updated};
pub use reports::{ReportFields, StartedPipeline};
pub use retry::{MAINTENANCE_RETRIES, RetryLimits, RetryPolicy};
pub use select::Selection;
pub use system::{ServerInfo, Tags};
pub use tasks::{
    Artifact, ArtifactMode, CloneOptions, ConfigurationItem, DeleteTask, EnqueueTo, HyperParamItem,
    HyperParamKey, ModelUse, ReplaceHyperParams, StatusChange, TaskConfiguration, TaskConfigurationNames,
    TaskDeleted, TaskHyperParams, TasksAction, TasksQuery,
};
pub use tls::TlsVerify;
pub use token::{SessionInfo, Version};
pub use users::{User, Vault};
pub use workers::{StatusReport, WorkerEntry, WorkersQuery};
pub use workers_stats::{Activity, ClusterReport, Counts, RuntimeProperty, Span, StatsItem, WorkerStats};

pub(crate) use reply::Nothing;

/// The API version that typed calls ask for: new enough that replies have today's shape only, old
/// enough for every server in use. A server that is older is asked for its own newest version.
const VERSION: &str = "2.23";
/// [`VERSION`] as a number.
const SPOKEN: Version = Version::new(2, 23);

/// The pattern that finds exactly this name: name filters of the API are regular expressions that
/// match anywhere.
///
/// ```
/// assert_eq!(clearml_api_client::exact("gpu (big)"), r"^gpu \(big\)$");
/// ```
#[must_use]
pub fn exact(name: &str) -> String {
    let mut pattern = String::with_capacity(name.len() + 8);
    pattern.push('^');
    for character in name.chars() {
        if r"\.+*?()|[]{}^$".contains(character) {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern.push('$');
    pattern
}
