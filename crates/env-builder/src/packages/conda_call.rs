//! Calling conda, and reading its answers, which are JSON.

use std::path::Path;

use clearml_support::command::{Command, CommandError};
use serde_json::Value;

use crate::packages::install::quiet_tool;
use crate::tools::Context;

/// A call of conda with what no program of ours needs.
pub(crate) fn command(context: &Context<'_>, program: &Path) -> Command {
    quiet_tool(context, context.command(program)).cwd("/")
}

/// The answer of a call; where it is no JSON, an object with an `error`.
pub(crate) fn ask(context: &Context<'_>, command: &Command) -> Result<Value, CommandError> {
    let output = command.output()?;
    let text = without_colours(&String::from_utf8_lossy(&output.stdout));
    // Addresses of channels may contain tokens, and parts of the answer are shown.
    let text = context.redactor.redact(&text);
    let begin = text.find(['{', '[']).unwrap_or(text.len());
    let answer = serde_json::Deserializer::from_str(&text[begin..])
        .into_iter::<Value>()
        .next()
        .and_then(Result::ok);
    let mut answer = answer.unwrap_or(Value::Null);
    if !output.status.success() && !failed(&answer) {
        let said = String::from_utf8_lossy(&output.stderr);
        let line = said
            .lines()
            .rfind(|line| !line.trim().is_empty())
            .unwrap_or("it failed");
        answer = serde_json::json!({"error": context.redactor.redact(line)});
    }
    if failed(&answer) {
        context.warn(&format!("{}: {}", command.describe(), reason(&answer)));
    }
    Ok(answer)
}

pub(crate) fn failed(answer: &Value) -> bool {
    answer.get("error").is_some() || answer.get("success") == Some(&Value::Bool(false))
}

pub(crate) fn reason(answer: &Value) -> String {
    let text = ["message", "error"]
        .iter()
        .find_map(|key| answer.get(*key).and_then(Value::as_str));
    text.unwrap_or("it gave no reason").to_owned()
}

/// Takes out the control sequences that some versions put around their answer. Pure.
fn without_colours(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\u{1b}' {
            out.push(c);
            continue;
        }
        // ESC [ … letter
        if chars.next() == Some('[') {
            for c in chars.by_ref() {
                if c.is_ascii_alphabetic() {
                    break;
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_may_be_coloured() {
        assert_eq!(without_colours("\u{1b}[0m{\"a\": 1}\u{1b}[1;31m"), "{\"a\": 1}");
    }
}
