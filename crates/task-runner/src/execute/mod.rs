//! `clearml-agent execute --id`: runs one task in the foreground, in one of three documented ways.
//!
//! * direct (no option) and full (`--full-monitoring`): this process is the runner; it ships the console,
//!   watches for aborts and sets the status. They differ in the exit code and the worker id only.
//! * silent (`--disable-monitoring`): an outer agent does all that.

mod again;
mod attended;
pub(crate) mod build_only;
mod earlier;
pub(crate) mod follow;
mod monitored;
mod ranks;
mod reports;
pub(crate) mod silent;

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use clearml_agent_config::{ConfigError, Settings, printout};
use clearml_api_client::{ApiError, Client, CloneOptions, StatusChange, TasksQuery, exact};
use clearml_support::time::now_ms;
use clearml_task_model::{Task, TaskId, TaskStatus, WorkerId};

use crate::phase::Phase;
use crate::record::{RunInputs, RunOptions};
use crate::run_dir::{KEEP_FINISHED, Keeper, NewRun, RunDir, RunDirError, RunStore};
use crate::runner::RunnerError;
use crate::runner::setup::is_unknown_task;
use crate::runner::start::tell_start;
use crate::settings::client_options;
pub use again::reset_ended;
pub use build_only::{BuildOnlyOptions, Built, build_only};
pub use earlier::Busy;
pub use reports::MachineFigures;

/// How many tasks an error lists at most.
const MOST_SHOWN: usize = 10;
/// How many of the latest tasks a name that does not exist is compared with.
const MOST_COMPARED: u32 = 500;
/// How similar two names are, of 1, if one may be meant by the other.
const SIMILAR: f64 = 0.7;

/// What to run, and how.
#[derive(Debug, Clone)]
pub struct ExecuteOptions {
    /// Id, or name if it is the only task of that name.
    pub task: String,
    /// Run a copy instead.
    pub clone: bool,
    /// `--disable-monitoring`.
    pub disable_monitoring: bool,
    /// `--full-monitoring`.
    pub full_monitoring: bool,
    /// Refuse a task that does not wait in a queue.
    pub require_queue: bool,
    /// A file that gets the output of the task as well.
    pub log_file: Option<PathBuf>,
    /// The id under which this process reports.
    pub worker: WorkerId,
    /// Who says in status reports how busy the machine is.
    pub machine: Option<Arc<dyn MachineFigures>>,
    /// Options that reach the task.
    pub run: RunOptions,
    /// The configuration.
    pub settings: Settings,
}

/// The task could not be run. What went wrong with the task itself is in its status instead.
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError {
    /// Several tasks have that name.
    #[error(
        "Found multiple tasks with name {name:?}; give the id of one of them:{}",
        bullets(ids)
    )]
    Ambiguous {
        /// The name.
        name: String,
        /// Their ids.
        ids: Vec<TaskId>,
    },
    /// There is no such task.
    #[error(
        "Could not find task id={task} (for host: {host}): {reason}{}",
        suggest(similar)
    )]
    NoTask {
        /// Id or name.
        task: String,
        /// The server.
        host: String,
        /// Why not.
        reason: String,
        /// Tasks whose names look similar, best first: id and name.
        similar: Vec<(TaskId, String)>,
    },
    /// The task could not be copied.
    #[error("Cloning failed: {0}")]
    Clone(ApiError),
    /// Another node of the job has to begin the task.
    #[error(
        "the first node of the job has not begun task {0} within ten minutes; look at the output of that node"
    )]
    FirstNode(TaskId),
    /// This machine runs it already.
    #[error(transparent)]
    Busy(Box<Busy>),
    /// `--require-queue`.
    #[error("Execution required enqueued task, but task id={0} is not queued.")]
    NotQueued(TaskId),
    /// The task could not be marked as started.
    #[error("task {task} could not be started: {source}")]
    Start {
        /// The task.
        task: TaskId,
        /// Why not.
        source: Box<ApiError>,
    },
    /// Code or environment could not be prepared, where nobody else reports it.
    #[error("{stage}: {reason}")]
    Prepare {
        /// `clone`, `environment` or `launch`.
        stage: &'static str,
        /// Why not.
        reason: String,
    },
    /// A program of the user that takes part in the preparation has failed.
    #[error("{reason}")]
    Program {
        /// Its exit code, which becomes ours.
        code: i32,
        /// What it was.
        reason: String,
    },
    /// The file for the output can't be written.
    #[error("opening the log file {}: {source}; choose another one with --log-file", path.display())]
    LogFile {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The server can't be used.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The agent's own records.
    #[error(transparent)]
    RunDir(#[from] RunDirError),
    /// The runner.
    #[error(transparent)]
    Runner(#[from] RunnerError),
    /// The operating system refused something.
    #[error("{doing}: {source}")]
    System {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

impl ExecuteError {
    /// The exit code for this process.
    #[must_use]
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::Program { code, .. } => *code,
            _ => 1,
        }
    }
}

/// Runs a task and returns the exit code for this process. In the silent way this process becomes the
/// user's program, and only a failure to do so comes back.
///
/// # Errors
///
/// When there is no such task, it can't be started, or the configuration or server can't be used.
pub async fn execute(options: ExecuteOptions) -> Result<i32, ExecuteError> {
    let client = Client::new(client_options(&options.settings)?)?;
    client.login().await?;
    let mut task = find(&client, &options.task).await?;
    let mut id = id_of(&task, &client)?;
    // What this machine refuses is found before anything happens to the task, which nobody would end.
    let store = (!options.disable_monitoring)
        .then(|| RunStore::open(&options.settings.agent.state_dir))
        .transpose()?;
    drop(open_log(&options)?);
    if options.clone {
        let name = format!("Clone of {}", task.name.as_deref().unwrap_or_default());
        let copy = CloneOptions {
            name: Some(name),
            ..CloneOptions::default()
        };
        id = client
            .tasks_clone(&id, &copy)
            .await
            .map_err(ExecuteError::Clone)?;
        let _unwritable = writeln!(io::stdout(), "Task cloned, new task id={id}");
        task = client.tasks_get_by_id(&id).await?;
    }
    if store.is_some()
        && let Some(code) = Box::pin(earlier::go_on(&client, &task, &id, &options)).await?
    {
        return Ok(code);
    }
    let is_beside = ranks::is_beside_the_first(&options, &id);
    if is_beside {
        if !ranks::wait_for_the_first(&client, &id).await? {
            tracing::info!("task {id} is over; this node has nothing to do for it");
            return Ok(0);
        }
        task.status = Some(TaskStatus::InProgress);
    }
    // So is a full disk.
    let run = store
        .as_ref()
        .map(|store| create_run(store, &id, &options))
        .transpose()?;
    if !options.clone && !is_beside {
        let again = ranks::go_on(&client, &task, &id, &options).await;
        let taken = match again {
            Ok(false) => take(&client, &task, &id, &options).await,
            other => other.map(drop),
        };
        taken.map_err(|e| without_run(run.as_ref(), e))?;
    }
    if options.clone {
        started(&client, &id, &options.worker)
            .await
            .map_err(|e| without_run(run.as_ref(), e))?;
    }
    task.status = Some(TaskStatus::InProgress);
    let shown = printout(&options.settings, env!("CARGO_PKG_VERSION"));
    // Nobody may be reading, or the disk behind it may be full; the task is run all the same.
    let _unwritable = write!(io::stdout(), "{shown}");
    match run {
        Some(run) => {
            let exit = Box::pin(monitored::watch(&client, &id, &options, run)).await?;
            if let Some(Err(e)) = store.map(|store| store.prune(KEEP_FINISHED)) {
                tracing::warn!("{e}");
            }
            Ok(monitored::exit_code(exit, &options))
        }
        None => Box::pin(silent::run(&client, task, &id, &options)).await,
    }
}

/// Writes down everything that the run needs.
fn create_run(
    store: &RunStore,
    id: &TaskId,
    options: &ExecuteOptions,
) -> Result<(RunDir, Keeper), ExecuteError> {
    let (run, keeper) = store.create(NewRun {
        task: id.clone(),
        queue: None,
        worker: options.worker.clone(),
    })?;
    let inputs = RunInputs::from_process(options.run.clone());
    let written = run
        .write_inputs(&options.settings.effective_json(), &inputs)
        .and_then(|()| run.mark("pulled", now_ms(), None))
        .and_then(|()| run.set_phase(Phase::Claimed).map(drop));
    let created = (run, keeper);
    match written {
        Ok(()) => Ok(created),
        Err(e) => Err(without_run(Some(&created), e.into())),
    }
}

/// Removes a run whose task was not started.
fn without_run(run: Option<&(RunDir, Keeper)>, error: ExecuteError) -> ExecuteError {
    if let Some((run, _)) = run
        && let Err(e) = run.remove()
    {
        tracing::warn!("removing {}: {e}", run.path().display());
    }
    error
}

fn open_log(options: &ExecuteOptions) -> Result<Option<File>, ExecuteError> {
    let open = |path: &PathBuf| {
        let file = File::options().create(true).append(true).mode(0o600).open(path);
        file.map_err(|source| ExecuteError::LogFile {
            path: path.clone(),
            source,
        })
    };
    options.log_file.as_ref().map(open).transpose()
}

pub(crate) fn id_of(task: &Task, client: &Client) -> Result<TaskId, ExecuteError> {
    task.id.clone().ok_or_else(|| ExecuteError::NoTask {
        task: task.name.clone().unwrap_or_default(),
        host: client.server().to_owned(),
        reason: "the server's answer has no id".to_owned(),
        similar: Vec::new(),
    })
}

pub(crate) async fn find(client: &Client, wanted: &str) -> Result<Task, ExecuteError> {
    let missing = |reason: String, similar| ExecuteError::NoTask {
        task: wanted.to_owned(),
        host: client.server().to_owned(),
        reason,
        similar,
    };
    match client.tasks_get_by_id(&TaskId::new(wanted)).await {
        Ok(task) => return Ok(task),
        Err(e) if is_unknown_task(&e) => {}
        Err(e) => return Err(missing(e.to_string(), Vec::new())),
    }
    let query = TasksQuery {
        name: Some(exact(wanted)),
        ..TasksQuery::default()
    };
    let mut named = client.tasks_get_all(&query).await?;
    if named.len() > 1 {
        return Err(ExecuteError::Ambiguous {
            name: wanted.to_owned(),
            ids: named.into_iter().filter_map(|task| task.id).collect(),
        });
    }
    if let Some(task) = named.pop() {
        return Ok(task);
    }
    let similar = similar_tasks(client, wanted).await;
    Err(missing("there is no task of that id or name".to_owned(), similar))
}

/// Tasks of similar names. Who can't ask for them does without.
async fn similar_tasks(client: &Client, wanted: &str) -> Vec<(TaskId, String)> {
    let query = TasksQuery {
        page_size: Some(MOST_COMPARED),
        only_fields: ["id", "name"].map(str::to_owned).to_vec(),
        order_by: vec!["-last_update".to_owned()],
        ..TasksQuery::default()
    };
    let tasks = client.tasks_get_all(&query).await.unwrap_or_else(|e| {
        tracing::debug!("looking for tasks of similar names: {e}");
        Vec::new()
    });
    let folded = wanted.to_lowercase();
    let mut scored: Vec<(f64, String, TaskId)> = tasks
        .into_iter()
        .filter_map(|task| Some((task.name?, task.id?)))
        .map(|(name, id)| (strsim::jaro_winkler(&folded, &name.to_lowercase()), name, id))
        .filter(|(score, ..)| *score > SIMILAR)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    scored.into_iter().map(|(_, name, id)| (id, name)).collect()
}

fn suggest(similar: &[(TaskId, String)]) -> String {
    if similar.is_empty() {
        return String::new();
    }
    let lines: Vec<String> = similar
        .iter()
        .map(|(id, name)| format!("({id}) {name}"))
        .collect();
    format!(". Did you mean this?{}", bullets(&lines))
}

fn bullets(lines: &[impl Display]) -> String {
    let shown = lines.iter().take(MOST_SHOWN).map(|line| format!("\n* {line}"));
    let more = (lines.len() > MOST_SHOWN).then(|| "\n...".to_owned());
    shown.chain(more).collect()
}

/// Makes the task a running one, by one call that says so: another one could wipe out a wish to stop it. For the
/// same reason nothing is said about a task that is running already; whoever has taken it has told the server.
async fn take(
    client: &Client,
    task: &Task,
    id: &TaskId,
    options: &ExecuteOptions,
) -> Result<(), ExecuteError> {
    let queued = task.status == Some(TaskStatus::Queued);
    if options.require_queue && !queued {
        return Err(ExecuteError::NotQueued(id.clone()));
    }
    if task.status == Some(TaskStatus::InProgress) {
        return Ok(());
    }
    if queued {
        // The server does this only with a task that is still queued.
        let in_progress = TaskStatus::InProgress;
        let reply = client
            .tasks_dequeue(id, Some(&in_progress), &StatusChange::default())
            .await;
        match reply {
            Ok(reply) if reply.updated > 0 => {
                // A runner finds out when this was lost.
                if let Err(e) = tell_start(client, id, &options.worker).await {
                    tracing::warn!("marking task {id} as started: {e}");
                }
                return Ok(());
            }
            Ok(_) => return Err(ExecuteError::NotQueued(id.clone())),
            Err(_) if options.require_queue => return Err(ExecuteError::NotQueued(id.clone())),
            // Its queue is gone, for example: then it is started from the status that it has.
            Err(e) => tracing::warn!("taking task {id} out of its queue: {e}"),
        }
    }
    started(client, id, &options.worker).await
}

/// A person has named this very task, so it is run whatever became of it before.
async fn started(client: &Client, id: &TaskId, worker: &WorkerId) -> Result<(), ExecuteError> {
    let change = StatusChange::reason("worker started execution")
        .message(format!("Changed by clearml-agent {worker}"))
        .force();
    let answer = client.tasks_started(id, &change).await;
    answer.map(drop).map_err(|source| ExecuteError::Start {
        task: id.clone(),
        source: Box::new(source),
    })
}
