//! Lists the queues of a server, creates a task, enqueues it, follows its console, and aborts it. The
//! server is an embedded one, so the example needs nothing and leaves nothing behind.

use anyhow::Context as _;
use clearml_api_client::{Auth, Client, ClientOptions, LogEvent, QueuesQuery, StatusChange};
use clearml_local_server::{Server, ServerOptions};
use clearml_task_model::QueueId;
use serde_json::json;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let server = Server::start(ServerOptions::new(folder.path())).await?;
    let auth = Auth::keys(server.access_key(), server.secret_key().expose());
    let client = Client::new(ClientOptions::new(server.api_url(), auth))?;
    for queue in client.queues_get_all(&QueuesQuery::default()).await? {
        println!("queue {:?}: {} waiting", queue.name, queue.entries.len());
    }
    let queue = client
        .queues_get_default()
        .await?
        .id
        .context("a queue without id")?;
    let task = client
        .tasks_create(json!({"name": "follow me", "type": "testing"}))
        .await?;
    client
        .tasks_enqueue(&task, &queue, &StatusChange::reason("an example"))
        .await?;
    let worker = tokio::spawn(pretend_to_be_a_worker(client.clone(), queue));
    let mut console = client.follow(&task);
    while let Some(event) = console.next().await? {
        println!("{}", event.msg);
        if event.msg == "step 3" {
            client
                .tasks_stop(&task, &StatusChange::reason("seen enough"))
                .await?;
        }
    }
    println!("the task is {:?}", console.status());
    worker.await??;
    server.shutdown().await;
    Ok(())
}

/// Takes a task out of the queue, starts it, and writes to its console.
async fn pretend_to_be_a_worker(client: Client, queue: QueueId) -> anyhow::Result<()> {
    let entry = client
        .queues_get_next_task(&queue, None)
        .await?
        .context("the queue is empty")?;
    client
        .tasks_started(&entry.task, &StatusChange::default())
        .await?;
    let now = clearml_support::time::now_ms();
    let lines: Vec<_> = (1..=3)
        .map(|step| LogEvent::new(&entry.task, "INFO", "example", format!("step {step}"), now + step))
        .collect();
    client.events_add_batch(&lines).await?;
    Ok(())
}
