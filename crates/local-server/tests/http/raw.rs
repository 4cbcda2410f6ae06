//! A server in this process and the plainest of HTTP clients: what is sent is exactly what the test says, also when
//! no well-behaved client would send it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use clearml_local_server::{Server, ServerOptions};
use serde_json::{Value, json};

pub(crate) struct TestServer {
    pub(crate) server: Server,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) token: String,
    runtime: tokio::runtime::Runtime,
}

/// The reply to one request.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {}", self.text()))
    }
}

impl TestServer {
    pub(crate) fn start() -> Self {
        Self::start_with(|_| {})
    }

    pub(crate) fn start_with(change: impl FnOnce(&mut ServerOptions)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut options = ServerOptions::new(folder.path().join("data"));
        change(&mut options);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let server = runtime.block_on(Server::start(options)).unwrap();
        let mut started = Self {
            server,
            folder,
            token: String::new(),
            runtime,
        };
        started.token = started.login();
        started
    }

    fn login(&self) -> String {
        use base64::Engine as _;
        let keys = format!(
            "{}:{}",
            self.server.access_key(),
            self.server.secret_key().expose()
        );
        let basic = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(keys));
        let reply = send(
            &self.server.api_url(),
            "POST",
            "/auth.login",
            &[("Authorization", &basic)],
            b"",
        );
        reply.json()["data"]["token"]
            .as_str()
            .expect("a token")
            .to_owned()
    }

    /// Calls an endpoint of the newest version and returns code, subcode and data.
    pub(crate) fn call(&self, endpoint: &str, body: Value) -> (i64, i64, Value) {
        self.call_raw(
            &format!("/{endpoint}"),
            "application/json",
            body.to_string().as_bytes(),
        )
    }

    pub(crate) fn call_raw(&self, path: &str, content_type: &str, body: &[u8]) -> (i64, i64, Value) {
        let bearer = self.bearer();
        let headers = [("Authorization", bearer.as_str()), ("Content-Type", content_type)];
        let reply = send(&self.server.api_url(), "POST", path, &headers, body).json();
        let code = |name: &str| reply["meta"][name].as_i64().unwrap();
        (code("result_code"), code("result_subcode"), reply["data"].clone())
    }

    /// Calls an endpoint that must succeed.
    pub(crate) fn ok(&self, endpoint: &str, body: Value) -> Value {
        let shown = body.to_string();
        let (code, subcode, data) = self.call(endpoint, body);
        assert_eq!((code, subcode), (200, 0), "{endpoint} {shown}: {data}");
        data
    }

    /// Sends lines of events.
    pub(crate) fn add_batch(&self, events: &[Value]) -> (i64, i64, Value) {
        let lines: Vec<String> = events.iter().map(Value::to_string).collect();
        self.call_raw(
            "/events.add_batch",
            "application/json-lines",
            lines.join("\n").as_bytes(),
        )
    }

    pub(crate) fn new_task(&self) -> String {
        let created = self.ok("tasks.create", json!({"name": "a task", "type": "training"}));
        created["id"].as_str().unwrap().to_owned()
    }

    pub(crate) fn bearer(&self) -> String {
        format!("Bearer {}", self.token)
    }

    /// Lets the watchdog look now; gives the ids of the tasks it stopped.
    pub(crate) fn watchdog(&self) -> Vec<String> {
        self.runtime.block_on(self.server.run_watchdog())
    }

    pub(crate) fn stop(self) {
        self.runtime.block_on(self.server.shutdown());
    }
}

/// Sends one request on a connection of its own.
pub(crate) fn send(base: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
    let address = base.strip_prefix("http://").unwrap();
    let mut connection = TcpStream::connect(address).unwrap();
    connection
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
    connection.write_all(head.as_bytes()).unwrap();
    // A server that refuses early closes its side before it has read everything.
    let _ = connection.write_all(body);
    let mut answer = Vec::new();
    let _ = connection.read_to_end(&mut answer);
    parse(&answer)
}

fn parse(answer: &[u8]) -> Reply {
    let end = answer
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .expect("a complete head");
    let head = std::str::from_utf8(&answer[..end]).unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let chunked = headers
        .iter()
        .any(|(name, value)| name == "transfer-encoding" && value == "chunked");
    let body = &answer[end + 4..];
    let body = if chunked { unchunk(body) } else { body.to_vec() };
    Reply {
        status,
        headers,
        body,
    }
}

fn unchunk(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let end = rest
            .windows(2)
            .position(|window| window == b"\r\n")
            .expect("a chunk size");
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        if size == 0 {
            return body;
        }
        body.extend_from_slice(&rest[end + 2..end + 2 + size]);
        rest = &rest[end + 4 + size..];
    }
}
