//! The commands: options in, one call into a crate, an exit code out.

use std::path::PathBuf;

use anyhow::Context;
use clearml_agent_config::{Settings, Sources};
use clearml_api_client::{Call, Client};
use clearml_local_server::{Server, ServerError, ServerOptions};
use clearml_task_runner::RunOptions;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use crate::arguments::{
    ConfigArguments, DaemonArguments, ExecuteArguments, ListArguments, ServerArguments, TaskArguments,
    VERSION_LINE,
};

pub(crate) async fn daemon(options: DaemonArguments, mut sources: Sources) -> anyhow::Result<i32> {
    sources.overrides.extend(options.task.overrides());
    let settings = Settings::load(&sources)?;
    let status = clearml_worker::daemon(clearml_worker::DaemonOptions {
        queues: options.queue,
        foreground: options.foreground,
        create_queue: options.create_queue,
        order_fairness: options.order_fairness,
        polling_interval: options.polling_interval,
        run: run_options(&options.task),
        program: None,
        settings,
    })
    .await?;
    Ok(status)
}

/// What a task gets from the command line, whichever way it is started.
fn run_options(options: &TaskArguments) -> RunOptions {
    RunOptions {
        optimization: options.optimization,
        log_level: Some(options.log_level.name().to_owned()),
        ..RunOptions::default()
    }
}

pub(crate) async fn execute(options: ExecuteArguments, mut sources: Sources) -> anyhow::Result<i32> {
    sources.overrides.extend(options.task.overrides());
    let settings = Settings::load(&sources)?;
    let status = clearml_task_runner::execute(clearml_task_runner::ExecuteOptions {
        task: options.id,
        clone: options.clone,
        disable_monitoring: options.disable_monitoring,
        full_monitoring: options.full_monitoring,
        require_queue: options.require_queue,
        log_file: options.log_file,
        run: run_options(&options.task),
        settings,
    })
    .await?;
    Ok(status)
}

pub(crate) async fn runner(run: PathBuf) -> anyhow::Result<i32> {
    let exit = clearml_task_runner::run(run).await?;
    Ok(exit.code())
}

pub(crate) async fn server(options: ServerArguments) -> anyhow::Result<i32> {
    // Installed before the server is announced, so that nobody can stop it too early to be graceful.
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let server = Server::start(ServerOptions {
        host: options.host,
        port: options.port,
        files_port: options.files_port,
        faults: options.faults,
        allow_remote: options.allow_remote,
        allowed_hosts: options.allowed_host,
        ..ServerOptions::new(options.data)
    })
    .await
    .map_err(|error| match error {
        ServerError::NotLoopback(_) => anyhow::Error::new(error).context("--host needs --allow-remote"),
        other => other.into(),
    })?;
    print_usage(&server);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    server.shutdown().await;
    Ok(0)
}

fn print_usage(server: &Server) {
    let config = server.config_path().display();
    println!("ClearML API server   {}", server.api_url());
    println!("ClearML file server  {}", server.files_url());
    println!();
    println!("The credentials are in {config}. To use this server from any ClearML client:");
    println!();
    println!("    export CLEARML_CONFIG_FILE={config}");
    println!("    clearml-agent daemon --queue default --create-queue --foreground");
    println!();
    println!("Ctrl-C stops the server; its data stay.");
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
