//! From the text of a list to its lines: continued ones joined, comments taken out. Pure.

/// A line and the number of the first line of the text that it stands on, from 1.
pub type Numbered = (usize, String);

/// The lines that say something.
#[must_use]
pub fn lines(text: &str) -> Vec<Numbered> {
    let mut lines = Vec::new();
    let mut begun: Option<Numbered> = None;
    for (index, raw) in split(text).into_iter().enumerate() {
        let comment = raw.trim_start().starts_with('#');
        let (number, mut line) = begun.take().unwrap_or((index + 1, String::new()));
        // A comment never goes on in the next line, but it ends what was begun.
        match raw.strip_suffix('\\').filter(|_| !comment) {
            Some(part) => {
                line.push_str(part);
                begun = Some((number, line));
            }
            None => {
                line.push_str(if comment { "" } else { raw });
                keep(number, &line, &mut lines);
            }
        }
    }
    if let Some((number, line)) = begun {
        keep(number, &line, &mut lines);
    }
    lines
}

fn keep(number: usize, line: &str, lines: &mut Vec<Numbered>) {
    let line = without_comment(line).trim();
    if !line.is_empty() {
        lines.push((number, line.to_owned()));
    }
}

/// A line up to the `#` that follows a blank: `#egg=` and the like are no comments.
fn without_comment(line: &str) -> &str {
    let mut after_blank = true;
    for (at, c) in line.char_indices() {
        if c == '#' && after_blank {
            return &line[..at];
        }
        after_blank = c.is_whitespace();
    }
    line
}

/// Lines as Python splits them, so that no installer sees more lines than we do.
fn split(text: &str) -> Vec<&str> {
    let ends = |c: char| {
        matches!(
            c,
            '\n' | '\r'
                | '\u{b}'
                | '\u{c}'
                | '\u{1c}'
                | '\u{1d}'
                | '\u{1e}'
                | '\u{85}'
                | '\u{2028}'
                | '\u{2029}'
        )
    };
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(ends) {
        lines.push(&rest[..at]);
        rest = &rest[at..];
        let length = rest.chars().next().map_or(0, char::len_utf8);
        rest = rest.strip_prefix("\r\n").unwrap_or(&rest[length..]);
    }
    if !rest.is_empty() {
        lines.push(rest);
    }
    lines
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn joined_and_numbered() {
        let text = "# Python 3.11\r\n\r\n  six == 1.16.0  # why\na==1 \\\n   --hash=sha256:aa\n\
                    x#egg=y\n# c \\\nlast\\";
        let expected = [
            (3, "six == 1.16.0"),
            (4, "a==1    --hash=sha256:aa"),
            (6, "x#egg=y"),
            (8, "last"),
        ];
        let expected = expected.map(|(number, line)| (number, line.to_owned()));
        assert_eq!(lines(text), expected);
        assert_eq!(
            lines("a\u{2028}b\rc").len(),
            3,
            "what Python takes for a line end is one"
        );
        assert_eq!(lines("a \\\n# c\nb"), [(1, "a".to_owned()), (3, "b".to_owned())]);
    }

    proptest! {
        #[test]
        fn lines_are_clean(text in "[ -~\\n\\r\\\\#\u{2028}é]{0,80}") {
            for (number, line) in lines(&text) {
                prop_assert!(number >= 1 && !line.is_empty() && line.trim() == line);
                let ends = line.contains(['\n', '\r', '\u{2028}']);
                prop_assert!(!ends && !line.starts_with('#'));
            }
        }
    }
}
