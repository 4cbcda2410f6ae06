//! Says once that the server is away, and once that it is back.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::error::ApiError;

/// An endpoint that failed and was then never called again must not keep an outage open for ever.
const FORGET_AFTER: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(crate) struct Outage {
    current: Mutex<Option<Current>>,
    /// How long the earlier ones lasted together.
    past: Mutex<Duration>,
}

struct Current {
    since: Instant,
    last_failure: Instant,
    /// One healthy endpoint does not end the outage of another one.
    failing: BTreeSet<String>,
}

impl Outage {
    pub(crate) fn failed(&self, endpoint: &str, server: &str, error: &ApiError) {
        let now = Instant::now();
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        match current.as_mut() {
            Some(outage) => {
                outage.last_failure = now;
                if !outage.failing.contains(endpoint) {
                    outage.failing.insert(endpoint.to_owned());
                }
            }
            None => {
                tracing::warn!(
                    server,
                    "the API server has trouble, calls wait until it is over: {error}"
                );
                let failing = BTreeSet::from([endpoint.to_owned()]);
                *current = Some(Current {
                    since: now,
                    last_failure: now,
                    failing,
                });
            }
        }
    }

    pub(crate) fn succeeded(&self, endpoint: &str, server: &str) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(outage) = current.as_mut() else { return };
        outage.failing.remove(endpoint);
        if outage.failing.is_empty() || outage.last_failure.elapsed() > FORGET_AFTER {
            let lasted = outage.since.elapsed();
            let seconds = lasted.as_secs_f64();
            tracing::info!(server, "the API server is well again after {seconds:.1} s");
            *self.past.lock().unwrap_or_else(PoisonError::into_inner) += lasted;
            *current = None;
        }
    }

    /// How long the present outage has lasted, if there is one, and how long the earlier ones did.
    pub(crate) fn spans(&self) -> (Option<Duration>, Duration) {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let past = *self.past.lock().unwrap_or_else(PoisonError::into_inner);
        (current.as_ref().map(|outage| outage.since.elapsed()), past)
    }
}
