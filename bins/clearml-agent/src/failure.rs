//! How a failed command says so: one clear line, and the chain of causes.
//!
//! What to do about it is part of the libraries' messages.

use std::io::IsTerminal;

/// Whether the error output may be coloured.
pub(crate) fn colours() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !refused && std::io::stderr().is_terminal()
}

/// Prints the failure to standard error.
pub(crate) fn print(error: &anyhow::Error, debug: bool) {
    let (red, plain) = if colours() {
        ("\u{1b}[31m", "\u{1b}[0m")
    } else {
        ("", "")
    };
    eprintln!("{red}clearml_agent: ERROR:{plain} {error}");
    let mut shown = error.to_string();
    for cause in error.chain().skip(1) {
        let text = cause.to_string();
        // Some errors repeat their source in their own text.
        if !shown.ends_with(&text) {
            eprintln!("  caused by: {text}");
        }
        shown = text;
    }
    if debug {
        eprintln!("{error:?}");
    }
}
