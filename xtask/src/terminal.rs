//! Colours for people, plain text for everything else.
//!
//! Colours are off when `NO_COLOR` is set, when the terminal is dumb, or when the output is not a terminal.

use std::io::IsTerminal;
use std::sync::OnceLock;
use std::time::Duration;

fn colours() -> bool {
    static COLOURS: OnceLock<bool> = OnceLock::new();
    *COLOURS.get_or_init(|| {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        !refused && !dumb && std::io::stdout().is_terminal()
    })
}

fn paint(code: &str, text: &str) -> String {
    if colours() {
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    } else {
        text.to_owned()
    }
}

/// Bold text.
#[must_use]
pub fn bold(text: &str) -> String {
    paint("1", text)
}

/// Text that steps back.
#[must_use]
pub fn dim(text: &str) -> String {
    paint("2", text)
}

/// Good news.
#[must_use]
pub fn green(text: &str) -> String {
    paint("32", text)
}

/// Bad news.
#[must_use]
pub fn red(text: &str) -> String {
    paint("31", text)
}

/// Announces a step that may take a while.
pub fn step(text: &str) {
    println!("{} {}", paint("36", "==>"), bold(text));
}

/// A remark below a step.
pub fn note(text: &str) {
    println!("    {text}");
}

/// A duration for people: `0.42 s`, `1 min 5 s`.
#[must_use]
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 100.0 {
        format!("{seconds:.2} s")
    } else {
        format!("{} min {} s", duration.as_secs() / 60, duration.as_secs() % 60)
    }
}
