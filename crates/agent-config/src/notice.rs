//! What is said to the user while the agent starts.

use std::fmt;

/// How much a notice matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NoticeLevel {
    /// For those who look for the cause of something.
    Debug,
    /// Something was done.
    Info,
    /// Something was left undone.
    Warning,
}

/// Something that was done, or left undone, with the configuration. It shows no secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// How much it matters.
    pub level: NoticeLevel,
    /// What is said.
    pub text: String,
}

impl Notice {
    pub(crate) fn new(level: NoticeLevel, text: impl Into<String>) -> Self {
        Self {
            level,
            text: text.into(),
        }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
