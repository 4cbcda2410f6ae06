//! How a failed command says so: one clear line on standard output, between blank lines, and the chain of
//! causes; with `--debug` on standard error, with where it came from.
//!
//! What to do about it is part of the libraries' messages.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};

/// Whether the error output may be coloured.
pub(crate) fn colours() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !refused && io::stderr().is_terminal()
}

/// Prints the failure.
pub(crate) fn print(error: &anyhow::Error, debug: bool) {
    let mut text = format!("clearml_agent: ERROR: {error}");
    let mut shown = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        // Some errors repeat their source in their own text.
        if !shown.ends_with(&cause) {
            let _infallible = write!(text, "\n  caused by: {cause}");
        }
        shown = cause;
    }
    // Nobody may be reading any more.
    let _gone = if debug {
        writeln!(io::stderr(), "{text}\n{error:?}")
    } else {
        writeln!(io::stdout(), "\n{text}\n")
    };
}

/// Prints a warning where a person looks for it, which is not where data go.
pub(crate) fn warn(text: &str) {
    let _gone = writeln!(io::stdout(), "clearml_agent: Warning: {text}");
}
