//! No secret is ever shown: not by errors, not by `Debug`, not by logs at any level.

use clearml_api_client::{Client, HyperParamItem, ReplaceHyperParams};
use clearml_support::secret::Secret;
use clearml_task_model::TaskId;
use serde_json::json;

use crate::faults::Lines;
use crate::server::{SECRET, Server, Step};

#[tokio::test]
async fn secrets_show_nowhere() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);

    let server = Server::start().await;
    let mut options = server.options();
    options.api_server = server.url.replace("http://", "http://user:canary-url@");
    options.headers = vec![("X-Key".to_owned(), Secret::new("canary-header"))];
    let mut said = format!("{options:?}");
    let client = Client::new(options).unwrap();
    client.login().await.unwrap();
    let token = client.token().unwrap().expose().to_owned();
    let basic = server.logins()[0]
        .header("authorization")
        .unwrap()
        .replace("Basic ", "");

    // A gateway that quotes the whole request back.
    let quote = format!("sent: Basic {basic}, Bearer {token}, X-Key: canary-header, {SECRET}");
    let body = json!({"new": {"secret_key": "canary-new"}, "quote": quote});
    server.script([
        Step::error(400, 12, &quote),
        Step::http(502, "text/html", &[], quote.as_bytes()),
        Step::http(200, "text/html", &[], quote.as_bytes()),
        Step::http(
            302,
            "text/html",
            &["Location: http://u:canary-url@elsewhere/"],
            b"",
        ),
        Step::ok(json!({"credentials": {"access_key": "A", "secret_key": "canary-new"}})),
        Step::ok(body),
    ]);
    let task = TaskId::new("t");
    for _ in 0..4 {
        let error = client
            .tasks_create(json!({"name": "n", "type": "t"}))
            .await
            .unwrap_err();
        said.push_str(&format!("{error} {error:?}"));
    }
    let made = client.auth_create_credentials(None).await.unwrap();
    said.push_str(&format!("{made:?} {client:?} {:?}", client.session()));
    let _ = client
        .tasks_edit(
            &task,
            true,
            json!({"container": {"arguments": "-e PASSWORD=canary-env -it"}}),
        )
        .await;
    let item = HyperParamItem {
        section: "Environment".into(),
        name: "AWS_SECRET_ACCESS_KEY".into(),
        value: "canary-param".into(),
        ..HyperParamItem::default()
    };
    client
        .tasks_edit_hyper_params(&task, &[item], ReplaceHyperParams::None, true)
        .await
        .unwrap();

    said.push_str(&String::from_utf8(lines.0.lock().unwrap().clone()).unwrap());
    for secret in ["canary", SECRET, &token, &basic] {
        if let Some(at) = said.find(secret) {
            panic!(
                "{secret} in: {}",
                &said[at.saturating_sub(300)..(at + 100).min(said.len())]
            );
        }
    }
    // The log is there, with what is needed to find a call again.
    let trx = server.calls()[0].header("x-clearml-trx").unwrap().to_owned();
    let line = said
        .lines()
        .find(|line| line.contains("API call") && line.contains(&trx))
        .unwrap_or_else(|| panic!("no line about the first call in {said}"));
    for part in [
        "DEBUG",
        "method=POST",
        "endpoint=tasks.create",
        "status=400",
        "ms=",
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert!(
        said.contains("-e PASSWORD=**** -it"),
        "bodies are shown at trace level"
    );
}

#[tokio::test]
async fn content_is_shown_at_trace_level_only() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::DEBUG)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let server = Server::start().await;
    let client = server.client().await;
    server.script([Step::ok(json!({"id": "reply-content"}))]);
    client
        .tasks_create(json!({"name": "request-content"}))
        .await
        .unwrap();
    let said = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    assert!(
        said.contains("tasks.create") && !said.contains("-content"),
        "{said}"
    );
}
