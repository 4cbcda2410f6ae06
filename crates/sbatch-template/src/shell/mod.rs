//! Reading the body of a script as a shell does, to know what surrounds each placeholder.
//!
//! The reader keeps a stack of what is open: quotes, substitutions, here-documents. It must never lose its
//! place, for a value quoted for the wrong surroundings could break out of them. So what it does not
//! understand it refuses, and a script in which something stays open is refused as a whole.

mod command;
mod here;
mod hole;
mod operators;

use crate::finding::{Finding, Position};
use crate::grammar::{Separator, begins};
use crate::piece::{Delimiter, Piece};
use command::Command;
use here::Announced;

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
}
