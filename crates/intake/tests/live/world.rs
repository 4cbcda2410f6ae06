//! A server with one queue, and a journal in memory.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use clearml_api_client::{Auth, Client, ClientOptions, StatusChange, TasksQuery};
use clearml_intake::pop::{Before, Intent, Phase};
use clearml_intake::{ApiQueueServer, Journal, Popper, Timing};
use clearml_local_server::{Server, ServerOptions};
use clearml_task_model::{QueueId, Task, TaskId};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub(crate) struct World {
    pub(crate) server: Server,
    pub(crate) client: Client,
    pub(crate) queue: QueueId,
    _folder: tempfile::TempDir,
}

pub(crate) async fn world() -> World {
    world_of("basic").await
}

/// The same with a server of this feature set.
pub(crate) async fn world_of(feature_set: &str) -> World {
    let folder = tempfile::tempdir().unwrap();
    let options = ServerOptions {
        faults: true,
        feature_set: feature_set.to_owned(),
        ..ServerOptions::new(folder.path())
    };
    let server = Server::start(options).await.unwrap();
    let auth = Auth::Keys {
        access_key: server.access_key().into(),
        secret_key: server.secret_key().clone(),
    };
    let client = Client::new(ClientOptions::new(server.api_url(), auth)).unwrap();
    client.login().await.unwrap();
    let queue = client.queues_create("work", &[]).await.unwrap();
    World {
        server,
        client,
        queue,
        _folder: folder,
    }
}

impl World {
    /// A request to the switches of the server.
    async fn switch(&self, method: &str, path: &str, body: &str) -> String {
        let address = self.server.api_url().replace("http://", "");
        let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all((head + body).as_bytes()).await.unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.unwrap();
        assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
        reply
    }

    pub(crate) async fn fault(&self, fault: Value) {
        self.switch("POST", "/_faults", &fault.to_string()).await;
    }

    pub(crate) async fn calls(&self) -> String {
        self.switch("GET", "/_calls", "").await
    }

    pub(crate) async fn enqueued(&self, name: &str) -> TaskId {
        let task = self
            .client
            .tasks_create(json!({"name": name, "type": "training"}))
            .await
            .unwrap();
        self.client
            .tasks_enqueue(&task, &self.queue, &StatusChange::default())
            .await
            .unwrap();
        task
    }

    pub(crate) async fn waiting(&self) -> Vec<TaskId> {
        let queue = self.client.queues_get_by_id(&self.queue, None).await.unwrap();
        queue.entries.into_iter().map(|entry| entry.task).collect()
    }

    pub(crate) async fn task(&self, task: &TaskId) -> Task {
        let query = TasksQuery::one(task, ["status", "status_message", "runtime", "started"]);
        self.client.tasks_get_all(&query).await.unwrap().remove(0)
    }

    pub(crate) fn popper(&self, worker: &str) -> Popper<ApiQueueServer, Memory> {
        let timing = Timing {
            grace: Duration::from_millis(600),
            look_every: Duration::from_millis(100),
            ..Timing::default()
        };
        let server = ApiQueueServer::new(self.client.clone());
        Popper::new(server, Memory::new(worker), worker.into(), "host".into(), timing)
    }
}

/// A journal that can be told to fail at a phase.
#[derive(Clone)]
pub(crate) struct Memory {
    worker: String,
    pub(crate) intents: Rc<RefCell<BTreeMap<String, (Intent, Phase)>>>,
    pub(crate) fail_at: Rc<RefCell<Option<Phase>>>,
}

#[derive(Debug, thiserror::Error)]
#[error("no space left on device")]
pub(crate) struct Full;

impl Memory {
    fn new(worker: &str) -> Self {
        Self {
            worker: worker.to_owned(),
            intents: Rc::default(),
            fail_at: Rc::default(),
        }
    }
}

impl Journal for Memory {
    type Error = Full;

    fn begin(&self, task: &TaskId, queue: &QueueId, before: &Before) -> Result<Intent, Full> {
        if *self.fail_at.borrow() == Some(Phase::Popping) {
            return Err(Full);
        }
        let intent = Intent {
            run: clearml_support::id::hex32(),
            worker: self.worker.as_str().into(),
            task: task.clone(),
            queue: queue.clone(),
            before: before.clone(),
        };
        self.intents
            .borrow_mut()
            .insert(intent.run.clone(), (intent.clone(), Phase::Popping));
        Ok(intent)
    }

    fn advance(&self, intent: &Intent, phase: Phase) -> Result<(), Full> {
        if *self.fail_at.borrow() == Some(phase) {
            return Err(Full);
        }
        self.intents
            .borrow_mut()
            .insert(intent.run.clone(), (intent.clone(), phase));
        Ok(())
    }

    fn forget(&self, intent: &Intent) -> Result<(), Full> {
        self.intents.borrow_mut().remove(&intent.run);
        Ok(())
    }
}
