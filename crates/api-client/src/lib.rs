//! A client of the ClearML REST API: login and token refresh, retries, typed calls, typed errors.
//!
//! # What it is for
//!
//! Programs that consume queues, run tasks, or manage both: agents, schedulers, tools. Every call of the API
//! is a method of [`Client`], named `service_action`, with the API version that it came with, its errors, and
//! whether it is repeated in its documentation; what a future server adds goes through [`Client::call`].
//! [`Client::follow`] reads a task's console as it grows, [`Client::files`] speaks to the file server.
//! It is not an SDK: it does not record experiments, and it knows nothing of Python.
//!
//! # How it works
//!
//! A call passes three layers, each with one concern:
//!
//! 1. `transport`: one HTTP request, one reply, both bounded, every outcome sorted into [`ApiError`].
//! 2. `session` and `client`: a token near its end is replaced before a call, a refused one after it,
//!    once, by one login that concurrent calls share; the call then goes out with the *new* token.
//!    Transient failures of calls that may be repeated are waited out by a [`RetryPolicy`].
//! 3. a module or more per service: the typed calls, and for each the decision whether it may be repeated.
//!
//! Requests are structs or JSON, replies are structs; what either has beyond the known fields is in `extra`.
//! Reading is lenient (a `null` is a missing field), so that a newer server is no reason to fail.
//!
//! ## What is repeated
//!
//! The API has calls that do harm when applied twice, and none can be acknowledged, so each call has a class:
//!
//! * *repeated until answered* ([`Retry::Idempotent`]): reads, and writes that change nothing the second time;
//!   a server that is away for an hour is an hour's pause and not an error. The outage is logged once when it
//!   begins and once when it ends. Where the repetition of a write meets its own success ("already in that
//!   queue"), that is a success.
//! * *repeated only while it is certain that it was not applied* ([`Retry::IfNotApplied`]): creations. What is
//!   unclear comes out as [`ApiError::Ambiguous`].
//! * *sent once* ([`Retry::Never`]): [`Client::queues_get_next_task`] takes a task out of a queue,
//!   [`Client::events_add_batch`] appends lines; their callers do better than to wait. Errors say exactly what
//!   is known ([`ApiError::was_not_applied`]). Also reports that the next one replaces anyway.
//! * *bounded* ([`Retry::Bounded`]): calls on the way out.
//!
//! [`RetryLimits`] end the patience for programs that would rather fail. Before the first successful login
//! nothing is waited out for long: a wrong address or wrong key should be a message, not a silent program.
//! [`RetryPolicy::initial_retries`] changes that for services that may start before their server.
//!
//! The official client also counts repetitions (240 by default) but starts over when they are used up; the
//! numbers therefore have no default here. It repeats 500 and 504 never; here a 504 is repeated where that
//! does no harm.
//!
//! ## Versions and editions
//!
//! The server tells its newest API version and its feature set in every token; nothing is probed. Calls are
//! asked for in the version that this crate speaks, or in the server's newest if that is older. A call that
//! came later than the server, or that only other editions have, is not sent and fails with
//! [`ApiError::Unsupported`], which names the call and both versions; a server that answers that it has no such
//! call gives the same error. [`SessionInfo::supports`] answers for whole features.
//! [`ClientOptions::max_api_version`] holds the version down.
//!
//! ## Sessions
//!
//! A client is a session and its clones share it. [`Client::impersonate`] gives a session of another user,
//! logged in with our credentials; if the server has tenants and the token is for another one than wanted, a
//! second login, signed with that token, asks for the right one. A token that was given instead of keys is
//! exchanged at the first login; the one in use is at [`Client::token`] for child processes.
//!
//! ## Proxies and secrets
//!
//! `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` (names, suffixes, addresses, networks) count, in upper
//! or lower case, with credentials, but not for servers on this machine's loopback: a proxy elsewhere
//! cannot reach it. There is no `~/.netrc`, and a user in the server's address is not used: both would take
//! the place of the credentials. TLS is 1.2 or newer, by rustls.
//!
//! At debug level every request is a line in the log, without content; its `trx` is the id that the server
//! has for it too. Bodies are shown at trace level only, cut, and with everything masked that is a secret by
//! its name or is known to be one. Secrets do not show in `Debug` output or errors, also where a server or
//! gateway quotes them back.
//!
//! Dropping a future cancels its call.
//!
//! ```no_run
//! use clearml_api_client::{Auth, Client, ClientOptions, QueuesQuery};
//!
//! # async fn run() -> Result<(), clearml_api_client::ApiError> {
//! let client = Client::new(ClientOptions::new("http://localhost:8008", Auth::keys("KEY", "SECRET")))?;
//! println!("API {}", client.login().await?.api_version);
//! for queue in client.queues_get_all(&QueuesQuery::default()).await? {
//!     println!("{:?}: {} waiting", queue.name, queue.entries.len());
//! }
//! # Ok(()) }
//! ```

mod auth;
mod call;
mod client;
mod document;
mod error;
mod events;
mod events_manage;
mod feature;
mod files;
mod follow;
mod headers;
mod health;
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
pub use document::fetch_document;
pub use error::{ApiError, Interruption};
pub use events::{BatchResult, LogEvent, TaskLog, split_lines};
pub use events_manage::{ClearLog, RawCurves, Sample};
pub use feature::Feature;
pub use files::{Files, RemovedFiles};
pub use follow::Follow;
pub use health::Health;
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
