//! The log of this program: lines for people, or JSON objects for programs, on standard error.
//!
//! In JSON everything is an object, one a line: also what the daemon otherwise says to people on standard
//! output, so that whoever collects both streams can read each line. Secrets of the configuration are
//! masked in both forms.

use std::io::{self, Write};
use std::sync::OnceLock;

use clap::ValueEnum;
use clearml_support::redact::Redactor;
use clearml_worker::ANNOUNCEMENTS;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::prelude::*;

use crate::output;

const VARIABLE: &str = "CLEARML_AGENT_LOG_FORMAT";

/// The forms of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    // Lines for people.
    Text,
    // One JSON object per line.
    Json,
}

/// What the log of this process must not show.
pub(crate) fn redactor() -> &'static Redactor {
    static REDACTOR: OnceLock<Redactor> = OnceLock::new();
    REDACTOR.get_or_init(Redactor::new)
}

/// Whether the log is for programs.
pub(crate) fn is_json() -> bool {
    tracing::enabled!(target: ANNOUNCEMENTS, tracing::Level::INFO)
}

/// Begins. What the command line does not say, the environment may.
pub(crate) fn start(given: Option<LogFormat>, debug: bool) {
    let variable = std::env::var(VARIABLE).unwrap_or_default();
    let of_variable = LogFormat::from_str(&variable, true);
    let format = given.or(of_variable.clone().ok()).unwrap_or(LogFormat::Text);
    begin(format, debug);
    if of_variable.is_err() && !variable.is_empty() && given.is_none() {
        tracing::warn!("{VARIABLE} is {variable:?}, neither text nor json; the log is text");
    }
}

fn begin(format: LogFormat, debug: bool) {
    let ours = if debug {
        LevelFilter::DEBUG
    } else {
        LevelFilter::INFO
    };
    let announcements = match format {
        LogFormat::Text => LevelFilter::OFF,
        LogFormat::Json => LevelFilter::INFO,
    };
    let filter = Targets::new()
        .with_default(LevelFilter::WARN)
        .with_target("clearml", ours)
        .with_target(ANNOUNCEMENTS, announcements);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(Masked(redactor()))
        // A full disk behind stderr must not end the process, which complaining about it there would.
        .log_internal_errors(false);
    let registry = tracing_subscriber::registry();
    match format {
        LogFormat::Text => registry
            .with(
                lines
                    .with_ansi(output::colours(&io::stderr()))
                    .with_target(debug)
                    .with_filter(filter),
            )
            .init(),
        LogFormat::Json => registry
            .with(
                lines
                    .json()
                    .flatten_event(true)
                    .with_current_span(false)
                    .with_span_list(false)
                    .with_filter(filter),
            )
            .init(),
    }
}

/// Standard error without secrets. Each event comes as a whole.
#[derive(Clone, Copy)]
struct Masked(&'static Redactor);

impl Write for Masked {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        io::stderr().lock().write_all(self.0.redact(&text).as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

impl<'a> MakeWriter<'a> for Masked {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        *self
    }
}
