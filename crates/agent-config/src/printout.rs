//! The effective configuration as lines for people.

use clearml_support::text::printable;
use serde_json::Value;

use crate::settings::Settings;

/// Keys that say nothing about the agent.
const LEFT_OUT: &[&str] = &["env", "logging.version", "logging.loggers.urllib3.level"];

/// What `config` prints and the daemon shows at its start: where the configuration comes from, and every
/// value as `dotted.key = value`, without secrets.
///
/// `version` is the version of the agent. The text ends with an empty line.
#[must_use]
pub fn printout(settings: &Settings, version: &str) -> String {
    let mut lines = settings.announcements();
    let location = settings
        .location()
        .map_or_else(|| "None".to_owned(), |path| path.display().to_string());
    lines.push(format!(
        "Current configuration (clearml_agent v{version}, location: {location}):"
    ));
    lines.push("----------------------".to_owned());
    lines.extend(properties(settings, false));
    lines.push("\n".to_owned());
    lines.join("\n")
}

/// Every value as `dotted.key = value`, without secrets; with its origin after it if `origins`.
///
/// Elements of lists are `key.0`, `key.1`. Nulls, empty lists and empty objects have no line.
#[must_use]
pub fn properties(settings: &Settings, origins: bool) -> Vec<String> {
    let mut lines = Vec::new();
    let shown = settings.masked_json();
    collect(settings, &mut Vec::new(), &shown, origins, &mut lines);
    lines
}

fn collect(
    settings: &Settings,
    path: &mut Vec<String>,
    value: &Value,
    origins: bool,
    lines: &mut Vec<String>,
) {
    let key = path.join(".");
    if LEFT_OUT.contains(&key.as_str()) {
        return;
    }
    let text = match value {
        Value::Null => return,
        Value::Object(members) => {
            for (name, member) in members {
                path.push(name.clone());
                collect(settings, path, member, origins, lines);
                path.pop();
            }
            return;
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                path.push(index.to_string());
                collect(settings, path, item, origins, lines);
                path.pop();
            }
            return;
        }
        Value::String(text) => escape(text),
        other => other.to_string(),
    };
    // Elements of lists have the origin of their list.
    let origin = origins
        .then(|| {
            (1..=path.len())
                .rev()
                .find_map(|end| settings.origin_of(&path[..end]))
        })
        .flatten();
    let line = match origin {
        Some(origin) => format!("{key} = {text}    # {origin}"),
        None => format!("{key} = {text}"),
    };
    // It may come from a vault, that is from somebody else.
    lines.push(printable(&line).into_owned());
}

/// The escapes of a properties file.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if matches!(character, '=' | '!' | '#' | '\n') {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}
