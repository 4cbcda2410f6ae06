//! Runs `git --version` with a time limit and prints its lines.

use std::time::Duration;

use clearml_support::command::{Command, CommandError};

fn main() -> Result<(), CommandError> {
    let command = Command::new("git")
        .arg("--version")
        .timeout(Duration::from_secs(10));
    let status = command.run_streamed(&mut |line| println!("line: {line}"))?;
    println!("`{}` ended with {status}", command.describe());
    Ok(())
}
