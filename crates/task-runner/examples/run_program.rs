//! Runs a program under the shim, without any server, and shows what is on disk afterwards.
//!
//! `cargo run -p clearml-task-runner --example run_program`

use std::collections::VecDeque;
use std::error::Error;
use std::path::Path;

use clearml_task_model::{TaskId, WorkerId};
use clearml_task_runner::console::Channel;
use clearml_task_runner::console::reader::{ChannelReader, Chunk};
use clearml_task_runner::console::render::{RenderOptions, Tail, render};
use clearml_task_runner::record::{Launch, SCHEMA};
use clearml_task_runner::{NewRun, RunStore, shim_main, spawn_shim};

fn main() -> Result<(), Box<dyn Error>> {
    // The shim is this same program, started again.
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, command, _, folder] = arguments.as_slice()
        && command == "shim"
    {
        std::process::exit(shim_main(Path::new(folder)));
    }

    let state = tempfile::tempdir()?;
    let new = NewRun {
        task: TaskId::new("example"),
        queue: None,
        worker: WorkerId::new("example:0"),
    };
    let (run, _keeper) = RunStore::open(state.path())?.create(new)?;
    run.write_launch(&Launch {
        schema: SCHEMA,
        argv: vec![
            "sh".into(),
            "-c".into(),
            "echo to stdout; echo to stderr >&2; exit 3".into(),
        ],
        env: vec![("PATH".into(), "/usr/bin:/bin".into())],
        cwd: "/".into(),
        umask: 0o022,
        grace_ms: 1000,
        leftover_grace_ms: 1000,
        segment_bytes: 1 << 20,
        console_max_bytes: 1 << 30,
        abort_command: None,
        open_files: None,
        contained: false,
        restarts: false,
    })?;
    spawn_shim(&std::env::current_exe()?, &run)?.wait()?;

    let mut reader = ChannelReader::new(&run.console_dir(), Channel::Task, 0);
    reader.fill(1 << 20)?;
    let chunks: &VecDeque<Chunk> = reader.window();
    let options = RenderOptions {
        suppress_carriage_return: true,
    };
    for message in render(chunks, options, Tail::End, usize::MAX, i64::MAX).messages {
        print!("{}", message.text);
    }
    let code = run.verdict()?.and_then(|verdict| verdict.code());
    println!("exit code: {code:?}");
    if code == Some(3) {
        Ok(())
    } else {
        Err("the program should have ended with 3".into())
    }
}
