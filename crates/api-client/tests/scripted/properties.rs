//! Whatever a server answers, the client neither panics nor hangs nor fills the memory. `PROPTEST_CASES`
//! asks for more cases than the few of an ordinary run.

use std::time::Duration;

use clearml_api_client::{
    ApiError, Axis, Call, Client, EventsQuery, ModelId, ProjectsQuery, QueuesQuery, Selection, StatusChange,
    TasksAction, TasksQuery, WorkersQuery,
};
use clearml_task_model::{QueueId, TaskId, WorkerId};
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use tokio::runtime::Runtime;

use crate::server::{Server, Step};

/// More than any single answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

fn config() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|text| text.parse().ok());
    ProptestConfig {
        cases: cases.unwrap_or(40),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

fn world() -> (Runtime, Server, Client) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (server, client) = runtime.block_on(async {
        let server = Server::start().await;
        let mut options = server.options();
        options.max_response_bytes = 64 * 1024;
        options.request_timeout = Duration::from_millis(300);
        let client = Client::new(options).unwrap();
        client.login().await.unwrap();
        (server, client)
    });
    (runtime, server, client)
}

/// Names that replies have, so that arbitrary data gets past the first look.
const NAMES: [&str; 24] = [
    "tasks",
    "task",
    "queues",
    "queue",
    "workers",
    "projects",
    "models",
    "model",
    "events",
    "entry",
    "id",
    "name",
    "entries",
    "succeeded",
    "failed",
    "error",
    "codes",
    "metrics",
    "x",
    "y",
    "hyperparams",
    "status",
    "tags",
    "added",
];

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        let name = prop_oneof![4 => prop::sample::select(&NAMES[..]).prop_map(str::to_owned), 1 => ".{0,6}"];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((name, inner), 0..6).prop_map(|pairs| Value::Object(Map::from_iter(pairs))),
        ]
    })
}

async fn read_everything(client: &Client, server: &Server, data: &Value) {
    macro_rules! read {
        ($($call:expr),* $(,)?) => {$(
            server.script([Step::ok(data.clone())]);
            let outcome = tokio::time::timeout(PATIENCE, $call).await.expect("an answer is read in time");
            if let Err(error) = outcome {
                assert!(matches!(error, ApiError::Data { .. }), "{error:?} for {data}");
            }
        )*};
    }
    let (task, queue, worker) = (TaskId::new("t"), QueueId::new("q"), WorkerId::new("w"));
    let tasks = [task.clone()];
    let change = StatusChange::default();
    read!(
        client.tasks_get_all(&TasksQuery::default()),
        client.tasks_get_by_id(&task),
        client.tasks_started(&task, &change),
        client.tasks_many(TasksAction::Stop, &tasks, Map::new()),
        client.tasks_get_hyper_params(&tasks),
        client.tasks_get_configurations(&tasks, &[]),
        client.queues_get_all(&QueuesQuery::default()),
        client.queues_get_by_id(&queue, None),
        client.queues_get_next_task_and_owner(&queue, None),
        client.queues_get_queue_metrics(&[], 0.0, 1.0, Duration::from_secs(1)),
        client.workers_get_all(&WorkersQuery::default()),
        client.workers_get_runtime_properties(&worker),
        client.projects_get_all(&ProjectsQuery::default()),
        client.models_get_all(&Selection::default()),
        client.models_get_by_id(&ModelId::new("m")),
        client.users_get_current_user(),
        client.events_get_task_log(&task, None, true, 1),
        client.events_get_task_events(&task, &EventsQuery::default()),
        client.events_scalar_metrics_iter_histogram(&task, 1, Axis::Iter),
        client.events_get_task_single_value_metrics(&tasks),
        client.auth_get_credentials(),
        client.auth_create_credentials(None),
        client.server_info(),
    );
}

#[test]
fn any_data_is_read_or_refused() {
    let (runtime, server, client) = world();
    proptest!(config(), |(data in any_json())| {
        runtime.block_on(read_everything(&client, &server, &data));
    });
}

#[test]
fn any_body_is_read_or_refused() {
    let (runtime, server, client) = world();
    let bodies = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..400),
        any_json().prop_map(|value| value.to_string().into_bytes()),
        any_json().prop_map(|meta| json!({"meta": meta, "data": {}}).to_string().into_bytes()),
        (0usize..5_000).prop_map(|depth| vec![b'['; depth]),
    ];
    let statuses = prop::sample::select(vec![200u16, 202, 204, 301, 400, 404, 415, 500, 502]);
    let headers = prop::sample::select(vec![
        "X-A: b",
        "Content-Encoding: gzip",
        "Location: /x",
        "Retry-After: -1",
    ]);
    proptest!(config(), |(body in bodies, status in statuses, header in headers)| {
        let step = Step::http(status, "application/json", &[header], &body);
        runtime.block_on(async {
            server.script([step]);
            let call = client.call::<Value>(Call::new("tasks.get_all"));
            let _ = tokio::time::timeout(PATIENCE, call).await.expect("an answer is judged in time");
        });
    });
}

#[test]
fn any_bytes_instead_of_http_are_an_error() {
    let (runtime, server, client) = world();
    let answers = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..600),
        prop::collection::vec(any::<u8>(), 0..200).prop_map(|tail| [
            &b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"[..],
            &tail
        ]
        .concat()),
        prop::collection::vec(any::<u8>(), 0..200).prop_map(|tail| [
            &b"HTTP/1.1 200 OK\r\nContent-Length: "[..],
            &tail
        ]
        .concat()),
    ];
    proptest!(config(), |(answer in answers)| {
        runtime.block_on(async {
            server.script([Step::RawThenClose(answer)]);
            let call = client.call::<Value>(Call::new("tasks.get_all"));
            let outcome = tokio::time::timeout(PATIENCE, call).await.expect("an answer is judged in time");
            assert!(outcome.is_err());
        });
    });
}

#[test]
fn any_token_is_used_or_refused() {
    let (runtime, server, _) = world();
    let tokens = prop_oneof![
        ".{0,60}",
        any_json().prop_map(|claims| crate::server::token_with(&claims, 1)),
        (any::<f64>(), any::<f64>(), ".{0,6}").prop_map(|(exp, iat, version)| {
            crate::server::token_with(&json!({"exp": exp, "iat": iat, "api_version": version}), 1)
        }),
    ];
    proptest!(config(), |(token in tokens)| {
        runtime.block_on(async {
            server.login_script([Step::ok(json!({ "token": token }))]);
            let client = Client::new(server.options()).unwrap();
            let outcome = tokio::time::timeout(PATIENCE, client.login()).await.expect("in time");
            if let Err(error) = outcome {
                assert!(matches!(error, ApiError::Protocol { .. }), "{error:?}");
            }
        });
    });
}

#[tokio::test]
async fn endless_heads_and_bodies_are_cut() {
    let server = Server::start().await;
    let mut options = server.options();
    options.max_response_bytes = 64 * 1024;
    let client = Client::new(options).unwrap();
    client.login().await.unwrap();
    let megabytes = vec![b'a'; 4 * 1024 * 1024];
    server.script([
        Step::RawThenClose([&b"HTTP/1.1 200 OK\r\n\r\n"[..], &megabytes].concat()),
        Step::RawThenClose([&b"HTTP/1.1 200 OK\r\nX-A: "[..], &megabytes].concat()),
    ]);
    let call = || client.call::<Value>(Call::new("tasks.get_all"));
    let error = call().await.unwrap_err();
    assert!(matches!(error, ApiError::TooLarge { .. }), "{error:?}");
    let error = call().await.unwrap_err();
    assert!(matches!(error, ApiError::Ambiguous { .. }), "{error:?}");
}
