//! Starts an embedded server and, for two seconds, a daemon that listens to its default queue.

use std::time::Duration;

use clearml_agent_config::{Settings, Sources};
use clearml_local_server::{Server, ServerOptions};
use clearml_task_runner::RunOptions;
use clearml_worker::{DaemonOptions, daemon};
use serde_json::json;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let server = Server::start(ServerOptions::new(folder.path().join("server"))).await?;
    let sources = Sources {
        config_file: Some(server.config_path().to_owned()),
        home: Some(folder.path().to_owned()),
        overrides: vec![
            (
                "agent.state_dir".into(),
                json!(folder.path().join("state")),
                "this example".into(),
            ),
            (
                "agent.worker_id".into(),
                json!(format!("example:{}", std::process::id())),
                "this example".into(),
            ),
        ],
        ..Sources::from_process()
    };
    let options = DaemonOptions {
        queues: vec!["default".into()],
        foreground: true,
        create_queue: false,
        order_fairness: false,
        polling_interval: None,
        run: RunOptions::default(),
        program: None,
        settings: Settings::load(&sources)?,
    };
    match tokio::time::timeout(Duration::from_secs(2), daemon(options)).await {
        Ok(ended) => println!("the daemon ended with exit code {}", ended?),
        Err(_) => println!("two seconds are over"),
    }
    server.shutdown().await;
    Ok(())
}
