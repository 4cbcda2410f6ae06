//! A configuration that includes documents of a web server.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;

use xtask::workbench::AgentOptions;

use crate::command_line::alone;
use crate::scene::finish;

/// Answers by path, until the test ends. Returns its address.
fn serve() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let request = lines.next().unwrap().unwrap();
            let signed = lines
                .map_while(Result::ok)
                .take_while(|line| !line.is_empty())
                .any(|line| line == "authorization: Basic bWU6aHVudGVyMjI=");
            let (status, body) = match request.split(' ').nth(1).unwrap() {
                "/base.conf" if signed => (
                    "200 OK",
                    "agent.git_user: included\ninclude \"more.conf\"".to_owned(),
                ),
                "/more.conf" => ("200 OK", "agent.git_host: further".to_owned()),
                "/evil.conf" => ("200 OK", "include \"file:///etc/hostname\"".to_owned()),
                "/large" => ("200 OK", "#".repeat(2 << 20)),
                _ => ("404 Not Found", String::new()),
            };
            // Who has read enough leaves.
            let _gone = write!(
                stream,
                "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    address
}

fn shown(options: &AgentOptions, text: &str) -> (i32, String) {
    fs::write(&options.config, text).unwrap();
    let (code, stdout, stderr) = finish(options.command(&["config", "--origins"]));
    let said = stdout + &stderr;
    assert!(!said.contains("hunter22"), "{said}");
    (code, said)
}

#[test]
fn documents_of_a_web_server_are_included_within_bounds() {
    let folder = tempfile::tempdir().unwrap();
    let options = alone(&folder, "");
    let address = serve();
    let base = format!("http://me:hunter22@{address}/base.conf");
    let (code, said) = shown(
        &options,
        &format!("include \"{base}\"\nagent.worker_name: mine\n"),
    );
    assert_eq!(code, 0, "{said}");
    for (line, from) in [
        ("agent.git_user = included", "base.conf:1"),
        ("agent.git_host = further", "more.conf:1"),
        ("agent.worker_name = mine", "clearml.conf:2"),
    ] {
        let shown = said.lines().find(|shown| shown.starts_with(line));
        assert!(shown.is_some_and(|shown| shown.ends_with(from)), "{said}");
    }
    // What comes from the network may not read files of this machine.
    let (code, said) = shown(&options, &format!("include \"http://{address}/evil.conf\""));
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("may include no file of this machine"), "{said}");
    for (text, wanted) in [
        (format!("include url(\"http://{address}/large\")"), "more than"),
        (format!("include url(\"http://{address}/none\")"), "404 Not Found"),
        (
            "include url(\"http://me:hunter22@127.0.0.1:9/x\")".to_owned(),
            "Connection refused",
        ),
    ] {
        let (code, said) = shown(&options, &format!("{text}\nagent.worker_name: mine\n"));
        assert_eq!(code, 0, "{said}");
        assert!(
            said.contains("clearml_agent: Warning: ") && said.contains(wanted),
            "{said}"
        );
        assert!(said.contains("agent.worker_name = mine"), "{said}");
        let required = text.replace("url(", "required(url(") + ")";
        let (code, said) = shown(&options, &required);
        assert_eq!(code, 1, "{said}");
        assert!(
            said.contains("clearml_agent: ERROR: ") && said.contains(wanted),
            "{said}"
        );
    }
}
