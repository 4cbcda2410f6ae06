//! Here-documents: announced in a line, read after its end.

use super::{Frame, Reader};
use crate::piece::Delimiter;

/// A here-document that begins at the next line.
pub(super) struct Announced {
    delimiter: Delimiter,
    quoted: bool,
    /// Of the operator.
    at: usize,
}

impl Reader<'_> {
    /// The word after `<<`: the line that ends the document, and whether the shell expands it.
    pub(super) fn announce(&mut self, strip_tabs: bool, at: usize) {
        let rest = self.rest();
        let skipped = rest.len() - rest.trim_start_matches([' ', '\t']).len();
        let word = &rest[skipped..];
        let end = word
            .find(|c: char| c.is_whitespace() || ";&|<>()".contains(c))
            .unwrap_or(word.len());
        let word = word[..end].to_owned();
        let plain: String = word.chars().filter(|c| !"'\"\\".contains(*c)).collect();
        if plain.is_empty() || plain.contains(['$', '`']) || word.matches(['\'', '"']).count() % 2 == 1 {
            self.problem(
                at,
                "the word that ends this here-document can't be read; use a plain one, such as EOF",
            );
        }
        self.announced.push(Announced {
            quoted: plain != word,
            delimiter: Delimiter {
                text: plain,
                strip_tabs,
            },
            at,
        });
        self.at += skipped;
        self.take(end);
        let refused = self.command().end_word();
        self.refuse(refused);
    }

    pub(super) fn here_document(&mut self, document: Announced, runs_input: bool) {
        let start = self.at;
        let mut end = start;
        let mut last = None;
        for line in self.text[start..].split_inclusive('\n') {
            if document.delimiter.is(line.trim_end_matches('\n')) {
                last = Some(line.len());
                break;
            }
            end += line.len();
        }
        let Some(last) = last else {
            self.problem(
                document.at,
                "this here-document does not end; its last line is missing",
            );
            self.at = self.text.len();
            return;
        };
        let frame = if document.quoted {
            Frame::QuotedHere(document.delimiter)
        } else {
            Frame::Here(document.delimiter)
        };
        let depth = self.stack.len();
        self.stack.push(frame);
        self.runs_input = runs_input;
        self.run(end);
        self.runs_input = false;
        if self.stack.len() != depth + 1 {
            self.problem(start, "something is open at the end of this here-document");
            self.stack.truncate(depth + 1);
        }
        self.stack.pop();
        self.at = end + last;
    }
}
