//! `init`: from credentials to a verified `clearml.conf`.

mod dialogue;
mod file;
mod given;
mod hosts;
mod paste;
mod template;
mod wizard;

use std::fs;
use std::io::{self, BufReader, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clearml_agent_config::{ConfigError, Settings, Sources};
use clearml_api_client::Client;
use clearml_support::fs::write_atomic;
use clearml_support::redact::mask_url;
use clearml_support::secret::Secret;
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};

pub use given::{Given, SecretSource};

use dialogue::{Dialogue, Terminal};
use hosts::Servers;

/// Variables that lead to configuration other than the one that is being made.
const OTHER_CONFIGURATION: [&str; 7] = [
    "CLEARML_CONFIG_FILE",
    "TRAINS_CONFIG_FILE",
    "CLEARML_CONFIG_PATH",
    "TRAINS_CONFIG_PATH",
    "TRAINS_ENV",
    "CLEARML_AUTH_TOKEN",
    "CLEARML_CONFIG_VERBOSE",
];
/// Repetitions of the login that verifies.
const LOGIN_RETRIES: u32 = 2;
/// The first of the pauses before them.
const LOGIN_PAUSE: Duration = Duration::from_millis(500);

/// What `init` was asked to do.
#[derive(Debug, Default)]
pub struct InitOptions {
    /// The file to write instead of `~/clearml.conf`.
    pub output: Option<PathBuf>,
    /// All answers, when nobody shall be asked.
    pub given: Option<Given>,
    /// Whether the dialogue goes to standard error, because the result goes to standard output.
    pub dialogue_on_stderr: bool,
}

/// `init` could not go on.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// Nobody answers any more.
    #[error("the input ended before the setup was complete; nothing was written")]
    EndOfInput,
    /// The input is no text.
    #[error("an answer is longer than a line can be; nothing was written")]
    LongLine,
    /// The input can't be read.
    #[error("reading an answer: {0}")]
    Input(#[source] io::Error),
    /// The questions can't be asked.
    #[error("writing to the terminal: {0}")]
    Output(#[source] io::Error),
    /// There is no place for the file.
    #[error("no home folder is known; say with --output where the configuration shall be written")]
    NoHome,
    /// Something that is no file has the name of the file.
    #[error("{} is not a regular file; choose another one with --output", path.display())]
    NotAFile {
        /// What was chosen.
        path: PathBuf,
    },
    /// The file's folder is not there.
    #[error("the folder {} does not exist; create it, or choose another file with --output", path.display())]
    NoFolder {
        /// The folder.
        path: PathBuf,
    },
    /// Without a dialogue, something has to be given.
    #[error("without a dialogue {what} is needed: {how}")]
    Missing {
        /// What is missing.
        what: &'static str,
        /// Where it may be given.
        how: &'static str,
    },
    /// Something that was given can't be used.
    #[error("{what} is not usable: {why}")]
    Unusable {
        /// What.
        what: &'static str,
        /// Why not.
        why: &'static str,
    },
    /// The environment sets something that can't be understood.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The program can't listen for Ctrl-C.
    #[error("listening for signals: {0}")]
    Signals(#[source] io::Error),
}

/// How `init` ended.
#[derive(Debug)]
pub enum Outcome {
    /// There is a new file.
    Written(Box<Summary>),
    /// There was a file before, which is untouched.
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The server did not accept the credentials; no file was written.
    NotVerified {
        /// Why not.
        reason: String,
    },
    /// Everything was well but the file system.
    NotWritten {
        /// The file.
        path: PathBuf,
        /// Why it could not be written.
        reason: String,
    },
    /// Somebody pressed Ctrl-C; no file was written.
    Interrupted,
}

/// What was written, without its secrets.
#[derive(Debug)]
pub struct Summary {
    /// The file.
    pub path: PathBuf,
    /// `api.api_server`.
    pub api_server: String,
    /// `api.web_server`; empty when unknown.
    pub web_server: String,
    /// `api.files_server`; empty when unknown.
    pub files_server: String,
    /// The user that the credentials belong to.
    pub user: Option<String>,
}

impl Outcome {
    /// The exit code: a person who gave up has seen why, a script has not.
    #[must_use]
    pub fn exit_code(&self, dialogue: bool) -> i32 {
        match self {
            Self::Written(_) => 0,
            Self::Interrupted => -2,
            Self::Exists { .. } | Self::NotVerified { .. } | Self::NotWritten { .. } => i32::from(!dialogue),
        }
    }

    /// The result for machines.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let (result, path) = match self {
            Self::Written(summary) => ("written", Some(&summary.path)),
            Self::Exists { path } => ("exists", Some(path)),
            Self::NotVerified { .. } => ("not verified", None),
            Self::NotWritten { path, .. } => ("not written", Some(path)),
            Self::Interrupted => ("interrupted", None),
        };
        let mut json = json!({
            "schema": 1,
            "result": result,
            "path": path.map(|path| path.display().to_string()),
        });
        match self {
            Self::Written(summary) => {
                json["api_server"] = mask_url(&summary.api_server).into();
                json["web_server"] = mask_url(&summary.web_server).into();
                json["files_server"] = mask_url(&summary.files_server).into();
                json["user"] = summary.user.clone().into();
            }
            Self::NotWritten { reason, .. } | Self::NotVerified { reason } => {
                json["reason"] = reason.as_str().into()
            }
            _ => {}
        }
        json
    }
}

/// An access key and its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyPair {
    pub(crate) access: String,
    pub(crate) secret: Secret,
}

/// Everything that goes into the file.
#[derive(Debug)]
pub(crate) struct Answers {
    pub(crate) keys: KeyPair,
    pub(crate) servers: Servers,
    pub(crate) output_uri: Option<String>,
    pub(crate) git: Option<(String, Secret)>,
    pub(crate) index_urls: Vec<String>,
    pub(crate) user: Option<String>,
}

/// Logs in to an API server: the name of the user, or why not.
pub(crate) type Verify<'a> = dyn FnMut(&str, &KeyPair) -> Result<Option<String>, String> + 'a;

/// The file to be written.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) path: PathBuf,
}

impl Target {
    /// The file that was named, or the one in the home folder that exists, the old name first.
    fn find(output: Option<PathBuf>, home: Option<&Path>) -> Result<Self, InitError> {
        let path = match (output, home) {
            (Some(path), _) => path,
            (None, Some(home)) => ["trains.conf", "clearml.conf"]
                .map(|name| home.join(name))
                .into_iter()
                .find(|path| path.exists())
                .unwrap_or_else(|| home.join("clearml.conf")),
            (None, None) => return Err(InitError::NoHome),
        };
        // Through a link, or else the link would be replaced by the file.
        let path = path.canonicalize().unwrap_or(path);
        if path.exists() && !path.is_file() {
            return Err(InitError::NotAFile { path });
        }
        match path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            Some(folder) if !folder.is_dir() => Err(InitError::NoFolder {
                path: folder.to_owned(),
            }),
            _ => Ok(Self { path }),
        }
    }

    /// Nobody's work is overwritten.
    pub(crate) fn refusal(&self) -> Option<Outcome> {
        let occupied = fs::symlink_metadata(&self.path).is_ok_and(|meta| !meta.is_file() || meta.len() > 0);
        occupied.then(|| Outcome::Exists {
            path: self.path.clone(),
        })
    }

    /// Writes the file, whole or not at all, readable by its owner only.
    pub(crate) fn write(&self, answers: Answers) -> Result<Outcome, InitError> {
        let defaults = Settings::load(&Sources::default())?;
        let text = file::render(&answers, &defaults);
        // Somebody may have written it while the questions were answered.
        if let Some(outcome) = self.refusal() {
            return Ok(outcome);
        }
        if let Err(error) = write_atomic(&self.path, text.as_bytes(), 0o600) {
            return Ok(Outcome::NotWritten {
                path: self.path.clone(),
                reason: error.to_string(),
            });
        }
        Ok(Outcome::Written(Box::new(Summary {
            path: self.path.clone(),
            api_server: answers.servers.api,
            web_server: answers.servers.web,
            files_server: answers.servers.files,
            user: answers.user,
        })))
    }
}

/// Sets up the configuration, asking on standard input unless everything was given.
///
/// # Errors
///
/// [`InitError`] when it can't go on. That it gave up for a reason which it has explained is an
/// [`Outcome`].
pub async fn run(options: InitOptions, sources: &Sources) -> Result<Outcome, InitError> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(InitError::Signals)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(InitError::Signals)?;
    let terminal = Terminal::of_stdin();
    let restore = terminal.clone();
    let target = Target::find(options.output, sources.home.as_deref())?;
    let environment = environment_only(sources);
    let handle = Handle::current();
    // Reading from a terminal can't be interrupted, so it happens beside and is left behind.
    let work = tokio::task::spawn_blocking(move || {
        let mut verify = |server: &str, keys: &KeyPair| handle.block_on(log_in(&environment, server, keys));
        if let Some(given) = options.given {
            return given::run(given, &environment, &target, &mut verify);
        }
        let mut input = BufReader::new(io::stdin());
        let mut output: Box<dyn Write> = if options.dialogue_on_stderr {
            Box::new(io::stderr())
        } else {
            Box::new(io::stdout())
        };
        let mut dialogue = Dialogue::new(&mut input, &mut *output, terminal);
        wizard::run(&mut dialogue, &target, &mut verify)
    });
    tokio::select! {
        ended = work => ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())),
        _ = interrupt.recv() => Ok(interrupted(restore)),
        _ = terminate.recv() => Ok(interrupted(restore)),
    }
}

fn interrupted(terminal: Option<Terminal>) -> Outcome {
    if let Some(terminal) = terminal {
        terminal.restore();
    }
    Outcome::Interrupted
}

/// The environment without what leads to other configuration: how to reach servers stays.
fn environment_only(sources: &Sources) -> Sources {
    let mut env = sources.env.clone();
    for name in OTHER_CONFIGURATION {
        env.remove(name);
    }
    Sources {
        env,
        host_name: sources.host_name.clone(),
        ..Sources::default()
    }
}

async fn log_in(environment: &Sources, server: &str, keys: &KeyPair) -> Result<Option<String>, String> {
    if server.is_empty() {
        return Err("no API server is known".to_owned());
    }
    let mut sources = environment.clone();
    for (key, value) in [
        ("api.api_server", server),
        ("api.credentials.access_key", &keys.access),
        ("api.credentials.secret_key", keys.secret.expose()),
    ] {
        let origin = "answer".to_owned();
        sources
            .overrides
            .push((key.to_owned(), Value::from(value), origin));
    }
    let settings = Settings::load(&sources).map_err(|error| error.to_string())?;
    let mut options =
        clearml_task_runner::settings::client_options(&settings).map_err(|error| error.to_string())?;
    // Repeated here: the client would speak of it, in the middle of a dialogue.
    options.retry.initial_retries = Some(0);
    let client = Client::new(options).map_err(|error| error.to_string())?;
    let mut retries = 0;
    let session = loop {
        match client.login().await {
            Ok(session) => break session,
            Err(error) if error.is_transient() && retries < LOGIN_RETRIES => {
                retries += 1;
                tokio::time::sleep(LOGIN_PAUSE * retries).await;
            }
            Err(error) => return Err(error.to_string()),
        }
    };
    Ok(session.user_name.or(session.user))
}
