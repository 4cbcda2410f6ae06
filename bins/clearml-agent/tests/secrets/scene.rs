//! An embedded server, and a configuration and an environment that are full of secrets.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use clearml_local_server::{Server, ServerOptions};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::oneshot;
use xtask::workbench::{AgentOptions, Api, TaskSpec};

use crate::canaries::Canaries;
use crate::trap::Trap;
use crate::watch;

const AGENT: &str = env!("CARGO_BIN_EXE_clearml-agent");

pub(crate) const QUEUE: &str = "work";

/// How long a task may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(180);

/// How long a command may take that waits for a server which never comes.
const COMMAND_LIMIT: &str = "4";

pub(crate) struct Scene {
    pub(crate) api: Api,
    pub(crate) canaries: Canaries,
    pub(crate) trap: Trap,
    pub(crate) folder: TempDir,
    config: PathBuf,
    queue: String,
    /// Ends the server when dropped.
    _server: oneshot::Sender<()>,
}

impl Scene {
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("clearml-agent-secrets-")
            .tempdir()
            .unwrap();
        let (server, server_config) = serve(&folder.path().join("server"));
        let api = Api::connect(&server_config).unwrap();
        let queue = api.create_queue(QUEUE).unwrap();
        fs::create_dir(folder.path().join("tmp")).unwrap();
        let scene = Self {
            api,
            canaries: Canaries::default(),
            trap: Trap::new(),
            config: server_config,
            folder,
            queue,
            _server: server,
        };
        let basis = fs::read_to_string(&scene.config).unwrap();
        let secret = basis
            .split_once("secret_key")
            .unwrap()
            .1
            .split('"')
            .find(|part| part.len() > 15);
        scene.canaries.add("api.credentials.secret_key", secret.unwrap());
        let text = format!("{basis}\n{}", scene.secrets());
        let config = scene.private_file("clearml.conf", &text);
        scene.vault();
        Self { config, ..scene }
    }

    /// Sections with a secret at every place that has room for one.
    fn secrets(&self) -> String {
        let address = |place: &str, path: &str| self.trap.url(&self.canaries.get(place), path);
        let index = address("index", "configured/simple");
        let flags = json!([
            "--extra-index-url",
            address("pip flag", "flag/simple"),
            format!("--find-links={}", address("pip flag with =", "links/")),
        ]);
        let secret = |place: &str| format!("\"{}\"", self.canaries.get(place));
        let docker = |place: &str| {
            let canary = |name: &str| format!("{name}={}", self.canaries.get(&format!("{place} {name}")));
            json!([
                "-e",
                canary("AWS_SECRET_ACCESS_KEY"),
                "--env",
                canary("CLEARML_AGENT_GIT_PASS"),
                format!("--env={}", canary("CLEARML_AUTH_TOKEN")),
                format!("-e{}", canary("CLEARML_API_SECRET_KEY")),
                "-e",
                canary("OF_OUR_OWN"),
                "-e",
                format!(
                    "INDEX={}",
                    self.trap.url(&self.canaries.get(&format!("{place} url")), "x")
                ),
            ])
        };
        let lines = [
            format!(
                "agent.git_user: somebody\nagent.git_pass: {}",
                secret("agent.git_pass")
            ),
            format!(
                "agent.git.extra_credentials: [{{ user: other, pass: {}, host: \"git.example.com\" }}]",
                secret("extra_credentials")
            ),
            format!(
                "agent.hg_user: somebody\nagent.hg_pass: {}",
                secret("agent.hg_pass")
            ),
            // There is no pip to be had from an index that has nothing.
            format!(
                "agent.package_manager {{ pip_version: [\">=9\"], extra_index_url: [\"{index}\"], \
                 extra_pip_install_flags: {flags} }}"
            ),
            format!(
                "agent.extra_docker_arguments: {}",
                docker("extra_docker_arguments")
            ),
            format!("agent.default_docker.arguments: {}", docker("default_docker")),
            format!(
                "agent.default_docker.match_rules: [{{ image: x, arguments: {}, match {{ container: y }} }}]",
                docker("match_rules")
            ),
            "agent.hide_docker_command_env_vars { enabled: true, extra_keys: [\"OF_OUR_OWN\"] }".to_owned(),
            format!("sdk.aws.s3 {{ key: name, secret: {} }}", secret("s3")),
            format!(
                "sdk.aws.s3.credentials: [{{ bucket: b, key: name, secret: {} }}]",
                secret("bucket")
            ),
            format!(
                "sdk.azure.storage.containers: [{{ account_name: name, account_key: {}, container_name: c }}]",
                secret("azure")
            ),
            format!(
                "environment {{ SECTION_TOKEN: {}, PLAIN_NAME: {} }}",
                secret("SECTION_TOKEN"),
                secret("environment")
            ),
            format!(
                "files {{ netrc {{ path: \"{}/made/netrc\", contents: {} }} }}",
                self.folder.path().display(),
                secret("files")
            ),
            format!("somewhere.else.api_token: {}", secret("unknown token")),
        ];
        lines.join("\n") + "\n"
    }

    fn vault(&self) {
        let data = format!(
            "environment {{ VAULT_TOKEN: \"{}\" }}\nagent.hg_pass: \"{}\"\n",
            self.canaries.get("vault environment"),
            self.canaries.get("vault")
        );
        let vault = json!({"data": data, "description": "vault of the canaries"});
        self.api.call("users.create_vault", vault).unwrap();
    }

    /// An agent with secrets in its environment as well.
    pub(crate) fn options(&self) -> AgentOptions {
        let proxy = |name: &str| format!("http://somebody:{}@127.0.0.1:1", self.canaries.get(name));
        let shared = xtask::workspace::target().join("python/pip-cache");
        AgentOptions::new(Path::new(AGENT), self.folder.path(), &self.config)
            .variable("TMPDIR", self.folder.path().join("tmp").to_str().unwrap())
            .variable("CLEARML_AGENT_QUEUE_POLL_FREQ_SEC", "0.2")
            .variable("CLEARML_WORKER_NAME", "canaries")
            .variable("PIP_CACHE_DIR", shared.to_str().unwrap())
            .variable("PIP_RETRIES", "0")
            .variable(
                "PIP_INDEX_URL",
                self.trap
                    .url(&self.canaries.get("PIP_INDEX_URL"), "default/simple"),
            )
            .variable(
                "UV_DEFAULT_INDEX",
                self.trap.url(&self.canaries.get("UV_DEFAULT_INDEX"), "simple"),
            )
            .variable(
                "AWS_SECRET_ACCESS_KEY",
                self.canaries.get("AWS_SECRET_ACCESS_KEY"),
            )
            .variable("AWS_ACCESS_KEY_ID", "name")
            .variable("AZURE_STORAGE_ACCOUNT", "name")
            .variable("AZURE_STORAGE_KEY", self.canaries.get("AZURE_STORAGE_KEY"))
            .variable(
                "AZURE_PAT_HEADER_VALUE",
                self.canaries.get("AZURE_PAT_HEADER_VALUE"),
            )
            .variable(
                "CLEARML_AGENT__AGENT__HG_PASS",
                self.canaries.get("dynamic variable"),
            )
            .variable("HTTPS_PROXY", proxy("HTTPS_PROXY"))
            .variable("ALL_PROXY", proxy("ALL_PROXY"))
            .variable("NO_PROXY", "127.0.0.1,localhost")
    }

    /// An agent with nothing but this configuration.
    pub(crate) fn with_config(&self, text: &str) -> AgentOptions {
        let file = self.private_file("other.conf", text);
        AgentOptions::new(Path::new(AGENT), self.folder.path(), &file)
    }

    /// A command that is ended when it waits for too long.
    pub(crate) fn limited(&self, options: &AgentOptions, arguments: &[&str]) -> Command {
        let plain = options.command(arguments);
        let mut command = Command::new("timeout");
        command
            .args(["--kill-after=5", COMMAND_LIMIT])
            .arg(plain.get_program())
            .args(plain.get_args());
        for (name, value) in plain.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
    }

    /// Submits a task and waits for its end; its id.
    pub(crate) fn run(&self, spec: &TaskSpec) -> String {
        let task = self.api.submit("canary", spec, &self.queue).unwrap();
        self.api.wait_until_ended(&task, LIMIT).unwrap();
        task
    }

    pub(crate) fn console(&self, task: &str) -> String {
        self.api.console(task).unwrap()
    }

    #[track_caller]
    pub(crate) fn assert_status(&self, task: &str, status: &str) {
        let console = self.console(task);
        assert_eq!(self.api.status(task).unwrap(), status, "{console}");
    }

    /// What the agent has told the server about a task.
    #[track_caller]
    pub(crate) fn check_task(&self, task: &str) {
        self.canaries.check("the console", self.console(task).as_bytes());
        let mut document = self.api.task(task).unwrap();
        // What its author wrote is the author's to show.
        document["script"]["repository"] = Value::Null;
        document["script"]["requirements"]["pip"] = Value::Null;
        self.canaries.check("the task", document.to_string().as_bytes());
    }

    #[track_caller]
    pub(crate) fn check_files(&self) {
        let leaks = watch::open_files(self.folder.path(), &self.canaries);
        assert!(leaks.is_empty(), "readable by others: {leaks:#?}");
    }

    fn private_file(&self, name: &str, text: &str) -> PathBuf {
        let file = self.folder.path().join(name);
        fs::write(&file, "").unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        fs::write(&file, text).unwrap();
        file
    }
}

/// A server that offers vaults as well, in this process; and the client configuration that it wrote.
fn serve(data: &Path) -> (oneshot::Sender<()>, PathBuf) {
    let options = ServerOptions {
        feature_set: "advanced".to_owned(),
        ..ServerOptions::new(data)
    };
    let (ready, is_ready) = std::sync::mpsc::channel();
    let (stop, stopped) = oneshot::channel::<()>();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let server = Server::start(options).await.unwrap();
            ready.send(server.config_path().to_owned()).unwrap();
            let _dropped = stopped.await;
            server.shutdown().await;
        });
    });
    (stop, is_ready.recv().unwrap())
}

/// Runs a command to its end: exit code, standard output, standard error.
pub(crate) fn finish(mut command: Command) -> (i32, String, String) {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code().unwrap_or(-1),
        text(&output.stdout),
        text(&output.stderr),
    )
}
