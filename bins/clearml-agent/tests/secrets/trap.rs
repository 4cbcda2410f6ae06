//! A server that has nothing, and remembers who was let in.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use base64::Engine;

/// Answers 401 to who brings no login and 404 to everybody else.
pub(crate) struct Trap {
    port: u16,
    logins: Arc<Mutex<String>>,
}

impl Trap {
    pub(crate) fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let logins = Arc::new(Mutex::new(String::new()));
        let seen = logins.clone();
        // Ends with the process: nothing depends on when.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _broken_off = answer(stream, &seen);
            }
        });
        Self { port, logins }
    }

    /// An address with a password, or without.
    pub(crate) fn url(&self, password: &str, path: &str) -> String {
        let login = if password.is_empty() {
            String::new()
        } else {
            format!("somebody:{password}@")
        };
        format!("http://{login}127.0.0.1:{}/{path}", self.port)
    }

    /// Whether someone has come with this password.
    pub(crate) fn saw(&self, password: &str) -> bool {
        self.logins.lock().unwrap().contains(password)
    }
}

fn answer(mut stream: TcpStream, logins: &Mutex<String>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut known = false;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line == "\r\n" {
            break;
        }
        let login = line
            .split_once(": ")
            .filter(|(name, _)| name.eq_ignore_ascii_case("authorization"));
        if let Some((_, value)) = login {
            known = true;
            let encoded = value.trim().trim_start_matches("Basic ");
            let decoded = base64::engine::general_purpose::STANDARD
                .decode(encoded)
                .unwrap_or_default();
            logins
                .lock()
                .unwrap()
                .push_str(&String::from_utf8_lossy(&decoded));
        }
    }
    let head = if known {
        "404 Not Found"
    } else {
        "401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"trap\""
    };
    write!(
        stream,
        "HTTP/1.1 {head}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )
}
