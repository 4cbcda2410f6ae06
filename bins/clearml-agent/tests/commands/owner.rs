//! Whether a daemon may work in the names of the owners of tasks is found out at its start.

use std::fs;
use std::sync::mpsc;

use clearml_local_server::{Server, ServerOptions};

use crate::stage::{Ended, Home};

/// What a command says where the server has these features.
fn run_where(features: &str, arguments: &[&str]) -> Ended {
    let (home, data) = (Home::new(), tempfile::tempdir().unwrap());
    let options = ServerOptions {
        feature_set: features.to_owned(),
        ..ServerOptions::new(data.path())
    };
    let (ready, is_ready) = mpsc::channel();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(async {
            let server = Server::start(options).await.unwrap();
            ready.send(server.config_path().to_owned()).unwrap();
            let _dropped = stopped.await;
            server.shutdown().await;
        });
    });
    fs::copy(is_ready.recv().unwrap(), home.path("clearml.conf")).unwrap();
    let ended = home.run(arguments);
    drop(stop);
    serving.join().unwrap();
    ended
}

#[test]
fn a_server_without_it_refuses_the_option_before_anything_begins() {
    let refusal = "Server does not support the --use-owner-token option";
    let daemon = [
        "daemon",
        "--foreground",
        "--use-owner-token",
        "--queue",
        "none-such",
    ];
    let ended = run_where("basic", &daemon);
    assert_eq!(ended.code, 1, "{}", ended.text());
    assert!(ended.text().contains(refusal), "{}", ended.text());

    // The queue is looked for where the option is accepted, and then it is the queue that is missing.
    let ended = run_where("advanced", &daemon);
    assert_eq!(ended.code, 1, "{}", ended.text());
    assert!(
        ended.text().contains("none-such") && !ended.text().contains(refusal),
        "{}",
        ended.text()
    );

    let status = ["daemon", "--status", "--use-owner-token"];
    assert_eq!(run_where("advanced", &status).code, 0);
}
