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
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if steers(c) {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

fn steers(c: char) -> bool {
    let turns =
        matches!(c, '\u{200e}' | '\u{200f}' | '\u{61c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    turns || (c.is_control() && !matches!(c, '\n' | '\t'))
}
