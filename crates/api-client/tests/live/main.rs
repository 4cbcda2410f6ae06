//! The client against the embedded server: real state behind every answer, and its fault switches.
#![expect(
    clippy::unwrap_used,
    reason = "a test's helpers end the test where something is wrong"
)]

mod losses;
mod services;

use std::time::Duration;

use clearml_api_client::{
    Auth, Call, Client, ClientOptions, CloneOptions, HyperParamItem, ProjectsQuery, QueuesQuery,
    ReplaceHyperParams, StatusChange, StatusReport, TasksQuery, WorkersQuery, exact,
};
use clearml_local_server::{Server, ServerOptions};
use clearml_support::secret::Secret;
use clearml_task_model::{QueueId, TaskId, TaskStatus, WorkerId};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

struct World {
    server: Server,
    client: Client,
    _folder: tempfile::TempDir,
}

fn options(server: &Server) -> ClientOptions {
    let auth = Auth::Keys {
        access_key: Secret::new(server.access_key()),
        secret_key: Secret::new(server.secret_key().expose()),
    };
    let mut options = ClientOptions::new(server.api_url(), auth);
    options.worker_header = "host-1".to_owned();
    options.retry.base = Duration::from_millis(10);
    options.retry.cap = Duration::from_millis(50);
    options
}

async fn world() -> World {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(ServerOptions {
        faults: true,
        ..ServerOptions::new(folder.path())
    })
    .await
    .unwrap();
    let client = Client::new(options(&server)).unwrap();
    client.login().await.unwrap();
    World {
        server,
        client,
        _folder: folder,
    }
}

impl World {
    async fn fault(&self, fault: Value) {
        let address = self.server.api_url().replace("http://", "");
        let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        let body = fault.to_string();
        let head = format!(
            "POST /_faults HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all((head + &body).as_bytes()).await.unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.unwrap();
        assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
    }

    async fn draft(&self) -> TaskId {
        self.client
            .tasks_create(json!({"name": "draft", "type": "training"}))
            .await
            .unwrap()
    }

    async fn queue(&self) -> QueueId {
        self.client
            .queues_create(&format!("queue {}", clearml_support::id::hex32()), &[])
            .await
            .unwrap()
    }

    async fn enqueued(&self) -> (TaskId, QueueId) {
        let (task, queue) = (self.draft().await, self.queue().await);
        self.client.tasks_enqueue(&task, &queue, &plain()).await.unwrap();
        (task, queue)
    }

    async fn waiting(&self, queue: &QueueId) -> Vec<TaskId> {
        let queue = self.client.queues_get_by_id(queue, None).await.unwrap();
        queue.entries.into_iter().map(|entry| entry.task).collect()
    }

    async fn status(&self, task: &TaskId) -> (TaskStatus, String) {
        let query = TasksQuery::one(task, ["status", "status_message"]);
        let task = self.client.tasks_get_all(&query).await.unwrap().remove(0);
        (task.status.unwrap(), task.status_message.unwrap_or_default())
    }
}

fn plain() -> StatusChange {
    StatusChange::default()
}

#[tokio::test]
async fn who_we_are_and_who_is_there() {
    let world = world().await;
    let session = world.client.session().unwrap();
    assert!(session.at_least(2, 34));
    assert_eq!(session.feature_set, "basic");
    world.client.debug_ping().await.unwrap();
    let user = world.client.users_get_current_user().await.unwrap();
    assert_eq!(Some(user.id), session.user);
    let info = world.client.server_info().await.unwrap();
    assert_eq!(info.version, Some(session.server_version));
    assert!(
        world
            .client
            .projects_get_all(&ProjectsQuery {
                name: Some(exact("none such")),
                ..Default::default()
            })
            .await
            .unwrap()
            .is_empty()
    );

    let mut wrong = options(&world.server);
    wrong.auth = Auth::Keys {
        access_key: Secret::new("WRONG"),
        secret_key: Secret::new("not the secret"),
    };
    let error = Client::new(wrong).unwrap().login().await.unwrap_err();
    assert!(error.is_code(401, 22), "{error}");
    let error = world
        .client
        .call::<Value>(Call::new("nosuch.thing"))
        .await
        .unwrap_err();
    assert!(error.is_missing_endpoint(), "{error}");
}

#[tokio::test]
async fn queues_hand_out_tasks_in_order_and_only_the_wanted_one() {
    let world = world().await;
    let client = &world.client;
    let default = client.queues_get_default().await.unwrap();
    assert_eq!(default.name.as_deref(), Some("default"));
    assert!(
        client
            .queues_get_by_id(&QueueId::new("default"), None)
            .await
            .unwrap_err()
            .is_code(400, 701)
    );
    let (first, queue) = world.enqueued().await;
    let second = world.draft().await;
    client.tasks_enqueue(&second, &queue, &plain()).await.unwrap();
    assert_eq!(world.waiting(&queue).await, [first.clone(), second.clone()]);
    assert!(
        client
            .tasks_enqueue(&second, &queue, &plain())
            .await
            .unwrap_err()
            .is_code(400, 706)
    );

    assert!(
        client
            .queues_get_next_task(&queue, Some(&second))
            .await
            .unwrap()
            .is_none()
    );
    assert_eq!(world.waiting(&queue).await.len(), 2);
    client.queues_move_task_to_front(&queue, &second).await.unwrap();
    let popped = client
        .queues_get_next_task(&queue, Some(&second))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(popped.task, second);
    client.queues_add_task(&queue, &second).await.unwrap();
    assert_eq!(
        client
            .queues_get_next_task(&queue, None)
            .await
            .unwrap()
            .unwrap()
            .task,
        first
    );
    client.queues_remove_task(&queue, &second).await.unwrap();
    assert!(
        client
            .queues_remove_task(&queue, &second)
            .await
            .unwrap_err()
            .is_code(400, 703)
    );
    assert!(client.queues_get_next_task(&queue, None).await.unwrap().is_none());
    assert!(
        client
            .queues_get_next_task(&QueueId::new("none"), None)
            .await
            .unwrap_err()
            .is_code(400, 701)
    );

    let name = client
        .queues_get_by_id(&queue, Some(1))
        .await
        .unwrap()
        .name
        .unwrap();
    let query = QueuesQuery {
        name: Some(exact(&name)),
        only_fields: vec!["id".into()],
        ..Default::default()
    };
    let found = client.queues_get_all(&query).await.unwrap();
    assert_eq!(
        found.iter().map(|queue| queue.id.clone()).collect::<Vec<_>>(),
        [Some(queue)]
    );
    assert!(
        client
            .queues_create(&name, &[])
            .await
            .unwrap_err()
            .is_code(400, 801)
    );
}

#[tokio::test]
async fn a_task_runs_is_asked_to_stop_and_ends() {
    let world = world().await;
    let client = &world.client;
    let (task, queue) = world.enqueued().await;
    let worker = WorkerId::new("host:0");
    client
        .workers_register(&worker, std::slice::from_ref(&queue), None)
        .await
        .unwrap();
    client
        .queues_get_next_task(&queue, Some(&task))
        .await
        .unwrap()
        .unwrap();
    let dequeued = client
        .tasks_dequeue(&task, Some(&TaskStatus::InProgress), &plain())
        .await
        .unwrap();
    assert_eq!(dequeued.updated, 1);
    client
        .tasks_started(&task, &StatusChange::reason("worker started execution").force())
        .await
        .unwrap();
    let report = StatusReport {
        worker: worker.clone(),
        timestamp_ms: clearml_support::time::now_ms(),
        task: Some(task.clone()),
        queue: Some(queue.clone()),
        queues: vec![queue.clone()],
        tags: None,
        machine_stats: Some(json!({"cpu_usage": [12.5], "memory_free": 1000})),
        is_daemon: true,
    };
    client.workers_status_report(&report).await.unwrap();
    client.tasks_ping(&task).await.unwrap();
    let workers = client
        .workers_get_all(&WorkersQuery {
            worker_pattern: Some("host:*".into()),
            ..Default::default()
        })
        .await
        .unwrap();
    assert_eq!(workers[0].id, worker);
    assert_eq!(
        workers[0].task.as_ref().unwrap().id.as_deref(),
        Some(task.as_str())
    );
    assert_eq!(workers[0].queues[0].id.as_deref(), Some(queue.as_str()));

    client
        .tasks_stop(&task, &StatusChange::reason("abort request"))
        .await
        .unwrap();
    let (status, message) = world.status(&task).await;
    assert_eq!((status, message.as_str()), (TaskStatus::InProgress, "stopping"));
    client
        .tasks_stopped(&task, &StatusChange::reason("aborted").message("by host:0"))
        .await
        .unwrap();
    assert_eq!(
        world.status(&task).await,
        (TaskStatus::Stopped, "by host:0".to_owned())
    );
    client.tasks_reset(&task, false).await.unwrap();
    client.tasks_started(&task, &plain()).await.unwrap();
    client.tasks_completed(&task, &plain()).await.unwrap();
    assert!(
        client
            .tasks_failed(&task, &plain())
            .await
            .unwrap_err()
            .is_code(400, 110)
    );
    assert!(
        client
            .tasks_started(&TaskId::new("none"), &plain())
            .await
            .unwrap_err()
            .is_code(400, 10)
    );
    client.workers_unregister(&worker).await.unwrap();
    assert!(
        client
            .workers_get_all(&WorkersQuery::default())
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn edits_merge_as_documented() {
    let world = world().await;
    let client = &world.client;
    let task = world.draft().await;
    client
        .tasks_edit(
            &task,
            false,
            json!({"script": {"repository": "r", "branch": "b"}}),
        )
        .await
        .unwrap();
    client
        .tasks_edit(
            &task,
            false,
            json!({"script": {"branch": "c"}, "runtime": {"a": 1}}),
        )
        .await
        .unwrap();
    client
        .tasks_edit_runtime(
            &task,
            Map::from_iter([("b".to_owned(), json!({"run": 2}))]),
            &["a"],
        )
        .await
        .unwrap();
    client
        .tasks_set_requirements(&task, json!({"pip": "numpy==2.0"}))
        .await
        .unwrap();
    let item = |section: &str, name: &str| HyperParamItem {
        section: section.into(),
        name: name.into(),
        value: "5".into(),
        ..HyperParamItem::default()
    };
    client
        .tasks_edit_hyper_params(&task, &[item("Args", "lr")], ReplaceHyperParams::None, false)
        .await
        .unwrap();
    client.tasks_started(&task, &plain()).await.unwrap();
    let refused = client
        .tasks_edit_hyper_params(&task, &[item("Args", "x")], ReplaceHyperParams::All, false)
        .await;
    assert!(refused.unwrap_err().is_code(400, 110));
    client
        .tasks_edit_hyper_params(
            &task,
            &[item("properties", "p")],
            ReplaceHyperParams::Section,
            false,
        )
        .await
        .unwrap();
    client
        .tasks_update(&task, json!({"name": "renamed"}))
        .await
        .unwrap();

    let whole = client.tasks_get_by_id(&task).await.unwrap();
    let script = whole.script.unwrap();
    assert_eq!(
        (script.repository.as_deref(), script.branch.as_deref()),
        (Some("r"), Some("c"))
    );
    assert_eq!(Value::Object(whole.runtime), json!({"b": {"run": 2}}));
    assert_eq!(whole.name.as_deref(), Some("renamed"));
    let params = client
        .tasks_get_hyper_params(std::slice::from_ref(&task))
        .await
        .unwrap()
        .remove(0);
    let names: Vec<_> = params
        .hyperparams
        .iter()
        .map(|item| (item.section.as_str(), item.name.as_str()))
        .collect();
    assert_eq!(names, [("Args", "lr"), ("properties", "p")]);
    let copy = client
        .tasks_clone(
            &task,
            &CloneOptions {
                name: Some("a copy".into()),
                ..Default::default()
            },
        )
        .await
        .unwrap();
    assert_eq!(
        client.tasks_get_by_id(&copy).await.unwrap().name.as_deref(),
        Some("a copy")
    );
    assert!(
        client
            .tasks_get_by_id(&TaskId::new("none"))
            .await
            .unwrap_err()
            .is_code(400, 101)
    );
}
