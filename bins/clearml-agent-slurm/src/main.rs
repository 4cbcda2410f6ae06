//! `clearml-agent-slurm`: arguments, output and exit codes of the Slurm glue.

mod arguments;
mod background;
mod check;
mod status;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use clearml_agent_config::{Settings, Sources};
use clearml_api_client::{ApiError, Client};
use clearml_intake::{About, Monitor, Reporter};
use clearml_sbatch_template::Mode;
use clearml_slurm_glue::core::limits::Limits;
use clearml_slurm_glue::core::verdict::OnPreemption;
use clearml_slurm_glue::glue::Run;
use clearml_slurm_glue::options::Credentials;
use clearml_slurm_glue::slurm::SlurmError;
use clearml_slurm_glue::{Glue, GlueError, GlueOptions, OptionsError};
use clearml_support::fs::create_private_dir;
use clearml_support::lock::FileLock;
use clearml_support::redact::Redactor;
use clearml_task_model::{TaskId, WorkerId};
use clearml_task_runner::settings::client_options;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::prelude::*;

use arguments::{Arguments, LogLevel, Preemption};

/// How long a glue that is to end may bring its work to an end.
const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let code = if error.use_stderr() { 2 } else { 0 };
            // Help that nobody reads is no failure.
            let _gone = error.print();
            return ExitCode::from(code);
        }
    };
    clearml_task_runner::umask::make_private();
    match start(&arguments) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let text = format!("{error:#}");
            let _gone = writeln!(
                io::stderr(),
                "clearml-agent-slurm: ERROR: {}",
                redactor().redact(&text)
            );
            ExitCode::from(exit_code(&error))
        }
    }
}

/// Which of the documented codes an error has.
fn exit_code(error: &anyhow::Error) -> u8 {
    if error.downcast_ref::<LoginFailed>().is_some() {
        return 4;
    }
    match error.downcast_ref::<GlueError>() {
        Some(GlueError::Running(_) | GlueError::SameId(_)) => 3,
        Some(GlueError::Slurm(SlurmError::Missing { .. })) => 5,
        _ => match error.downcast_ref::<SlurmError>() {
            Some(SlurmError::Missing { .. }) => 5,
            _ => 1,
        },
    }
}

/// The server does not let us in.
#[derive(Debug)]
struct LoginFailed(ApiError);

impl std::fmt::Display for LoginFailed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "logging in: {}", self.0)
    }
}

impl std::error::Error for LoginFailed {}

fn start(arguments: &Arguments) -> anyhow::Result<u8> {
    let mut sources = Sources::from_process();
    if let Some(path) = &arguments.config_file {
        anyhow::ensure!(
            path.is_file(),
            "Could not open configuration file: {}; check --config-file",
            path.display()
        );
        sources.config_file = Some(path.clone());
    }
    sources.overrides.extend(arguments.overrides()?);
    let settings = Settings::load(&sources)?;
    settings.register_secrets(redactor());
    let debug = arguments.debug || settings.variable_flag("CLEARML_SLURM_GLUE_DEBUG") == Some(true);
    begin_log(match arguments.log_level {
        _ if debug => LevelFilter::DEBUG,
        None | Some(LogLevel::Info) => LevelFilter::INFO,
        Some(LogLevel::Debug) => LevelFilter::DEBUG,
        Some(LogLevel::Warning) => LevelFilter::WARN,
        Some(LogLevel::Error | LogLevel::Critical) => LevelFilter::ERROR,
    });
    for warning in settings.warnings() {
        tracing::warn!("{warning}");
    }
    // What waits for the disk has a thread, and what waits for the server or Slurm another.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("starting the runtime; is the limit of open files or processes reached?")?;
    let outcome = runtime.block_on(Box::pin(serve(arguments, &settings, &sources)));
    runtime.shutdown_background();
    outcome
}

/// The id under which the glue works.
fn worker_id(settings: &Settings) -> WorkerId {
    let explicit = settings.agent.worker_id.as_deref().filter(|id| !id.is_empty());
    let name = explicit.unwrap_or(&settings.agent.worker_name);
    WorkerId::new(format!("{name}:slurm"))
}

fn options(
    arguments: &Arguments,
    settings: &Settings,
    worker: &WorkerId,
) -> Result<GlueOptions, OptionsError> {
    let mode = match (arguments.singularity_mode, arguments.srun_delegation) {
        (true, _) => Mode::Singularity,
        (_, true) => Mode::SrunDelegation,
        _ => Mode::Native,
    };
    let mut options = GlueOptions::new(settings, &arguments.queue, &arguments.template_files, mode)?;
    if arguments.use_owner_token {
        options.credentials = Credentials::new(settings, true)?;
    }
    options.create_queue = arguments.create_queue;
    options.order_fairness = arguments.order_fairness;
    if let Some(name) = &arguments.parking_queue {
        options.parking = Some(name.clone()).filter(|name| name != "none");
    }
    let limits: Limits = options.limits;
    options.limits = Limits {
        max_jobs: arguments.max_jobs.unwrap_or(limits.max_jobs),
        max_pending: arguments.max_pending.unwrap_or(limits.max_pending),
    };
    if let Some(preemption) = arguments.on_preemption {
        options.on_preemption = match preemption {
            Preemption::Stop => OnPreemption::Stop,
            Preemption::Fail => OnPreemption::Fail,
            Preemption::Requeue => OnPreemption::Requeue,
        };
    }
    options.state_dir = state_dir(arguments, settings, worker);
    Ok(options)
}

/// The folder of the journal.
fn state_dir(arguments: &Arguments, settings: &Settings, worker: &WorkerId) -> PathBuf {
    let named = arguments.state_dir.clone();
    named
        .or_else(|| settings.path("agent.slurm.state_dir"))
        .unwrap_or_else(|| folder_of(worker))
}

/// The folder of the journal where no other is named.
fn folder_of(worker: &WorkerId) -> PathBuf {
    let home = std::env::var_os("HOME").unwrap_or_else(|| "/".into());
    let name = clearml_support::fs::safe_file_name(worker.as_str());
    Path::new(&home).join(".clearml/slurm").join(name)
}

/// Sees that no other glue of this account has the same id, whatever its journal is. `None`: that is seen by its
/// folder, or there is no place to leave a note.
fn alone(worker: &WorkerId, state: &Path) -> Result<Option<FileLock>, GlueError> {
    let folder = folder_of(worker);
    if folder == state || create_private_dir(&folder).is_err() {
        return Ok(None);
    }
    match FileLock::try_acquire(&folder.join("lock")) {
        Ok(None) => Err(GlueError::SameId(worker.clone())),
        Ok(lock) => Ok(lock),
        Err(error) => {
            tracing::debug!("{}: {error}", folder.display());
            Ok(None)
        }
    }
}

async fn serve(arguments: &Arguments, settings: &Settings, sources: &Sources) -> anyhow::Result<u8> {
    let worker = worker_id(settings);
    // Both are about a glue that knows its queues.
    if arguments.status {
        return status::show(&state_dir(arguments, settings, &worker), &worker);
    }
    if arguments.stop {
        return background::stop(&state_dir(arguments, settings, &worker));
    }
    let options = options(arguments, settings, &worker)?;
    if arguments.detached {
        return background::start(&options.state_dir);
    }
    if arguments.check {
        return check::check(settings, options, worker).await;
    }
    let client = Client::new(client_options(settings)?)?;
    client.login().await.map_err(LoginFailed)?;
    let preview = arguments.render.is_some();
    // To look at a script, the journal of the glue that may be running is not needed.
    let scratch = preview.then(scratch_folder).transpose()?;
    let options = GlueOptions {
        state_dir: scratch
            .as_ref()
            .map_or(options.state_dir, |scratch| scratch.path().to_owned()),
        look_only: preview,
        ..options
    };
    let state_dir = options.state_dir.clone();
    let _alone = if preview {
        None
    } else {
        alone(&worker, &state_dir)?
    };
    let glue = Glue::new(client.clone(), settings.clone(), options, worker.clone()).await;
    match glue {
        Ok(glue) => match &arguments.render {
            Some(task) => render(&glue, task, arguments.queue_of_render()).await,
            None => work((glue, state_dir), arguments, client, settings, sources, worker).await,
        },
        Err(error) => Err(error.into()),
    }
}

/// A journal that nobody else knows, gone when it is dropped.
fn scratch_folder() -> anyhow::Result<tempfile::TempDir> {
    tempfile::Builder::new()
        .prefix("clearml-slurm-")
        .tempdir()
        .context("making a folder for temporary files")
}

async fn work(
    (mut glue, state_dir): (Glue, PathBuf),
    arguments: &Arguments,
    client: Client,
    settings: &Settings,
    sources: &Sources,
    worker: WorkerId,
) -> anyhow::Result<u8> {
    background::announce(&state_dir, arguments.in_background)?;
    if rustix::process::geteuid().is_root() && !glue.impersonates() {
        tracing::warn!("jobs run as root: start the glue as an ordinary user, or set agent.slurm.user_map");
    }
    let how = match (arguments.once, arguments.drain) {
        (true, _) => Run::Once,
        (_, true) => Run::Drain,
        _ => Run::ForEver,
    };
    let about = About {
        worker,
        queues: glue.queues(),
        tags: ["slurm"]
            .into_iter()
            .chain(glue.cluster())
            .map(str::to_owned)
            .collect(),
        is_daemon: true,
    };
    let monitor = Monitor::of_worker(settings, &[], &sources.env);
    let reporter = Reporter::start(client, about, Duration::from_secs(30), monitor);
    let (stop, stopped) = watch::channel(false);
    let mut terminate = signal(SignalKind::terminate()).context("waiting for signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("waiting for signals")?;
    tracing::info!(
        "serving {} queue(s) on {}",
        glue.queues().len(),
        glue.cluster().map_or_else(
            || "a cluster that does not answer yet".to_owned(),
            |name| format!("cluster {name}")
        )
    );
    // A submission is best not interrupted, so the loop itself hears the wish. What waits for a server that is away
    // may wait for hours; the journal has what is open, as after a crash.
    let run = glue.run(how, stopped);
    tokio::pin!(run);
    let mut patience = None;
    let outcome = loop {
        let wanted = tokio::select! {
            outcome = &mut run => break outcome,
            _ = terminate.recv() => true,
            _ = interrupt.recv() => true,
            () = until(patience) => false,
        };
        if !wanted || patience.is_some() {
            tracing::warn!("ending in the middle of work; the next glue goes on with it");
            break Ok(());
        }
        stop.send_replace(true);
        patience = Some(Instant::now() + PATIENCE);
    };
    reporter.stop(Duration::from_secs(5)).await;
    outcome?;
    Ok(0)
}

/// Waits until then, or for ever.
async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

async fn render(glue: &Glue, task: &str, queue: Option<&str>) -> anyhow::Result<u8> {
    let script = glue.preview(&TaskId::new(task), queue).await?;
    let shown = redactor().redact(&script.text).into_owned();
    io::stdout()
        .write_all(shown.as_bytes())
        .context("writing the script")?;
    for warning in &script.warnings {
        tracing::warn!("{warning}");
    }
    Ok(0)
}

/// What the output of this process must not show.
fn redactor() -> &'static Redactor {
    static REDACTOR: OnceLock<Redactor> = OnceLock::new();
    REDACTOR.get_or_init(Redactor::new)
}

fn begin_log(ours: LevelFilter) {
    let filter = Targets::new()
        .with_default(LevelFilter::WARN.min(ours))
        .with_target("clearml", ours)
        // Every call of the server is more than a look at the glue needs.
        .with_target("clearml_api_client", LevelFilter::INFO.min(ours));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(Masked)
        .with_ansi(false)
        .with_filter(filter);
    tracing_subscriber::registry().with(lines).init();
}

/// Standard error, secrets masked.
struct Masked;

impl<'a> MakeWriter<'a> for Masked {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        Self
    }
}

impl Write for Masked {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        io::stderr().write_all(redactor().redact(&text).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
