//! Chromium without a window, driven through the W3C WebDriver protocol: JSON over HTTP to `chromedriver`.

use std::io::{BufRead, BufReader, Write as _};
use std::net::TcpStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};
use xtask::workbench::wait_for;

/// How long a page may take to show something on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// The name under which WebDriver hands out elements.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// One browser with one tab. Ends with everything that it has started when dropped.
pub(crate) struct Browser {
    driver: Child,
    port: u16,
    session: String,
}

impl Browser {
    /// Starts a browser that keeps its files below `scratch`; nothing, with the reason, where there is none.
    pub(crate) fn start_or_skip(test: &str, scratch: &Path) -> Option<Self> {
        match Self::start(scratch) {
            Ok(browser) => Some(browser),
            Err(error) => {
                eprintln!("SKIPPED {test}: no Chromium with chromedriver: {error:#}");
                None
            }
        }
    }

    fn start(scratch: &Path) -> Result<Self> {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .env("TMPDIR", scratch)
            .env("HOME", scratch)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("starting chromedriver")?;
        let output = driver.stdout.take().context("its output")?;
        let mut browser = Self {
            driver,
            port: 0,
            session: String::new(),
        };
        browser.port = announced_port(BufReader::new(output)).context("waiting for chromedriver")?;
        let mut arguments = vec![
            "--headless=new",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--window-size=1100,900",
            "--no-first-run",
            "--no-proxy-server",
            // A name for a site that is not ours.
            "--host-resolver-rules=MAP evil.example 127.0.0.1",
        ];
        if rustix::process::geteuid().is_root() {
            arguments.push("--no-sandbox");
        }
        let capabilities = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": {"args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"},
            "timeouts": {"pageLoad": 30_000, "script": 30_000},
        }}});
        let session = browser.call("POST", "/session", &capabilities)?;
        browser.session = session["sessionId"].as_str().context("no session id")?.to_owned();
        Ok(browser)
    }

    /// One command of the session.
    fn command(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        self.call(method, &format!("/session/{}{path}", self.session), body)
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let body = if method == "POST" {
            body.to_string()
        } else {
            String::new()
        };
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.port,
            body.len()
        )?;
        let (status, mut reply) = read_reply(&mut BufReader::new(stream))?;
        if !status.starts_with("HTTP/1.1 200") {
            bail!("{method} {path}: {}", reply["value"]["message"]);
        }
        Ok(reply["value"].take())
    }

    pub(crate) fn open(&self, url: &str) {
        self.command("POST", "/url", &json!({"url": url})).unwrap();
    }

    /// Waits for the element.
    fn find(&self, selector: &str) -> String {
        let wanted = json!({"using": "css selector", "value": selector});
        wait_for(
            &format!("the element {selector}"),
            PATIENCE,
            Duration::from_millis(50),
            || {
                let found = self.command("POST", "/element", &wanted).ok();
                Ok(found.and_then(|found| found[ELEMENT].as_str().map(str::to_owned)))
            },
        )
        .with_context(|| self.source())
        .unwrap()
    }

    pub(crate) fn click(&self, selector: &str) {
        // The page refreshes itself: the element may be replaced between the two commands.
        wait_for(
            &format!("a click on {selector}"),
            PATIENCE,
            Duration::from_millis(50),
            || {
                let path = format!("/element/{}/click", self.find(selector));
                Ok(self.command("POST", &path, &json!({})).ok())
            },
        )
        .unwrap();
    }

    pub(crate) fn write(&self, selector: &str, text: &str) {
        let path = format!("/element/{}/value", self.find(selector));
        self.command("POST", &path, &json!({"text": text})).unwrap();
    }

    /// The visible text of the element.
    pub(crate) fn text(&self, selector: &str) -> String {
        let script = "return document.querySelector(arguments[0])?.innerText ?? ''";
        self.run(script, json!([selector])).as_str().unwrap().to_owned()
    }

    pub(crate) fn wait_for_text(&self, selector: &str, text: &str) {
        let question = || Ok(self.text(selector).contains(text).then_some(()));
        let what = format!("{text:?} in {selector}");
        wait_for(&what, PATIENCE, Duration::from_millis(50), question)
            .with_context(|| self.source())
            .unwrap();
    }

    /// Clicks on what brings another page, which may show the same words, and returns when it is there.
    pub(crate) fn click_for_new_page(&self, selector: &str) {
        self.run("window.left = true", json!([]));
        self.click(selector);
        let question = json!({"script": "return window.left", "args": []});
        wait_for("the new page", PATIENCE, Duration::from_millis(50), || {
            // Between two pages there is none to ask.
            let left = self.command("POST", "/execute/sync", &question);
            Ok(left.is_ok_and(|left| left.is_null()).then_some(()))
        })
        .unwrap();
    }

    /// Runs a script in the page.
    pub(crate) fn run(&self, script: &str, arguments: Value) -> Value {
        self.command(
            "POST",
            "/execute/sync",
            &json!({"script": script, "args": arguments}),
        )
        .unwrap()
    }

    /// What the browser complains about: errors of scripts, and whatever the content security policy refused. That the
    /// sign-in form comes with a 401 is right.
    pub(crate) fn complaints(&self) -> Vec<Value> {
        let log = self
            .command("POST", "/se/log", &json!({"type": "browser"}))
            .unwrap();
        let mut complaints = log.as_array().cloned().unwrap_or_default();
        complaints.retain(|entry| !entry["message"].as_str().unwrap_or_default().contains(" 401 "));
        complaints
    }

    fn source(&self) -> String {
        let source = self.command("GET", "/source", &Value::Null);
        source.map_or_else(|error| error.to_string(), |source| source.to_string())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            // In order, so that the browser leaves no files behind.
            let _ended = self.command("DELETE", "", &Value::Null);
        }
        if let Some(group) = i32::try_from(self.driver.id()).ok().and_then(Pid::from_raw) {
            let _gone = rustix::process::kill_process_group(group, Signal::KILL);
        }
        let _gone = self.driver.kill();
        let _status = self.driver.wait();
    }
}

/// Status line and body. Chromedriver keeps the connection open, whatever it is asked.
fn read_reply(stream: &mut impl BufRead) -> Result<(String, Value)> {
    let mut status = String::new();
    stream.read_line(&mut status)?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let Some((name, value)) = line.split_once(':') else {
            break;
        };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse()?;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    let reply = serde_json::from_slice(&body).with_context(|| String::from_utf8_lossy(&body).into_owned())?;
    Ok((status, reply))
}

/// `ChromeDriver was started successfully on port 40123.`
fn announced_port(output: impl BufRead + Send + 'static) -> Result<u16> {
    let (sender, receiver) = std::sync::mpsc::channel();
    // The thread goes on reading, so that chromedriver can always write.
    std::thread::spawn(move || {
        for line in output.lines().map_while(Result::ok) {
            let port = line
                .split_once("started successfully on port ")
                .and_then(|(_, rest)| rest.trim_end_matches('.').parse().ok());
            if let Some(port) = port {
                let _nobody_waits = sender.send(port);
            }
        }
    });
    receiver
        .recv_timeout(PATIENCE)
        .context("it did not say on which port it listens")
}
