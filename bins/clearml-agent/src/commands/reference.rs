//! `reference`: the reference pages and manual pages, for whoever packages or documents the agent.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Command};
use clearml_commands::reference::{write_manual, write_pages};

#[derive(Args)]
#[group(required = true, multiple = true)]
pub(crate) struct ReferenceArguments {
    /// Write the reference pages into this folder.
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Write manual pages into this folder.
    #[arg(long, value_name = "DIR")]
    man: Option<PathBuf>,
}

pub(crate) fn reference(options: &ReferenceArguments, command: &Command) -> anyhow::Result<i32> {
    if let Some(folder) = &options.output {
        write_pages(command, folder)
            .with_context(|| format!("writing the reference pages to {}", folder.display()))?;
    }
    if let Some(folder) = &options.man {
        write_manual(command, folder)
            .with_context(|| format!("writing the manual pages to {}", folder.display()))?;
    }
    Ok(0)
}
