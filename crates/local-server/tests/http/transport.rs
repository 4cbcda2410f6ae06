//! Paths, request data, envelopes, authentication and versions.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use clearml_local_server::Clock;
use serde_json::{Value, json};

use crate::raw::{Reply, TestServer, send};

fn basic(access_key: &str, secret_key: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{access_key}:{secret_key}")))
}

fn own_keys(server: &TestServer) -> String {
    basic(server.server.access_key(), server.server.secret_key().expose())
}

fn ask(server: &TestServer, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
    send(&server.server.api_url(), method, path, headers, body.as_bytes())
}

/// Asks with a valid token.
fn asked(server: &TestServer, path: &str, body: &str) -> Reply {
    ask(server, "GET", path, &[("Authorization", &server.bearer())], body)
}

fn codes(reply: &Reply) -> (i64, i64) {
    let reply = reply.json();
    (
        reply["meta"]["result_code"].as_i64().unwrap(),
        reply["meta"]["result_subcode"].as_i64().unwrap(),
    )
}

fn claims(token: &str) -> Value {
    let body = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(body).unwrap()).unwrap()
}

#[test]
fn a_login_gives_a_token_with_everything_that_clients_read() {
    let server = TestServer::start();
    for (method, path, version) in [
        ("GET", "/auth.login", "2.34"),
        ("POST", "/v2.5/auth.login", "2.5"),
    ] {
        let reply = ask(
            &server,
            method,
            path,
            &[("Authorization", &own_keys(&server))],
            "",
        );
        assert_eq!(codes(&reply), (200, 0));
        assert_eq!(reply.json()["meta"]["endpoint"]["requested_version"], version);
        let data = reply.json()["data"].clone();
        let claims = claims(data["token"].as_str().unwrap());
        assert_eq!(
            claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(),
            30 * 24 * 3600
        );
        assert_eq!(
            (&claims["api_version"], &claims["server_version"]),
            (&json!("2.34"), &json!("2.3.0"))
        );
        assert_eq!(
            (&claims["feature_set"], &claims["auth_type"]),
            (&json!("basic"), &json!("Bearer"))
        );
        assert!(claims["identity"]["user"].is_string());
        assert!(
            reply
                .header("set-cookie")
                .unwrap()
                .starts_with("clearml_token_basic=")
        );
    }
    let again = ask(
        &server,
        "POST",
        "/auth.login",
        &[("Authorization", &server.bearer())],
        "",
    );
    assert_eq!(codes(&again), (200, 0), "a token is good for another one");
    server.stop();
}

#[test]
fn the_life_of_a_token_can_be_chosen_within_a_year() {
    let server = TestServer::start();
    let login = |query: &str| {
        ask(
            &server,
            "GET",
            &format!("/auth.login{query}"),
            &[("Authorization", &own_keys(&server))],
            "",
        )
    };
    let claims = claims(
        login("?expiration_sec=60").json()["data"]["token"]
            .as_str()
            .unwrap(),
    );
    assert_eq!(
        claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(),
        60
    );
    assert_eq!(codes(&login("?expiration_sec=31536001")), (400, 12));
    server.stop();
}

#[test]
fn wrong_or_missing_credentials_are_told_apart() {
    let server = TestServer::start();
    let key = server.server.access_key().to_owned();
    for (path, header, expected) in [
        ("/auth.login", Some(basic(&key, "wrong")), (401, 22)),
        ("/auth.login", Some(basic("nobody", "wrong")), (401, 22)),
        ("/auth.login", None, (401, 20)),
        ("/auth.login", Some("Foo x".to_owned()), (401, 10)),
        ("/auth.login", Some("Basic ???".to_owned()), (401, 21)),
        ("/tasks.get_all", None, (401, 20)),
        ("/tasks.get_all", Some("Bearer garbage".to_owned()), (401, 30)),
        ("/tasks.get_all", Some(own_keys(&server)), (200, 0)),
        ("/tasks.get_all", Some(server.bearer()), (200, 0)),
    ] {
        let headers: Vec<(&str, &str)> = header
            .iter()
            .map(|value| ("Authorization", value.as_str()))
            .collect();
        let reply = ask(&server, "POST", path, &headers, "");
        assert_eq!(codes(&reply), expected, "{path} {header:?}");
        assert_eq!(i64::from(reply.status), expected.0);
        assert!(reply.json()["data"].is_object());
    }
    server.stop();
}

#[test]
fn a_cookie_is_enough_but_not_for_other_sites() {
    let server = TestServer::start();
    let cookie = format!("other=1; clearml_token_basic={}", server.token);
    assert_eq!(
        codes(&ask(&server, "GET", "/tasks.get_all", &[("Cookie", &cookie)], "")),
        (200, 0)
    );
    let foreign = [("Cookie", cookie.as_str()), ("Sec-Fetch-Site", "cross-site")];
    assert_eq!(
        codes(&ask(&server, "GET", "/tasks.get_all", &foreign, "")),
        (401, 20)
    );
    let both = [("Cookie", cookie.as_str()), ("Authorization", "Bearer bad")];
    assert_eq!(
        codes(&ask(&server, "GET", "/tasks.get_all", &both, "")),
        (401, 30),
        "the header wins"
    );
    server.stop();
}

#[test]
fn tokens_expire_and_sessions_end() {
    let clock = Clock::manual(1_700_000_000_000);
    let server = TestServer::start_with(|options| options.clock = clock.clone());
    assert_eq!(codes(&asked(&server, "/tasks.get_all", "")), (200, 0));
    assert_eq!(codes(&asked(&server, "/auth.logout", "")), (200, 0));
    let refused = asked(&server, "/tasks.get_all", "");
    assert_eq!(codes(&refused), (401, 30));
    assert!(refused.text().contains("revoked token"));

    let login = ask(
        &server,
        "GET",
        "/auth.login?expiration_sec=60",
        &[("Authorization", &own_keys(&server))],
        "",
    );
    let bearer = format!("Bearer {}", login.json()["data"]["token"].as_str().unwrap());
    let reply = || {
        codes(&ask(
            &server,
            "GET",
            "/tasks.get_all",
            &[("Authorization", &bearer)],
            "",
        ))
    };
    assert_eq!(reply(), (200, 0));
    clock.advance(61_000);
    assert_eq!(reply(), (401, 30));
    server.stop();
}

#[test]
fn further_key_pairs_can_be_made_and_taken_back() {
    let server = TestServer::start();
    let pair = server.ok("auth.create_credentials", json!({"label": "second"}))["credentials"].clone();
    let (key, secret) = (
        pair["access_key"].as_str().unwrap(),
        pair["secret_key"].as_str().unwrap(),
    );
    let login = || {
        codes(&ask(
            &server,
            "GET",
            "/auth.login",
            &[
                ("Authorization", &basic(key, secret)),
                ("X-ClearML-Worker", "box"),
            ],
            "",
        ))
    };
    assert_eq!(login(), (200, 0));
    let listed = server.ok("auth.get_credentials", json!({}))["credentials"].clone();
    let found = listed
        .as_array()
        .unwrap()
        .iter()
        .find(|pair| pair["access_key"] == key)
        .unwrap();
    assert_eq!(
        (&found["label"], &found["last_used_from"]),
        (&json!("second"), &json!("box"))
    );
    assert!(!listed.to_string().contains(secret));
    server.ok(
        "auth.edit_credentials",
        json!({"access_key": key, "label": "renamed"}),
    );
    assert_eq!(
        server
            .call("auth.edit_credentials", json!({"access_key": "nope"}))
            .1,
        75
    );
    server.ok("auth.revoke_credentials", json!({"access_key": key}));
    assert_eq!(login(), (401, 22));
    assert_eq!(
        server
            .call("auth.revoke_credentials", json!({"access_key": key}))
            .1,
        300
    );
    server.stop();
}

#[test]
fn acting_for_others_needs_an_existing_user_and_one_header() {
    let server = TestServer::start();
    let user = server.ok("users.get_current_user", json!({}))["user"]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let bearer = server.bearer();
    let as_user = |headers: &[(&str, &str)]| {
        let mut all = vec![("Authorization", bearer.as_str())];
        all.extend_from_slice(headers);
        ask(&server, "POST", "/auth.login", &all, "")
    };
    let reply = as_user(&[("X-Clearml-Impersonate-As", &user)]);
    assert_eq!(
        claims(reply.json()["data"]["token"].as_str().unwrap())["identity"]["user"],
        json!(user)
    );
    assert_eq!(
        codes(&as_user(&[("X-Clearml-Impersonate-As", "nobody")])),
        (400, 6)
    );
    assert_eq!(
        codes(&as_user(&[
            ("X-Clearml-Impersonate-As", &user),
            ("X-Clearml-Act-As", &user)
        ])),
        (400, 5)
    );
    server.stop();
}

#[test]
fn every_method_and_every_way_to_send_data_is_the_same() {
    let server = TestServer::start();
    for method in ["GET", "POST", "PUT", "DELETE", "PATCH"] {
        let reply = ask(
            &server,
            method,
            "/debug.ping",
            &[],
            r#"{"a": 1, "method": "get"}"#,
        );
        assert_eq!(
            (codes(&reply), &reply.json()["data"]["a"]),
            ((200, 0), &json!(1)),
            "{method}"
        );
    }
    let preflight = ask(&server, "OPTIONS", "/whatever", &[], "");
    assert_eq!((preflight.status, preflight.body.len()), (200, 0));
    let body = asked(&server, "/v2.14/tasks.get_all", r#"{"id": ["zz"]}"#);
    let query = asked(
        &server,
        "/v2.14/tasks.get_all?id[]=zz&only_fields=id&only_fields=name&search_hidden=true",
        "",
    );
    for reply in [body, query] {
        assert_eq!(reply.json()["data"], json!({"tasks": []}));
    }
    server.stop();
}

#[test]
fn paths_and_versions() {
    let server = TestServer::start();
    for (path, expected, requested) in [
        ("/v2.14/tasks.get_all/", (200, 0), json!("2.14")),
        ("/api/v2.14/tasks.get_all", (200, 0), json!("2.14")),
        ("/v9.9/tasks.get_all", (200, 0), json!("9.9")),
        ("/v1.5/tasks.get_all", (200, 0), json!(1.5)),
        ("/v2/tasks.get_all", (400, 0), json!(1.0)),
        ("/bogus", (400, 0), json!(1.0)),
        ("/", (400, 0), json!(1.0)),
        ("/nosuch.thing", (404, 0), json!("2.34")),
        ("/v2.1/tasks.completed", (404, 0), json!("2.1")),
    ] {
        let reply = asked(&server, path, "");
        assert_eq!(codes(&reply), expected, "{path}");
        let meta = reply.json()["meta"].clone();
        assert_eq!(meta["endpoint"]["requested_version"], requested, "{path}");
        assert_eq!(
            meta["endpoint"]["actual_version"].is_null(),
            expected.0 != 200,
            "{path}"
        );
        assert!(reply.json()["data"].is_object());
    }
    server.stop();
}

#[test]
fn what_cannot_be_understood_is_refused_with_the_right_code() {
    let server = TestServer::start();
    for (body, expected) in [
        ("{bad", (400, 0)),
        ("[]", (400, 12)),
        ("{}", (400, 12)),
        (r#"{"task": 5}"#, (400, 12)),
        (r#"{"task": null}"#, (400, 12)),
    ] {
        let reply = asked(&server, "/tasks.get_by_id", body);
        assert_eq!(codes(&reply), expected, "{body}");
        if expected.1 == 12 && body != "[]" {
            assert!(
                reply.json()["meta"]["result_msg"]
                    .as_str()
                    .unwrap()
                    .contains("task")
            );
        }
    }
    let packed = ask(
        &server,
        "POST",
        "/debug.ping",
        &[("Content-Encoding", "gzip")],
        "x",
    );
    assert_eq!(packed.status, 415);
    assert!(
        serde_json::from_slice::<Value>(&packed.body).is_err(),
        "no envelope"
    );
    server.stop();
}

#[test]
fn headers_for_transactions_and_deferral() {
    let server = TestServer::start();
    let reply = ask(
        &server,
        "GET",
        "/debug.ping",
        &[("X-Clearml-Trx", "T1"), ("X-ClearML-Async", "1")],
        "",
    );
    assert_eq!((reply.status, &reply.json()["meta"]["trx"]), (200, &json!("T1")));
    let meta = ask(&server, "GET", "/debug.ping", &[], "").json()["meta"].clone();
    assert_eq!(meta["trx"], meta["id"]);
    let long = json!({"a": "x".repeat(1000)}).to_string();
    let reply = ask(
        &server,
        "POST",
        "/debug.ping",
        &[("Accept-Encoding", "gzip, deflate")],
        &long,
    );
    assert_eq!(
        reply.json()["data"]["a"].as_str().unwrap().len(),
        1000,
        "readable by who may also read gzip"
    );
    assert_eq!(meta["id"].as_str().unwrap().len(), 32);
    server.stop();
}

#[test]
fn unknown_fields_are_ignored_everywhere() {
    let server = TestServer::start();
    for endpoint in [
        "tasks.get_all",
        "queues.get_all",
        "projects.get_all",
        "models.get_all",
        "workers.get_all",
        "users.get_all",
        "queues.get_default",
        "server.info",
        "users.get_current_user",
        "auth.fixed_users_mode",
        "login.supported_modes",
    ] {
        server.ok(endpoint, json!({"method": "get", "bogus": {"a": [null]}}));
    }
    server.stop();
}

#[test]
fn foreign_host_names_are_refused() {
    use std::io::{Read as _, Write as _};
    let server = TestServer::start();
    for (host, allowed) in [
        ("localhost", true),
        ("127.0.0.1:80", true),
        ("evil.example", false),
        ("", false),
    ] {
        for base in [server.server.api_url(), server.server.files_url()] {
            let mut stream = std::net::TcpStream::connect(base.trim_start_matches("http://")).unwrap();
            write!(
                stream,
                "GET /debug.ping HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
            )
            .unwrap();
            let mut reply = String::new();
            stream.read_to_string(&mut reply).unwrap();
            assert_eq!(
                !reply.starts_with("HTTP/1.1 403"),
                allowed,
                "{host} at {base}: {reply}"
            );
        }
    }
    server.stop();
}

#[test]
fn bodies_over_the_limit_are_refused() {
    let server = TestServer::start_with(|options| options.max_body_bytes = 1000);
    assert_eq!(
        codes(&asked(
            &server,
            "/debug.ping",
            &format!("{{\"a\": \"{}\"}}", "x".repeat(2000))
        )),
        (413, 0)
    );
    assert_eq!(codes(&asked(&server, "/debug.ping", "{}")), (200, 0));
    server.stop();
}

#[test]
fn bodies_that_would_grow_are_refused_and_the_server_goes_on() {
    let server = TestServer::start();
    let bearer = server.bearer();
    let code = |headers: &[(&str, &str)], body: &str| {
        let url = server.server.api_url();
        send(&url, "POST", "/tasks.get_all", headers, body.as_bytes()).json()["meta"]["result_code"].clone()
    };
    // A stranger is refused before anybody looks at what was sent.
    let large = format!("{{bad{}", " ".repeat(2_000_000));
    assert_eq!(code(&[], &large), 401);
    assert_eq!(code(&[("Authorization", &bearer)], &large), 400);
    let form = ("Content-Type", "application/x-www-form-urlencoded");
    assert_eq!(code(&[form], &("a.".repeat(300_000) + "a=1")), 400);
    assert_eq!(code(&[("Authorization", &bearer)], "{}"), 200);
    server.stop();
}
