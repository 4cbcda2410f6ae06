//! Container commands without the secrets in them.

use super::{INNER_MASK, mask_urls};

/// Variables that are never shown.
const SECRET_VARIABLES: &[&str] = &[
    "CLEARML_AGENT_GIT_PASS",
    "TRAINS_AGENT_GIT_PASS",
    "CLEARML_API_SECRET_KEY",
    "TRAINS_API_SECRET_KEY",
    "AWS_SECRET_ACCESS_KEY",
    "AZURE_STORAGE_KEY",
    "CLEARML_AUTH_TOKEN",
];
/// Parts of the names that other secret variables have.
const SECRET_PARTS: &[&str] = &["SECRET", "PASS", "TOKEN", "API_KEY", "ACCOUNT_KEY"];
/// Variables whose content is a container command itself.
const COMMAND_VARIABLES: &[&str] = &["CLEARML_DOCKER_IMAGE", "TRAINS_DOCKER_IMAGE"];
/// How often such a command may stand inside of another.
const MAX_DEPTH: u8 = 4;

/// How container commands are shown: without the values of secret variables and the passwords of URLs.
#[derive(Debug, Clone)]
pub struct CommandMask {
    /// Names of secret variables; `None` shows them all.
    pub(crate) variables: Option<Vec<String>>,
    /// Whether values of other variables are searched for URLs.
    pub(crate) urls_in_variables: bool,
}

impl CommandMask {
    /// `extra` are more names of variables to hide.
    pub(crate) fn new(enabled: bool, extra: Vec<String>, urls_in_variables: bool) -> Self {
        let variables = SECRET_VARIABLES
            .iter()
            .map(|name| (*name).to_owned())
            .chain(extra);
        Self {
            variables: enabled.then(|| variables.collect()),
            urls_in_variables,
        }
    }

    /// The words of a command, masked.
    #[must_use]
    pub fn words(&self, words: &[String]) -> Vec<String> {
        self.masked(words, 0)
    }

    /// A command as one text, masked.
    #[must_use]
    pub fn text(&self, text: &str) -> String {
        self.text_at(text, 0)
    }

    fn text_at(&self, text: &str, depth: u8) -> String {
        let words: Vec<String> = text.split(' ').map(str::to_owned).collect();
        self.masked(&words, depth).join(" ")
    }

    /// `-e NAME=value` and `--env NAME=value` in every spelling.
    fn masked(&self, words: &[String], depth: u8) -> Vec<String> {
        let mut assigns = false;
        let masked = words.iter().map(|word| {
            if std::mem::take(&mut assigns) {
                return self.assignment(word, depth);
            }
            match variable_option(word) {
                Some((_, "")) => {
                    assigns = true;
                    word.clone()
                }
                Some((option, rest)) => format!("{option}{}", self.assignment(rest, depth)),
                None => mask_urls(word),
            }
        });
        masked.collect()
    }

    /// What follows `-e`, with its value hidden if that is a secret.
    fn assignment(&self, word: &str, depth: u8) -> String {
        let Some(variables) = &self.variables else {
            return mask_urls(word);
        };
        // The quotes of a value that came as one text belong to the value.
        let bare = word.trim_start_matches(['"', '\'']);
        let quote = &word[..word.len() - bare.len()];
        match bare.split_once('=') {
            Some((name, _)) if variables.iter().any(|secret| secret == name) || is_secret(name) => {
                format!("{quote}{name}={INNER_MASK}")
            }
            Some((name, content)) if COMMAND_VARIABLES.contains(&name) && depth < MAX_DEPTH => {
                format!("{quote}{name}={}", self.text_at(content, depth + 1))
            }
            _ if self.urls_in_variables => mask_urls(word),
            _ => word.to_owned(),
        }
    }
}

/// A word that sets a variable, or says that the next one does: what comes before the variable, and the variable.
fn variable_option(word: &str) -> Option<(&str, &str)> {
    let rest = if let Some(rest) = word.strip_prefix("--env") {
        if rest.is_empty() {
            rest
        } else {
            rest.strip_prefix('=')?
        }
    } else {
        // Options without a value may stand before it, all behind one dash.
        let letters = word
            .strip_prefix('-')?
            .trim_start_matches(['d', 'i', 'P', 'q', 't']);
        let rest = letters.strip_prefix('e')?;
        rest.strip_prefix('=').unwrap_or(rest)
    };
    Some(word.split_at(word.len() - rest.len()))
}

/// By the name alone, as with keys of the configuration.
fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    SECRET_PARTS.iter().any(|part| name.contains(part))
}
