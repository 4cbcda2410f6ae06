//! Usage errors in the form that scripts around the official agent know: the usage, and one line that begins
//! with the name of the command, on standard error, with exit code 2.

use std::io::{self, Write};

use clap::Command;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use clearml_support::text::printable;

use crate::argv::UsageError;

/// Exit code of a usage error.
pub(crate) const EXIT_USAGE: u8 = 2;

/// Prints it.
pub(crate) fn print(error: &UsageError, mut top: Command) {
    top.build();
    let name = top.get_name().to_owned();
    let mut usage = top.render_usage();
    let mut program = name.clone();
    if let Some(command) = error
        .command
        .as_deref()
        .and_then(|command| top.find_subcommand_mut(command))
    {
        usage = command.render_usage();
        program = format!("{name} {}", command.get_name());
    }
    let message = printable(&error.message);
    // Nobody may be reading.
    let _gone = writeln!(io::stderr(), "{usage}\n{program}: error: {message}");
}

/// What clap objects to, in our words. `None`: it is no error but a wish for help.
pub(crate) fn from_clap(error: &clap::Error, command: Option<String>) -> Option<UsageError> {
    if error.exit_code() == 0 {
        return None;
    }
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(texts)) => texts.join(", "),
        Some(ContextValue::StyledStr(text)) => text.to_string(),
        Some(ContextValue::Number(number)) => number.to_string(),
        _ => String::new(),
    };
    let options = |kind| match error.get(kind) {
        Some(ContextValue::Strings(texts)) => texts
            .iter()
            .map(|text| option(text))
            .collect::<Vec<_>>()
            .join(", "),
        Some(ContextValue::String(text)) => option(text).to_owned(),
        _ => String::new(),
    };
    let (argument, value) = (options(ContextKind::InvalidArg), text(ContextKind::InvalidValue));
    let choices = || {
        let valid = match error.get(ContextKind::ValidValue) {
            Some(ContextValue::Strings(texts)) => texts.clone(),
            _ => Vec::new(),
        };
        valid
            .iter()
            .map(|text| format!("'{text}'"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let near = |kind| match error.get(kind) {
        Some(ContextValue::String(name)) => format!("; did you mean {name}?"),
        Some(ContextValue::Strings(names)) => names
            .first()
            .map_or_else(String::new, |name| format!("; did you mean {name}?")),
        _ => String::new(),
    };
    let message = match error.kind() {
        ErrorKind::UnknownArgument => format!(
            "unrecognized arguments: {}{}",
            text(ContextKind::InvalidArg),
            near(ContextKind::SuggestedArg)
        ),
        ErrorKind::InvalidSubcommand => {
            let names: Vec<String> = crate::arguments::command()
                .get_subcommands()
                .filter(|command| !command.is_hide_set())
                .map(|command| format!("'{}'", command.get_name()))
                .collect();
            format!(
                "argument command: invalid choice: '{}' (choose from {}){}",
                text(ContextKind::InvalidSubcommand),
                names.join(", "),
                near(ContextKind::SuggestedSubcommand)
            )
        }
        ErrorKind::MissingRequiredArgument => format!("the following arguments are required: {argument}"),
        ErrorKind::InvalidValue if value.is_empty() => {
            let several = text(ContextKind::InvalidArg).contains("...");
            let number = if several {
                "at least one argument"
            } else {
                "one argument"
            };
            format!("argument {argument}: expected {number}")
        }
        ErrorKind::InvalidValue => {
            format!(
                "argument {argument}: invalid choice: '{value}' (choose from {})",
                choices()
            )
        }
        ErrorKind::ValueValidation => {
            let reason = std::error::Error::source(error).map(|source| format!(": {source}"));
            format!(
                "argument {argument}: invalid value: '{value}'{}",
                reason.unwrap_or_default()
            )
        }
        ErrorKind::TooManyValues => format!("argument {argument}: ignored explicit argument '{value}'"),
        ErrorKind::ArgumentConflict => {
            format!(
                "argument {argument}: not allowed with argument {}",
                options(ContextKind::PriorArg)
            )
        }
        _ => {
            let shown = error.to_string();
            let first = shown.lines().next().unwrap_or_default();
            first.strip_prefix("error: ").unwrap_or(first).to_owned()
        }
    };
    // An option that stands before the command is not the command's.
    let is_global = crate::arguments::command()
        .get_arguments()
        .filter_map(clap::Arg::get_long)
        .any(|long| argument.strip_prefix("--") == Some(long));
    let command = command.filter(|_| !is_global || error.kind() == ErrorKind::UnknownArgument);
    Some(UsageError { command, message })
}

/// The name of an option without its values.
fn option(shown: &str) -> &str {
    shown.split([' ', '=']).next().unwrap_or(shown)
}
