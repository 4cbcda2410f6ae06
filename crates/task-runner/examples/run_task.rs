//! Runs a task of an embedded server from claim to final status, and shows what the server then has.
//!
//! `cargo run -p clearml-task-runner --example run_task`
//!
//! Started as `run_task runner --run DIR` or `run_task shim --run DIR` it is the private command of that
//! name, and as `run_task execute CONFIG TASK MODE STATE` it executes a task; which is how the tests get
//! processes of their own.

use std::error::Error;
use std::path::Path;

use clearml_agent_config::{Settings, Sources};
use clearml_api_client::{Client, StatusChange};
use clearml_local_server::{Server, ServerOptions};
use clearml_task_model::WorkerId;
use clearml_task_runner::settings::client_options;
use clearml_task_runner::{
    ExecuteOptions, NewRun, Phase, RunInputs, RunOptions, RunStore, RunnerOptions, execute, run, run_with,
    shim_main, umask,
};
use serde_json::json;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, command, config, task, mode, state] = arguments.as_slice()
        && command == "execute"
    {
        umask::make_private();
        let code = runtime()?.block_on(execute(execute_options(config, task, mode, state)?));
        std::process::exit(code.unwrap_or_else(|e| {
            eprintln!("{e}");
            1
        }));
    }
    if let [_, command, _, folder] = arguments.as_slice() {
        umask::make_private();
        match command.as_str() {
            "shim" => std::process::exit(shim_main(Path::new(folder))),
            "runner" => {
                let exit = runtime()?.block_on(run(folder.into()))?;
                std::process::exit(exit.code());
            }
            other => return Err(format!("unknown command {other}").into()),
        }
    }
    runtime()?.block_on(demonstrate())
}

fn execute_options(
    config: &str,
    task: &str,
    mode: &str,
    state: &str,
) -> Result<ExecuteOptions, Box<dyn Error>> {
    let overrides = [("agent.state_dir", "runs"), ("agent.venvs_dir", "venvs")].map(|(key, name)| {
        (
            key.to_owned(),
            json!(format!("{state}/{name}")),
            "example".to_owned(),
        )
    });
    let sources = Sources {
        config_file: Some(config.into()),
        overrides: overrides.into(),
        ..Sources::from_process()
    };
    let settings = Settings::load(&sources)?;
    let agent = &settings.agent;
    let made = || format!("{}:{}", agent.worker_name, std::process::id());
    let worker = agent.worker_id.clone().unwrap_or_else(made);
    Ok(ExecuteOptions {
        worker: worker.into(),
        task: task.to_owned(),
        clone: mode == "clone",
        disable_monitoring: mode == "silent",
        full_monitoring: mode == "full",
        require_queue: mode == "queued",
        log_file: (mode == "logged").then(|| format!("{state}/task.log").into()),
        machine: None,
        run: RunOptions::default(),
        settings,
    })
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

async fn demonstrate() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let server = Server::start(ServerOptions::new(folder.path().join("server"))).await?;
    let sources = Sources {
        config_file: Some(server.config_path().to_owned()),
        ..Sources::from_process()
    };
    let settings = Settings::load(&sources)?;
    let client = Client::new(client_options(&settings)?)?;

    let script =
        json!({"binary": "/bin/sh", "entry_point": "hello.sh", "diff": "echo hello from $CLEARML_TASK_ID\n"});
    let task = client
        .tasks_create(json!({"name": "an example", "type": "testing", "script": script}))
        .await?;
    client.tasks_started(&task, &StatusChange::default()).await?;

    let new = NewRun {
        task: task.clone(),
        queue: None,
        worker: WorkerId::new("example:0"),
    };
    let (run, _keeper) = RunStore::open(&folder.path().join("state"))?.create(new)?;
    run.write_inputs(
        &settings.effective_json(),
        &RunInputs::from_process(RunOptions::default()),
    )?;
    run.set_phase(Phase::Claimed)?;
    let options = RunnerOptions {
        detach: false,
        shim_program: std::env::current_exe()?,
        ..RunnerOptions::default()
    };
    let exit = run_with(run.path(), options).await?;

    for event in client.events_get_task_log(&task, None, false, 100).await?.events {
        print!("{:>7} {}", event.level, event.msg);
        if !event.msg.ends_with('\n') {
            println!();
        }
    }
    let ended = client.tasks_get_by_id(&task).await?;
    println!(
        "status {:?}, reason {:?}, runner {exit:?}",
        ended.status, ended.status_reason
    );
    server.shutdown().await;
    Ok(())
}
