//! A web server for repositories, as small as can be: one request a connection, Basic authentication, and
//! `git http-backend` or hgweb behind it. It remembers who has shown which login.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine;

/// What the server does with a request.
#[derive(Clone)]
pub(crate) struct Site {
    /// Program and arguments that answer as a CGI script.
    pub(crate) cgi: Vec<String>,
    /// Variables of the script.
    pub(crate) env: Vec<(String, String)>,
    /// The value of `Authorization` that is wanted.
    pub(crate) wanted: Option<String>,
    /// Where everybody is sent instead.
    pub(crate) redirect: Option<String>,
    /// How many of the first requests are told to come again.
    pub(crate) busy: usize,
}

impl Site {
    /// git repositories below a folder, for everybody.
    pub(crate) fn git(root: &Path) -> Self {
        let env = [
            ("GIT_PROJECT_ROOT", root.display().to_string()),
            ("GIT_HTTP_EXPORT_ALL", "1".to_owned()),
        ];
        Self {
            cgi: ["git", "http-backend"].map(String::from).to_vec(),
            env: env.map(|(name, value)| (name.to_owned(), value)).to_vec(),
            wanted: None,
            redirect: None,
            busy: 0,
        }
    }

    /// The same, for those with this login.
    pub(crate) fn login(self, user: &str, pass: &str) -> Self {
        Self {
            wanted: Some(basic(user, pass)),
            ..self
        }
    }
}

pub(crate) fn basic(user: &str, pass: &str) -> String {
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{pass}"));
    format!("Basic {pair}")
}

/// A running server; it stops when dropped.
pub(crate) struct Web {
    pub(crate) port: u16,
    /// The `Authorization` of every request, or nothing.
    pub(crate) seen: Arc<Mutex<Vec<Option<String>>>>,
    stop: Arc<AtomicBool>,
}

impl Web {
    pub(crate) fn start(site: Site) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let web = Self {
            port: listener.local_addr().unwrap().port(),
            seen: Arc::default(),
            stop: Arc::default(),
        };
        let (seen, stop) = (web.seen.clone(), web.stop.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let (site, seen) = (site.clone(), seen.clone());
                // A client that goes away in the middle is not our business.
                std::thread::spawn(move || drop(answer(stream, &site, &seen)));
            }
        });
        web
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.port)
    }

    /// Every login that was shown.
    pub(crate) fn logins(&self) -> Vec<String> {
        self.seen.lock().unwrap().iter().flatten().cloned().collect()
    }

    pub(crate) fn requests(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

fn answer(stream: TcpStream, site: &Site, seen: &Mutex<Vec<Option<String>>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut words = first.split_whitespace();
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let count = {
        let mut seen = seen.lock().unwrap();
        seen.push(headers.get("authorization").cloned());
        seen.len()
    };
    let mut stream = stream;
    let body = body(&mut reader, &mut stream, &headers)?;
    if count <= site.busy {
        return write!(
            stream,
            "HTTP/1.1 503 Later\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
    }
    if let Some(redirect) = &site.redirect {
        return write!(
            stream,
            "HTTP/1.1 302 Found\r\nLocation: {redirect}{target}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
    }
    if site.wanted.is_some() && headers.get("authorization") != site.wanted.as_ref() {
        return write!(
            stream,
            "HTTP/1.1 401 No\r\nWWW-Authenticate: Basic realm=\"r\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
    }
    let reply = run_cgi(site, method, target, &headers, &body)?;
    let split = reply
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .unwrap_or(0);
    let head = String::from_utf8_lossy(&reply[..split]).into_owned();
    let status = head.lines().find_map(|line| line.strip_prefix("Status: "));
    write!(
        stream,
        "HTTP/1.1 {}\r\nConnection: close\r\n{head}\r\n\r\n",
        status.unwrap_or("200 OK")
    )?;
    stream.write_all(&reply[split + 4..])
}

fn body(
    reader: &mut BufReader<TcpStream>,
    stream: &mut TcpStream,
    headers: &BTreeMap<String, String>,
) -> std::io::Result<Vec<u8>> {
    if headers.contains_key("expect") {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let mut body = Vec::new();
    if headers.contains_key("transfer-encoding") {
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let length = u64::from_str_radix(line.trim(), 16).unwrap_or(0);
            reader.take(length).read_to_end(&mut body)?;
            reader.read_line(&mut line)?;
            if length == 0 {
                return Ok(body);
            }
        }
    }
    let length = headers.get("content-length").and_then(|text| text.parse().ok());
    reader.take(length.unwrap_or(0)).read_to_end(&mut body)?;
    Ok(body)
}

fn run_cgi(
    site: &Site,
    method: &str,
    target: &str,
    headers: &BTreeMap<String, String>,
    body: &[u8],
) -> std::io::Result<Vec<u8>> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut command = Command::new(&site.cgi[0]);
    command
        .args(&site.cgi[1..])
        .envs(site.env.iter().map(|(name, value)| (name, value)))
        .env("REQUEST_METHOD", method)
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("SERVER_PROTOCOL", "HTTP/1.1")
        .env("SERVER_NAME", "127.0.0.1")
        .env("SERVER_PORT", "80")
        .env("SCRIPT_NAME", "")
        .env("REMOTE_USER", "tester")
        .env("REMOTE_ADDR", "127.0.0.1");
    for (name, value) in headers {
        let name = name.to_ascii_uppercase().replace('-', "_");
        match name.as_str() {
            "CONTENT_TYPE" => command.env(name, value),
            "AUTHORIZATION" | "CONTENT_LENGTH" => &mut command,
            _ => command.env(format!("HTTP_{name}"), value),
        };
    }
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut stdin = child.stdin.take().unwrap();
    let body = body.to_owned();
    std::thread::spawn(move || drop(stdin.write_all(&body)));
    Ok(child.wait_with_output()?.stdout)
}
