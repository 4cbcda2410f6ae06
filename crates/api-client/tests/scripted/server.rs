//! A server on a real socket that answers from a script, to show the client what no well-behaved
//! server does: broken bodies, lost connections, other people's web pages.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use clearml_api_client::{Auth, Client, ClientOptions, RetryPolicy};
use clearml_support::secret::Secret;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;

pub(crate) const SECRET: &str = "the-very-secret-key";

/// What happens to one request.
#[derive(Clone)]
pub(crate) enum Step {
    /// These bytes, then the connection is kept.
    Raw(Vec<u8>),
    /// These bytes, then the connection is closed.
    RawThenClose(Vec<u8>),
    /// The connection is closed without an answer, after the request was read.
    Close,
    /// The connection is reset.
    Reset,
    /// No answer at all.
    Hang,
}

impl Step {
    pub(crate) fn ok(data: Value) -> Self {
        Self::api(200, 0, "OK", data)
    }

    pub(crate) fn error(code: u16, subcode: u32, message: &str) -> Self {
        Self::api(code, subcode, message, json!({}))
    }

    pub(crate) fn api(code: u16, subcode: u32, message: &str, data: Value) -> Self {
        let meta =
            json!({"id": "call-1", "result_code": code, "result_subcode": subcode, "result_msg": message});
        let body = json!({"meta": meta, "data": data}).to_string();
        Self::http(code, "application/json", &[], body.as_bytes())
    }

    pub(crate) fn http(status: u16, content_type: &str, headers: &[&str], body: &[u8]) -> Self {
        let mut head = format!(
            "HTTP/1.1 {status} X\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n",
            body.len()
        );
        for header in headers {
            head.push_str(header);
            head.push_str("\r\n");
        }
        head.push_str("\r\n");
        Self::Raw([head.as_bytes(), body].concat())
    }

    pub(crate) fn html(status: u16) -> Self {
        Self::http(status, "text/html", &[], b"<html><body>Bad luck</body></html>")
    }

    /// A good answer that stops in the middle of its body.
    pub(crate) fn truncated() -> Self {
        let body = br#"{"meta":{"result_code":200},"da"#;
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            500
        );
        Self::RawThenClose([head.as_bytes(), body].concat())
    }

    /// JSON that stops in the middle although HTTP thinks that it is complete.
    pub(crate) fn cut_json() -> Self {
        Self::http(
            200,
            "application/json",
            &[],
            br#"{"meta":{"result_code":200},"da"#,
        )
    }
}

/// A request as it came in.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

#[derive(Default)]
struct State {
    logins: VecDeque<Step>,
    calls: VecDeque<Step>,
    seen_logins: Vec<Request>,
    seen_calls: Vec<Request>,
    life: Option<u64>,
}

/// The server. Requests of `auth.login` and all others have scripts of their own; when a script is
/// over, logins give tokens `…token-1`, `…token-2` and calls give an empty success.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) url: String,
    state: Arc<Mutex<State>>,
    task: Arc<tokio::task::JoinHandle<()>>,
}

pub(crate) fn token(number: usize, life: u64) -> String {
    let claims = json!({
        "iat": 1_000_000, "exp": 1_000_000 + life, "api_version": "2.34", "server_version": "2.3.0",
        "feature_set": "basic", "identity": {"user": "u1", "role": "admin"}, "number": number,
    });
    token_with(&claims, number)
}

/// A token of other servers.
pub(crate) fn token_with(claims: &Value, number: usize) -> String {
    let payload = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(claims.to_string());
    format!("e30.{payload}.token-{number}")
}

impl Server {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                tokio::spawn(async move {
                    let _ = stream.set_nodelay(true);
                    serve(stream, &state).await;
                });
            }
        });
        Self {
            url,
            state,
            task: Arc::new(task),
        }
    }

    /// Stops accepting connections: from now on they are refused.
    pub(crate) fn stop(&self) {
        self.task.abort();
    }

    pub(crate) fn login_script(&self, steps: impl IntoIterator<Item = Step>) {
        self.state.lock().unwrap().logins.extend(steps);
    }

    pub(crate) fn script(&self, steps: impl IntoIterator<Item = Step>) {
        self.state.lock().unwrap().calls.extend(steps);
    }

    pub(crate) fn token_life(&self, seconds: u64) {
        self.state.lock().unwrap().life = Some(seconds);
    }

    pub(crate) fn logins(&self) -> Vec<Request> {
        self.state.lock().unwrap().seen_logins.clone()
    }

    pub(crate) fn calls(&self) -> Vec<Request> {
        self.state.lock().unwrap().seen_calls.clone()
    }

    /// Options for this server with waits of milliseconds.
    pub(crate) fn options(&self) -> ClientOptions {
        let auth = Auth::Keys {
            access_key: Secret::new("AKEY"),
            secret_key: Secret::new(SECRET),
        };
        let mut options = ClientOptions::new(&self.url, auth);
        options.worker_header = "host-1".to_owned();
        options.user_agent_name = "agent/9".to_owned();
        options.retry.base = Duration::from_millis(4);
        options.retry.cap = Duration::from_millis(20);
        options.retry = RetryPolicy {
            initial_retries: Some(2),
            ..options.retry
        };
        options.request_timeout = Duration::from_secs(2);
        options
    }

    /// A client that is logged in.
    pub(crate) async fn client(&self) -> Client {
        let client = Client::new(self.options()).unwrap();
        client.login().await.unwrap();
        client
    }
}

async fn serve(mut stream: tokio::net::TcpStream, state: &Mutex<State>) -> Option<()> {
    loop {
        let request = read_request(&mut stream).await?;
        match next_step(state, request) {
            Step::Raw(bytes) => stream.write_all(&bytes).await.ok()?,
            Step::RawThenClose(bytes) => {
                stream.write_all(&bytes).await.ok()?;
                stream.shutdown().await.ok()?;
                return None;
            }
            Step::Close => return None,
            Step::Reset => {
                // Dropping the stream now sends a reset instead of an orderly end.
                stream.set_zero_linger().ok()?;
                return None;
            }
            Step::Hang => std::future::pending().await,
        }
    }
}

/// Serves one connection of any kind with good answers only.
pub(crate) async fn serve_well(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let state = Mutex::new(State::default());
    while let Some(request) = read_request(&mut stream).await {
        if let Step::Raw(bytes) = next_step(&state, request)
            && stream.write_all(&bytes).await.is_err()
        {
            return;
        }
    }
}

fn next_step(state: &Mutex<State>, request: Request) -> Step {
    let mut state = state.lock().unwrap();
    if request.path.contains("auth.login") {
        state.seen_logins.push(request);
        let number = state.seen_logins.len();
        let life = state.life.unwrap_or(30 * 86_400);
        state
            .logins
            .pop_front()
            .unwrap_or_else(|| Step::ok(json!({ "token": token(number, life) })))
    } else {
        state.seen_calls.push(request);
        state.calls.pop_front().unwrap_or_else(|| Step::ok(json!({})))
    }
}

async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> Option<Request> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.lines();
    let mut first = lines.next()?.split(' ');
    let (method, path) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = headers
        .iter()
        .find(|(name, _)| name == "content-length")
        .map_or(0, |(_, value)| value.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(Request {
        method,
        path,
        headers,
        body,
    })
}
