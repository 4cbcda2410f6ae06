//! An embedded server, a state folder, and tasks to run with real runners and shims.

use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use clearml_agent_config::{Settings, Sources};
use clearml_api_client::{Client, LogEvent, StatusChange, StatusReport};
use clearml_local_server::{Server, ServerOptions};
use clearml_support::process::ProcessIdentity;
use clearml_support::time::now_ms;
use clearml_task_model::{Task, TaskId, WorkerId};
use clearml_task_runner::settings::client_options;
use clearml_task_runner::{NewRun, Phase, RunDir, RunInputs, RunOptions, RunStore, spawn_runner};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub(crate) const WORKER: &str = "test:0";
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct World {
    folder: tempfile::TempDir,
    server: Option<Server>,
    port: u16,
    pub(crate) client: Client,
    settings: Settings,
    store: RunStore,
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// With further configuration.
    pub(crate) async fn start_with(configured: &[(&str, Value)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = start_server(&folder, 0).await;
        let fast = [
            ("agent.abort_grace_sec", json!(0.5)),
            ("agent.status_poll_interval_sec", json!(0.2)),
            ("agent.abort_callback_max_timeout", json!(3)),
        ];
        let overrides = fast
            .into_iter()
            .chain(configured.iter().cloned())
            .map(|(key, value)| (key.to_owned(), value, "test".to_owned()))
            .collect();
        let config_file = Some(server.config_path().to_owned());
        let settings = Settings::load(&Sources {
            config_file,
            overrides,
            ..Sources::from_process()
        })
        .unwrap();
        let client = Client::new(client_options(&settings).unwrap()).unwrap();
        client.login().await.unwrap();
        let store = RunStore::open(&folder.path().join("state")).unwrap();
        let port = server.api_url().rsplit(':').next().unwrap().parse().unwrap();
        Self {
            folder,
            server: Some(server),
            port,
            client,
            settings,
            store,
        }
    }

    pub(crate) async fn stop_server(&mut self) {
        self.server.take().unwrap().shutdown().await;
    }

    pub(crate) async fn start_server(&mut self) {
        self.server = Some(start_server(&self.folder, self.port).await);
    }

    /// A folder that tasks can write to.
    pub(crate) fn scratch(&self) -> PathBuf {
        let path = self.folder.path().join("scratch");
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    /// The secret of the API credentials.
    pub(crate) fn secret(&self) -> String {
        self.server.as_ref().unwrap().secret_key().expose().to_owned()
    }

    pub(crate) async fn fault(&self, fault: Value) {
        let body = fault.to_string();
        let request = format!(
            "POST /_faults HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.unwrap();
        assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
    }

    /// A task in progress that runs a shell script, and the run that was claimed for it.
    pub(crate) async fn task(&self, script: &str) -> (TaskId, RunDir) {
        let script = format!("cd {}\n{script}\n", self.scratch().display());
        self.task_of(json!({"binary": "/bin/sh", "entry_point": "task.sh", "diff": script}))
            .await
    }

    /// A draft that runs a shell script.
    pub(crate) async fn draft(&self, script: &str) -> TaskId {
        let script = format!("cd {}\n{script}\n", self.scratch().display());
        self.draft_of(json!({"binary": "/bin/sh", "entry_point": "task.sh", "diff": script}))
            .await
    }

    async fn draft_of(&self, script: Value) -> TaskId {
        let fields = json!({"name": "a test task", "type": "testing", "script": script});
        self.client.tasks_create(fields).await.unwrap()
    }

    /// Executes a task in a process of its own. Returns its exit code and what it has printed.
    pub(crate) async fn execute(&self, task: &str, mode: &str) -> (i32, String) {
        self.execute_among(&[], task, mode).await
    }

    /// As [`World::execute`], with variables in its environment.
    pub(crate) async fn execute_among(
        &self,
        variables: &[(&str, &str)],
        task: &str,
        mode: &str,
    ) -> (i32, String) {
        let mut command = self.command(task, mode);
        let output = command.envs(variables.iter().copied()).output().await.unwrap();
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.code().unwrap_or(-1),
            String::from_utf8_lossy(&text).into_owned(),
        )
    }

    /// The process that executes a task.
    pub(crate) fn command(&self, task: &str, mode: &str) -> tokio::process::Command {
        let config = self.server.as_ref().unwrap().config_path().to_owned();
        let state = self.execute_folder();
        std::fs::create_dir_all(&state).unwrap();
        let mut command = tokio::process::Command::new(host());
        command
            .args([
                "execute".as_ref(),
                config.as_os_str(),
                task.as_ref(),
                mode.as_ref(),
                state.as_os_str(),
            ])
            .stdin(std::process::Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Where [`World::execute`] keeps everything.
    pub(crate) fn execute_folder(&self) -> PathBuf {
        self.folder.path().join("execute")
    }

    pub(crate) async fn task_of(&self, script: Value) -> (TaskId, RunDir) {
        self.task_with(script, RunOptions::default()).await
    }

    /// As [`World::task`], with variables in the environment of the agent.
    pub(crate) async fn task_among(&self, variables: &[(&str, &str)], script: &str) -> (TaskId, RunDir) {
        let options = RunOptions {
            variables: variables
                .iter()
                .map(|(name, value)| ((*name).to_owned(), Some((*value).to_owned())))
                .collect(),
            ..RunOptions::default()
        };
        let script = format!("cd {}\n{script}\n", self.scratch().display());
        let script = json!({"binary": "/bin/sh", "entry_point": "task.sh", "diff": script});
        self.task_with(script, options).await
    }

    /// Says that a worker has the task in hand, so that an abort is left to it.
    pub(crate) async fn report_worker(&self, task: &TaskId) {
        let report = StatusReport {
            worker: WorkerId::new(WORKER),
            timestamp_ms: now_ms() / 1000 * 1000,
            task: Some(task.clone()),
            queue: None,
            queues: Vec::new(),
            tags: None,
            machine_stats: None,
            is_daemon: true,
        };
        self.client.workers_status_report(&report).await.unwrap();
    }

    pub(crate) async fn task_with(&self, script: Value, options: RunOptions) -> (TaskId, RunDir) {
        let task = self.draft_of(script).await;
        let change = StatusChange::default().message("pulled by agent").force();
        self.client.tasks_started(&task, &change).await.unwrap();
        self.report_worker(&task).await;
        let new = NewRun {
            task: task.clone(),
            queue: None,
            worker: WorkerId::new(WORKER),
        };
        let (run, _) = self.store.create(new).unwrap();
        let inputs = RunInputs::from_process(options);
        run.write_inputs(&self.settings.effective_json(), &inputs)
            .unwrap();
        run.set_phase(Phase::Claimed).unwrap();
        (task, run)
    }

    pub(crate) fn spawn(&self, run: &RunDir) -> Child {
        spawn_runner(&host(), run).unwrap()
    }

    /// Runs to the end and returns the runner's exit code.
    pub(crate) async fn run(&self, run: &RunDir) -> i32 {
        let mut runner = self.spawn(run);
        self.end_of(&mut runner, run).await
    }

    pub(crate) async fn end_of(&self, runner: &mut Child, run: &RunDir) -> i32 {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = runner.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            if Instant::now() > deadline {
                let log = std::fs::read_to_string(run.path().join("runner.log")).unwrap_or_default();
                runner.kill().unwrap();
                panic!(
                    "the runner does not end; phase {:?}; it said: {log}",
                    run.record().unwrap().phase
                );
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) async fn get(&self, task: &TaskId) -> Task {
        self.client.tasks_get_by_id(task).await.unwrap()
    }

    /// Status, reason and message of a task.
    pub(crate) async fn status(&self, task: &TaskId) -> (String, String) {
        let task = self.get(task).await;
        (
            task.status.unwrap().to_string(),
            task.status_reason.unwrap_or_default(),
        )
    }

    pub(crate) async fn events(&self, task: &TaskId) -> Vec<LogEvent> {
        let mut events: Vec<LogEvent> = Vec::new();
        loop {
            let from = events.last().map_or(0, |e| e.timestamp);
            let page = self
                .client
                .events_get_task_log(task, Some(from), false, 2000)
                .await
                .unwrap();
            if page.events.is_empty() {
                return events;
            }
            events.extend(page.events);
        }
    }

    /// What the task itself has printed, and the closing line, as the server has it.
    pub(crate) async fn output(&self, task: &TaskId) -> String {
        self.events(task)
            .await
            .iter()
            .filter(|e| e.level == "DEBUG")
            .map(|e| e.msg.as_str())
            .collect()
    }

    pub(crate) async fn wait_for_output(&self, task: &TaskId, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.output(task).await.contains(text) {
            assert!(Instant::now() < deadline, "{text:?} does not arrive");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) async fn wait_until(&self, what: &str, mut test: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !test() {
            assert!(Instant::now() < deadline, "waited too long until {what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) async fn wait_for_phase(&self, run: &RunDir, phase: Phase) {
        let deadline = Instant::now() + PATIENCE;
        while run.record().unwrap().phase < phase {
            assert!(Instant::now() < deadline, "the run does not come to {phase:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

async fn start_server(folder: &tempfile::TempDir, port: u16) -> Server {
    let mut options = ServerOptions::new(folder.path().join("server"));
    options.port = port;
    options.faults = true;
    Server::start(options).await.unwrap()
}

/// The example that becomes a runner or a shim.
fn host() -> PathBuf {
    super::program().with_file_name("run_task")
}

pub(crate) fn signal(child: &Child, signal: Signal) {
    let process = ProcessIdentity::of(child.id().cast_signed()).unwrap();
    process.unwrap().signal(signal).unwrap();
}

/// Numbered lines, as a task prints them and as the server must have them.
pub(crate) fn numbered(count: usize) -> String {
    (1..=count).map(|n| format!("line {n}\n")).collect()
}
