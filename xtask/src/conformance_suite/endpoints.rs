//! What holds of every endpoint: it is there from its version on, takes fields that it does not know, and its reply has
//! its fields. What the endpoints do is the matter of the numbered cases.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::scene::{Scene, not_applicable};

/// One endpoint with a call that must succeed.
pub(super) struct Contract {
    pub(super) endpoint: &'static str,
    /// What comes back, in words.
    pub(super) purpose: &'static str,
    /// Lowest version, where one is promised.
    since: Option<&'static str>,
    body: fn(&Scene<'_>) -> Result<Value>,
    /// Fields of the reply.
    keys: &'static [&'static str],
}

impl Contract {
    pub(super) const fn new(
        endpoint: &'static str,
        purpose: &'static str,
        since: Option<&'static str>,
        body: fn(&Scene<'_>) -> Result<Value>,
        keys: &'static [&'static str],
    ) -> Self {
        Self {
            endpoint,
            purpose,
            since,
            body,
            keys,
        }
    }

    pub(super) fn hold(&self, scene: &Scene<'_>) -> Result<()> {
        let mut body = (self.body)(scene)?;
        // The SDK adds this to everything that it sends.
        body["method"] = json!("get");
        let reply = scene.call(self.endpoint, &body)?;
        if reply.status == 404 && self.purpose.ends_with("(an extension)") {
            return not_applicable("this server does not have the extension");
        }
        let data = scene.ok_reply(self.endpoint, &body, &reply)?;
        for key in self.keys {
            ensure!(data.get(key).is_some(), "no {key} in {data}");
        }
        if let Some(since) = self.since {
            let endpoint = format!("v{}/{}", version_before(since)?, self.endpoint);
            scene.refused(&endpoint, body, (404, 0))?;
        }
        Ok(())
    }
}

fn version_before(version: &str) -> Result<String> {
    let (major, minor) = version.split_once('.').context("a version without a dot")?;
    Ok(format!("{major}.{}", minor.parse::<u32>()? - 1))
}
