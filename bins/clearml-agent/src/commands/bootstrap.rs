//! `install-bootstrap`: nothing to do, said once. Options are those of the official agent.

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;

use crate::output::print_line;

/// What there is to say about the bootstrap package.
pub(crate) const NOTE: &str = "clearml_agent: this agent is one program and needs no bootstrap package: there is nothing to install or to check";

#[derive(Args)]
pub(crate) struct BootstrapArguments {
    /// Show what would be installed.
    #[arg(long)]
    check: bool,
    /// Install again.
    #[arg(long)]
    force: bool,
    /// The version to install.
    #[arg(long, value_name = "TAG")]
    version: Option<String>,
    /// A wheel to install.
    #[arg(long, value_name = "PATH")]
    from_file: Option<PathBuf>,
}

pub(crate) fn install_bootstrap(options: &BootstrapArguments) -> anyhow::Result<i32> {
    if let Some(path) = &options.from_file {
        let shown = path.display();
        if path.extension().is_none_or(|extension| extension != "whl") {
            bail!("--from-file {shown}: it is not a wheel; its name must end in .whl");
        }
        if !path.is_file() {
            bail!("--from-file {shown}: there is no such file");
        }
    }
    print_line(NOTE)?;
    let ignored = [
        (options.check, "--check"),
        (options.force, "--force"),
        (options.version.is_some(), "--version"),
        (options.from_file.is_some(), "--from-file"),
    ];
    let ignored: Vec<&str> = ignored
        .iter()
        .filter(|(given, _)| *given)
        .map(|(_, name)| *name)
        .collect();
    if !ignored.is_empty() {
        print_line(format_args!(
            "clearml_agent: without effect: {}",
            ignored.join(", ")
        ))?;
    }
    Ok(0)
}
