//! `script.requirements`: what the task wants to have installed.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A text that the API allows to be one string or a list of lines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TextOrLines {
    /// The whole text.
    Text(String),
    /// Its lines.
    Lines(Vec<String>),
}

impl TextOrLines {
    /// The text; lines are joined by newlines.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Lines(lines) => lines.join("\n"),
        }
    }

    /// Whether there is nothing but white space.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        match self {
            Self::Text(text) => text.trim().is_empty(),
            Self::Lines(lines) => lines.iter().all(|line| line.trim().is_empty()),
        }
    }
}

/// The requirement texts of a task by package manager.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Requirements {
    /// For pip and everything that reads its format.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pip: Option<TextOrLines>,
    /// For conda.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conda: Option<TextOrLines>,
    /// The pip text as the user gave it, kept when an agent has written what it installed into `pip`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub org_pip: Option<TextOrLines>,
    /// The same for conda.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub org_conda: Option<TextOrLines>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}
