//! Login, token life, 401.

use std::time::{Duration, Instant};

use base64::Engine as _;
use clearml_api_client::{ApiError, Auth, Call, Client, Retry, RetryPolicy};
use clearml_support::secret::Secret;
use serde_json::{Value, json};

use crate::server::{SECRET, Server, Step, token};

async fn ping(client: &Client) -> Result<Value, ApiError> {
    client
        .call(
            Call::new("tasks.get_all")
                .version("2.14")
                .retry(Retry::Idempotent),
        )
        .await
}

#[tokio::test]
async fn login_sends_the_keys_once_and_calls_send_the_token() {
    let server = Server::start().await;
    let client = Client::new(server.options()).unwrap();
    assert!(client.session().is_none() && client.token().is_none());
    let session = client.login().await.unwrap();
    assert!(session.at_least(2, 34));
    assert_eq!(
        (session.user.as_deref(), session.role.as_deref()),
        (Some("u1"), Some("admin"))
    );
    ping(&client).await.unwrap();

    let login = &server.logins()[0];
    let basic = base64::engine::general_purpose::STANDARD.encode(format!("AKEY:{SECRET}"));
    assert_eq!(
        (login.method.as_str(), login.path.as_str()),
        ("POST", "/auth.login")
    );
    assert_eq!(
        login.header("authorization"),
        Some(format!("Basic {basic}").as_str())
    );
    let call = &server.calls()[0];
    assert_eq!(call.path, "/v2.14/tasks.get_all");
    assert_eq!(
        call.header("authorization"),
        Some(format!("Bearer {}", token(1, 30 * 86_400)).as_str())
    );
    for (name, value) in [
        ("x-clearml-worker", "host-1"),
        ("x-trains-worker", "host-1"),
        ("x-clearml-agent", "agent/9"),
        ("x-trains-agent", "agent/9"),
        ("user-agent", "agent/9"),
        ("accept-encoding", "gzip"),
    ] {
        assert_eq!(call.header(name), Some(value), "{name}");
    }
    assert_eq!(server.logins().len(), 1);
}

#[tokio::test]
async fn a_call_logs_in_by_itself() {
    let server = Server::start().await;
    let client = Client::new(server.options()).unwrap();
    ping(&client).await.unwrap();
    assert!(client.session().is_some());
}

#[tokio::test]
async fn a_given_token_is_exchanged_and_its_life_can_be_asked_for() {
    let server = Server::start().await;
    let mut options = server.options();
    options.auth = Auth::Token(Secret::new("given-token"));
    options.token_expiration = Some(Duration::from_secs(60));
    let client = Client::new(options).unwrap();
    client.login().await.unwrap();
    let login = &server.logins()[0];
    assert_eq!(login.header("authorization"), Some("Bearer given-token"));
    assert_eq!(login.path, "/auth.login?expiration_sec=60");
    assert_eq!(client.token().unwrap().expose(), token(1, 30 * 86_400));
}

#[tokio::test]
async fn refused_keys_are_told_at_once_without_the_secret() {
    let server = Server::start().await;
    server.login_script([Step::error(
        401,
        22,
        &format!("Unauthorized (invalid credentials {SECRET})"),
    )]);
    let client = Client::new(server.options()).unwrap();
    let error = client.login().await.unwrap_err();
    assert!(error.is_code(401, 22) && !error.is_transient());
    let text = format!("{error} {error:?} {client:?}");
    assert!(
        text.contains("invalid credentials ****") && !text.contains(SECRET),
        "{text}"
    );
    assert_eq!(server.logins().len(), 1);
}

#[tokio::test]
async fn another_web_server_is_recognised() {
    for step in [
        Step::html(200),
        Step::http(200, "application/json", &[], b"{\"hello\":1}"),
        Step::ok(json!({})),
    ] {
        let server = Server::start().await;
        server.login_script([step]);
        let error = Client::new(server.options()).unwrap().login().await.unwrap_err();
        assert!(matches!(error, ApiError::Protocol { .. }), "{error:?}");
        assert!(
            error
                .to_string()
                .contains("api.api_server is probably misconfigured"),
            "{error}"
        );
        assert_eq!(server.logins().len(), 1, "waiting does not help");
    }
}

#[tokio::test]
async fn a_redirect_names_its_target() {
    let server = Server::start().await;
    server.login_script([Step::http(
        308,
        "text/plain",
        &["Location: https://elsewhere/auth.login"],
        b"",
    )]);
    let error = Client::new(server.options())
        .unwrap()
        .login()
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("redirects to https://elsewhere/auth.login"),
        "{error}"
    );
}

#[tokio::test]
async fn the_first_login_gives_up_unless_told_to_wait() {
    let server = Server::start().await;
    server.stop();
    tokio::task::yield_now().await;
    let client = Client::new(server.options()).unwrap();
    let started = Instant::now();
    // A call fails like the login does: nothing waits for ever before the first contact.
    let error = ping(&client).await.unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(5));
    assert!(error.was_not_applied() && error.is_transient());
    let text = error.to_string();
    assert!(
        text.contains("Connection refused") && text.contains("check api.api_server"),
        "{text}"
    );

    let server = Server::start().await;
    server.login_script([
        Step::error(503, 0, "starting"),
        Step::error(500, 0, "starting"),
        Step::Close,
        Step::html(502),
    ]);
    let mut options = server.options();
    options.retry = RetryPolicy {
        initial_retries: None,
        ..options.retry
    };
    Client::new(options).unwrap().login().await.unwrap();
    assert_eq!(server.logins().len(), 5);
}

#[tokio::test]
async fn after_a_401_the_call_is_repeated_once_with_the_new_token() {
    let server = Server::start().await;
    let client = server.client().await;
    server.script([Step::error(401, 30, "expired"), Step::ok(json!({"x": 1}))]);
    assert_eq!(ping(&client).await.unwrap(), json!({"x": 1}));
    let sent: Vec<_> = server
        .calls()
        .iter()
        .map(|call| call.header("authorization").unwrap().to_owned())
        .collect();
    assert!(
        sent[0].ends_with("token-1") && sent[1].ends_with("token-2"),
        "{sent:?}"
    );
    assert_eq!(server.logins().len(), 2);
}

#[tokio::test]
async fn a_second_401_is_the_answer() {
    let server = Server::start().await;
    let client = server.client().await;
    server.script([
        Step::error(401, 30, "expired"),
        Step::error(401, 1, "not for you"),
    ]);
    let error = ping(&client).await.unwrap_err();
    assert_eq!(error.code(), Some((401, 1)));
    assert!(error.was_not_applied());
    assert_eq!((server.logins().len(), server.calls().len()), (2, 2));
}

#[tokio::test]
async fn concurrent_401s_share_one_login() {
    let server = Server::start().await;
    let client = server.client().await;
    server.script(std::iter::repeat_n(Step::error(401, 30, "expired"), 8));
    let calls: Vec<_> = (0..8)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { ping(&client).await })
        })
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(server.calls().len(), 16);
    assert_eq!(server.logins().len(), 2);
}

#[tokio::test]
async fn a_token_past_half_its_life_is_replaced_before_the_call() {
    let server = Server::start().await;
    server.token_life(3);
    let client = server.client().await;
    ping(&client).await.unwrap();
    assert_eq!(
        server.logins().len(),
        1,
        "a short life alone does not mean a login for every call"
    );
    tokio::time::sleep(Duration::from_millis(1600)).await;
    server.token_life(1000);
    ping(&client).await.unwrap();
    assert_eq!(server.logins().len(), 2);
    assert!(
        server.calls()[1]
            .header("authorization")
            .unwrap()
            .ends_with("token-2")
    );
}

#[tokio::test]
async fn an_early_replacement_that_fails_does_not_fail_the_call() {
    let server = Server::start().await;
    server.token_life(5);
    let client = server.client().await;
    tokio::time::sleep(Duration::from_millis(2600)).await;
    server.login_script([Step::error(503, 0, "busy")]);
    ping(&client).await.unwrap();
    ping(&client).await.unwrap();
    assert_eq!(server.logins().len(), 2, "one try, then a pause");
    assert!(
        server.calls()[1]
            .header("authorization")
            .unwrap()
            .ends_with("token-1")
    );
}

#[tokio::test]
async fn a_login_that_fails_in_mid_run_is_waited_out() {
    let server = Server::start().await;
    let client = server.client().await;
    server.script(std::iter::repeat_n(Step::error(401, 30, "expired"), 3));
    server.login_script([Step::error(503, 0, "busy"), Step::Close]);
    ping(&client).await.unwrap();
    assert_eq!(server.logins().len(), 4);
}
