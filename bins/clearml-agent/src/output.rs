//! Standard output of the commands whose output is their result, and what may be coloured.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use anyhow::Context;

/// Whether what goes there may be coloured.
pub(crate) fn colours(stream: &impl IsTerminal) -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    !refused && !dumb && stream.is_terminal()
}

/// Prints a result. A reader that has seen enough, such as `head`, is no failure; a full disk is.
pub(crate) fn print(text: impl Display) -> anyhow::Result<()> {
    finish(write!(io::stdout(), "{text}").and_then(|()| io::stdout().flush()))
}

/// The same with a line feed at its end.
pub(crate) fn print_line(text: impl Display) -> anyhow::Result<()> {
    print(format_args!("{text}\n"))
}

/// What became of writing a result, as [`print()`] judges it.
pub(crate) fn finish(written: io::Result<()>) -> anyhow::Result<()> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("writing to the standard output"),
    }
}
