//! Follows one task: lists the queues, creates a task, enqueues it, follows its status and console,
//! and aborts it.
//!
//! Uses the server in `CLEARML_API_HOST` (with `CLEARML_API_ACCESS_KEY` and
//! `CLEARML_API_SECRET_KEY`), or else an embedded one of its own.

use std::time::Duration;

use anyhow::Context as _;
use clearml_api_client::{
    Auth, Call, Client, ClientOptions, LogEvent, QueuesQuery, StatusChange, TasksQuery,
};
use clearml_local_server::{Server, ServerOptions};
use clearml_support::secret::Secret;
use clearml_task_model::{TaskId, TaskStatus};
use serde_json::{Value, json};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (api_server, access_key, secret_key, server) = match std::env::var("CLEARML_API_HOST") {
        Ok(host) => {
            let key = |name: &str| std::env::var(name).with_context(|| format!("{name} is not set"));
            (
                host,
                key("CLEARML_API_ACCESS_KEY")?,
                key("CLEARML_API_SECRET_KEY")?,
                None,
            )
        }
        Err(_) => {
            let server = Server::start(ServerOptions::new(folder.path())).await?;
            let keys = (
                server.access_key().to_owned(),
                server.secret_key().expose().to_owned(),
            );
            (server.api_url(), keys.0, keys.1, Some(server))
        }
    };
    let auth = Auth::Keys {
        access_key: Secret::new(access_key),
        secret_key: Secret::new(secret_key),
    };
    follow(&Client::new(ClientOptions::new(api_server, auth))?).await?;
    if let Some(server) = server {
        server.shutdown().await;
    }
    Ok(())
}

async fn follow(client: &Client) -> anyhow::Result<()> {
    let session = client.login().await?;
    println!(
        "{} runs version {}, API {}",
        client.server(),
        session.server_version,
        session.api_version
    );
    for queue in client.queues_get_all(&QueuesQuery::default()).await? {
        println!(
            "queue {}: {} waiting",
            queue.name.unwrap_or_default(),
            queue.entries.len()
        );
    }
    let task = client
        .tasks_create(json!({"name": "follow me", "type": "testing"}))
        .await?;
    let queue = client.queues_create(&format!("follow_task {task}"), &[]).await?;
    client
        .tasks_enqueue(&task, &queue, &StatusChange::reason("an example"))
        .await?;
    println!("task {task} is {:?}", status(client, &task).await?);

    // What an agent would do: take the task, start it, write to its console.
    let entry = client
        .queues_get_next_task(&queue, Some(&task))
        .await?
        .context("somebody else took the task")?;
    client
        .tasks_started(&entry.task, &StatusChange::default())
        .await?;
    let now = clearml_support::time::now_ms();
    let lines: Vec<_> = (0..3)
        .map(|step| LogEvent::new(&task, "INFO", "example", format!("step {step}"), now + step))
        .collect();
    client.events_add_batch(&lines).await?;
    println!("task {task} is {:?}", status(client, &task).await?);

    // What a user would do: watch the console from the beginning, then abort.
    let mut seen = Some(0);
    for _ in 0..2 {
        let log = client.events_get_task_log(&task, seen, false, 100).await?;
        seen = log.events.last().map_or(seen, |event| Some(event.timestamp));
        log.events.iter().for_each(|event| println!("  {}", event.msg));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    client
        .tasks_stop(&task, &StatusChange::reason("seen enough"))
        .await?;
    println!("task {task} is {:?}", status(client, &task).await?);
    // A call without a method of its own.
    client
        .call::<Value>(Call::new("queues.delete").body(json!({"queue": queue})))
        .await?;
    Ok(())
}

async fn status(client: &Client, task: &TaskId) -> anyhow::Result<Option<TaskStatus>> {
    let query = TasksQuery::one(task, ["status"]);
    Ok(client
        .tasks_get_all(&query)
        .await?
        .pop()
        .and_then(|task| task.status))
}
