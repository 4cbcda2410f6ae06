//! `config`: the effective configuration.

use clap::Args;
use clearml_agent_config::{Origin, Settings, Sources, printout, properties};
use serde_json::{Value, json};

use crate::arguments::VERSION_LINE;
use crate::default_python;
use crate::failure::{warn, warn_aside};
use crate::output::{print, print_line};

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
    let settings = default_python::shown(&Settings::load(sources)?);
    for warning in settings.warnings() {
        // Machines read the output.
        if options.json {
            warn_aside(&warning.to_string());
        } else {
            warn(&warning.to_string());
        }
    }
    match (options.json, options.origins) {
        (true, false) => print_line(format_args!("{:#}", settings.masked_json())),
        (true, true) => print_line(format_args!("{:#}", with_origins(&settings))),
        (false, true) => print_line(format_args!("{}\n", properties(&settings, true).join("\n"))),
        (false, false) => print(printout(
            &settings,
            VERSION_LINE.rsplit(' ').next().unwrap_or_default(),
        )),
    }?;
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
