//! A scratch home, a server where one is needed, and a way to run a command with something on its input.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clearml_agent_config::{Settings, Sources};
use serde_json::Value;
use tempfile::TempDir;
use xtask::workbench::{AgentOptions, LocalServer};

/// The executable under test.
pub(crate) const AGENT: &str = env!("CARGO_BIN_EXE_clearml-agent");

/// How a command ended.
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}{}", self.stdout, self.stderr))
    }

    /// Everything that was printed.
    pub(crate) fn text(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }

    #[track_caller]
    pub(crate) fn never_shows(&self, secret: &str) {
        assert!(
            !self.stdout.contains(secret) && !self.stderr.contains(secret),
            "a secret is shown:\n{}{}",
            self.stdout,
            self.stderr
        );
    }
}

/// A scratch home.
pub(crate) struct Home {
    pub(crate) folder: TempDir,
}

impl Home {
    pub(crate) fn new() -> Self {
        let home = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        fs::create_dir_all(home.options().home).unwrap();
        fs::create_dir_all(home.register()).unwrap();
        home
    }

    /// The agent in this home, whose configuration is the file that `init` writes.
    pub(crate) fn options(&self) -> AgentOptions {
        AgentOptions::new(Path::new(AGENT), self.folder.path(), &self.path("clearml.conf"))
            .variable("TMPDIR", self.register().display().to_string())
    }

    /// Where the agents of this home enter themselves.
    pub(crate) fn register(&self) -> PathBuf {
        self.folder.path().join("tmp")
    }

    /// A file in the home.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("home").join(name)
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        finish(self.options().command(arguments), "")
    }

    /// Runs `init` with these lines on its input.
    pub(crate) fn init(&self, arguments: &[&str], lines: &[&str]) -> Ended {
        let input: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let arguments = [&["init"], arguments].concat();
        let mut command = self.options().command(&arguments);
        // Where the configuration is looked for must not matter.
        command.env_remove("CLEARML_CONFIG_FILE");
        finish(command, &input)
    }
}

/// Runs a command to its end with this text on its input.
pub(crate) fn finish(mut command: Command, input: &str) -> Ended {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that has ended reads no more.
    let _gone = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    Ended {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// An embedded server and what a person would copy from its web page.
pub(crate) struct Served {
    pub(crate) server: LocalServer,
    pub(crate) api: String,
    pub(crate) files: String,
    pub(crate) access: String,
    pub(crate) secret: String,
    _folder: TempDir,
}

impl Served {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = LocalServer::start(Path::new(AGENT), folder.path()).unwrap();
        let settings = Settings::load(&Sources {
            config_file: Some(server.config()),
            ..Sources::default()
        })
        .unwrap();
        let api = &settings.api;
        Self {
            api: api.api_server.clone().unwrap(),
            files: api.files_server.clone().unwrap(),
            access: api.access_key.as_ref().unwrap().expose().to_owned(),
            secret: api.secret_key.as_ref().unwrap().expose().to_owned(),
            server,
            _folder: folder,
        }
    }

    /// The form of today.
    pub(crate) fn paste(&self) -> String {
        self.paste_with(&self.secret)
    }

    pub(crate) fn paste_with(&self, secret: &str) -> String {
        format!(
            "api {{\n  web_server: {api}\n  api_server: {api}\n  files_server: {files}\n  credentials {{\n    \
             \"access_key\" = \"{}\"\n    \"secret_key\" = \"{secret}\"\n  }}\n}}",
            self.access,
            api = self.api,
            files = self.files
        )
    }

    /// The older form.
    pub(crate) fn older_paste(&self) -> String {
        format!(
            "{{\n  \"credentials\": {{\"access_key\": \"{}\", \"secret_key\": \"{}\"}},\n  \"host\": \"{}\"\n}}",
            self.access, self.secret, self.api
        )
    }
}
