//! A server, a state folder, and daemons as processes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use clearml_agent_config::{Settings, Sources};
use clearml_api_client::{Client, StatusChange};
use clearml_local_server::{Server, ServerOptions};
use clearml_support::process::ProcessIdentity;
use clearml_task_model::{QueueId, Task, TaskId};
use clearml_task_runner::RunStore;
use clearml_task_runner::settings::client_options;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;

pub(crate) const WORKER: &str = "tester:0";
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Scene {
    folder: tempfile::TempDir,
    server: Option<Server>,
    port: u16,
    features: &'static str,
    pub(crate) client: Client,
    pub(crate) queue: QueueId,
}

impl Scene {
    pub(crate) async fn start() -> Self {
        Self::start_of("basic").await
    }

    /// With a server that has these features.
    pub(crate) async fn start_of(features: &'static str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = start_server(folder.path(), 0, features).await;
        let settings = Settings::load(&Sources {
            config_file: Some(server.config_path().to_owned()),
            ..Sources::from_process()
        })
        .unwrap();
        let client = Client::new(client_options(&settings).unwrap()).unwrap();
        client.login().await.unwrap();
        let queue = client.queues_create("work", &[]).await.unwrap();
        let port = server.api_url().rsplit(':').next().unwrap().parse().unwrap();
        Self {
            folder,
            server: Some(server),
            port,
            features,
            client,
            queue,
        }
    }

    pub(crate) async fn stop_server(&mut self) {
        self.server.take().unwrap().shutdown().await;
    }

    pub(crate) async fn start_server(&mut self) {
        self.server = Some(start_server(self.folder.path(), self.port, self.features).await);
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.folder().join("state")
    }

    pub(crate) fn runs(&self) -> RunStore {
        RunStore::open(&self.state()).unwrap()
    }

    async fn switch(&self, method: &str, path: &str, body: &str) -> String {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.unwrap();
        assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
        reply
    }

    pub(crate) async fn fault(&self, fault: Value) {
        self.switch("POST", "/_faults", &fault.to_string()).await;
    }

    pub(crate) async fn clear_faults(&self) {
        self.switch("DELETE", "/_faults", "").await;
    }

    pub(crate) async fn forget_calls(&self) {
        self.switch("DELETE", "/_calls", "").await;
    }

    /// How often each endpoint was called.
    pub(crate) async fn calls(&self) -> BTreeMap<String, u64> {
        let reply = self.switch("GET", "/_calls", "").await;
        let body = &reply[reply.find("\r\n\r\n").unwrap()..];
        let calls: Value = serde_json::from_str(body.trim()).unwrap();
        serde_json::from_value(calls["counts"].clone()).unwrap()
    }

    pub(crate) async fn calls_of(&self, endpoint: &str) -> u64 {
        self.calls().await.get(endpoint).copied().unwrap_or(0)
    }

    /// A task in a queue that leaves one line per execution in its witness file.
    pub(crate) async fn enqueued(&self, queue: &QueueId, name: &str) -> TaskId {
        self.enqueued_script(queue, name, "").await
    }

    /// The same, and then it runs a shell script.
    pub(crate) async fn enqueued_script(&self, queue: &QueueId, name: &str, script: &str) -> TaskId {
        let task = self.draft(name, script).await;
        let change = StatusChange::default();
        self.client.tasks_enqueue(&task, queue, &change).await.unwrap();
        task
    }

    pub(crate) async fn draft(&self, name: &str, script: &str) -> TaskId {
        let diff = format!("echo ran >> {}\n{script}\n", self.witness(name).display());
        let script = json!({"binary": "/bin/sh", "entry_point": "task.sh", "diff": diff});
        let fields = json!({"name": name, "type": "testing", "script": script});
        self.client.tasks_create(fields).await.unwrap()
    }

    fn witness(&self, name: &str) -> PathBuf {
        self.folder().join(format!("{name}.witness"))
    }

    /// How often the program of a task has been started.
    pub(crate) fn executions(&self, name: &str) -> usize {
        fs::read_to_string(self.witness(name)).map_or(0, |text| text.lines().count())
    }

    pub(crate) async fn task(&self, task: &TaskId) -> Task {
        self.client.tasks_get_by_id(task).await.unwrap()
    }

    pub(crate) async fn ended(&self, task: &TaskId, daemon: &Daemon) -> Task {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.task(task).await;
            if found.status.as_ref().is_some_and(|status| status.is_final()) {
                return found;
            }
            assert!(
                Instant::now() < deadline,
                "the task does not end; the daemon said:\n{}",
                daemon.output()
            );
            sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) async fn completes_once(&self, task: &TaskId, name: &str, daemon: &Daemon) {
        let ended = self.ended(task, daemon).await;
        let status = ended.status.unwrap();
        assert_eq!(
            status.as_str(),
            "completed",
            "{:?}\n{}",
            ended.status_reason,
            daemon.output()
        );
        assert_eq!(self.executions(name), 1, "{}", daemon.output());
    }

    /// A daemon that listens to these queues and has looked at them already.
    pub(crate) async fn daemon(&self, queues: &[&str]) -> Daemon {
        let daemon = self.daemon_with(WORKER, queues, &[]);
        daemon.says("No tasks in Queues").await;
        daemon
    }

    /// A daemon that has just been started.
    pub(crate) fn daemon_with(&self, worker: &str, queues: &[&str], variables: &[(&str, &str)]) -> Daemon {
        let log = self
            .folder()
            .join(format!("{}.log", clearml_support::id::hex32()));
        let file = File::create(&log).unwrap();
        let mut command = Command::new(program());
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("CLEARML_") || text.starts_with("TRAINS_") || text.ends_with("_proxy") {
                command.env_remove(name);
            }
        }
        let temporary = self.folder().join("tmp");
        fs::create_dir_all(&temporary).unwrap();
        command
            .arg("daemon")
            .arg(self.folder().join("server/clearml.conf"))
            .arg(self.state())
            .arg(worker)
            .args(queues)
            .env("HOME", self.folder())
            .env("TMPDIR", temporary)
            .env("CLEARML_AGENT_QUEUE_POLL_FREQ_SEC", "0.2")
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file);
        Daemon {
            child: command.spawn().unwrap(),
            log,
        }
    }
}

async fn start_server(folder: &Path, port: u16, features: &str) -> Server {
    let mut options = ServerOptions::new(folder.join("server"));
    options.port = port;
    options.faults = true;
    options.feature_set = features.to_owned();
    Server::start(options).await.unwrap()
}

/// The example that becomes a daemon, a runner or a shim. Cargo builds examples before it runs tests.
fn program() -> PathBuf {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.push("examples/run_daemon");
    assert!(
        path.exists(),
        "{} is missing; run the tests with `cargo test`",
        path.display()
    );
    path
}

pub(crate) async fn eventually(what: &str, mut test: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !test() {
        assert!(Instant::now() < deadline, "waited too long until {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// A daemon; killed when dropped.
pub(crate) struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Everything it has said so far.
    pub(crate) fn output(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap()).into_owned()
    }

    pub(crate) async fn says(&self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.output().contains(text) {
            assert!(
                Instant::now() < deadline,
                "{text:?} is not said, but:\n{}",
                self.output()
            );
            sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) fn terminate(&self) {
        let process = ProcessIdentity::of(self.child.id().cast_signed()).unwrap();
        process.unwrap().signal(Signal::TERM).unwrap();
    }

    /// Waits for its end, which has to come within this time.
    pub(crate) async fn end_within(&mut self, limit: Duration) -> ExitStatus {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "not ended within {limit:?}:\n{}",
                self.output()
            );
            sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
