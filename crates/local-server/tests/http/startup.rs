//! Starting, restarting and stopping a server: its folder, its ports, its keys.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clearml_local_server::{Server, ServerError, ServerOptions};
use serde_json::json;

use crate::raw::{TestServer, send};

fn basic(access_key: &str, secret_key: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{access_key}:{secret_key}")))
}

#[test]
fn a_server_is_restarted_with_its_keys_data_and_sessions() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let start = || runtime.block_on(Server::start(ServerOptions::new(folder.path())));
    let first = start().unwrap();
    let keys = basic(first.access_key(), first.secret_key().expose());
    let created = send(
        &first.api_url(),
        "POST",
        "/tasks.create",
        &[("Authorization", &keys)],
        br#"{"name":"kept","type":"testing"}"#,
    );
    let token = send(
        &first.api_url(),
        "POST",
        "/auth.login",
        &[("Authorization", &keys)],
        b"",
    )
    .json()["data"]["token"]
        .clone();
    assert!(matches!(start().unwrap_err(), ServerError::InUse(path) if path == folder.path()));
    runtime.block_on(first.shutdown());

    let second = start().unwrap();
    let bearer = format!("Bearer {}", token.as_str().unwrap());
    let body = json!({"task": created.json()["data"]["id"]}).to_string();
    let task = send(
        &second.api_url(),
        "POST",
        "/tasks.get_by_id",
        &[("Authorization", &bearer)],
        body.as_bytes(),
    );
    assert_eq!(task.json()["data"]["task"]["name"], "kept");
    assert_eq!(basic(second.access_key(), second.secret_key().expose()), keys);
    runtime.block_on(second.shutdown());
}

#[test]
fn the_client_configuration_is_private_and_complete() {
    use std::os::unix::fs::PermissionsExt as _;
    let server = TestServer::start();
    let path = server.server.config_path();
    let text = std::fs::read_to_string(path).unwrap();
    let secret = server.server.secret_key().expose();
    for part in [
        server.server.api_url().as_str(),
        &server.server.files_url(),
        server.server.access_key(),
        secret,
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let folder = path.parent().unwrap();
    for (name, mode) in [
        ("clearml.conf", 0o600),
        ("server.db", 0o600),
        ("server.db-wal", 0o600),
        ("", 0o700),
    ] {
        let found = std::fs::metadata(folder.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(found, mode, "{name}");
    }
    server.stop();
}

#[test]
fn only_loopback_is_listened_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = ServerOptions::new(folder.path());
    options.host = "0.0.0.0".parse().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    assert!(matches!(
        runtime.block_on(Server::start(options)).unwrap_err(),
        ServerError::NotLoopback(_)
    ));
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut options = ServerOptions::new(folder.path());
    options.port = taken.local_addr().unwrap().port();
    let port = options.port.to_string();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let error = runtime.block_on(Server::start(options)).unwrap_err();
    assert!(error.to_string().contains(&port), "{error}");
}

#[test]
fn shutdown_does_not_wait_for_idle_connections() {
    let server = TestServer::start();
    let address = server.server.api_url();
    let idle = std::net::TcpStream::connect(address.trim_start_matches("http://")).unwrap();
    let began = std::time::Instant::now();
    server.stop();
    assert!(began.elapsed() < Duration::from_secs(5));
    drop(idle);
}
