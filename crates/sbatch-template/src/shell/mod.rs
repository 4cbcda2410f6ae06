//! Reading the body of a script as a shell does, to know what surrounds each placeholder.
//!
//! The reader keeps a stack of what is open: quotes, substitutions, here-documents. It must never lose its
//! place, for a value quoted for the wrong surroundings could break out of them. So what it does not
//! understand it refuses, and a script in which something stays open is refused as a whole.

mod command;
mod hole;

use crate::finding::{Finding, Position};
use crate::grammar::{Separator, begins};
use crate::piece::{Delimiter, Piece};
use command::Command;

/// What is open.
#[derive(Debug)]
enum Frame {
    /// The script itself.
    Top(Command),
    /// `$(…)`, `<(…)` or `(…)`, or the words of an array.
    Parens(Command),
    Double,
    Single,
    DollarSingle,
    Backtick,
    /// `${…}`
    Parameter,
    /// `$((…))` or `$[…]`, and how many parentheses are open in it.
    Arithmetic(usize, &'static str),
    /// A here-document that the shell expands.
    Here(Delimiter),
    /// One that it does not.
    QuotedHere(Delimiter),
}

/// A here-document that begins at the next line.
struct Announced {
    delimiter: Delimiter,
    quoted: bool,
    /// Of the operator.
    at: usize,
}

/// A body in pieces, and what there is to say about it.
#[derive(Default)]
pub(crate) struct Body {
    pub(crate) pieces: Vec<Piece>,
    pub(crate) problems: Vec<Finding>,
    pub(crate) warnings: Vec<Finding>,
}

/// Reads a body. `first_line` is the number of its first line in the template. `is_shell`: the interpreter is
/// a POSIX shell.
pub(crate) fn read(text: &str, first_line: usize, separator: &Separator, is_shell: bool) -> Body {
    let mut reader = Reader {
        text,
        at: 0,
        first_line,
        separator,
        body: Body::default(),
        stack: vec![Frame::Top(Command::default())],
        announced: Vec::new(),
        text_from: 0,
        runs_input: false,
    };
    if is_shell {
        reader.run(text.len());
        let refused = reader.command().end(false);
        reader.refuse(refused);
        if reader.stack.len() > 1 || !reader.announced.is_empty() {
            let open = reader.stack.last().map_or("", name_of);
            reader.problem(text.len(), format!("the script ends inside of {open}"));
        }
    } else {
        reader.run_foreign();
    }
    reader.flush(text.len());
    reader.body
}

fn name_of(frame: &Frame) -> &'static str {
    match frame {
        Frame::Top(_) | Frame::Here(_) | Frame::QuotedHere(_) => "a here-document",
        Frame::Parens(_) => "parentheses",
        Frame::Double => "double quotes",
        Frame::Single | Frame::DollarSingle => "single quotes",
        Frame::Backtick => "backticks",
        Frame::Parameter => "${…}",
        Frame::Arithmetic(..) => "an arithmetic expression",
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    first_line: usize,
    separator: &'a Separator,
    body: Body,
    stack: Vec<Frame>,
    announced: Vec<Announced>,
    /// Where the text begins that no piece has yet.
    text_from: usize,
    /// The here-document that is being read goes to a program that runs it.
    runs_input: bool,
}

impl Reader<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn position(&self, at: usize) -> Position {
        let before = &self.text[..at];
        let line = before.matches('\n').count();
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Position {
            line: self.first_line + line,
            column: before[start..].chars().count() + 1,
        }
    }

    fn problem(&mut self, at: usize, text: impl Into<String>) {
        let finding = Finding::new(self.position(at), text);
        self.body.problems.push(finding);
    }

    fn flush(&mut self, to: usize) {
        if self.text_from < to {
            self.body
                .pieces
                .push(Piece::Text(self.text[self.text_from..to].to_owned()));
        }
        self.text_from = to;
    }

    /// The command that is being read, whatever is open in it.
    fn command(&mut self) -> &mut Command {
        let command = self.stack.iter_mut().rev().find_map(|frame| match frame {
            Frame::Top(command) | Frame::Parens(command) => Some(command),
            _ => None,
        });
        command.expect("the script itself is always at the bottom")
    }

    /// Takes so many bytes as a part of the word.
    fn take(&mut self, bytes: usize) {
        let text = &self.text[self.at..self.at + bytes];
        self.at += bytes;
        for frame in self.stack.iter_mut().rev() {
            match frame {
                Frame::Top(command) | Frame::Parens(command) => return command.push(text),
                // A here-document is no part of a word.
                Frame::Here(_) | Frame::QuotedHere(_) => return,
                _ => {}
            }
        }
    }

    fn take_char(&mut self) {
        let next = self.rest().chars().next();
        if next == Some('\n') && !self.announced.is_empty() {
            self.problem(
                self.at,
                "a line ends in quotes although a here-document begins in it; write it on a line of its own",
            );
            self.announced.clear();
        }
        self.take(next.map_or(0, char::len_utf8));
    }

    fn run(&mut self, end: usize) {
        while self.at < end {
            if self.rest().starts_with('$') && self.placeholder() {
                continue;
            }
            match self.stack.last() {
                Some(Frame::Top(_) | Frame::Parens(_)) => self.in_command(),
                Some(Frame::Single) => self.until_quote(false),
                Some(Frame::DollarSingle) => self.until_quote(true),
                Some(Frame::QuotedHere(_)) => self.take_char(),
                Some(Frame::Arithmetic(..)) => self.in_arithmetic(),
                Some(_) => self.in_expanded(),
                None => return,
            }
        }
    }

    fn until_quote(&mut self, escapes: bool) {
        if escapes && self.rest().starts_with('\\') {
            self.escaped();
        } else if self.rest().starts_with('\'') {
            self.at += 1;
            self.stack.pop();
        } else {
            self.take_char();
        }
    }

    /// A backslash and what it belongs to.
    fn escaped(&mut self) {
        if begins(&self.rest()[1..]) {
            self.problem(
                self.at,
                "a backslash before a placeholder; write `$${…}` for the text itself, or leave the backslash away",
            );
        }
        self.take(1);
        if self.at < self.text.len() {
            self.take_char();
        }
    }

    fn open(&mut self, frame: Frame, bytes: usize) {
        self.take(bytes);
        self.stack.push(frame);
    }

    /// `$(`, `${`, `` ` `` and the like, if one begins here.
    fn expansion(&mut self) -> bool {
        let rest = self.rest();
        let (frame, bytes) = if rest.starts_with("$((") {
            (Frame::Arithmetic(0, "))"), 3)
        } else if rest.starts_with("$[") {
            (Frame::Arithmetic(0, "]"), 2)
        } else if rest.starts_with("$(") {
            (Frame::Parens(Command::default()), 2)
        } else if rest.starts_with("${") {
            (Frame::Parameter, 2)
        } else if rest.starts_with('`') {
            (Frame::Backtick, 1)
        } else {
            return false;
        };
        self.open(frame, bytes);
        true
    }

    /// Inside of double quotes, here-documents, parameters and backticks.
    fn in_expanded(&mut self) {
        let closing = match self.stack.last() {
            Some(Frame::Double) => '"',
            Some(Frame::Backtick) => '`',
            Some(Frame::Parameter) => '}',
            _ => '\0',
        };
        let in_double = self
            .stack
            .iter()
            .rev()
            .take_while(|frame| !matches!(frame, Frame::Top(_) | Frame::Parens(_)))
            .any(|frame| matches!(frame, Frame::Double | Frame::Here(_)));
        let rest = self.rest();
        if rest.starts_with('\\') {
            self.escaped();
        } else if rest.starts_with(closing) {
            self.take(1);
            self.stack.pop();
        } else if self.expansion() {
        } else if closing == '}' && self.rest().starts_with('"') {
            self.open(Frame::Double, 1);
        } else if closing == '}' && self.rest().starts_with('\'') && !in_double {
            self.open(Frame::Single, 1);
        } else {
            self.take_char();
        }
    }

    fn in_arithmetic(&mut self) {
        let Some(Frame::Arithmetic(depth, end)) = self.stack.last() else {
            return;
        };
        let (depth, end) = (*depth, *end);
        if depth == 0 && self.rest().starts_with(end) {
            self.take(end.len());
            self.stack.pop();
            return;
        }
        if self.rest().starts_with('\\') {
            self.escaped();
            return;
        }
        if self.rest().starts_with('"') {
            self.open(Frame::Double, 1);
            return;
        }
        if self.expansion() {
            return;
        }
        let (open, close) = if end == "]" { ('[', ']') } else { ('(', ')') };
        let change = if self.rest().starts_with(open) {
            depth + 1
        } else if self.rest().starts_with(close) {
            depth.saturating_sub(1)
        } else {
            depth
        };
        if let Some(Frame::Arithmetic(depth, _)) = self.stack.last_mut() {
            *depth = change;
        }
        self.take_char();
    }

    fn in_command(&mut self) {
        let rest = self.rest();
        match rest.chars().next() {
            Some('\\') if rest.starts_with("\\\n") => self.at += 2,
            Some('\\') => self.escaped(),
            Some('\'') => self.open_quote(Frame::Single, 1),
            Some('"') => self.open_quote(Frame::Double, 1),
            Some('$') if rest.starts_with("$'") => self.open_quote(Frame::DollarSingle, 2),
            Some('$') if rest.starts_with("$\"") => self.open_quote(Frame::Double, 2),
            Some('$' | '`') if self.expansion() => {}
            Some('#') if !self.command().in_word() => {
                let end = self.rest().find('\n').unwrap_or(self.rest().len());
                self.at += end;
            }
            Some(' ' | '\t') => {
                let refused = self.command().end_word();
                self.refuse(refused);
                self.at += 1;
            }
            Some('\n') => self.end_of_line(),
            Some(';' | '&' | '|') => self.separator(),
            Some('<' | '>') => self.redirection(),
            Some('(') => self.opening(),
            Some(')') => self.closing(),
            _ => self.take_char(),
        }
    }

    fn open_quote(&mut self, frame: Frame, bytes: usize) {
        self.command().push_quote();
        self.at += bytes;
        self.stack.push(frame);
    }

    fn separator(&mut self) {
        if self.command().in_test {
            let refused = self.command().end_word();
            self.refuse(refused);
            self.at += 1;
            return;
        }
        let rest = self.rest();
        if rest.starts_with("&>") {
            let refused = self.command().redirect(false);
            self.refuse(refused);
            self.at += if self.rest().starts_with("&>>") { 3 } else { 2 };
            return;
        }
        let bytes = ["&&", "||", "|&", ";;&", ";;", ";&"]
            .iter()
            .find(|operator| rest.starts_with(**operator))
            .map_or(1, |operator| operator.len());
        let pipe = rest.starts_with('|') && !rest.starts_with("||");
        let refused = self.command().end(pipe);
        self.refuse(refused);
        self.at += bytes;
    }

    fn redirection(&mut self) {
        if self.command().in_test {
            self.separator();
            return;
        }
        let rest = self.rest();
        if rest.starts_with("<(") || rest.starts_with(">(") {
            self.open(Frame::Parens(Command::default()), 2);
            return;
        }
        let document = rest.starts_with("<<") && !rest.starts_with("<<<");
        let bytes = ["<<<", "<<-", "<<", ">>", "<&", ">&", "<>", ">|"]
            .iter()
            .find(|operator| rest.starts_with(**operator))
            .map_or(1, |operator| operator.len());
        let strip_tabs = rest.starts_with("<<-");
        let at = self.at;
        let input = rest.starts_with('<');
        let refused = self.command().redirect(input);
        self.refuse(refused);
        self.at += bytes;
        if document {
            self.announce(strip_tabs, at);
        }
    }

    /// The word after `<<`: the line that ends the document, and whether the shell expands it.
    fn announce(&mut self, strip_tabs: bool, at: usize) {
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

    fn opening(&mut self) {
        let here = &self.text[self.at..];
        let inside = &here[1..];
        let command = self.command();
        if command.in_test {
            self.separator();
            return;
        }
        let blanks = inside.len() - inside.trim_start_matches([' ', '\t']).len();
        let array = command.word().ends_with('=');
        if array {
            self.open(Frame::Parens(Command::of_array()), 1);
        } else if command.at_expression() && here.starts_with("((") {
            self.open(Frame::Arithmetic(0, "))"), 2);
        } else if inside[blanks..].starts_with(')') {
            // A function: what follows is a command.
            let refused = command.end(false);
            self.refuse(refused);
            self.at += 2 + blanks;
        } else {
            self.open(Frame::Parens(Command::default()), 1);
        }
    }

    fn closing(&mut self) {
        let command = self.command();
        if command.in_test {
            self.separator();
            return;
        }
        let in_case = command.cases > 0;
        let array = command.is_array();
        let refused = command.end(false);
        self.refuse(refused);
        self.at += 1;
        if !array && in_case {
            return;
        }
        match self.stack.last() {
            Some(Frame::Parens(_)) => {
                self.stack.pop();
                self.command().push(")");
            }
            _ => self.problem(self.at - 1, "a `)` without a `(`"),
        }
    }

    fn end_of_line(&mut self) {
        let command = self.command();
        let refused = if command.is_array() || command.in_test {
            command.end_word()
        } else {
            command.end(false)
        };
        // Nested commands of this line included.
        let runs_input = self.stack.iter_mut().fold(false, |found, frame| match frame {
            Frame::Top(command) | Frame::Parens(command) => found | command.takes_interpreter(),
            _ => found,
        });
        self.refuse(refused);
        self.at += 1;
        for document in std::mem::take(&mut self.announced) {
            self.here_document(document, runs_input);
        }
    }

    fn here_document(&mut self, document: Announced, runs_input: bool) {
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
