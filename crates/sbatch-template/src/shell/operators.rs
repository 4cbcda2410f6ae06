//! Where words and commands end: blanks, separators, redirections, parentheses, lines.

use super::command::Command;
use super::{Frame, Reader};

impl Reader<'_> {
    pub(super) fn in_command(&mut self) {
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
}
