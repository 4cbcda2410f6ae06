//! `list`: the workers that the server knows.

use std::collections::BTreeMap;

use anyhow::Context;
use clap::Args;
use clearml_agent_config::{Settings, Sources};
use clearml_api_client::{Call, Client};
use clearml_intake::vaults;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};
use serde_saphyr::{FlowMap, FlowSeq, SingleQuoted};

use crate::failure::{say_aside, warn_aside};
use crate::output::print_line;

#[derive(Args)]
pub(crate) struct ListArguments {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn list(options: ListArguments, sources: Sources) -> anyhow::Result<i32> {
    let settings = Settings::load(&sources)?;
    // Standard output is for programs to read.
    for warning in settings.warnings() {
        warn_aside(&warning.to_string());
    }
    for notice in settings.login_notices() {
        say_aside(&notice);
    }
    let client = Client::new(clearml_task_runner::settings::client_options(&settings)?)?;
    // Like every command that talks to the server, which may say more about this machine.
    let found = Box::pin(vaults::for_command(&client, &settings)).await?;
    for line in vaults::shown(&found.notices, found.settings.agent.debug) {
        say_aside(line);
    }
    // 0 switches the filter by last activity off.
    let call = Call::new("workers.get_all")
        .version("2.5")
        .body(json!({"last_seen": 0}));
    let reply: Value = client.call(call).await.context("asking for the workers")?;
    if options.json {
        print_line(format_args!("{:#}", reply["workers"]))?;
    } else {
        print_line(yaml(&reply)?)?;
    }
    Ok(0)
}

/// The reply as YAML, with a line feed at its end.
fn yaml(reply: &Value) -> anyhow::Result<String> {
    serde_saphyr::to_string(&Block(reply)).context("writing the workers as YAML")
}

/// Keys sorted; what has nothing nested in it stands on one line, everything else in blocks.
struct Block<'a>(&'a Value);

impl Serialize for Block<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Array(items) if items.iter().any(is_nested) => {
                serializer.collect_seq(items.iter().map(Block))
            }
            Value::Array(items) => FlowSeq(items.iter().map(Block).collect::<Vec<_>>()).serialize(serializer),
            Value::Object(fields) => {
                let sorted: BTreeMap<&String, Block<'_>> =
                    fields.iter().map(|(name, value)| (name, Block(value))).collect();
                if fields.values().any(is_nested) {
                    serializer.collect_map(sorted)
                } else {
                    FlowMap(sorted).serialize(serializer)
                }
            }
            // As the official agent quotes, where quotes are needed and nothing has to be escaped.
            Value::String(text) if takes_single_quotes(text) => {
                SingleQuoted(text.as_str()).serialize(serializer)
            }
            scalar => scalar.serialize(serializer),
        }
    }
}

fn takes_single_quotes(text: &str) -> bool {
    serde_saphyr::to_string(&text).is_ok_and(|yaml| yaml.starts_with('"'))
        && serde_saphyr::to_string(&SingleQuoted(text)).is_ok()
}

fn is_nested(value: &Value) -> bool {
    value.is_array() || value.is_object()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_sorted_and_leaves_stand_on_one_line() {
        let reply = json!({"workers": [{
            "user": {"name": "Käthe: \"x\"", "id": "u"},
            "id": "host:gpu0",
            "ip": null,
            "last_activity_time": "2024-01-01T00:00:00Z",
            "queues": [{"name": "default", "id": "12"}],
            "tags": ["a", "true", "\u{1b}[1m", "\u{2028}", "it's: so"],
            "number": 3,
        }]});
        let expected = "\
workers:
- id: host:gpu0
  ip: null
  last_activity_time: '2024-01-01T00:00:00Z'
  number: 3
  queues:
  - {id: '12', name: default}
  tags: [a, 'true', \"\\e[1m\", \"\\L\", 'it''s: so']
  user: {id: u, name: 'Käthe: \"x\"'}
";
        assert_eq!(yaml(&reply).unwrap(), expected);
        assert_eq!(yaml(&json!({"workers": []})).unwrap(), "workers: []\n");
    }
}
