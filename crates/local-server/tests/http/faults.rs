//! The fault switches: each kind, how often, and whether the call was made.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::raw::{Reply, TestServer, send};

fn start() -> TestServer {
    TestServer::start_with(|options| options.faults = true)
}

fn switch(server: &TestServer, fault: Value) {
    let reply = send(
        &server.server.api_url(),
        "POST",
        "/_faults",
        &[],
        fault.to_string().as_bytes(),
    );
    assert_eq!(reply.status, 200, "{}", reply.text());
}

fn create(server: &TestServer) -> Reply {
    let body = br#"{"name": "new queue", "display_name": "x"}"#;
    send(
        &server.server.api_url(),
        "POST",
        "/queues.create",
        &[("Authorization", &server.bearer())],
        body,
    )
}

/// Creates a queue and gives whatever bytes came back, also when they are no reply.
fn create_raw(server: &TestServer) -> Vec<u8> {
    let address = server.server.api_url().trim_start_matches("http://").to_owned();
    let mut stream = TcpStream::connect(&address).unwrap();
    let body = r#"{"name": "new queue"}"#;
    let bearer = server.bearer();
    write!(stream, "POST /queues.create HTTP/1.1\r\nHost: {address}\r\nAuthorization: {bearer}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    let mut answer = Vec::new();
    // Bytes before a reset are kept; the reset itself is an error.
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        answer.extend_from_slice(&buffer[..count]);
    }
    answer
}

fn queues(server: &TestServer) -> usize {
    server.ok("queues.get_all", json!({}))["queues"]
        .as_array()
        .unwrap()
        .len()
}

#[test]
fn a_status_comes_after_the_skipped_calls_as_often_as_asked() {
    let server = start();
    switch(
        &server,
        json!({"endpoint": "queues.create", "skip": 1, "count": 1, "kind": "status", "status": 429,
        "headers": {"Retry-After": "2"}}),
    );
    assert_eq!(create(&server).status, 200);
    let spoilt = create(&server);
    assert_eq!((spoilt.status, spoilt.header("retry-after")), (429, Some("2")));
    assert!(spoilt.text().starts_with("<html>"));
    assert_eq!(
        create(&server).json()["meta"]["result_subcode"],
        801,
        "the switch is used up"
    );
    let calls = send(&server.server.api_url(), "GET", "/_calls", &[], b"").json();
    assert_eq!(calls["counts"]["queues.create"], 3);
    server.stop();
}

#[test]
fn replies_of_other_kinds() {
    let server = start();
    switch(&server, json!({"endpoint": "*", "kind": "bad_json"}));
    switch(&server, json!({"endpoint": "*", "kind": "html"}));
    switch(
        &server,
        json!({"endpoint": "queues.create", "kind": "expired_token"}),
    );
    switch(
        &server,
        json!({"endpoint": "queues.create", "kind": "status", "status": 500, "subcode": 100}),
    );
    let broken = create(&server);
    assert!(broken.status == 200 && serde_json::from_slice::<Value>(&broken.body).is_err());
    assert_eq!(create(&server).header("content-type"), Some("text/html"));
    assert_eq!(create(&server).json()["meta"]["result_subcode"], 30);
    assert_eq!(create(&server).json()["meta"]["result_subcode"], 100);
    assert_eq!(queues(&server), 1, "none of these calls was made");
    server.stop();
}

#[test]
fn a_reset_before_loses_the_call_and_a_reset_after_loses_the_reply() {
    let server = start();
    switch(
        &server,
        json!({"endpoint": "queues.create", "kind": "reset_before"}),
    );
    assert!(create_raw(&server).is_empty());
    assert_eq!(queues(&server), 1);
    switch(
        &server,
        json!({"endpoint": "queues.create", "kind": "reset_after"}),
    );
    assert!(create_raw(&server).is_empty());
    assert_eq!(queues(&server), 2);
    server.stop();
}

#[test]
fn a_truncated_reply_ends_in_the_middle() {
    let server = start();
    switch(&server, json!({"endpoint": "queues.create", "kind": "truncate"}));
    let answer = String::from_utf8(create_raw(&server)).unwrap();
    assert!(answer.len() <= 200, "{answer}");
    assert_eq!(queues(&server), 2);
    server.stop();
}

#[test]
fn delays_and_clearing() {
    let server = start();
    switch(
        &server,
        json!({"endpoint": "queues.create", "kind": "delay", "delay_ms": 300, "count": -1}),
    );
    let began = Instant::now();
    assert_eq!(create(&server).status, 200);
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert_eq!(
        send(&server.server.api_url(), "DELETE", "/_faults", &[], b"").status,
        200
    );
    let began = Instant::now();
    create(&server);
    assert!(began.elapsed() < Duration::from_millis(300));
    let bad = send(
        &server.server.api_url(),
        "POST",
        "/_faults",
        &[],
        br#"{"kind": "nonsense"}"#,
    );
    assert_eq!(bad.status, 400);
    server.stop();
}

#[test]
fn without_the_option_there_are_no_switches() {
    let server = TestServer::start();
    assert_eq!(
        send(&server.server.api_url(), "POST", "/_faults", &[], b"{}").status,
        400
    );
    server.stop();
}
