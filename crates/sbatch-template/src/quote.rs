//! Making a value one piece of what surrounds it.

/// Whether a text means itself in every language that is met here.
pub(crate) fn is_safe(text: &str) -> bool {
    text.chars().all(|c| {
        c.is_ascii_alphanumeric() || "_.,:/@%+=^-".contains(c) || (!c.is_ascii() && c.is_alphabetic())
    })
}

/// A word of a POSIX shell, in single quotes.
pub(crate) fn single(text: &str) -> String {
    format!("'{}'", in_single(text))
}

/// Inside single quotes.
pub(crate) fn in_single(text: &str) -> String {
    text.replace('\'', r"'\''")
}

/// A word where words are expected: quoted only if it has to be.
pub(crate) fn word(text: &str) -> String {
    if text.is_empty() || !is_safe(text) || text.starts_with(['=', '%']) {
        single(text)
    } else {
        text.to_owned()
    }
}

/// Puts a backslash before each of these characters.
pub(crate) fn escape(text: &str, special: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if special.contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}
