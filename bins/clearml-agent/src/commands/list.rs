//! `list`: the workers that the server knows.

use anyhow::Context;
use clap::Args;
use clearml_agent_config::{Settings, Sources};
use clearml_api_client::{Call, Client};
use serde_json::{Value, json};

#[derive(Args)]
pub(crate) struct ListArguments {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn list(options: ListArguments, sources: Sources) -> anyhow::Result<i32> {
    let settings = Settings::load(&sources)?;
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
    println!("workers:");
    for worker in reply["workers"].as_array().into_iter().flatten() {
        print_worker(worker);
    }
    println!();
    Ok(0)
}

/// One list item in YAML: keys in order, nested values inline. JSON is the inline form of YAML.
fn print_worker(worker: &Value) {
    let Some(fields) = worker.as_object() else { return };
    let mut names: Vec<_> = fields.keys().collect();
    names.sort();
    let mut lead = "- ";
    for name in names {
        match &fields[name] {
            Value::Array(items) if !items.is_empty() => {
                println!("{lead}{name}:");
                items.iter().for_each(|item| println!("  - {item}"));
            }
            value => println!("{lead}{name}: {value}"),
        }
        lead = "  ";
    }
}
