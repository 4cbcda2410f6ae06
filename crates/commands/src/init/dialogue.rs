//! Asking and answering over any reader and writer, and a terminal that can keep quiet.

use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::sync::Arc;

use clearml_support::secret::Secret;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use super::InitError;

/// Longest line that is read.
const MAX_LINE: u64 = 64 << 10;

/// The terminal behind standard input, as it was found.
#[derive(Clone)]
pub(crate) struct Terminal(Arc<Termios>);

impl Terminal {
    /// `None` when standard input is not a terminal.
    pub(crate) fn of_stdin() -> Option<Self> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return None;
        }
        tcgetattr(&stdin).ok().map(|modes| Self(Arc::new(modes)))
    }

    /// Shows what is typed, or does not.
    fn echo(&self, shown: bool) {
        let mut modes = (*self.0).clone();
        if !shown {
            modes.local_modes.remove(LocalModes::ECHO);
        }
        // A terminal that refuses has gone, and with it whoever could have looked.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &modes);
    }

    /// Gives the terminal back as it was.
    pub(crate) fn restore(&self) {
        self.echo(true);
    }
}

/// One conversation.
pub(crate) struct Dialogue<'a> {
    input: &'a mut dyn BufRead,
    output: &'a mut dyn Write,
    terminal: Option<Terminal>,
}

impl<'a> Dialogue<'a> {
    pub(crate) fn new(
        input: &'a mut dyn BufRead,
        output: &'a mut dyn Write,
        terminal: Option<Terminal>,
    ) -> Self {
        Self {
            input,
            output,
            terminal,
        }
    }

    /// Prints a line.
    pub(crate) fn say(&mut self, text: &str) -> Result<(), InitError> {
        writeln!(self.output, "{text}").map_err(InitError::Output)
    }

    /// Asks for one line; blanks around it are dropped.
    pub(crate) fn ask(&mut self, prompt: &str) -> Result<String, InitError> {
        self.prompt(prompt)?;
        Ok(self.line()?.trim().to_owned())
    }

    /// Asks for one line that is not shown.
    pub(crate) fn ask_secret(&mut self, prompt: &str) -> Result<Secret, InitError> {
        let line = self.unseen(|this| {
            this.prompt(prompt)?;
            this.line()
        })?;
        Ok(Secret::new(line.trim()))
    }

    /// Asks for a text: lines up to and including the first one that `is_last`. They are not shown.
    pub(crate) fn paste(
        &mut self,
        prompt: &str,
        limit: usize,
        is_last: impl Fn(&str) -> bool,
    ) -> Result<String, InitError> {
        self.unseen(|this| {
            this.prompt(&format!("{prompt}\n"))?;
            let mut text = String::new();
            while text.len() < limit {
                let line = this.line()?;
                text.push_str(&line);
                text.push('\n');
                if is_last(&line) {
                    break;
                }
            }
            Ok(text)
        })
    }

    /// Whether somebody sees the prompts as they appear.
    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal.is_some()
    }

    fn prompt(&mut self, prompt: &str) -> Result<(), InitError> {
        write!(self.output, "{prompt}")
            .and_then(|()| self.output.flush())
            .map_err(InitError::Output)
    }

    /// What is typed is not shown, from before it is asked for.
    fn unseen<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, InitError>) -> Result<T, InitError> {
        let Some(terminal) = self.terminal.clone() else {
            return read(self);
        };
        terminal.echo(false);
        let result = read(self);
        terminal.restore();
        // The line end that was typed was not shown either.
        self.say("")?;
        result
    }

    /// One line without its end.
    fn line(&mut self) -> Result<String, InitError> {
        let mut bytes = Vec::new();
        (&mut *self.input)
            .take(MAX_LINE)
            .read_until(b'\n', &mut bytes)
            .map_err(InitError::Input)?;
        match bytes.last() {
            None => return Err(InitError::EndOfInput),
            Some(b'\n') => {
                bytes.pop();
            }
            Some(_) if bytes.len() as u64 == MAX_LINE => return Err(InitError::LongLine),
            Some(_) => {}
        }
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}
