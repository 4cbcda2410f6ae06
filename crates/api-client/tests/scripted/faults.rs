//! Which fault is waited out, which is told, and what is known afterwards.

use std::io::Write as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clearml_api_client::{ApiError, Call, Client, Interruption, LogEvent, QueuesQuery, Retry, StatusChange};
use clearml_task_model::{QueueId, TaskId};
use serde_json::{Value, json};

use crate::server::{Server, Step};

fn faults() -> Vec<(&'static str, Step)> {
    vec![
        ("429", Step::error(429, 0, "slow down")),
        ("502", Step::html(502)),
        ("503", Step::html(503)),
        ("504", Step::html(504)),
        ("509", Step::html(509)),
        ("HTML 200", Step::html(200)),
        ("no meta", Step::http(200, "application/json", &[], b"{}")),
        ("empty 200", Step::http(200, "application/json", &[], b"")),
        ("truncated", Step::truncated()),
        ("cut JSON", Step::cut_json()),
        ("closed", Step::Close),
        ("reset", Step::Reset),
        ("silence", Step::Hang),
    ]
}

#[tokio::test]
async fn idempotent_calls_outlast_every_transient_fault() {
    let server = Server::start().await;
    let client = server.client().await;
    server.script(faults().into_iter().map(|(_, step)| step));
    server.script([Step::ok(json!({"queues": [{"id": "q1", "name": "gpu"}]}))]);
    let queues = client.queues_get_all(&QueuesQuery::default()).await.unwrap();
    assert_eq!(queues[0].name.as_deref(), Some("gpu"));
    assert_eq!(server.calls().len(), faults().len() + 1);
    assert_eq!(server.logins().len(), 1);
}

#[tokio::test]
async fn an_internal_error_and_a_refusal_are_told_at_once() {
    let server = Server::start().await;
    let client = server.client().await;
    for (step, code, transient) in [
        (Step::error(500, 100, "general data error"), (500, 100), true),
        (Step::error(400, 701, "invalid queue id"), (400, 701), false),
        (Step::error(404, 0, "no such endpoint"), (404, 0), false),
        (Step::html(413), (413, 0), false),
    ] {
        server.script([step]);
        let before = server.calls().len();
        let error = client
            .queues_get_by_id(&QueueId::new("q"), None)
            .await
            .unwrap_err();
        assert_eq!((error.code(), error.is_transient()), (Some(code), transient));
        assert_eq!(error.is_missing_endpoint(), code.0 == 404);
        assert_eq!(server.calls().len(), before + 1);
    }
}

#[tokio::test]
async fn retry_after_is_honoured() {
    let server = Server::start().await;
    let client = server.client().await;
    let soon = httpdate::fmt_http_date(std::time::SystemTime::now() + Duration::from_secs(2));
    server.script([
        Step::http(429, "text/plain", &["Retry-After: 1"], b"slow down"),
        Step::http(503, "text/plain", &[&format!("Retry-After: {soon}")], b"soon"),
    ]);
    let started = Instant::now();
    client.queues_get_all(&QueuesQuery::default()).await.unwrap_err(); // the default answer has no list
    assert!(
        started.elapsed() >= Duration::from_secs(1),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(server.calls().len(), 3);
}

#[tokio::test]
async fn a_deadline_ends_the_waiting() {
    let server = Server::start().await;
    let client = server.client().await;
    server.script(std::iter::repeat_n(Step::error(503, 0, "away"), 1000));
    let call = Call::new("tasks.get_all")
        .retry(Retry::Idempotent)
        .deadline(Duration::from_millis(400));
    let started = Instant::now();
    let error = client.call::<Value>(call).await.unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(3));
    // The last attempt may have been cut short by the deadline itself.
    assert!(error.is_transient(), "{error:?}");
    assert!(server.calls().len() > 3);
}

/// `(fault, certainly not applied)`
fn outcomes() -> Vec<(&'static str, Step, bool)> {
    let sure = ["429", "503", "509"];
    faults()
        .into_iter()
        .map(|(name, step)| (name, step, sure.contains(&name)))
        .chain([
            ("500", Step::error(500, 100, "half of it"), false),
            ("400", Step::error(400, 131, "none added"), true),
            ("404", Step::error(404, 0, "no such call"), true),
        ])
        .collect()
}

async fn pop(client: &Client) -> Option<ApiError> {
    client
        .queues_get_next_task(&QueueId::new("q"), Some(&TaskId::new("t")))
        .await
        .err()
}

async fn append(client: &Client) -> Option<ApiError> {
    client
        .events_add_batch(&[LogEvent::new(&TaskId::new("t"), "INFO", "w", "hello", 1)])
        .await
        .err()
}

#[tokio::test]
async fn calls_without_acknowledgement_are_sent_once_and_say_what_is_known() {
    for (name, step, sure) in outcomes() {
        let server = Server::start().await;
        let client = server.client().await;
        server.script([step.clone(), step]);
        for number in 1..=2 {
            let error = if number == 1 {
                pop(&client).await
            } else {
                append(&client).await
            };
            let error = error.unwrap_or_else(|| panic!("{name} is an error"));
            assert_eq!(server.calls().len(), number, "{name}: sent more than once");
            assert_eq!(error.was_not_applied(), sure, "{name}: {error:?}");
            assert_eq!(
                matches!(error, ApiError::Ambiguous { .. }),
                !sure,
                "{name}: {error:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_refused_connection_or_token_is_certainly_not_applied() {
    let server = Server::start().await;
    let client = server.client().await;
    server.script([Step::error(401, 30, "expired"), Step::error(401, 30, "expired")]);
    let error = append(&client).await.unwrap();
    assert!(
        matches!(error, ApiError::Unauthorized { .. }) && error.was_not_applied(),
        "{error:?}"
    );

    // A 401 is no outcome: the batch goes out again with the new token.
    server.script([
        Step::error(401, 30, "expired"),
        Step::ok(json!({"added": 1, "errors": 0, "errors_info": {}})),
    ]);
    let event = LogEvent::new(&TaskId::new("t"), "INFO", "w", "hello", 1);
    assert_eq!(client.events_add_batch(&[event]).await.unwrap().added, 1);

    server.script([Step::Close]);
    assert!(matches!(
        pop(&client).await,
        Some(ApiError::Ambiguous {
            cause: Interruption::Disconnected,
            ..
        })
    ));
    server.stop();
    tokio::time::sleep(Duration::from_millis(20)).await;
    let error = append(&client).await.unwrap();
    assert!(
        matches!(error, ApiError::Connect { .. }) && error.was_not_applied() && error.is_transient(),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_repetition_that_finds_the_work_done_is_a_success() {
    let server = Server::start().await;
    let client = server.client().await;
    let (task, queue, change) = (TaskId::new("t"), QueueId::new("q"), StatusChange::default());
    let already = || Step::error(400, 706, "already in queue");
    server.script([Step::Close, already()]);
    client.tasks_enqueue(&task, &queue, &change).await.unwrap();
    // Refused for certain first, so that the second answer is news and not an echo.
    server.script([Step::error(503, 0, "away"), already()]);
    assert!(
        client
            .tasks_enqueue(&task, &queue, &change)
            .await
            .unwrap_err()
            .is_code(400, 706)
    );
    server.script([Step::truncated(), Step::error(400, 703, "not in queue")]);
    client.queues_remove_task(&queue, &task).await.unwrap();
}

#[derive(Clone, Default)]
pub(crate) struct Lines(pub(crate) Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn an_outage_is_reported_once_and_so_is_its_end() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::INFO)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let server = Server::start().await;
    let client = server.client().await;
    server.script(std::iter::repeat_n(Step::error(503, 0, "away"), 10));
    let _: Value = client
        .call(Call::new("tasks.get_all").retry(Retry::Idempotent))
        .await
        .unwrap();
    let _: Value = client
        .call(Call::new("tasks.get_all").retry(Retry::Idempotent))
        .await
        .unwrap();
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let reported: Vec<&str> = text.lines().collect();
    assert_eq!(reported.len(), 2, "{text}");
    assert!(
        reported[0].contains("WARN") && reported[0].contains("503"),
        "{text}"
    );
    assert!(
        reported[1].contains("INFO") && reported[1].contains("well again"),
        "{text}"
    );
}

#[tokio::test]
async fn an_answer_above_the_limit_is_not_read() {
    let server = Server::start().await;
    let mut options = server.options();
    options.max_response_bytes = 10_000;
    let client = Client::new(options).unwrap();
    client.login().await.unwrap();
    server.script([Step::ok(json!({"filler": "x".repeat(20_000)}))]);
    let error = client
        .call::<Value>(Call::new("tasks.get_all").retry(Retry::Idempotent))
        .await
        .unwrap_err();
    assert!(
        matches!(error, ApiError::TooLarge { limit: 10_000, .. }) && !error.is_transient(),
        "{error:?}"
    );

    // The limit is about what it becomes, not about what travels.
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    let body = json!({"meta": {"result_code": 200}, "data": {"filler": "x".repeat(9_000)}}).to_string();
    gzip.write_all(body.as_bytes()).unwrap();
    let small = gzip.finish().unwrap();
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    bomb.write_all(&vec![b' '; 5_000_000]).unwrap();
    let bomb = bomb.finish().unwrap();
    let headers = ["Content-Encoding: gzip"];
    server.script([
        Step::http(200, "application/json", &headers, &small),
        Step::http(200, "application/json", &headers, &bomb),
    ]);
    let good: Value = client.call(Call::new("tasks.get_all")).await.unwrap();
    assert_eq!(good["filler"].as_str().map(str::len), Some(9_000));
    let error = client
        .call::<Value>(Call::new("tasks.get_all"))
        .await
        .unwrap_err();
    assert!(matches!(error, ApiError::TooLarge { .. }), "{error:?}");
}
