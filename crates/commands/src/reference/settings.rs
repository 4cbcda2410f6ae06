//! The pages about configuration keys and environment variables.

use std::collections::BTreeMap;
use std::fmt::Write;

use clearml_agent_config::{Declaration, DefaultValue, Kind, Standing, declarations, variables};

use super::{GENERATED, cell, codes};

/// All keys, by section.
pub(super) fn keys_page() -> String {
    let mut sections: Vec<(&str, Vec<&Declaration>)> = Vec::new();
    for declaration in declarations() {
        let name = declaration.key.split('.').next().unwrap_or_default();
        match sections.iter_mut().find(|(known, _)| *known == name) {
            Some((_, members)) => members.push(declaration),
            None => sections.push((name, vec![declaration])),
        }
    }
    let mut text = format!(
        "{GENERATED}\n\n# Configuration keys\n\nThe file `clearml.conf` is HOCON. A key may be written with dots or \
         as nested objects. `clearml-agent config --origins` shows every effective value and where it comes from; \
         where a variable is named, it wins over the file.\n"
    );
    for (name, members) in sections {
        let _ = writeln!(
            text,
            "\n## `{name}`\n\n| key | value | default | variables | what it does |\n| --- | --- | --- | --- | --- |"
        );
        for declaration in members {
            let _ = writeln!(
                text,
                "| `{}` | {} | {} | {} | {} |",
                declaration.key,
                kind(declaration.kind),
                default(declaration.default),
                codes(declaration.variables.iter().copied()),
                what(declaration.doc, declaration.secret, declaration.standing)
            );
        }
    }
    text
}

/// All variables, by name.
pub(super) fn variables_page() -> String {
    let mut rows: BTreeMap<&str, String> = BTreeMap::new();
    let mut add = |names: &[&'static str], value: String, what: String| {
        for (index, name) in names.iter().enumerate() {
            let what = match index {
                0 => what.clone(),
                _ => format!("The same as `{}`, which wins.", names[0]),
            };
            rows.insert(name, format!("{value} | {what}"));
        }
    };
    for declaration in declarations().filter(|declaration| !declaration.variables.is_empty()) {
        let does = what(declaration.doc, declaration.secret, declaration.standing);
        let what = format!("Sets `{}`: {does}", declaration.key);
        add(declaration.variables, kind(declaration.kind), what);
    }
    for variable in variables() {
        let what = what(variable.doc, variable.secret, variable.standing);
        add(variable.names, kind(variable.kind), what);
    }
    let mut text = format!(
        "{GENERATED}\n\n# Environment variables\n\nA variable that is empty counts as not set. Of several names for \
         the same thing, the first one in its row that is set counts. Any key in lower case can also be \
         set by `CLEARML_AGENT__` and its name with two underscores for each dot, such as \
         `CLEARML_AGENT__AGENT__DEFAULT_DOCKER__IMAGE`.\n\n\
         | variable | value | what it does |\n| --- | --- | --- |\n"
    );
    for (name, rest) in rows {
        let _ = writeln!(text, "| `{name}` | {rest} |");
    }
    text
}

/// What a key or variable does, and whether it does so already.
fn what(doc: &str, secret: bool, standing: Standing) -> String {
    let mut text = cell(doc);
    if secret {
        text.push_str(" Never shown.");
    }
    let remark = match standing {
        Standing::Active => return text,
        Standing::Later(with) => format!(" *No effect yet: comes with {with}.*"),
        Standing::Ignored(because) => format!(" *No effect: {because}.*"),
        Standing::PassedOn(to) => format!(" *For {to}.*"),
    };
    text.push_str(&cell(&remark));
    text
}

fn kind(kind: Kind) -> String {
    match kind {
        Kind::Choice(words) => codes(words.iter().copied()),
        other => cell(&other.to_string()),
    }
}

fn default(default: DefaultValue) -> String {
    match default {
        DefaultValue::Unset => String::new(),
        DefaultValue::Packaged(text) | DefaultValue::Internal(text) => codes([text]),
        DefaultValue::Computed(how) => cell(how),
    }
}
