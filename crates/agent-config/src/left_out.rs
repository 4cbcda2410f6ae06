//! One warning where a configuration asks for a feature that this agent does not have.

use serde_json::Value;

use crate::convert;
use crate::effective::Effective;
use crate::error::Warning;
use crate::keys::{self, DefaultValue};
use crate::origin::Origin;

/// The warnings: at most one for each feature.
pub(crate) fn warnings(effective: &Effective) -> Vec<Warning> {
    let metering = asks_for_metering(effective).then(|| {
        "agent.snug is ignored: this agent does not meter the traffic of language models".to_owned()
    });
    let bootstrap = asks_for_bootstrap(effective).map(|key| {
        format!("{key} is ignored, like all of agent.bootstrap: this agent has no bootstrap package")
    });
    metering.into_iter().chain(bootstrap).map(Warning).collect()
}

fn asks_for_metering(effective: &Effective) -> bool {
    effective.get("agent.snug.enabled").and_then(convert::flag) == Some(true)
        || effective.get_set("agent.snug.app_mode").is_some()
}

/// A key that was set to something else than its default. A file that repeats the defaults asks for nothing.
fn asks_for_bootstrap(effective: &Effective) -> Option<&'static str> {
    if effective
        .get("agent.bootstrap.use_bootstrap")
        .and_then(convert::flag)
        == Some(false)
    {
        return None;
    }
    let changed = |declaration: &&keys::Declaration| {
        let Some(value) = effective.get_set(declaration.key) else {
            return false;
        };
        let default: Value = match declaration.default {
            DefaultValue::Packaged(text) => serde_json::from_str(text).unwrap_or(Value::Null),
            _ => Value::Null,
        };
        effective.origin(declaration.key) != Some(&Origin::Default) && *value != default
    };
    keys::declarations()
        .filter(|declaration| declaration.key.starts_with("agent.bootstrap."))
        .find(changed)
        .map(|declaration| declaration.key)
}
