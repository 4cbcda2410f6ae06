//! `list`: the workers that the server knows.

use std::collections::BTreeMap;

use anyhow::Context;
use clap::Args;
use clearml_agent_config::{Settings, Sources};
use clearml_api_client::{Call, Client};
use serde::{Serialize, Serializer};
use serde_json::{Value, json};
use serde_saphyr::{FlowMap, FlowSeq};

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
        eprintln!("clearml_agent: Warning: {warning}");
    }
    let client = Client::new(clearml_task_runner::settings::client_options(&settings)?)?;
    client.login().await?;
    // 0 switches the filter by last activity off.
    let call = Call::new("workers.get_all")
        .version("2.5")
        .body(json!({"last_seen": 0}));
    let reply: Value = client.call(call).await.context("asking for the workers")?;
    if options.json {
        println!("{:#}", reply["workers"]);
        return Ok(0);
    }
    println!("{}", yaml(&reply)?);
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
            Value::Array(items) => FlowSeq(items).serialize(serializer),
            Value::Object(fields) => {
                let sorted: BTreeMap<&String, &Value> = fields.iter().collect();
                if fields.values().any(is_nested) {
                    serializer.collect_map(sorted.into_iter().map(|(name, value)| (name, Block(value))))
                } else {
                    FlowMap(sorted).serialize(serializer)
                }
            }
            scalar => scalar.serialize(serializer),
        }
    }
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
            "tags": ["a", "true"],
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
  tags: [a, 'true']
  user: {id: u, name: 'Käthe: \"x\"'}
";
        assert_eq!(yaml(&reply).unwrap(), expected);
        assert_eq!(yaml(&json!({"workers": []})).unwrap(), "workers: []\n");
    }
}
