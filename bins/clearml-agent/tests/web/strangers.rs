//! Who does not get in: people with other keys, forms of other sites, and requests under another name.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::Path;

use serde_json::json;
use xtask::workbench::{LocalServer, TaskSpec};

use crate::browser::Browser;
use crate::journey::configured;

const AGENT: &str = env!("CARGO_BIN_EXE_clearml-agent");

#[test]
fn wrong_keys_other_sites_and_other_names_get_nowhere() {
    let test = "wrong_keys_other_sites_and_other_names_get_nowhere";
    let folder = tempfile::tempdir().unwrap();
    let Some(browser) = Browser::start_or_skip(test, folder.path()) else {
        return;
    };
    let server = LocalServer::start(Path::new(AGENT), &folder.path().join("server")).unwrap();
    let api = server.api().unwrap();
    let task = api.create_task("mine", &TaskSpec::script("print(1)")).unwrap();
    let config = server.config();
    let url = configured(&config, "web_server");
    let sign_in = |secret: &str| {
        browser.write("#access_key", &configured(&config, "access_key"));
        browser.write("#secret_key", secret);
        browser.click("button[type=submit]");
    };

    browser.open(&format!("{url}/tasks/{task}"));
    sign_in("not it");
    browser.wait_for_text(".problem", "not the keys");
    sign_in(&configured(&config, "secret_key"));
    // Back to where one wanted to go.
    browser.wait_for_text("h1", "mine");

    // A form that is not the one that was given out.
    browser.click("#clone-open");
    let spoil = "document.querySelector('#clone-name').form.elements.form_token.value = 'guessed'";
    browser.run(spoil, json!([]));
    browser.click("#clone");
    browser.wait_for_text(".problem", "out of date");

    // One of another site, sent by the browser that is signed in.
    let other = serve(&format!(
        "<form method=post action='{url}/tasks/{task}/clone'><input name=name value=stolen><button>go</button></form>"
    ));
    browser.open(&other);
    browser.click("button");
    browser.wait_for_text("body", "out of date");
    let copies = api
        .call("tasks.get_all", json!({"name": "stolen|Clone"}))
        .unwrap();
    assert_eq!(copies["tasks"], json!([]));

    // The server itself under a name of another site.
    browser.open(&url.replace("127.0.0.1", "evil.example"));
    browser.wait_for_text("body", "does not name this server");

    browser.open(&url);
    browser.wait_for_text("#queues", "default");
    browser.click("header form button");
    browser.wait_for_text("h1", "Sign in");
}

/// Serves one page under the name of another site; its address.
fn serve(page: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let page = page.to_owned();
    // Ends with the process: nothing depends on when.
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut line = String::new();
            while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
                line.clear();
            }
            let length = page.len();
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close";
            let _gone = write!(stream, "{head}\r\nContent-Length: {length}\r\n\r\n{page}");
        }
    });
    format!("http://evil.example:{port}/")
}
