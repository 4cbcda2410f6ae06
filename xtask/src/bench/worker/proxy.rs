//! Between an agent and the server: notes when each task was looked at.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use serde_json::Value;

/// When each task was looked at.
type Looks = HashMap<String, Vec<Instant>>;

/// Accepts connections as long as the process lives.
pub(super) struct Proxy {
    pub(super) address: SocketAddr,
    looks: Arc<Mutex<Looks>>,
}

impl Proxy {
    pub(super) fn start(server: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let looks = Arc::<Mutex<Looks>>::default();
        let shared = Arc::clone(&looks);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let looks = Arc::clone(&shared);
                thread::spawn(move || {
                    // A connection that breaks is the agent's business.
                    let _broken = connect(&client, server, &looks);
                    let _closed = client.shutdown(Shutdown::Both);
                });
            }
        });
        Ok(Self { address, looks })
    }

    /// What was noted since the last call.
    pub(super) fn take(&self) -> Looks {
        std::mem::take(&mut *self.looks.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn connect(client: &TcpStream, server: SocketAddr, looks: &Mutex<Looks>) -> io::Result<()> {
    let upstream = TcpStream::connect(server)?;
    upstream.set_nodelay(true)?;
    client.set_nodelay(true)?;
    let (mut answers, mut back) = (upstream.try_clone()?, client.try_clone()?);
    let answering = thread::spawn(move || {
        let _ended = io::copy(&mut answers, &mut back);
        let _closed = back.shutdown(Shutdown::Both);
    });
    let mut requests = BufReader::new(client.try_clone()?);
    let mut upstream = upstream;
    while let Some((head, body)) = request(&mut requests)? {
        let text = String::from_utf8_lossy(&head);
        if text.contains("/tasks.get_all ") {
            note(&body, looks);
        }
        upstream.write_all(&[head, body].concat())?;
    }
    upstream.shutdown(Shutdown::Both)?;
    let _joined = answering.join();
    Ok(())
}

/// One request: everything before its body, and the body.
fn request(from: &mut impl BufRead) -> io::Result<Option<(Vec<u8>, Vec<u8>)>> {
    let mut head = Vec::new();
    let mut length = 0;
    loop {
        let begin = head.len();
        if from.read_until(b'\n', &mut head)? == 0 {
            return Ok(None);
        }
        let line = String::from_utf8_lossy(&head[begin..]).to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body)?;
    Ok(Some((head, body)))
}

fn note(body: &[u8], looks: &Mutex<Looks>) {
    let now = Instant::now();
    let Ok(body) = serde_json::from_slice::<Value>(body) else {
        return;
    };
    let fields = body["only_fields"].as_array().cloned().unwrap_or_default();
    if !fields.iter().any(|field| field == "status_message") {
        return;
    }
    let mut looks = looks.lock().unwrap_or_else(PoisonError::into_inner);
    for task in body["id"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
    {
        looks.entry(task.to_owned()).or_default().push(now);
    }
}
