//! How a failed command says so: one clear line on standard output, between blank lines, and the chain of
//! causes; with `--debug` on standard error, with where it came from.
//!
//! What to do about it is part of the libraries' messages.

use std::fmt::Write as _;
use std::io::{self, Write};

use clearml_support::text::printable;

use crate::logging;

/// Prints the failure.
pub(crate) fn print(error: &anyhow::Error, debug: bool) {
    let mut text = format!("clearml_agent: ERROR: {error}");
    let mut shown = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        // Some errors repeat their source in their own text.
        if !shown.contains(&cause) {
            let _infallible = write!(text, "\n  caused by: {cause}");
        }
        shown = cause;
    }
    if logging::is_json() {
        return tracing::error!("{text}");
    }
    // Names of queues and words of servers are in it.
    let text = printable(&text);
    // Nobody may be reading any more; but where only the output's disk is full, somebody may be.
    if debug || writeln!(io::stdout(), "\n{text}\n").is_err() {
        let trace = if debug {
            format!("\n{error:?}")
        } else {
            String::new()
        };
        let _gone = writeln!(io::stderr(), "{text}{}", printable(&trace));
    }
}

/// Prints a warning where a person looks for it, which is not where data go.
pub(crate) fn warn(text: &str) {
    if logging::is_json() {
        return tracing::warn!("{text}");
    }
    let _gone = writeln!(io::stdout(), "clearml_agent: Warning: {}", printable(text));
}

/// The same where standard output is data.
pub(crate) fn warn_aside(text: &str) {
    if logging::is_json() {
        return tracing::warn!("{text}");
    }
    let _gone = writeln!(io::stderr(), "clearml_agent: Warning: {}", printable(text));
}

/// Says what a person may want to know, aside from the output.
pub(crate) fn say_aside(text: &str) {
    if logging::is_json() {
        return tracing::info!("{text}");
    }
    let _gone = writeln!(io::stderr(), "{}", printable(text));
}
