//! Text that came from elsewhere, on its way to a person.

use std::borrow::Cow;

/// The text with nothing in it that steers a terminal: control characters other than line feed and tab, and
/// marks that turn the direction of writing, are shown as `\u{1b}`. Borrows when there are none.
///
/// ```
/// use clearml_support::text::printable;
///
/// assert_eq!(printable("a queue\n\tnamed Größe"), "a queue\n\tnamed Größe");
/// assert_eq!(printable("\u{1b}[31mred\u{202e}"), r"\u{1b}[31mred\u{202e}");
/// ```
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    shown(text, |c| steers(c) && !matches!(c, '\n' | '\t'))
}

/// The same for what has its place in a line: line feeds and tabs are shown as `\n` and `\t` too.
#[must_use]
pub fn printable_in_line(text: &str) -> Cow<'_, str> {
    shown(text, steers)
}

fn shown(text: &str, escaped: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&escaped) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            c if !escaped(c) => shown.push(c),
            '\n' | '\t' => shown.extend(c.escape_default()),
            c => shown.extend(c.escape_unicode()),
        }
    }
    Cow::Owned(shown)
}

fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{61c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_in_its_line() {
        assert_eq!(printable_in_line("a\nb\tc\rd\u{9b}"), r"a\nb\tc\u{d}d\u{9b}");
        assert!(matches!(printable_in_line("Größe 🙂 'x'"), Cow::Borrowed(_)));
    }
}
