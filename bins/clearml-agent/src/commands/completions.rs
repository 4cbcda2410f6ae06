//! `completions`: what a shell needs to know about this command line.

use std::io::stdout;

use clap::{Args, Command};
use clearml_commands::reference::{Shell, write_completions};

use crate::output::finish;

#[derive(Args)]
pub(crate) struct CompletionsArguments {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

pub(crate) fn completions(options: &CompletionsArguments, command: &Command) -> anyhow::Result<i32> {
    finish(write_completions(command, options.shell, &mut stdout()))?;
    Ok(0)
}
