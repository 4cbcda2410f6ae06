//! The value side of the scanner: texts, literals, substitutions, and what may stand side by side.

use super::super::scalar::{FORBIDDEN, literal, number, quote, unescape};
use super::{Scanner, Step};

/// One of the scalars that stand side by side in a value.
enum Part {
    /// A text in quotes.
    Quoted(String),
    /// A text without quotes; alone it may mean a number, a boolean or null.
    Bare(String),
    /// A substitution in strict notation.
    Substitution(String),
}

impl Scanner<'_> {
    /// The value of a key (`of_key`) or an element of a list.
    pub(super) fn value(&mut self, of_key: bool) -> Step {
        self.skip_blanks();
        if of_key && self.ends_value(true) {
            let key_ends = self.at;
            self.skip_blank_lines();
            if !self.continues_value() {
                self.at = key_ends;
                self.scan.strict.push_str("\"\"\n");
                return Ok(());
            }
        }
        self.parts(false)
    }

    /// What stands after `}` or `]` on the same line: another container, a substitution, or nothing.
    pub(super) fn value_after_container(&mut self) -> Step {
        self.parts(true)
    }

    /// Whether the value of a key whose line ends after the separator starts here, on a later line.
    ///
    /// The reference takes whatever comes next; we take it unless it is the next assignment.
    fn continues_value(&mut self) -> bool {
        match self.peek() {
            None | Some('}' | ']' | ',') => false,
            Some('{' | '[') => true,
            Some('"') => {
                let start = self.at;
                let quoted = self.quoted();
                self.skip_blanks();
                let assigns = quoted.is_ok() && matches!(self.peek(), Some(':' | '=' | '{' | '+' | '.'));
                self.at = start;
                !assigns
            }
            Some(_) => {
                let line = self.rest().split(['\n', '#']).next().unwrap_or_default();
                !line.contains([':', '=', '{'])
            }
        }
    }

    /// Scalars side by side, up to the end of the value or up to a container, which is opened.
    fn parts(&mut self, after_container: bool) -> Step {
        let mut parts: Vec<(&str, Part)> = Vec::new();
        let text = self.text;
        loop {
            let gap_start = self.at;
            self.skip_blanks();
            let gap = &text[gap_start..self.at];
            let start = self.at;
            let at_token = !matches!(parts.last(), Some((_, Part::Bare(_))));
            if self.ends_value(at_token) {
                break;
            }
            let part = match self.peek() {
                Some('{' | '[') => {
                    if parts
                        .iter()
                        .any(|(_, part)| !matches!(part, Part::Substitution(_)))
                    {
                        return self.error(start, "a text cannot be joined with an object or a list");
                    }
                    self.emit(parts, after_container);
                    return self.open(if self.rest().starts_with('{') { '}' } else { ']' });
                }
                Some('"') => Part::Quoted(self.quoted()?),
                Some('$') => Part::Substitution(self.substitution()?),
                _ => Part::Bare(self.bare()?),
            };
            if after_container && !matches!(part, Part::Substitution(_)) {
                return self.error(start, "a text cannot be joined with an object or a list");
            }
            parts.push((gap, part));
        }
        if parts.is_empty() && !after_container {
            return self.error(self.at, "a value is missing here");
        }
        self.emit(parts, after_container);
        self.scan.strict.push('\n');
        Ok(())
    }

    /// Whether no further part of the value can start here.
    ///
    /// `//` begins a comment only where a token could begin: an unquoted text goes on across it.
    fn ends_value(&self, at_token: bool) -> bool {
        match self.peek() {
            None | Some('\n' | ',' | '}' | ']' | '#') => true,
            Some('/') => at_token && self.rest().starts_with("//"),
            Some(_) => false,
        }
    }

    /// Writes the parts; texts side by side become one, since `"a""b"` is no strict HOCON.
    fn emit(&mut self, parts: Vec<(&str, Part)>, after_container: bool) {
        if let [(_, Part::Bare(text))] = parts.as_slice()
            && !after_container
        {
            self.scan.strict.push_str(&literal(text));
            return;
        }
        let mut text: Option<String> = None;
        for (index, (gap, part)) in parts.into_iter().enumerate() {
            let gap = if index > 0 || after_container { gap } else { "" };
            match part {
                Part::Bare(next) | Part::Quoted(next) => match &mut text {
                    Some(text) => text.extend([gap, next.as_str()]),
                    None => {
                        self.scan.strict.push_str(gap);
                        text = Some(next);
                    }
                },
                Part::Substitution(strict) => {
                    let before = text.take().map(|text| quote(&text)).unwrap_or_default();
                    self.scan.strict.extend([before.as_str(), gap, strict.as_str()]);
                }
            }
        }
        self.scan
            .strict
            .push_str(&text.map(|text| quote(&text)).unwrap_or_default());
    }

    /// A text in one or three quotes; the position must be on the first quote.
    pub(super) fn quoted(&mut self) -> Step<String> {
        let start = self.at;
        if let Some(body) = self.rest().strip_prefix("\"\"\"") {
            let Some(end) = body.find("\"\"\"") else {
                return self.error(start, "the closing quotes of this text are missing");
            };
            // Quotes right before the closing three belong to the text.
            let extra = body[end + 3..].bytes().take_while(|byte| *byte == b'"').count();
            let content = body[..end + extra].to_owned();
            self.at += 3 + end + extra + 3;
            return Ok(content);
        }
        self.at += 1;
        let mut content = String::new();
        loop {
            match self.peek() {
                Some('"') => {
                    self.at += 1;
                    return Ok(content);
                }
                Some('\\') => {
                    self.at += 1;
                    self.at += unescape(self.rest(), &mut content);
                }
                None | Some('\n') => return self.error(start, "the closing quote of this text is missing"),
                Some(other) => {
                    content.push(other);
                    self.at += other.len_utf8();
                }
            }
        }
    }

    /// An unquoted text, blanks inside included, blanks at its end not.
    fn bare(&mut self) -> Step<String> {
        let start = self.at;
        let mut content = String::new();
        let mut forbidden = None;
        // Blanks that were escaped into the text are not trimmed.
        let mut keep = 0;
        while let Some(next) = self.peek() {
            match next {
                '\n' | ',' | '}' | ']' | '#' | '"' | '{' | '[' => break,
                '$' if self.rest().starts_with("${") => break,
                '\\' => {
                    self.at += 1;
                    self.at += unescape(self.rest(), &mut content);
                    keep = content.len();
                    continue;
                }
                other => {
                    if FORBIDDEN.contains(&other) {
                        forbidden.get_or_insert((self.at, other));
                    }
                    content.push(other);
                }
            }
            self.at += next.len_utf8();
        }
        let end = content.trim_end().len().max(keep);
        let trimmed = content.len() - end;
        // The blanks go back: they separate this part from the next one.
        self.at -= trimmed;
        content.truncate(end);
        match forbidden {
            // Signs of numbers are the one place where a plus may stand unquoted.
            Some((at, found)) if number(&content).is_none() => {
                let key = self.path.join(".");
                let what = if key.is_empty() {
                    String::new()
                } else {
                    format!(" of {key}")
                };
                self.error(
                    at,
                    &format!("`{found}` may only stand in quotes; put the value{what} in double quotes"),
                )
            }
            _ if content.is_empty() && self.at == start => self.error(start, "a value is missing here"),
            _ => Ok(content),
        }
    }

    /// `${path}` or `${?path}` in strict notation.
    fn substitution(&mut self) -> Step<String> {
        let start = self.at;
        let Some(body) = self.rest().strip_prefix("${") else {
            return self.error(
                start,
                "`$` may only stand in quotes; put the value in double quotes",
            );
        };
        let mark = if body.starts_with('?') { "?" } else { "" };
        self.at += 2 + mark.len();
        self.skip_blanks();
        let segments = self.key_path(&['}'])?;
        if self.peek() != Some('}') {
            return self.error(
                start,
                "this substitution is not closed, a `}` is missing on its line",
            );
        }
        self.at += 1;
        let path: Vec<String> = segments.iter().map(|segment| quote(segment)).collect();
        self.scan.substitutions.push((segments, start));
        Ok(format!("${{{mark}{}}}", path.join(".")))
    }
}
