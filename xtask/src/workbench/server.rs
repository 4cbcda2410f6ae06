//! `clearml-agent server` as a real process.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use serde_json::Value;

use super::{Api, marked, wait_for};

/// A server that is stopped when dropped. It can be killed and started again on the same data and ports.
pub struct LocalServer {
    executable: PathBuf,
    data: PathBuf,
    port: u16,
    files_port: u16,
    extra: Vec<String>,
    child: Option<Child>,
}

impl LocalServer {
    /// Starts a server on free ports of the loopback interface, with its data and log below `data`.
    ///
    /// # Errors
    ///
    /// When the process does not start, or does not answer in time; the message holds its output.
    pub fn start(executable: &Path, data: &Path) -> Result<Self> {
        Self::start_with(executable, data, &[])
    }

    /// The same with further arguments.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub fn start_with(executable: &Path, data: &Path, extra: &[&str]) -> Result<Self> {
        fs::create_dir_all(data).with_context(|| format!("creating {}", data.display()))?;
        let (port, files_port) = free_ports()?;
        let mut server = Self {
            executable: executable.to_owned(),
            data: data.to_owned(),
            port,
            files_port,
            extra: extra.iter().map(|&argument| argument.to_owned()).collect(),
            child: None,
        };
        server.start_again()?;
        Ok(server)
    }

    /// Starts the server after it was killed or stopped.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub fn start_again(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.log())?;
        let child = Command::new(&self.executable)
            .arg("server")
            .arg("--data")
            .arg(&self.data)
            .args(["--host", "127.0.0.1", "--web-port", "0", "--faults"])
            .args([
                "--port",
                &self.port.to_string(),
                "--files-port",
                &self.files_port.to_string(),
            ])
            .args(&self.extra)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {} server", self.executable.display()))?;
        self.child = Some(child);
        let ready = wait_for(
            "the start of the server",
            Duration::from_secs(30),
            Duration::from_millis(20),
            || {
                if let Some(status) = self.child.as_mut().map(Child::try_wait).transpose()?.flatten() {
                    bail!("the server ended with {status}");
                }
                Ok(
                    (self.config().is_file() && TcpStream::connect(("127.0.0.1", self.port)).is_ok())
                        .then_some(()),
                )
            },
        );
        ready.with_context(|| fs::read_to_string(self.log()).unwrap_or_default())
    }

    fn log(&self) -> PathBuf {
        self.data.join("server.log")
    }

    /// Everything that the server has printed.
    #[must_use]
    pub fn output(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// The client configuration that the server has written.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.data.join("clearml.conf")
    }

    /// The process id of the running server.
    #[must_use]
    pub fn pid(&self) -> Option<i32> {
        self.child
            .as_ref()
            .and_then(|child| i32::try_from(child.id()).ok())
    }

    /// A client of this server.
    ///
    /// # Errors
    ///
    /// When the configuration that the server wrote does not work.
    pub fn api(&self) -> Result<Api> {
        Api::connect(&self.config())
    }

    /// Kills the server as a power cut would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _gone = child.kill();
            let _status = child.wait();
        }
    }

    /// Asks the server to stop and waits for it.
    ///
    /// # Errors
    ///
    /// When it does not stop in time.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        let Some(mut child) = self.child.take() else {
            bail!("the server is not running")
        };
        marked::send(i32::try_from(child.id())?, Signal::TERM);
        let stopped = wait_for(
            "the end of the server",
            Duration::from_secs(10),
            Duration::from_millis(20),
            || Ok(child.try_wait()?),
        );
        if stopped.is_err() {
            let _gone = child.kill();
            let _status = child.wait();
        }
        stopped
    }

    /// Switches a fault on; the server's documentation lists the fields.
    ///
    /// # Errors
    ///
    /// When the server refuses the fault.
    pub fn fault(&self, fault: &Value) -> Result<()> {
        self.control("POST", "/_faults", &fault.to_string()).map(drop)
    }

    /// Switches all faults off.
    ///
    /// # Errors
    ///
    /// When the server does not answer.
    pub fn clear_faults(&self) -> Result<()> {
        self.control("DELETE", "/_faults", "").map(drop)
    }

    /// How often each endpoint was called.
    ///
    /// # Errors
    ///
    /// When the server does not answer with JSON.
    pub fn calls(&self) -> Result<Value> {
        let text = self.control("GET", "/_calls", "")?;
        serde_json::from_str(&text).with_context(|| format!("reading the call counts {text:?}"))
    }

    /// The control paths are not part of the ClearML API, so they don't go through the API client.
    fn control(&self, method: &str, path: &str, body: &str) -> Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.port,
            body.len()
        )?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply)?;
        let (head, body) = reply
            .split_once("\r\n\r\n")
            .context("a reply without an end of its head")?;
        ensure!(head.starts_with("HTTP/1.1 2"), "{method} {path}: {reply}");
        Ok(body.to_owned())
    }
}

impl Drop for LocalServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Two ports that nobody uses at this moment.
fn free_ports() -> Result<(u16, u16)> {
    let first = TcpListener::bind("127.0.0.1:0")?;
    let second = TcpListener::bind("127.0.0.1:0")?;
    Ok((first.local_addr()?.port(), second.local_addr()?.port()))
}
