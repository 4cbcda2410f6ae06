//! The placeholders of a body: what surrounds each of them, and whether a value may stand there.

use super::command::{Refused, Role};
use super::{Frame, Reader, name_of};
use crate::finding::{Finding, Position};
use crate::grammar::{Found, Part, Placeholder, Source, look};
use crate::operators::Operator;
use crate::piece::{Hole, Piece, Place};

impl Reader<'_> {
    pub(super) fn refuse(&mut self, refused: Refused) {
        for (index, why) in refused {
            if let Some(Piece::Hole(hole)) = self.body.pieces.get(index) {
                let text = format!("${{{}}}: {why}", hole.placeholder.shown);
                let finding = Finding::new(hole.position, text);
                self.body.problems.push(finding);
            }
        }
    }

    /// A placeholder, if one begins here.
    pub(super) fn placeholder(&mut self) -> bool {
        let at = self.at;
        match look(&self.text[at..], self.separator) {
            Ok(Found::Nothing) => false,
            Ok(Found::Misspelt(name, known)) => {
                let text =
                    format!("${{CLEARML_{name}…}} is left to the shell; did you mean ${{CLEARML_{known}…}}?");
                let finding = Finding::new(self.position(at), text);
                self.body.warnings.push(finding);
                false
            }
            Ok(Found::Escaped(bytes)) => {
                self.flush(at);
                self.text_from = at + 1;
                self.at += 1;
                self.take(bytes - 1);
                true
            }
            Ok(Found::Placeholder(placeholder, bytes)) => {
                self.hole(*placeholder, bytes);
                true
            }
            Err(cause) => {
                let end = self.text[at..]
                    .find(['}', '\n'])
                    .map_or(self.text.len(), |end| at + end);
                self.problem(at, format!("{}: {cause}", &self.text[at..end]));
                self.take(2);
                true
            }
        }
    }

    fn hole(&mut self, placeholder: Placeholder, bytes: usize) {
        let at = self.at;
        self.flush(at);
        let position = self.position(at);
        let after = self.text[at + bytes..].chars().next();
        if let Source::Part(part) = placeholder.source {
            self.part(part, position, bytes);
            return;
        }
        match self.place(&placeholder, after) {
            Ok(place) => self.body.pieces.push(Piece::Hole(Box::new(Hole {
                placeholder,
                position,
                place,
            }))),
            Err(why) => self.problem(at, format!("${{{}}}: {why}", placeholder.shown)),
        }
        self.at = at + bytes;
        self.text_from = self.at;
    }

    /// What surrounds a value here.
    fn place(&mut self, placeholder: &Placeholder, after: Option<char>) -> Result<Place, String> {
        let raw = placeholder.has(&Operator::Raw);
        let index = self.body.pieces.len();
        let top = self.stack.last();
        let document = matches!(top, Some(Frame::Here(_) | Frame::QuotedHere(_)));
        if self.stack.iter().any(|frame| matches!(frame, Frame::Backtick)) {
            return Err("a value can't stand in backticks; use $(…) instead".to_owned());
        }
        let role = self.roles(index, document)?;
        if self.runs_input {
            return Err(
                "this here-document may be run by a program; use a variable inside of it instead".to_owned(),
            );
        }
        if let Some(place) = self.hostile(placeholder)? {
            return Ok(place);
        }
        let place = match self.stack.last() {
            Some(Frame::Double) => Place::Double,
            Some(Frame::Single) => Place::Single,
            Some(Frame::Here(delimiter)) => Place::Here(delimiter.clone()),
            Some(Frame::QuotedHere(delimiter)) => Place::QuotedHere(delimiter.clone()),
            _ => Place::Plain {
                always: matches!(after, Some('<' | '>'))
                    || self.command().word().contains('{')
                    || after == Some('{'),
                may_split: role == Role::Argument,
            },
        };
        let plain = matches!(place, Place::Plain { .. });
        if placeholder.has(&Operator::Words)
            && place
                != (Place::Plain {
                    always: false,
                    may_split: true,
                })
        {
            return Err(
                "several words can stand among the arguments of a command only, outside of quotes".to_owned(),
            );
        }
        if raw && plain {
            return Err("raw values stand in quotes or a here-document".to_owned());
        }
        Ok(place)
    }

    /// Asks every command that is open what a value may be here; the innermost one answers.
    fn roles(&mut self, index: usize, document: bool) -> Result<Role, String> {
        let innermost = self
            .stack
            .iter()
            .rposition(|frame| matches!(frame, Frame::Top(_) | Frame::Parens(_)));
        let mut role = Ok(Role::Argument);
        for (place, frame) in self.stack.iter_mut().enumerate() {
            let (Frame::Top(command) | Frame::Parens(command)) = frame else {
                continue;
            };
            let answer = if Some(place) == innermost && document {
                command.document(index);
                Ok(Role::Argument)
            } else if Some(place) == innermost {
                command.hole(index)
            } else {
                command.contains(index)
            };
            role = role.and(answer);
        }
        role
    }

    /// Places in which quoting does not help.
    fn hostile(&self, placeholder: &Placeholder) -> Result<Option<Place>, String> {
        let arithmetic = self
            .stack
            .iter()
            .any(|frame| matches!(frame, Frame::Arithmetic(..)));
        let other = self
            .stack
            .iter()
            .find(|frame| matches!(frame, Frame::DollarSingle | Frame::Parameter));
        if arithmetic && placeholder.has(&Operator::Int) {
            return Ok(Some(Place::Number));
        }
        let what = match other {
            _ if arithmetic => "an arithmetic expression, unless with |int",
            Some(frame) => name_of(frame),
            None => return Ok(None),
        };
        if placeholder.has(&Operator::Raw) {
            return Ok(Some(Place::SafeOnly));
        }
        Err(format!(
            "a value can't stand in {what}; put it into a variable first, or write |raw and accept nothing but letters, \
             digits and _.,:/@%+=^-"
        ))
    }

    fn part(&mut self, part: Part, position: Position, bytes: usize) {
        let at = self.at;
        let line_start = self.text[..at].rfind('\n').map_or(0, |newline| newline + 1);
        let rest = &self.text[at + bytes..];
        let alone = self.text[line_start..at].trim().is_empty()
            && rest.split('\n').next().unwrap_or_default().trim().is_empty();
        let plain = matches!(self.stack.last(), Some(Frame::Top(_) | Frame::Parens(_)));
        if part == Part::AgentExecute {
            let apart = |c: Option<char>| c.is_none_or(|c| c.is_whitespace() || ";&|()<>".contains(c));
            if !plain || self.command().in_word() || !apart(rest.chars().next()) {
                self.problem(
                    at,
                    "${CLEARML_AGENT_EXECUTE} is a word of a command: no quotes, nothing attached to it",
                );
            }
        } else if !alone || !self.command().at_command() || self.stack.len() > 1 {
            self.problem(
                at,
                "this stands for whole lines; put it on a line of its own, outside of everything else",
            );
        }
        self.command().push("/clearml");
        self.body.pieces.push(Piece::Part(part, position));
        self.at = at + bytes;
        self.text_from = self.at;
    }

    /// A script in another language: nothing is known about it but comments.
    pub(super) fn run_foreign(&mut self) {
        let mut line_start = true;
        while self.at < self.text.len() {
            let rest = self.rest();
            if line_start && rest.trim_start().starts_with('#') {
                self.at += rest.find('\n').unwrap_or(rest.len());
                line_start = false;
                continue;
            }
            line_start = rest.starts_with('\n');
            if !rest.starts_with('$') || !self.foreign_placeholder() {
                let bytes = self.rest().chars().next().map_or(0, char::len_utf8);
                self.at += bytes;
            }
        }
    }

    fn foreign_placeholder(&mut self) -> bool {
        let at = self.at;
        match look(&self.text[at..], self.separator) {
            Ok(Found::Placeholder(placeholder, bytes)) => {
                self.flush(at);
                let position = self.position(at);
                self.body.pieces.push(match placeholder.source {
                    Source::Part(part) => Piece::Part(part, position),
                    _ => Piece::Hole(Box::new(Hole {
                        placeholder: *placeholder,
                        position,
                        place: Place::SafeOnly,
                    })),
                });
                self.at += bytes;
                self.text_from = self.at;
                true
            }
            Ok(Found::Escaped(_)) => {
                self.flush(at);
                self.text_from = at + 1;
                self.at += 3;
                true
            }
            Ok(Found::Nothing | Found::Misspelt(..)) => false,
            Err(cause) => {
                self.problem(at, cause);
                self.at += 2;
                true
            }
        }
    }
}
