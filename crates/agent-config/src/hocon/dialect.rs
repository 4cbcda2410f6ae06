//! From the dialect of `clearml.conf` to strict HOCON.
//!
//! ClearML's files are HOCON with habits: URLs stand unquoted (`http://host:8008`), booleans and
//! `null` in any case, `007` is a number, a key may have no value, commas may repeat, unknown escapes
//! stay as they are. Standard parsers refuse or misread most of that, and say little about where.
//! The [`Scanner`] therefore rewrites a document token by token: every key and every text comes out
//! quoted, every literal in JSON notation, comments are gone, separators are newlines. Structure is
//! kept as it is and left to the parser: merging, concatenation, `+=`, substitutions.
//!
//! Since all syntax is checked here, all syntax errors have a position; and since keys pass by with
//! their path, so does the answer to "which line set this?".
//!
//! The scanner never recurses and never looks back further than one line ahead, so it is linear in
//! the text for any input. Values are scanned in [`value`].

mod value;

use super::scalar::{FORBIDDEN, quote, unescape};

/// A syntax error in the text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SyntaxError {
    /// Byte offset of the offending text.
    pub(super) offset: usize,
    /// What is wrong and what to do.
    pub(super) message: String,
    /// Path of the key that was being read.
    pub(super) path: Vec<String>,
}

/// What the scanner found out.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// The document in strict HOCON.
    pub(super) strict: String,
    /// Every assignment: path of the key and byte offset.
    pub(super) keys: Vec<(Vec<String>, usize)>,
    /// Every substitution: path and byte offset.
    pub(super) substitutions: Vec<(Vec<String>, usize)>,
}

/// An open object or list.
struct Frame {
    /// `}`, `]`, or nothing for a root object without braces.
    close: Option<char>,
    /// Where it was opened.
    offset: usize,
    /// Length of the path outside of it.
    base: usize,
}

struct Scanner<'t> {
    text: &'t str,
    at: usize,
    max_depth: usize,
    frames: Vec<Frame>,
    path: Vec<String>,
    scan: Scan,
}

type Step<T = ()> = Result<T, SyntaxError>;

/// Rewrites a document; `max_depth` limits nesting and dotted keys together.
pub(super) fn scan(text: &str, max_depth: usize) -> Result<Scan, SyntaxError> {
    let mut scanner = Scanner {
        text,
        at: if text.starts_with('\u{feff}') {
            '\u{feff}'.len_utf8()
        } else {
            0
        },
        max_depth,
        frames: Vec::new(),
        path: Vec::new(),
        scan: Scan::default(),
    };
    scanner.document()?;
    Ok(scanner.scan)
}

impl Scanner<'_> {
    fn document(&mut self) -> Step {
        self.skip_separators();
        match self.peek() {
            Some('{') => self.open('}')?,
            Some('[') => {
                return self.error(
                    self.at,
                    "the document must consist of keys and values, not be a list",
                );
            }
            _ => self.frames.push(Frame {
                close: None,
                offset: self.at,
                base: 0,
            }),
        }
        while let Some(frame) = self.frames.last() {
            let (close, offset) = (frame.close, frame.offset);
            self.skip_separators();
            match (self.peek(), close) {
                (None, None) => {
                    self.frames.pop();
                }
                (None, Some(close)) => {
                    return self.error(offset, &format!("this is never closed, a `{close}` is missing"));
                }
                (Some(found), Some(close)) if found == close => self.close(close)?,
                (Some(found @ ('}' | ']')), _) => {
                    return self.error(
                        self.at,
                        &format!("unexpected `{found}`, nothing is open that it closes"),
                    );
                }
                (Some(_), Some(']')) => {
                    self.path
                        .truncate(self.frames.last().map_or(0, |frame| frame.base));
                    self.value(false)?;
                }
                (Some(_), _) => self.member()?,
            }
        }
        self.skip_separators();
        if self.at < self.text.len() {
            return self.error(self.at, "nothing may follow the closing brace of the document");
        }
        Ok(())
    }

    /// One `include` or one assignment of an object.
    fn member(&mut self) -> Step {
        let base = self.frames.last().map_or(0, |frame| frame.base);
        self.path.truncate(base);
        if self.starts_include() {
            return self.include();
        }
        let start = self.at;
        let segments = self.key_path(&[':', '=', '{', '+'])?;
        self.deepen(segments.len(), start)?;
        let after_key = self.at;
        self.skip_blank_lines();
        let assign = match self.peek() {
            Some(':' | '=') => ":",
            Some('{') => "",
            Some('+') if self.rest().starts_with("+=") => "+=",
            _ => {
                self.at = after_key;
                self.path.extend(segments);
                let key = self.path.join(".");
                return self.error(
                    start,
                    &format!("the key {key} is not followed by `:`, `=` or `{{`"),
                );
            }
        };
        self.at += assign.len();
        self.emit_path(&segments);
        self.scan
            .strict
            .push_str(if assign.is_empty() { ":" } else { assign });
        self.path.extend(segments);
        self.scan.keys.push((self.path.clone(), start));
        self.value(true)
    }

    /// A dotted path of quoted and unquoted parts, up to one of the `stops` or the end of the line.
    fn key_path(&mut self, stops: &[char]) -> Step<Vec<String>> {
        let start = self.at;
        let mut segments = Vec::new();
        let mut part = String::new();
        let mut quoted = false;
        while let Some(next) = self.peek() {
            match next {
                '"' => {
                    // Blanks before a quoted part separate it; they do not belong to it.
                    part.truncate(part.trim_end().len());
                    part.push_str(&self.quoted()?);
                    quoted = true;
                    self.skip_blanks();
                    continue;
                }
                '.' => {
                    push_segment(&mut segments, &mut part, &mut quoted);
                    self.at += 1;
                    self.skip_blanks();
                    continue;
                }
                '\n' | ',' | '#' => break,
                stop if stops.contains(&stop) => break,
                '}' | ']' => break,
                '/' if part.is_empty() && self.rest().starts_with("//") => break,
                bad if FORBIDDEN.contains(&bad) => {
                    return self.error(
                        self.at,
                        &format!("`{bad}` is not allowed in a key; quote the key"),
                    );
                }
                '\\' => {
                    self.at += 1;
                    self.at += unescape(self.rest(), &mut part);
                    continue;
                }
                other => part.push(other),
            }
            self.at += next.len_utf8();
        }
        push_segment(&mut segments, &mut part, &mut quoted);
        if segments.is_empty() {
            return self.error(start, "a key is missing here");
        }
        if segments.len() > self.max_depth {
            return self.error(start, &format!("the key has more than {} parts", self.max_depth));
        }
        Ok(segments)
    }

    /// Whether an include statement starts here, rather than a key that begins with that word.
    fn starts_include(&self) -> bool {
        let Some(rest) = self.rest().strip_prefix("include") else {
            return false;
        };
        let after = rest.trim_start_matches([' ', '\t']);
        (after.starts_with('"') || after.len() < rest.len())
            && ["\"", "required(", "file(", "url(", "classpath("]
                .iter()
                .any(|form| after.starts_with(form))
    }

    fn include(&mut self) -> Step {
        let start = self.at;
        self.at += "include".len();
        let mut closing = 0;
        let mut statement = String::from("include ");
        self.skip_blanks();
        'forms: loop {
            for form in ["required(", "file(", "url(", "classpath("] {
                if closing < 2 && self.rest().starts_with(form) {
                    self.at += form.len();
                    closing += 1;
                    statement.push_str(form);
                    self.skip_blanks();
                    continue 'forms;
                }
            }
            break;
        }
        if self.peek() != Some('"') {
            return self.error(
                start,
                "an include must name a file in quotes, as in: include \"other.conf\"",
            );
        }
        let target = self.quoted()?;
        statement.push_str(&quote(&target));
        for _ in 0..closing {
            self.skip_blanks();
            if self.peek() != Some(')') {
                return self.error(start, "a `)` is missing at the end of this include");
            }
            self.at += 1;
            statement.push(')');
        }
        statement.push('\n');
        self.scan.strict.push_str(&statement);
        Ok(())
    }

    /// Checks that the current path may grow by `more` parts.
    fn deepen(&self, more: usize, offset: usize) -> Step {
        if self.path.len() + more + self.frames.len() > 2 * self.max_depth
            || self.frames.len() > self.max_depth
        {
            return self.error(
                offset,
                &format!("nested more than {} levels deep", self.max_depth),
            );
        }
        Ok(())
    }

    fn open(&mut self, close: char) -> Step {
        self.deepen(1, self.at)?;
        self.frames.push(Frame {
            close: Some(close),
            offset: self.at,
            base: self.path.len(),
        });
        self.scan.strict.push(if close == '}' { '{' } else { '[' });
        self.at += 1;
        Ok(())
    }

    fn close(&mut self, close: char) -> Step {
        if let Some(frame) = self.frames.pop() {
            self.path.truncate(frame.base);
        }
        self.at += 1;
        self.scan.strict.push(close);
        if self.frames.is_empty() {
            Ok(())
        } else {
            self.value_after_container()
        }
    }

    fn emit_path(&mut self, segments: &[String]) {
        let quoted: Vec<String> = segments.iter().map(|segment| quote(segment)).collect();
        self.scan.strict.push_str(&quoted.join("."));
    }

    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    /// Skips white space within the line.
    fn skip_blanks(&mut self) {
        while let Some(next) = self.peek().filter(|next| *next != '\n' && next.is_whitespace()) {
            self.at += next.len_utf8();
        }
    }

    /// Skips white space, line ends and comments.
    fn skip_blank_lines(&mut self) {
        loop {
            while let Some(next) = self.peek().filter(|next| next.is_whitespace()) {
                self.at += next.len_utf8();
            }
            if !self.starts_comment() {
                return;
            }
            self.at += self.rest().find('\n').unwrap_or(self.rest().len());
        }
    }

    /// Skips what separates members: line ends, commas, comments.
    fn skip_separators(&mut self) {
        self.skip_blank_lines();
        while self.peek() == Some(',') {
            self.at += 1;
            self.skip_blank_lines();
        }
    }

    fn starts_comment(&self) -> bool {
        self.rest().starts_with('#') || self.rest().starts_with("//")
    }

    fn error<T>(&self, offset: usize, message: &str) -> Step<T> {
        Err(SyntaxError {
            offset,
            message: message.to_owned(),
            path: self.path.clone(),
        })
    }
}

/// Ends a part of a dotted key; parts that are empty without being quoted do not count.
fn push_segment(segments: &mut Vec<String>, part: &mut String, quoted: &mut bool) {
    let text = if *quoted { part.as_str() } else { part.trim() };
    if *quoted || !text.is_empty() {
        segments.push(text.to_owned());
    }
    part.clear();
    *quoted = false;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> (usize, String) {
        let error = scan(text, 32).unwrap_err();
        (error.offset, error.message)
    }

    #[test]
    fn errors_point_at_the_offending_text() {
        for (text, offset, word) in [
            ("a: {\n b: 1\n", 3, "never closed"),
            ("a: [1, 2\n", 3, "never closed"),
            ("a: 1 }", 5, "unexpected `}`"),
            ("a: [1 }", 6, "unexpected `}`"),
            ("agent\nb: 1", 0, "the key agent"),
            ("pass: p@ss", 7, "`@`"),
            ("a: b=c", 4, "`=`"),
            ("a: \"open\nb: 1", 3, "closing quote"),
            ("a: \"\"\"open\nb: 1", 3, "closing quote"),
            ("a: ${b", 3, "substitution"),
            ("a: $b", 3, "`$`"),
            ("a: x {b: 1}", 5, "joined"),
            ("a: {b: 1} x", 10, "joined"),
            (": 1", 0, "key is missing"),
            ("[1]", 0, "not be a list"),
            ("{a: 1} b: 2", 7, "nothing may follow"),
            ("include \"x", 8, "closing quote"),
            ("include file(\"x\"", 0, "`)` is missing"),
            ("a*b: 1", 1, "not allowed in a key"),
        ] {
            let (at, message) = problem(text);
            assert!(message.contains(word), "{text:?}: {message}");
            assert_eq!(at, offset, "{text:?}: {message}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        let deep = format!("a: {}1{}", "[".repeat(200), "]".repeat(200));
        assert!(problem(&deep).1.contains("levels deep"));
        assert!(problem(&format!("{}: 1", "a.".repeat(200))).1.contains("parts"));
        assert!(problem(&"a{".repeat(100_000)).1.contains("levels deep"));
    }

    #[test]
    fn keys_are_found_with_their_paths() {
        let found = scan("a { b.c: 1\n d: [ {e: 2} ] }\nf=3", 32).unwrap().keys;
        let found: Vec<(String, usize)> = found.into_iter().map(|(path, at)| (path.join("/"), at)).collect();
        let expected =
            [("a", 0), ("a/b/c", 4), ("a/d", 12), ("a/d/e", 18), ("f", 28)].map(|(p, at)| (p.to_owned(), at));
        assert_eq!(found, expected);
    }
}
