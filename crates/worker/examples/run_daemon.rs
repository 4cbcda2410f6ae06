//! Puts a task into a queue of an embedded server, and lets a daemon take it from there to its end.
//!
//! `cargo run -p clearml-worker --example run_daemon`
//!
//! Started as `run_daemon runner --run DIR` or `run_daemon shim --run DIR` it is the private command of that
//! name, and as `run_daemon daemon CONFIG STATE WORKER QUEUE…` it is a daemon alone, which is how the tests
//! get one as a process of its own. `EXAMPLE_SERVICES=N` makes it run N tasks at the same time, `EXAMPLE_OWNER` makes it
//! work in the names of their owners, and `EXAMPLE_GRACE` says how many seconds a task gets to end.

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use clearml_agent_config::{Settings, Sources};
use clearml_api_client::{Client, StatusChange};
use clearml_local_server::{Server, ServerOptions};
use clearml_task_runner::settings::client_options;
use clearml_task_runner::{RunnerOptions, run, run_many, shim_main, umask};
use clearml_worker::{DaemonOptions, ServicesMode, daemon};
use serde_json::json;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [] => runtime()?.block_on(demonstrate()),
        ["shim", _, folder] => {
            umask::make_private();
            std::process::exit(shim_main(Path::new(folder)))
        }
        ["runner", "--services", folder] => {
            umask::make_private();
            let exit = runtime()?.block_on(run_many(Path::new(folder), RunnerOptions::default()))?;
            std::process::exit(exit.code())
        }
        ["runner", _, folder] => {
            umask::make_private();
            let exit = runtime()?.block_on(run(folder.into()))?;
            std::process::exit(exit.code())
        }
        ["daemon", config, state, worker, ref queues @ ..] => {
            umask::make_private();
            tracing_subscriber::fmt()
                .with_writer(std::io::stderr)
                .with_ansi(false)
                .init();
            let options = options(Path::new(config), Path::new(state), worker, queues)?;
            let code = runtime()?.block_on(daemon(options)).unwrap_or_else(|e| {
                eprintln!("{e}");
                1
            });
            std::process::exit(code)
        }
        _ => Err(format!("arguments that make no sense: {arguments:?}").into()),
    }
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

fn options(
    config: &Path,
    state: &Path,
    worker: &str,
    queues: &[&str],
) -> Result<DaemonOptions, Box<dyn Error>> {
    let grace: Option<f64> = std::env::var("EXAMPLE_GRACE")
        .ok()
        .and_then(|seconds| seconds.parse().ok());
    let overrides = [
        ("agent.state_dir", json!(state)),
        ("agent.worker_id", json!(worker)),
        ("agent.abort_grace_sec", json!(grace.unwrap_or(0.5))),
        ("agent.status_poll_interval_sec", json!(0.5)),
    ];
    let sources = Sources {
        config_file: Some(config.to_owned()),
        overrides: overrides
            .map(|(key, value)| (key.to_owned(), value, "example".to_owned()))
            .into(),
        ..Sources::from_process()
    };
    let settings = Settings::load(&sources)?;
    let services = std::env::var("EXAMPLE_SERVICES").ok();
    Ok(DaemonOptions {
        services: services.map(|limit| ServicesMode {
            limit: limit.parse().ok(),
        }),
        use_owner_token: std::env::var_os("EXAMPLE_OWNER").is_some(),
        queues: queues.iter().map(|name| (*name).to_owned()).collect(),
        ..DaemonOptions::new(sources, settings)
    })
}

async fn demonstrate() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let server = Server::start(ServerOptions::new(folder.path().join("server"))).await?;
    let worker = format!("example:{}", std::process::id());
    let options = options(
        server.config_path(),
        &folder.path().join("state"),
        &worker,
        &["default"],
    )?;

    let client = Client::new(client_options(&options.settings)?)?;
    client.login().await?;
    let queue = client.queues_get_default().await?;
    let queue = queue.id.ok_or("the server has no default queue")?;
    let script =
        json!({"binary": "/bin/sh", "entry_point": "hello.sh", "diff": "echo hello from $CLEARML_TASK_ID\n"});
    let task = client
        .tasks_create(json!({"name": "an example", "type": "testing", "script": script}))
        .await?;
    client
        .tasks_enqueue(&task, &queue, &StatusChange::default())
        .await?;

    let ended = async {
        loop {
            let task = client.tasks_get_by_id(&task).await?;
            if task.status.as_ref().is_some_and(|status| status.is_final()) {
                return Ok::<_, Box<dyn Error>>(task);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        code = daemon(options) => return Err(format!("the daemon ended with {code:?}").into()),
        task = ended => println!("the task has ended: {:?}", task?.status),
    }
    for event in client.events_get_task_log(&task, None, false, 100).await?.events {
        print!("{:>7} {}", event.level, event.msg);
        if !event.msg.ends_with('\n') {
            println!();
        }
    }
    server.shutdown().await;
    Ok(())
}
