//! Documents that a configuration includes by URL.

use std::fmt;
use std::sync::Arc;

type Get = dyn Fn(&str, u64) -> Result<Vec<u8>, String> + Send + Sync;

/// Gets the documents that `include url("…")` names.
///
/// This crate makes no connections of its own. A program that wants such includes hands in a function
/// that gets a URL with `http` or `https` and may return at most the given number of bytes; it must end
/// within reasonable time whatever the other side does. Without it such includes are skipped with a
/// warning, or refused where they are `required`.
#[derive(Clone)]
pub struct Fetch(Arc<Get>);

impl Fetch {
    /// A function from a URL and the most bytes wanted to the document, or to the reason why there is none.
    pub fn new(get: impl Fn(&str, u64) -> Result<Vec<u8>, String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(get))
    }

    pub(crate) fn get(&self, url: &str, limit: u64) -> Result<Vec<u8>, String> {
        let bytes = (self.0)(url, limit)?;
        if bytes.len() as u64 > limit {
            return Err(format!("it has more than {limit} bytes"));
        }
        Ok(bytes)
    }
}

impl fmt::Debug for Fetch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fetch")
    }
}
