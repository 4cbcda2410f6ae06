//! `list` is a command that talks to the server, so what vaults and files say counts for it as well.

use std::fs;
use std::sync::mpsc;

use clearml_api_client::{Auth, Call, Client, ClientOptions};
use clearml_local_server::{Server, ServerOptions};
use serde_json::json;

use crate::stage::Home;

#[test]
fn a_list_takes_vaults_and_files_into_account() {
    let (home, data) = (Home::new(), tempfile::tempdir().unwrap());
    let options = ServerOptions {
        feature_set: "advanced".to_owned(),
        ..ServerOptions::new(data.path())
    };
    let (ready, is_ready) = mpsc::channel();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(async {
            let server = Server::start(options).await.unwrap();
            let auth = Auth::Keys {
                access_key: server.access_key().into(),
                secret_key: server.secret_key().clone(),
            };
            let client = Client::new(ClientOptions::new(server.api_url(), auth)).unwrap();
            let text = "files.f { path: \"$HOME/of-vault\", contents: x }";
            let vault = json!({"description": "team", "data": text});
            let made = client.call::<serde_json::Value>(Call::new("users.create_vault").body(vault));
            made.await.unwrap();
            ready.send(server.config_path().to_owned()).unwrap();
            let _dropped = stopped.await;
            server.shutdown().await;
        });
    });
    fs::copy(is_ready.recv().unwrap(), home.path("clearml.conf")).unwrap();
    let ended = home.run(&["list", "--json"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(ended.json().is_array(), "{}", ended.stdout);
    assert!(ended.stderr.contains("vault: team"), "{}", ended.stderr);
    assert_eq!(fs::read_to_string(home.path("of-vault")).unwrap(), "x");
    drop(stop);
    serving.join().unwrap();
}

#[test]
fn an_absent_server_is_explained_once() {
    let home = Home::new();
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let configuration = format!(
        "api {{ api_server: \"{server}\", credentials {{ access_key: k, secret_key: long-enough-secret }}, \
         http.retries.backoff_factor: 0.1 }}"
    );
    fs::write(home.path("clearml.conf"), configuration).unwrap();
    let ended = home.run(&["list"]);
    assert_eq!(ended.code, 1, "{}", ended.text());
    let text = ended.text();
    assert_eq!(
        text.matches("cannot connect to the API server").count(),
        1,
        "{text}"
    );
    assert!(ended.stderr.contains("the login is tried again"), "{text}");
}
