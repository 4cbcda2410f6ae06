//! What is wrong with a template, or with what a task would make of it.

use std::fmt;

/// A place in a template, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The character in the line.
    pub column: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// Something to be said about a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Where.
    pub position: Position,
    /// What, and what to do about it.
    pub text: String,
}

impl Finding {
    pub(crate) fn new(position: Position, text: impl Into<String>) -> Self {
        Self {
            position,
            text: text.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.position, self.text)
    }
}

/// A template that can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the template {template} can't be used:{}", problems.iter().map(|p| format!("\n  {template}:{p}")).collect::<String>())]
pub struct TemplateError {
    /// Its name.
    pub template: String,
    /// Everything that is wrong, in the order of the text.
    pub problems: Vec<Finding>,
}

/// A task that can't be put into a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// A placeholder has no value, or one that can't stand there.
    #[error("{template}:{position}: ${{{placeholder}}}: {cause}")]
    Value {
        /// The template.
        template: String,
        /// Where the placeholder begins.
        position: Position,
        /// What is written between `${` and `}`.
        placeholder: String,
        /// Why not, and what to do about it.
        cause: String,
    },
    /// The script as a whole can't be submitted.
    #[error("{template}: {cause}")]
    Script {
        /// The template.
        template: String,
        /// Why not, and what to do about it.
        cause: String,
    },
}
