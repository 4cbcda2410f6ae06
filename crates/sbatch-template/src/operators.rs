//! What can be done to a value before it is inserted: `|lower`, `|trunc(8)`.

/// One operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Operator {
    Strip(Option<String>),
    Capitalize,
    Lower,
    Upper,
    RemoveNewlines,
    Slug,
    Trunc(usize),
    /// Nothing but a whole number may pass.
    Int,
    /// Several words instead of one.
    Words,
    /// Line ends stay; dangerous places take safe values.
    Raw,
}

impl Operator {
    pub(crate) fn new(name: &str, argument: Option<&str>) -> Result<Self, String> {
        let operator = match (name, argument) {
            ("strip", characters) => Self::Strip(characters.map(str::to_owned)),
            ("trunc", Some(n)) => Self::Trunc(
                n.trim()
                    .parse()
                    .map_err(|_| format!("trunc needs a number of characters, not {n:?}"))?,
            ),
            ("trunc", None) => return Err("trunc needs a number of characters: trunc(8)".to_owned()),
            (_, Some(_)) => return Err(format!("operator {name:?} takes no argument")),
            ("capitalize", _) => Self::Capitalize,
            ("lower", _) => Self::Lower,
            ("upper", _) => Self::Upper,
            ("remove_newlines", _) => Self::RemoveNewlines,
            ("slug", _) => Self::Slug,
            ("int", _) => Self::Int,
            ("words", _) => Self::Words,
            ("raw", _) => Self::Raw,
            _ => {
                return Err(format!(
                    "there is no operator {name:?}; there are strip, capitalize, lower, upper, remove_newlines, slug, \
                     trunc, int, words and raw"
                ));
            }
        };
        Ok(operator)
    }

    /// Applies it to a text.
    ///
    /// # Errors
    ///
    /// When the text may not pass: why.
    pub(crate) fn apply(&self, text: String) -> Result<String, String> {
        Ok(match self {
            Self::Strip(None) => text.trim().to_owned(),
            Self::Strip(Some(set)) => text.trim_matches(|c| set.contains(c)).to_owned(),
            Self::Lower => text.to_lowercase(),
            Self::Upper => text.to_uppercase(),
            Self::Capitalize => {
                let mut characters = text.chars();
                let first = characters.next().map(char::to_uppercase);
                first
                    .into_iter()
                    .flatten()
                    .chain(characters.as_str().to_lowercase().chars())
                    .collect()
            }
            Self::RemoveNewlines => one_line(&text),
            Self::Slug => slug(&text),
            Self::Trunc(n) => text.chars().take(*n).collect(),
            Self::Int => {
                let digits = text.strip_prefix(['-', '+']).unwrap_or(&text);
                if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
                    return Err(format!("{:?} is not a whole number", shortened(&text)));
                }
                text
            }
            Self::Words | Self::Raw => text,
        })
    }
}

/// A value as it may be quoted in a message.
pub(crate) fn shortened(text: &str) -> String {
    if text.chars().count() <= 60 {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(57).collect();
    short.push_str("...");
    short
}

fn is_line_end(c: char) -> bool {
    matches!(c, '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// Every line end becomes one blank.
pub(crate) fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if is_line_end(c) { ' ' } else { c })
        .collect()
}

/// Whether a character may not stand in a script at all.
pub(crate) fn is_forbidden(c: char) -> bool {
    (c < ' ' && !matches!(c, '\t' | '\n' | '\r')) || c == '\x7f'
}

fn slug(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut gap = false;
    for c in text.chars() {
        if c.is_ascii_alphanumeric() || "._-".contains(c) {
            out.push(c);
            gap = false;
        } else if !std::mem::replace(&mut gap, true) {
            out.push('_');
        }
    }
    out
}
