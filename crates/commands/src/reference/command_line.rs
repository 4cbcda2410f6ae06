//! The page about the command line.

use std::fmt::Write;

use clap::{Arg, ArgAction, Command};

use super::{GENERATED, cell, codes};

/// The whole page.
pub(super) fn page(command: &Command) -> String {
    let mut command = command.clone();
    command.build();
    let name = command.get_name().to_owned();
    let mut text = format!("{GENERATED}\n\n# Command line of `{name}`\n");
    if let Some(about) = command.get_about() {
        let _ = writeln!(text, "\n{about}.");
    }
    let _ = writeln!(
        text,
        "\nOptions of the program stand before the command, options of a command after it. A long option may be \
         shortened as long as it stays unique, and takes its value as `--option value` or `--option=value`. \
         An argument `@file` stands for the lines of that file.\n\n## `{name}`"
    );
    body(&command, &mut text);
    for sub in visible(&command) {
        section(sub, &name, &mut text);
    }
    text
}

fn visible(command: &Command) -> impl Iterator<Item = &Command> {
    command
        .get_subcommands()
        .filter(|sub| !sub.is_hide_set() && sub.get_name() != "help")
}

fn section(command: &Command, parent: &str, text: &mut String) {
    let name = format!("{parent} {}", command.get_name());
    let _ = writeln!(text, "\n## `{name}`");
    let about = command.get_long_about().or(command.get_about());
    if let Some(about) = about {
        let _ = writeln!(text, "\n{about}");
    }
    body(command, text);
    for sub in visible(command) {
        section(sub, &name, text);
    }
}

/// Usage and options.
fn body(command: &Command, text: &mut String) {
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim().trim_start_matches("Usage:").trim();
    let _ = writeln!(text, "\n```text\n{usage}\n```\n");
    let commands: Vec<&Command> = visible(command).collect();
    if !commands.is_empty() {
        let _ = writeln!(text, "| command | what it does |\n| --- | --- |");
        for sub in commands {
            let about = sub.get_about().map(ToString::to_string).unwrap_or_default();
            let _ = writeln!(text, "| `{}` | {} |", sub.get_name(), cell(&about));
        }
        let _ = writeln!(text);
    }
    let _ = writeln!(
        text,
        "| option | values | default | what it does |\n| --- | --- | --- | --- |"
    );
    for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} |",
            names(arg),
            values(arg),
            default(arg),
            cell(&help(arg))
        );
    }
}

/// `-d`, `--detached`, or the name of what is no option.
fn names(arg: &Arg) -> String {
    let short = arg.get_short().map(|short| format!("-{short}"));
    let long = arg.get_long().map(|long| format!("--{long}"));
    let mut names: Vec<String> = short.into_iter().chain(long).collect();
    for alias in arg.get_visible_aliases().unwrap_or_default() {
        names.push(format!("--{alias}"));
    }
    if names.is_empty() {
        names = value_names(arg);
    }
    codes(names.iter().map(String::as_str))
}

fn value_names(arg: &Arg) -> Vec<String> {
    match arg.get_value_names() {
        Some(names) => names.iter().map(ToString::to_string).collect(),
        None => vec![arg.get_id().to_string().to_uppercase()],
    }
}

fn takes_values(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Set | ArgAction::Append)
}

fn values(arg: &Arg) -> String {
    if matches!(arg.get_action(), ArgAction::Count) {
        return "may be repeated".to_owned();
    }
    if !takes_values(arg) {
        return String::new();
    }
    let possible = arg.get_possible_values();
    let shown: Vec<&str> = possible
        .iter()
        .filter(|value| !value.is_hide_set())
        .map(clap::builder::PossibleValue::get_name)
        .collect();
    let what = if shown.is_empty() {
        codes(value_names(arg).iter().map(String::as_str))
    } else {
        codes(shown)
    };
    let range = arg.get_num_args().unwrap_or_default();
    match (range.min_values(), range.max_values()) {
        (1, 1) if matches!(arg.get_action(), ArgAction::Append) => format!("{what}; may be repeated"),
        (1, 1) => what,
        (0, 1) => format!("{what}, or nothing"),
        (0, _) => format!("{what}, any number"),
        (1, _) => format!("{what}, one or more"),
        (least, most) => format!("{what}, {least} to {most}"),
    }
}

fn default(arg: &Arg) -> String {
    if !takes_values(arg) {
        return String::new();
    }
    let values: Vec<String> = arg
        .get_default_values()
        .iter()
        .map(|value| value.to_string_lossy().into_owned())
        .collect();
    codes(values.iter().map(String::as_str))
}

fn help(arg: &Arg) -> String {
    let mut help = arg
        .get_long_help()
        .or(arg.get_help())
        .map(ToString::to_string)
        .unwrap_or_default();
    if let Some(variable) = arg.get_env().filter(|_| !arg.is_hide_env_set()) {
        let _ = write!(help, " Environment variable: `{}`.", variable.to_string_lossy());
    }
    help
}
