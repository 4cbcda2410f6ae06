//! `config`: the effective configuration.

use clap::Args;
use clearml_agent_config::{Settings, Sources};
use serde_json::Value;

use crate::arguments::VERSION_LINE;

#[derive(Args)]
pub(crate) struct ConfigArguments {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Say after each value which file, variable or option set it.
    #[arg(long, conflicts_with = "json")]
    origins: bool,
}

pub(crate) fn config(options: &ConfigArguments, sources: &Sources) -> anyhow::Result<i32> {
    let settings = Settings::load(sources)?;
    let effective = settings.masked_json();
    if options.json {
        println!("{effective:#}");
        return Ok(0);
    }
    let version = VERSION_LINE.rsplit(' ').next().unwrap_or_default();
    let location = settings
        .location()
        .map_or_else(|| "None".to_owned(), |path| path.display().to_string());
    println!("Current configuration (clearml_agent v{version}, location: {location}):");
    println!("----------------------");
    print_properties(&settings, "", &effective, options.origins);
    println!();
    Ok(0)
}

/// Prints `dotted.key = value` lines; empty lists, empty maps and nulls are left out.
fn print_properties(settings: &Settings, key: &str, value: &Value, origins: bool) {
    let below = |name: &str| {
        if key.is_empty() {
            name.to_owned()
        } else {
            format!("{key}.{name}")
        }
    };
    let text = match value {
        Value::Null => return,
        Value::Object(fields) => {
            for (name, field) in fields {
                // The environment of the machine is not part of the configuration of the agent.
                if !(key.is_empty() && name == "env") {
                    print_properties(settings, &below(name), field, origins);
                }
            }
            return;
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                print_properties(settings, &below(&index.to_string()), item, origins);
            }
            return;
        }
        Value::String(text) => escape(text),
        other => other.to_string(),
    };
    match settings.origin(key).filter(|_| origins) {
        Some(origin) => println!("{key} = {text}    # {origin}"),
        None => println!("{key} = {text}"),
    }
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
