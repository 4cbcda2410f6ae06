//! A section of the configuration as a file shows it: every key with its default and what it does.
//!
//! What comes here comes from the declarations of the configuration and from the packaged defaults, so it
//! is never out of date. Keys that have no default are there as comments, to be found.

use std::fmt::Write;

use clearml_agent_config::{DefaultValue, Origin, Settings, declarations};
use serde_json::{Map, Value};

/// One level of the section, in the order in which its keys were first met.
#[derive(Default)]
struct Node {
    children: Vec<(String, Node)>,
    entry: Option<Entry>,
}

struct Entry {
    comment: String,
    line: Line,
}

enum Line {
    /// `key: value`.
    Active(String),
    /// `# key: value`.
    Commented(String),
}

/// The text of a section. Keys in `taken` are set elsewhere in the file and stay comments here.
pub(crate) fn section(name: &str, defaults: &Settings, taken: &[&str]) -> String {
    let mut root = Node::default();
    let prefix = format!("{name}.");
    for declaration in declarations().filter(|declaration| declaration.key.starts_with(&prefix)) {
        let default = |text: &str| {
            serde_json::from_str::<Value>(text).map_or_else(|_| text.to_owned(), |value| hocon(&value))
        };
        let line = match declaration.default {
            _ if taken.contains(&declaration.key) => Line::Commented("set above".to_owned()),
            DefaultValue::Packaged(text) => Line::Active(default(text)),
            DefaultValue::Internal(text) => Line::Commented(default(text)),
            DefaultValue::Computed(_) | DefaultValue::Unset => {
                Line::Commented(format!("<{}>", declaration.kind))
            }
        };
        let comment = match declaration.default {
            DefaultValue::Computed(how) => format!("{} Default: {how}.", declaration.doc),
            _ => declaration.doc.to_owned(),
        };
        root.insert(declaration.key, Entry { comment, line });
    }
    if let Some(Value::Object(members)) = defaults.get(name) {
        root.insert_rest(defaults, name, members, taken);
    }
    let mut text = String::new();
    let own = root.children.iter().find(|(key, _)| key == name);
    if let Some((key, node)) = own {
        node.render(key, 0, &mut text);
    }
    text
}

impl Node {
    fn insert(&mut self, key: &str, entry: Entry) {
        let plain = |part: &str| {
            !part.is_empty()
                && part
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
        };
        // A key with a placeholder in it can't be written down.
        if !key.split('.').all(plain) {
            return;
        }
        let node = key.split('.').fold(self, |node, part| node.child(part));
        if node.entry.is_none() {
            node.entry = Some(entry);
        }
    }

    fn child(&mut self, name: &str) -> &mut Self {
        let at = self.children.iter().position(|(known, _)| known == name);
        let at = at.unwrap_or_else(|| {
            self.children.push((name.to_owned(), Self::default()));
            self.children.len() - 1
        });
        &mut self.children[at].1
    }

    /// Adds the packaged values that no declaration has brought.
    fn insert_rest(&mut self, defaults: &Settings, path: &str, members: &Map<String, Value>, taken: &[&str]) {
        for (name, value) in members {
            let key = format!("{path}.{name}");
            match value {
                Value::Object(below) if !below.is_empty() => self.insert_rest(defaults, &key, below, taken),
                // What was worked out on this machine is no default.
                _ if defaults.origin(&key) != Some(Origin::Default) => {}
                value => {
                    let line = if taken.contains(&key.as_str()) {
                        Line::Commented("set above".to_owned())
                    } else {
                        Line::Active(hocon(value))
                    };
                    let comment = String::new();
                    self.insert(&key, Entry { comment, line });
                }
            }
        }
    }

    fn render(&self, key: &str, depth: usize, text: &mut String) {
        let indent = "    ".repeat(depth);
        // A whole object and keys below it can both be declared; what is below says more.
        if self.children.is_empty() {
            let Some(entry) = &self.entry else { return };
            if !entry.comment.is_empty() {
                let _ = writeln!(text, "{indent}# {}", entry.comment);
            }
            let _ = match &entry.line {
                Line::Active(value) => writeln!(text, "{indent}{key}: {value}"),
                Line::Commented(value) => writeln!(text, "{indent}# {key}: {value}"),
            };
            return;
        }
        if let Some(entry) = self.entry.as_ref().filter(|entry| !entry.comment.is_empty()) {
            let _ = writeln!(text, "{indent}# {}", entry.comment);
        }
        // An object of comments only would set an empty object.
        let hash = if self.is_active() { "" } else { "# " };
        let _ = writeln!(text, "{indent}{hash}{key} {{");
        for (name, child) in &self.children {
            child.render(name, depth + 1, text);
        }
        let _ = writeln!(text, "{indent}{hash}}}");
    }

    /// Whether anything in it is more than a comment.
    fn is_active(&self) -> bool {
        match self.children.as_slice() {
            [] => matches!(&self.entry, Some(entry) if matches!(entry.line, Line::Active(_))),
            children => children.iter().any(|(_, child)| child.is_active()),
        }
    }
}

/// A value as the file has it, on one line.
pub(crate) fn hocon(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(hocon).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(members) => {
            let members: Vec<String> = members
                .iter()
                .map(|(key, value)| format!("{}: {}", quoted(key), hocon(value)))
                .collect();
            format!("{{{}}}", members.join(", "))
        }
        other => other.to_string(),
    }
}

/// A text in quotes, with the escapes that every reader of `clearml.conf` knows; others, such as
/// `\u0041`, are not known to all of them.
pub(crate) fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}
