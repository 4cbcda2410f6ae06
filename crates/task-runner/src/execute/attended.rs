//! A program that an outer agent watches over, with a command that is run here when its task is aborted.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::process::Child;
use std::time::Duration;

use clearml_api_client::TasksQuery;
use clearml_support::process::ProcessIdentity;
use rustix::process::{Signal, getpgrp};
use rustix::termios::tcgetpgrp;

use super::ExecuteError;
use super::silent::Program;
use crate::record::AbortCommand;
use crate::runner::abort::{Interpreter, Meaning};
use crate::runner::callback::Calling;
use crate::told::ToldToEnd;

/// How often to look for the end of the program.
const POLL: Duration = Duration::from_millis(50);

/// Runs the program to its end. It is the outer agent that stops it after an abort, and that gives the command its
/// time, because the command is announced in the task.
pub(super) async fn run(
    program: &Program,
    calling: &Calling<'_>,
    command: &AbortCommand,
    poll: Duration,
) -> Result<i32, ExecuteError> {
    calling.register(command.limit_sec).await;
    let child = program.command()?.spawn().map_err(|e| program.launch_error(e))?;
    let mut ended = Box::pin(end_of(child));
    let aborted = async {
        wait_for_abort(calling, poll).await;
        let place = (program.prepared.cwd.as_path(), program.environment.as_slice());
        calling.call(command, place, Duration::ZERO).await;
    };
    let mut aborted = Box::pin(aborted);
    let mut is_called = false;
    let code = tokio::select! {
        code = &mut ended => code?,
        () = &mut aborted => {
            is_called = true;
            ended.await?
        }
    };
    // A program may end because it is told to by the command, which then has more to do.
    if !is_called && was_aborted(calling).await {
        aborted.await;
    }
    Ok(code)
}

/// The exit code of the program, as a shell shows it. What this process is told goes on to the program, unless the
/// terminal has told both: they are of one group.
async fn end_of(mut child: Child) -> Result<i32, ExecuteError> {
    let failed = |doing| move |source| ExecuteError::System { doing, source };
    let mut told = ToldToEnd::listen(true).map_err(failed("listening for signals"))?;
    let terminal = File::open("/dev/tty").ok();
    loop {
        if let Some(status) = child.try_wait().map_err(failed("waiting for the program"))? {
            let by_signal = || status.signal().map(|signal| 256 - signal);
            return Ok(status.code().or_else(by_signal).unwrap_or(1));
        }
        let signal = tokio::select! {
            () = tokio::time::sleep(POLL) => continue,
            signal = told.heard() => signal,
        };
        if signal != Signal::TERM && terminal.as_ref().is_some_and(speaks_to_us) {
            continue;
        }
        if let Ok(Some(process)) = ProcessIdentity::of(child.id().cast_signed())
            && let Err(e) = process.signal(signal)
        {
            tracing::warn!("signalling the program: {e}");
        }
    }
}

/// Whether what this terminal tells its programs reaches the group of this process. Its own end is told to all.
fn speaks_to_us(terminal: &File) -> bool {
    tcgetpgrp(terminal).map_or(true, |front| front == getpgrp())
}

async fn wait_for_abort(calling: &Calling<'_>, poll: Duration) {
    let mut interpreter = Interpreter::default();
    loop {
        tokio::time::sleep(poll).await;
        if is_abort(calling, &mut interpreter).await {
            return;
        }
    }
}

async fn was_aborted(calling: &Calling<'_>) -> bool {
    is_abort(calling, &mut Interpreter::default()).await
}

async fn is_abort(calling: &Calling<'_>, interpreter: &mut Interpreter) -> bool {
    let query = TasksQuery::one(calling.task, ["status", "status_message"]);
    match calling.client.tasks_get_all(&query).await {
        Ok(tasks) => matches!(interpreter.observe(tasks.first()), Meaning::Abort(_)),
        Err(e) => {
            tracing::debug!("asking for the status of task {}: {e}", calling.task);
            false
        }
    }
}
