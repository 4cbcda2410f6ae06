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
    // An option that stands before the command is not the command's.
    let argument = Objection(error).options(ContextKind::InvalidArg);
    let is_global = crate::arguments::command()
        .get_arguments()
        .filter_map(clap::Arg::get_long)
        .any(|long| argument.strip_prefix("--") == Some(long));
    let command = command.filter(|_| !is_global || error.kind() == ErrorKind::UnknownArgument);
    Some(UsageError {
        command,
        message: message(error),
    })
}

fn message(error: &clap::Error) -> String {
    let objection = Objection(error);
    let argument = objection.options(ContextKind::InvalidArg);
    let value = objection.text(ContextKind::InvalidValue);
    match error.kind() {
        ErrorKind::UnknownArgument => format!(
            "unrecognized arguments: {}{}",
            objection.text(ContextKind::InvalidArg),
            objection.meant(ContextKind::SuggestedArg)
        ),
        ErrorKind::InvalidSubcommand => {
            let top = crate::arguments::command();
            let shown = top.get_subcommands().filter(|command| !command.is_hide_set());
            format!(
                "argument command: invalid choice: '{}' (choose from {}){}",
                objection.text(ContextKind::InvalidSubcommand),
                quoted(shown.map(Command::get_name)),
                objection.meant(ContextKind::SuggestedSubcommand)
            )
        }
        ErrorKind::MissingRequiredArgument => format!("the following arguments are required: {argument}"),
        ErrorKind::InvalidValue if value.is_empty() => {
            let several = objection.text(ContextKind::InvalidArg).contains("...");
            let number = if several {
                "at least one argument"
            } else {
                "one argument"
            };
            format!("argument {argument}: expected {number}")
        }
        ErrorKind::InvalidValue => {
            let choices = objection.texts(ContextKind::ValidValue);
            let choices = quoted(choices.iter().map(String::as_str));
            format!("argument {argument}: invalid choice: '{value}' (choose from {choices})")
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
            let other = objection.options(ContextKind::PriorArg);
            format!("argument {argument}: not allowed with argument {other}")
        }
        _ => {
            let shown = error.to_string();
            let first = shown.lines().next().unwrap_or_default();
            first.strip_prefix("error: ").unwrap_or(first).to_owned()
        }
    }
}

/// The parts of what clap objects to.
struct Objection<'a>(&'a clap::Error);

impl Objection<'_> {
    fn texts(&self, kind: ContextKind) -> Vec<String> {
        match self.0.get(kind) {
            Some(ContextValue::String(text)) => vec![text.clone()],
            Some(ContextValue::Strings(texts)) => texts.clone(),
            Some(ContextValue::StyledStr(text)) => vec![text.to_string()],
            Some(ContextValue::Number(number)) => vec![number.to_string()],
            _ => Vec::new(),
        }
    }

    fn text(&self, kind: ContextKind) -> String {
        self.texts(kind).join(", ")
    }

    /// Names of options without their values.
    fn options(&self, kind: ContextKind) -> String {
        let texts = self.texts(kind);
        let name = |text: &str| text.split([' ', '=']).next().unwrap_or(text).to_owned();
        texts.iter().map(|text| name(text)).collect::<Vec<_>>().join(", ")
    }

    /// What was probably meant, for the end of a message.
    fn meant(&self, kind: ContextKind) -> String {
        let texts = self.texts(kind);
        texts
            .first()
            .map_or_else(String::new, |name| format!("; did you mean {name}?"))
    }
}

fn quoted<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names
        .map(|name| format!("'{name}'"))
        .collect::<Vec<_>>()
        .join(", ")
}
