//! `config`: the effective configuration.

use clap::Args;
use clearml_agent_config::{Origin, Settings, Sources, printout, properties};
use serde_json::{Value, json};

use crate::arguments::VERSION_LINE;

#[derive(Args)]
pub(crate) struct ConfigArguments {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Say after each value which file, variable or option set it.
    #[arg(long)]
    origins: bool,
}

pub(crate) fn config(options: &ConfigArguments, sources: &Sources) -> anyhow::Result<i32> {
    let settings = Settings::load(sources)?;
    for warning in settings.warnings() {
        let line = format!("clearml_agent: Warning: {warning}");
        // Machines read the output.
        if options.json {
            eprintln!("{line}");
        } else {
            println!("{line}");
        }
    }
    match (options.json, options.origins) {
        (true, false) => println!("{:#}", settings.masked_json()),
        (true, true) => println!("{:#}", with_origins(&settings)),
        (false, true) => println!("{}\n", properties(&settings, true).join("\n")),
        (false, false) => print!(
            "{}",
            printout(&settings, VERSION_LINE.rsplit(' ').next().unwrap_or_default())
        ),
    }
    Ok(0)
}

/// The masked values by dotted key, each with where it comes from.
fn with_origins(settings: &Settings) -> Value {
    let shown = settings.masked_json();
    let mut values = serde_json::Map::new();
    collect(settings, &shown, "", &mut values);
    Value::Object(values)
}

fn collect(settings: &Settings, value: &Value, key: &str, values: &mut serde_json::Map<String, Value>) {
    if let Value::Object(members) = value
        && !members.is_empty()
    {
        for (name, member) in members {
            let below = if key.is_empty() {
                name.clone()
            } else {
                format!("{key}.{name}")
            };
            collect(settings, member, &below, values);
        }
        return;
    }
    let origin = settings.origin(key).unwrap_or(Origin::Default).to_string();
    values.insert(key.to_owned(), json!({"value": value, "origin": origin}));
}
