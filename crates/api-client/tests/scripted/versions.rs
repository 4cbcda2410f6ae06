//! Old and open servers, and what the options change about requests.

use std::io::Read as _;

use clearml_api_client::{
    ApiError, Auth, Call, Client, ClusterReport, Feature, Retry, RetryLimits, StatusChange, Version,
};
use clearml_support::secret::Secret;
use clearml_task_model::{QueueId, TaskId, UserId, WorkerId};
use serde_json::{Map, Value, json};

use crate::server::{Server, Step, token_with};

/// A client of a server with this version and feature set.
async fn logged_in(server: &Server, api_version: &str, feature_set: &str) -> Client {
    let claims = json!({"api_version": api_version, "feature_set": feature_set});
    server.login_script([Step::ok(json!({ "token": token_with(&claims, 1) }))]);
    server.client().await
}

fn unsupported(error: &ApiError) -> (&str, Option<Version>, Version) {
    assert!(error.is_missing_endpoint() && error.was_not_applied() && !error.is_transient());
    match error {
        ApiError::Unsupported {
            endpoint, needs, has, ..
        } => (endpoint, *needs, *has),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_old_server_is_asked_in_its_version_and_not_for_what_came_later() {
    let server = Server::start().await;
    let client = logged_in(&server, "2.9", "basic").await;
    let task = TaskId::new("t");
    client
        .tasks_completed(&task, &StatusChange::default())
        .await
        .unwrap();
    assert_eq!(server.calls()[0].path, "/v2.9/tasks.completed");

    let error = client.queues_peek_task(&QueueId::new("q")).await.unwrap_err();
    let expected = ("queues.peek_task", Some(Version::new(2, 15)), Version::new(2, 9));
    assert_eq!(unsupported(&error), expected);
    let text = error.to_string();
    assert!(
        text.contains("queues.peek_task") && text.contains("2.15") && text.contains("2.9"),
        "{text}"
    );
    assert_eq!(server.calls().len(), 1, "it was not sent");

    // A fallback where there is one: the whole queue instead of its length.
    server.script([Step::ok(
        json!({"queue": {"id": "q", "entries": [{"task": "a"}, {"task": "b"}]}}),
    )]);
    assert_eq!(
        client.queues_get_num_entries(&QueueId::new("q")).await.unwrap(),
        2
    );
    assert_eq!(server.calls()[1].path, "/v2.9/queues.get_by_id");
}

#[tokio::test]
async fn an_unknown_endpoint_is_unsupported_and_a_gateways_404_is_not() {
    let server = Server::start().await;
    let client = server.client().await;
    server.script([Step::error(404, 0, "no such endpoint"), Step::html(404)]);
    let call = || {
        Call::new("tasks.novelty")
            .version("2.30")
            .retry(Retry::Idempotent)
    };
    let error = client.call::<Value>(call()).await.unwrap_err();
    assert_eq!(unsupported(&error), ("tasks.novelty", None, Version::new(2, 34)));
    assert!(error.to_string().contains("2.30"), "{error}");
    let error = client.call::<Value>(call()).await.unwrap_err();
    assert!(
        matches!(error, ApiError::Status { http: 404, .. }) && !error.is_missing_endpoint(),
        "{error:?}"
    );
}

#[tokio::test]
async fn an_optional_call_is_asked_for_once_per_login() {
    let server = Server::start().await;
    let client = server.client().await;
    let worker = WorkerId::new("w");
    server.script([Step::error(404, 0, "no such endpoint")]);
    for _ in 0..3 {
        let error = client.workers_get_runtime_properties(&worker).await.unwrap_err();
        assert_eq!(unsupported(&error).0, "workers.get_runtime_properties");
    }
    assert_eq!(server.calls().len(), 1);
    server.script([Step::ok(json!({"runtime_properties": []}))]);
    client.login().await.unwrap();
    assert_eq!(client.workers_get_runtime_properties(&worker).await.unwrap(), []);
}

#[tokio::test]
async fn more_than_the_open_server_is_asked_only_of_others() {
    let server = Server::start().await;
    let basic = server.client().await;
    let report = ClusterReport {
        worker: "w".into(),
        ..ClusterReport::default()
    };
    unsupported(&basic.users_get_vaults().await.unwrap_err());
    unsupported(&basic.workers_cluster_report(&report).await.unwrap_err());
    unsupported(&basic.workers_cluster_unregister("w", "k").await.unwrap_err());
    assert_eq!(server.calls().len(), 0);

    let server = Server::start().await;
    let other = logged_in(&server, "2.34", "advanced").await;
    server.script([Step::ok(
        json!({"vaults": [{"id": "v", "data": "canary { a: 1 }", "scope": "user"}]}),
    )]);
    let vaults = other.users_get_vaults().await.unwrap();
    assert_eq!(vaults[0].data.as_deref(), Some("canary { a: 1 }"));
    assert!(!format!("{vaults:?}").contains("canary"));
    other.workers_cluster_report(&report).await.unwrap();
    other.workers_cluster_unregister("w", "k").await.unwrap();
    assert_eq!(server.calls()[0].body, b"", "it has its data in the address");
    let paths: Vec<_> = server.calls().into_iter().map(|call| call.path).collect();
    assert_eq!(
        paths,
        [
            "/v2.23/users.get_vaults?enabled=true&types=config&types=config",
            "/v2.23/workers.cluster_report",
            "/v2.23/workers.cluster_unregister"
        ]
    );
}

#[tokio::test]
async fn features_follow_version_and_feature_set() {
    for (version, feature_set, there, not_there) in [
        (
            "2.5",
            "basic",
            vec![Feature::Queues, Feature::SystemTags],
            vec![Feature::HyperParams, Feature::OwnerToken],
        ),
        (
            "2.13",
            "basic",
            vec![
                Feature::Containers,
                Feature::AbortCallbacks,
                Feature::RuntimeProperties,
            ],
            vec![Feature::MatchRules],
        ),
        (
            "2.13",
            "x",
            vec![Feature::MatchRules, Feature::ClusterReports],
            vec![Feature::OwnerToken, Feature::Vaults],
        ),
        (
            "2.34",
            "x",
            vec![
                Feature::Vaults,
                Feature::OwnerToken,
                Feature::ArgumentTemplates,
                Feature::ModelEvents,
            ],
            vec![],
        ),
    ] {
        let server = Server::start().await;
        let session = logged_in(&server, version, feature_set).await.session().unwrap();
        assert!(
            there.iter().all(|feature| session.supports(*feature)),
            "{version} {feature_set}"
        );
        assert!(
            !not_there.iter().any(|feature| session.supports(*feature)),
            "{version} {feature_set}"
        );
    }
}

#[tokio::test]
async fn the_version_can_be_held_down() {
    let server = Server::start().await;
    let mut options = server.options();
    options.max_api_version = Some("2.13".parse().unwrap());
    let client = Client::new(options.clone()).unwrap();
    let session = client.login().await.unwrap();
    assert_eq!(session.api_version, Version::new(2, 13));
    client
        .tasks_set_requirements(&TaskId::new("t"), json!({}))
        .await
        .unwrap();
    assert_eq!(server.calls()[0].path, "/v2.13/tasks.set_requirements");
    unsupported(&client.queues_peek_task(&QueueId::new("q")).await.unwrap_err());
    // Not up, of course.
    options.max_api_version = Some(Version::new(9, 9));
    let session = Client::new(options).unwrap().login().await.unwrap();
    assert_eq!(session.api_version, Version::new(2, 34));
}

#[tokio::test]
async fn another_user_is_spoken_for_with_headers_at_login_only() {
    let server = Server::start().await;
    let claims = |tenant: &str, user: &str| json!({"api_version": "2.34", "feature_set": "x", "tenant": tenant, "identity": {"user": user}});
    let step = |claims: &Value, number| Step::ok(json!({ "token": token_with(claims, number) }));
    server.login_script([
        step(&claims("ours", "me"), 1),
        step(&claims("theirs", "them"), 2),
        // Another owner, whose company is another tenant.
        step(&claims("elsewhere", "other"), 3),
        step(&claims("third", "other"), 4),
        // A new token for the first one.
        step(&claims("theirs", "them"), 5),
    ]);
    let own = server.client().await;
    let theirs = own.impersonate(&UserId::new("them"), "theirs").await.unwrap();
    assert_eq!(theirs.session().unwrap().user.as_deref(), Some("them"));
    let other = own.impersonate(&UserId::new("other"), "third").await.unwrap();
    assert_eq!(other.session().unwrap().tenant.as_deref(), Some("third"));
    let logins = server.logins();
    assert_eq!(logins[0].header("x-clearml-impersonate-as"), None);
    assert_eq!(logins[1].header("x-clearml-impersonate-as"), Some("them"));
    assert!(logins[1].header("authorization").unwrap().starts_with("Basic "));
    assert_eq!(logins[2].header("x-clearml-impersonate-as"), Some("other"));
    assert_eq!(logins[3].header("x-clearml-tenant"), Some("third"));
    assert!(logins[3].header("authorization").unwrap().ends_with("token-3"));

    server.script([Step::error(401, 30, "expired")]);
    theirs.tasks_ping(&TaskId::new("t")).await.unwrap();
    let calls = server.calls();
    assert!(calls[0].header("authorization").unwrap().ends_with("token-2"));
    assert!(calls[1].header("authorization").unwrap().ends_with("token-5"));
    assert_eq!(calls[0].header("x-clearml-impersonate-as"), None);
    assert_eq!(
        server.logins()[4].header("x-clearml-impersonate-as"),
        Some("them")
    );
    assert!(
        own.token().unwrap().expose().ends_with("token-1"),
        "our own session is as it was"
    );
}

#[tokio::test]
async fn another_user_is_refused_where_it_cannot_be() {
    let server = Server::start().await;
    let own = server.client().await;
    let error = own.impersonate(&UserId::new("u"), "c").await.unwrap_err();
    unsupported(&error);
    assert_eq!(server.logins().len(), 1);

    let server = Server::start().await;
    let claims = json!({"api_version": "2.34", "feature_set": "x"});
    server.login_script([
        Step::ok(json!({ "token": token_with(&claims, 1) })),
        Step::error(400, 6, "impersonation not allowed"),
    ]);
    let mut options = server.options();
    options.auth = Auth::token("given");
    let own = Client::new(options).unwrap();
    let error = own.impersonate(&UserId::new("u"), "c").await.unwrap_err();
    assert!(error.is_code(400, 6), "{error:?}");
    assert!(
        server.logins()[1]
            .header("authorization")
            .unwrap()
            .ends_with("token-1"),
        "with the exchanged token"
    );
}

#[tokio::test]
async fn limits_end_the_patience() {
    let server = Server::start().await;
    let mut options = server.options();
    options.retry.limits = RetryLimits {
        status: Some(2),
        ..RetryLimits::default()
    };
    options.retry.wait_on_maintenance_forever = false;
    let client = Client::new(options).unwrap();
    client.login().await.unwrap();
    for code in [429, 502, 503] {
        let before = server.calls().len();
        server.script(std::iter::repeat_n(Step::error(code, 0, "busy"), 3));
        let call = Call::new("tasks.get_all").retry(Retry::Idempotent);
        let error = client.call::<Value>(call).await.unwrap_err();
        assert_eq!(
            (error.code(), server.calls().len() - before),
            (Some((code, 0)), 3)
        );
    }
}

#[tokio::test]
async fn requests_carry_a_transaction_and_the_headers_of_a_gateway() {
    let server = Server::start().await;
    let mut options = server.options();
    options.headers = vec![("X-Gateway-Key".to_owned(), Secret::new("gateway-secret"))];
    let client = Client::new(options.clone()).unwrap();
    client.tasks_ping(&TaskId::new("t")).await.unwrap();
    for request in [&server.logins()[0], &server.calls()[0]] {
        assert_eq!(request.header("x-gateway-key"), Some("gateway-secret"));
        let trx = request.header("x-clearml-trx").unwrap();
        assert!(
            trx.len() == 32 && trx.bytes().all(|byte| byte.is_ascii_hexdigit()),
            "{trx}"
        );
    }
    assert!(!format!("{options:?}").contains("gateway-secret"));
    for (name, value) in [("no spaces", "x"), ("x", "line\nend"), ("Authorization", "x")] {
        options.headers = vec![(name.to_owned(), Secret::new(value))];
        let error = Client::new(options.clone()).unwrap_err().to_string();
        assert!(error.contains(name) && !error.contains("line"), "{error}");
    }
}

#[tokio::test]
async fn large_requests_are_compressed_until_the_server_refuses_that() {
    let server = Server::start().await;
    let mut options = server.options();
    options.compress_requests = Some(1_000);
    let client = Client::new(options).unwrap();
    let task = TaskId::new("t");
    let runtime = |length| Map::from_iter([("a".to_owned(), json!("x".repeat(length)))]);
    client
        .tasks_edit_runtime(&task, runtime(5_000), &[])
        .await
        .unwrap();
    client.tasks_edit_runtime(&task, runtime(5), &[]).await.unwrap();
    server.script([Step::http(415, "text/html", &[], b"no")]);
    client
        .tasks_edit_runtime(&task, runtime(5_000), &[])
        .await
        .unwrap();
    client
        .tasks_edit_runtime(&task, runtime(5_000), &[])
        .await
        .unwrap();
    let calls = server.calls();
    let encodings: Vec<_> = calls.iter().map(|call| call.header("content-encoding")).collect();
    assert_eq!(encodings, [Some("gzip"), None, Some("gzip"), None, None]);
    let mut plain = String::new();
    flate2::read::GzDecoder::new(&calls[0].body[..])
        .read_to_string(&mut plain)
        .unwrap();
    assert_eq!(serde_json::from_str::<Value>(&plain).unwrap(), calls[3].json());
}

#[tokio::test]
async fn an_ipv6_address_is_an_address() {
    let Ok(listener) = tokio::net::TcpListener::bind("[::1]:0").await else {
        eprintln!("SKIPPED an_ipv6_address_is_an_address: this machine has no IPv6 loopback");
        return;
    };
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(crate::server::serve_well(stream));
        }
    });
    let mut options = Server::start().await.options();
    options.api_server = format!("http://[::1]:{port}/");
    Client::new(options).unwrap().login().await.unwrap();
}
