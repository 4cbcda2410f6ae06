//! How the server does, seen from one client: for status displays and metrics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::client::Client;

/// The services that are counted by name; everything else is `other`, so that the list never grows.
const SERVICES: [&str; 8] = [
    "auth", "events", "models", "projects", "queues", "tasks", "users", "workers",
];
const OTHER: &str = "other";

/// What a client has seen of its server so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// For how long the server has had trouble, if it has now.
    pub away_for: Option<Duration>,
    /// How long it has had trouble altogether, the present trouble included.
    pub away_total: Duration,
    /// Requests by service (`tasks`, `queues`, …; `other` for the rest), repetitions included. Counted for
    /// all sessions that share the connections.
    pub requests: Vec<(&'static str, u64)>,
}

impl Client {
    /// How the server does. Asks nobody.
    ///
    /// ```
    /// # use clearml_api_client::{Auth, Client, ClientOptions};
    /// let client = Client::new(ClientOptions::new("http://localhost:8008", Auth::keys("k", "s"))).unwrap();
    /// assert_eq!(client.health().away_for, None);
    /// ```
    #[must_use]
    pub fn health(&self) -> Health {
        let (away_for, past) = self.inner.outage.spans();
        Health {
            away_for,
            away_total: past + away_for.unwrap_or_default(),
            requests: self.inner.transport.tally.read(),
        }
    }
}

/// Counts requests by the service that they go to.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    services: [AtomicU64; SERVICES.len()],
    other: AtomicU64,
}

impl Tally {
    pub(crate) fn count(&self, endpoint: &str) {
        let service = endpoint.split('.').next().unwrap_or_default();
        let counter = SERVICES
            .iter()
            .position(|known| *known == service)
            .map_or(&self.other, |index| &self.services[index]);
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn read(&self) -> Vec<(&'static str, u64)> {
        let named = SERVICES.iter().copied().zip(&self.services);
        named
            .chain([(OTHER, &self.other)])
            .map(|(name, counter)| (name, counter.load(Ordering::Relaxed)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strange_endpoints_share_one_counter() {
        let tally = Tally::default();
        for endpoint in [
            "tasks.started",
            "tasks.ping",
            "queues.get_all",
            "x",
            "",
            "new.thing",
        ] {
            tally.count(endpoint);
        }
        let counted: Vec<_> = tally.read().into_iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counted, [("queues", 1), ("tasks", 2), ("other", 3)]);
        assert_eq!(tally.read().len(), SERVICES.len() + 1);
    }
}
