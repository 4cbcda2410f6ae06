//! `clearml-agent`: argument parsing, output and exit codes. Every command is one call into a crate.
//!
//! Three ways are gone before anything else is set up, because they are taken often or must stay small:
//! `--version`, the private `shim`, and the answer to git's question for a login.

mod arguments;
mod argv;
mod commands;
mod containers;
mod default_python;
mod failure;
mod included;
mod logging;
mod output;
mod task_options;
mod usage;

use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;

use arguments::{Arguments, Command};

fn main() -> ExitCode {
    if let Some(code) = quick_way_out() {
        return code;
    }
    let arguments = match parse() {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    let debug = arguments.debug;
    logging::start(arguments.log_format, debug);
    match run(arguments) {
        Ok(status) => exit_code(status),
        Err(error) => {
            failure::print(&error, debug);
            let by_program = error.downcast_ref::<clearml_task_runner::ExecuteError>();
            exit_code(by_program.map_or(1, clearml_task_runner::ExecuteError::exit_code))
        }
    }
}

/// The arguments, or the exit code where there is nothing to run: help was wanted, or they make no sense.
fn parse() -> Result<Arguments, ExitCode> {
    let read = |path: &Path| clearml_support::fs::read_limited(path, argv::MAX_FILE_BYTES);
    let given = std::env::args_os().skip(1);
    let usage = |error: &argv::UsageError| {
        usage::print(error, arguments::command());
        ExitCode::from(usage::EXIT_USAGE)
    };
    let mut top = arguments::command();
    // Or it would lack what clap adds, such as --help.
    top.build();
    let prepared = argv::prepare(given, &top, &read).map_err(|error| usage(&error))?;
    let program = std::iter::once("clearml-agent".into());
    Arguments::try_parse_from(program.chain(prepared.arguments)).map_err(|error| {
        match usage::from_clap(&error, prepared.command) {
            Some(error) => usage(&error),
            None => {
                // Help that nobody reads is no failure.
                let _gone = error.print();
                ExitCode::SUCCESS
            }
        }
    })
}

/// The commands that need no argument parser and no runtime.
fn quick_way_out() -> Option<ExitCode> {
    if let Some(code) = clearml_task_runner::askpass::intercept() {
        return Some(code);
    }
    let mut arguments = std::env::args_os().skip(1);
    let first = arguments.next()?;
    if first == OsStr::new("--version") && arguments.len() == 0 {
        return Some(match output::print_line(arguments::VERSION_LINE) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        });
    }
    if first == OsStr::new("shim") {
        let flag = arguments.next()?;
        let folder = arguments.next()?;
        if flag == OsStr::new("--run") {
            clearml_task_runner::umask::make_private();
            return Some(exit_code(clearml_task_runner::shim_main(Path::new(&folder))));
        }
    }
    None
}

fn run(arguments: Arguments) -> anyhow::Result<i32> {
    let Some(command) = arguments.command else {
        arguments::print_help()?;
        return Ok(0);
    };
    // Whatever we create may hold secrets. The user's code gets the original mask back from the runner.
    clearml_task_runner::umask::make_private();
    if let Command::Inside {
        run,
        given,
        tools,
        callback,
    } = &command
    {
        // The configuration of a container is that of its task alone.
        return block_on(async { Ok(clearml_task_runner::inside(run, given, *tools, *callback).await) });
    }
    let sources = arguments::sources(arguments.config_file.as_deref(), arguments.debug)?;
    match command {
        Command::Daemon(options) => block_on(commands::daemon(&options, sources)),
        Command::Execute(options) => block_on(commands::execute(&options, sources)),
        Command::Build(options) => block_on(commands::build(&options, sources)),
        Command::Server(options) => block_on(commands::server(options)),
        Command::List(options) => block_on(commands::list(options, sources)),
        Command::Config(options) => commands::config(&options, &sources),
        Command::Init(options) => block_on(commands::init(*options, sources)),
        Command::Doctor(options) => block_on(commands::doctor(options, sources)),
        Command::Status(options) => block_on(commands::status(options, sources)),
        Command::Completions(options) => commands::completions(&options, &arguments::command()),
        Command::Reference(options) => commands::reference(&options, &arguments::command()),
        Command::InstallBootstrap(options) => commands::install_bootstrap(&options),
        Command::Runner { run, services } => block_on(commands::runner(run, services)),
        // Reached only with arguments that the quick way does not know.
        Command::Shim { run } => Ok(clearml_task_runner::shim_main(&run)),
        Command::Inside { .. } => Ok(0),
    }
}

fn block_on(future: impl Future<Output = anyhow::Result<i32>>) -> anyhow::Result<i32> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the runtime; is the limit of open files or processes reached?")?;
    let outcome = runtime.block_on(future);
    // A blocking task that hangs, such as a name lookup, must not hold up the exit.
    runtime.shutdown_background();
    outcome
}

fn exit_code(status: i32) -> ExitCode {
    // As the shell does: the low byte, so that −n of a signal becomes 256−n.
    ExitCode::from(status.to_le_bytes()[0])
}
