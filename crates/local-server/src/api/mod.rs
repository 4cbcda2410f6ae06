//! The endpoints. Each module lists its own in `endpoints()`; this one joins them into the registry.

mod auth;
pub(crate) mod batch;
pub(crate) mod call;
pub(crate) mod events;
mod events_log;
mod events_more;
mod events_samples;
pub(crate) mod fault;
pub(crate) mod models;
mod models_many;
pub(crate) mod projects;
mod projects_contents;
mod projects_tree;
pub(crate) mod queues;
mod queues_listing;
pub(crate) mod queues_order;
mod references;
mod system;
pub(crate) mod tasks;
pub(crate) mod update;
mod users;
mod visibility;
mod workers;
mod workers_statistics;

use std::collections::HashMap;

use rusqlite::Transaction;
use serde_json::Value;

pub(crate) use call::{Call, Identity};
pub(crate) use fault::ApiFault;

use crate::http::path::Version;

/// A plain function: it neither waits nor knows HTTP. What it wrote is rolled back when it returns a fault.
pub(crate) type Handler = fn(&Call, &Transaction<'_>) -> Result<Value, ApiFault>;

/// Which connection a handler runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// The read-only connection; never waits for a commit.
    Read,
    /// The single writer thread, inside its transaction; the reply leaves after the commit.
    Write,
}

/// Whether a caller must say who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AuthNeed {
    Required,
    Optional,
    None,
}

/// One endpoint of the API.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Endpoint {
    /// `service.action`.
    pub(crate) name: &'static str,
    /// Lowest requested version that reaches this endpoint.
    pub(crate) min_version: Version,
    pub(crate) access: Access,
    pub(crate) auth: AuthNeed,
    pub(crate) handler: Handler,
}

impl Endpoint {
    pub(crate) const fn read(name: &'static str, min_version: (u32, u32), handler: Handler) -> Self {
        Self::with(name, min_version, Access::Read, handler)
    }

    pub(crate) const fn write(name: &'static str, min_version: (u32, u32), handler: Handler) -> Self {
        Self::with(name, min_version, Access::Write, handler)
    }

    pub(crate) const fn auth(mut self, auth: AuthNeed) -> Self {
        self.auth = auth;
        self
    }

    const fn with(name: &'static str, (major, minor): (u32, u32), access: Access, handler: Handler) -> Self {
        Self {
            name,
            min_version: Version::new(major, minor),
            access,
            auth: AuthNeed::Required,
            handler,
        }
    }
}

/// All endpoints by name. A name may have several, for different minimum versions; the newest that fits is used.
pub(crate) struct Registry {
    by_name: HashMap<&'static str, Vec<Endpoint>>,
}

impl Registry {
    pub(crate) fn new() -> Self {
        let mut by_name: HashMap<&'static str, Vec<Endpoint>> = HashMap::new();
        let all = [
            auth::endpoints(),
            events::endpoints(),
            events_log::endpoints(),
            events_more::endpoints(),
            events_samples::endpoints(),
            models::endpoints(),
            models_many::endpoints(),
            projects::endpoints(),
            projects_contents::endpoints(),
            projects_tree::endpoints(),
            queues::endpoints(),
            queues_listing::endpoints(),
            queues_order::endpoints(),
            system::endpoints(),
            tasks::endpoints(),
            users::endpoints(),
            visibility::endpoints(),
            workers::endpoints(),
            workers_statistics::endpoints(),
        ];
        for endpoint in all.into_iter().flatten() {
            by_name.entry(endpoint.name).or_default().push(endpoint);
        }
        for versions in by_name.values_mut() {
            versions.sort_by_key(|endpoint| endpoint.min_version);
        }
        Self { by_name }
    }

    pub(crate) fn find(&self, name: &str, version: Version) -> Option<Endpoint> {
        self.by_name
            .get(name)?
            .iter()
            .rev()
            .find(|endpoint| endpoint.min_version <= version)
            .copied()
    }
}
