//! `#SBATCH` lines: which options of a template take values of a task, and reading lines as sbatch does.

use crate::finding::{Finding, Position};
use crate::grammar::{Found, Placeholder, Separator, Source, look};
use crate::operators::Operator;
use crate::piece::{self, Hole, Piece, Place, Quote};

/// What marks a directive, at the very beginning of a line.
pub(crate) const MARK: &str = "#SBATCH";

/// Options that decide as whom, with what environment, or around what a job runs.
const FORBIDDEN: [&str; 11] = [
    "uid",
    "gid",
    "get-user-env",
    "export",
    "export-file",
    "bcast",
    "prolog",
    "epilog",
    "task-prolog",
    "task-epilog",
    "wrap",
];

/// Options whose argument is a pattern for a file name.
const PATTERNS: [&str; 6] = ["output", "error", "input", "o", "e", "i"];

/// Options with an argument of their own word: `-J name`. Of the long ones, those that are often written so.
const WITH_ARGUMENT: [&str; 52] = [
    "A",
    "a",
    "B",
    "b",
    "C",
    "c",
    "D",
    "d",
    "e",
    "F",
    "G",
    "i",
    "J",
    "L",
    "M",
    "m",
    "N",
    "n",
    "o",
    "p",
    "q",
    "S",
    "t",
    "w",
    "x",
    "account",
    "comment",
    "constraint",
    "cpus-per-task",
    "chdir",
    "error",
    "gpus",
    "gpus-per-node",
    "gpus-per-task",
    "gres",
    "input",
    "job-name",
    "licenses",
    "mail-type",
    "mail-user",
    "mem",
    "mem-per-cpu",
    "mem-per-gpu",
    "nodelist",
    "nodes",
    "ntasks",
    "ntasks-per-node",
    "output",
    "partition",
    "qos",
    "reservation",
    "time",
];

/// One option of a rendered script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SbatchOption {
    /// Its name without dashes, as written: `J` or `job-name`.
    pub name: String,
    /// Its argument.
    pub value: Option<String>,
    /// The line, counted from 1.
    pub line: usize,
}

impl SbatchOption {
    /// Whether it is this option, by its long name or its letter.
    #[must_use]
    pub fn is(&self, long: &str, short: char) -> bool {
        self.name == long || (self.name.len() == 1 && self.name.starts_with(short))
    }
}

/// Reads one directive line, without its mark, into words as sbatch does: `#` ends the line even inside of a
/// word, a backslash escapes inside of quotes only.
///
/// # Errors
///
/// When a quote is not closed.
pub(crate) fn words(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match (quote, c) {
            (Some(_), '\\') => word.get_or_insert_default().extend(characters.next()),
            (Some(open), c) if c == open => quote = None,
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '#') => break,
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_ascii_whitespace() => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err("a quote is not closed".to_owned());
    }
    words.extend(word);
    Ok(words)
}

/// The words of one line as options.
fn options(words: Vec<String>, line: usize, into: &mut Vec<SbatchOption>) {
    let mut words = words.into_iter().peekable();
    while let Some(word) = words.next() {
        let (name, attached) = match word.strip_prefix("--") {
            Some(long) => match long.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (long.to_owned(), None),
            },
            None => match word
                .strip_prefix('-')
                .and_then(|rest| Some((rest.chars().next()?, rest)))
            {
                Some((letter, rest)) => {
                    let value = &rest[letter.len_utf8()..];
                    (letter.to_string(), (!value.is_empty()).then(|| value.to_owned()))
                }
                None => (String::new(), Some(word.clone())),
            },
        };
        let value = match attached {
            None if WITH_ARGUMENT.contains(&name.as_str()) => words.next(),
            other => other,
        };
        into.push(SbatchOption { name, value, line });
    }
}

/// The options of a script, read as sbatch does: from `#SBATCH` lines before the first command.
///
/// # Errors
///
/// When a line can't be read: its number and why.
pub fn read_directives(script: &str) -> Result<Vec<SbatchOption>, (usize, String)> {
    let mut found = Vec::new();
    for (index, line) in script.lines().enumerate() {
        if let Some(text) = line.strip_prefix(MARK) {
            let words = words(text).map_err(|why| (index + 1, why))?;
            options(words, index + 1, &mut found);
        } else if !line.trim().is_empty() && !line.trim_start().starts_with('#') {
            break;
        }
    }
    Ok(found)
}

/// One word of a directive line of a template.
#[derive(Debug, Clone, Default)]
pub(crate) struct Word {
    /// Blanks before it.
    pub(crate) gap: String,
    pub(crate) pieces: Vec<Piece>,
}

impl Word {
    fn push(&mut self, c: char) {
        match self.pieces.last_mut() {
            Some(Piece::Text(text)) => text.push(c),
            _ => self.pieces.push(Piece::Text(c.to_string())),
        }
    }

    /// What it begins with, up to the first placeholder.
    pub(crate) fn head(&self) -> &str {
        match self.pieces.first() {
            Some(Piece::Text(text)) => text,
            _ => "",
        }
    }

    pub(crate) fn has_hole(&self) -> bool {
        self.pieces.iter().any(|piece| matches!(piece, Piece::Hole(_)))
    }

    /// The name of the option that it is, without dashes; `None` when it is an argument.
    pub(crate) fn option(&self) -> Option<String> {
        let head = self.head().trim_start_matches(['"', '\'']);
        if let Some(long) = head.strip_prefix("--") {
            return Some(long.split('=').next().unwrap_or_default().to_owned());
        }
        let letter = head.strip_prefix('-')?.chars().next()?;
        Some(letter.to_string())
    }
}

/// A directive line of a template.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) words: Vec<Word>,
    /// Blanks and the comment after the last word.
    pub(crate) tail: String,
}

/// What the operator of the cluster has opened up.
#[derive(Debug, Clone, Default)]
pub(crate) struct Allowed<'a> {
    /// Options from [`FORBIDDEN`] that values may go into.
    pub(crate) user: &'a [String],
    /// Options that a value may consist of.
    pub(crate) whole: &'a [String],
}

/// Reads the directive line that begins at `position.column` with the text after the mark.
pub(crate) fn read(
    text: &str,
    position: Position,
    separator: &Separator,
    allowed: &Allowed<'_>,
    problems: &mut Vec<Finding>,
    warnings: &mut Vec<Finding>,
) -> Line {
    let mut reader = Reader {
        text,
        at: 0,
        position,
        separator,
        words: vec![Word::default()],
        quote: Quote::None,
        problems,
        warnings,
    };
    let tail = reader.run();
    let mut words = reader.words;
    words.retain(|word| !word.pieces.is_empty());
    let mut line = Line { words, tail };
    check(&line, position, allowed, problems);
    tell(&mut line);
    line
}

struct Reader<'a, 'p> {
    text: &'a str,
    at: usize,
    position: Position,
    separator: &'a Separator,
    words: Vec<Word>,
    quote: Quote,
    problems: &'p mut Vec<Finding>,
    warnings: &'p mut Vec<Finding>,
}

impl Reader<'_, '_> {
    fn here(&self) -> Position {
        Position {
            line: self.position.line,
            column: self.position.column + self.text[..self.at].chars().count(),
        }
    }

    fn word(&mut self) -> &mut Word {
        if self.words.is_empty() {
            self.words.push(Word::default());
        }
        let last = self.words.len() - 1;
        &mut self.words[last]
    }

    fn run(&mut self) -> String {
        while let Some(c) = self.text[self.at..].chars().next() {
            if c == '$' && self.placeholder() {
                continue;
            }
            match (self.quote, c) {
                (Quote::None, '#') => break,
                (Quote::None, c) if c.is_ascii_whitespace() => {
                    if !self.word().pieces.is_empty() {
                        self.words.push(Word::default());
                    }
                    self.word().gap.push(c);
                    self.at += 1;
                    continue;
                }
                (Quote::None, '"') => self.quote = Quote::Double,
                (Quote::None, '\'') => self.quote = Quote::Single,
                (Quote::Double, '"') | (Quote::Single, '\'') => self.quote = Quote::None,
                (Quote::Double | Quote::Single, '\\') => {
                    self.word().push(c);
                    self.at += 1;
                    if crate::grammar::begins(&self.text[self.at..]) {
                        let finding =
                            Finding::new(self.here(), "a backslash before a placeholder; leave it away");
                        self.problems.push(finding);
                    }
                    let Some(next) = self.text[self.at..].chars().next() else {
                        break;
                    };
                    self.word().push(next);
                    self.at += next.len_utf8();
                    continue;
                }
                _ => {}
            }
            self.word().push(c);
            self.at += c.len_utf8();
        }
        if self.quote != Quote::None {
            let finding = Finding::new(self.here(), "a quote is not closed in this directive");
            self.problems.push(finding);
        }
        let mut tail = String::new();
        if let Some(empty) = self.words.pop_if(|word| word.pieces.is_empty()) {
            tail.push_str(&empty.gap);
        }
        tail.push_str(&self.text[self.at..]);
        tail
    }

    fn placeholder(&mut self) -> bool {
        let position = self.here();
        match look(&self.text[self.at..], self.separator) {
            Ok(Found::Placeholder(placeholder, bytes)) => {
                self.at += bytes;
                self.hole(*placeholder, position);
                true
            }
            Ok(Found::Escaped(bytes)) => {
                for c in self.text[self.at + 1..self.at + bytes].chars() {
                    self.word().push(c);
                }
                self.at += bytes;
                true
            }
            Ok(Found::Nothing) => false,
            Ok(Found::Misspelt(name, known)) => {
                let text =
                    format!("${{CLEARML_{name}…}} is text for sbatch; did you mean ${{CLEARML_{known}…}}?");
                self.warnings.push(Finding::new(position, text));
                false
            }
            Err(cause) => {
                self.problems.push(Finding::new(position, cause));
                self.at = self.text.len();
                true
            }
        }
    }

    fn hole(&mut self, placeholder: Placeholder, position: Position) {
        if matches!(placeholder.source, Source::Part(_)) {
            let text = format!("${{{}}} is a part of the script's body", placeholder.shown);
            self.problems.push(Finding::new(position, text));
            return;
        }
        let place = Place::Directive(piece::Directive {
            quote: self.quote,
            pattern: false,
            at_start: self.word().pieces.is_empty(),
            options: false,
        });
        self.word().pieces.push(Piece::Hole(Box::new(Hole {
            placeholder,
            position,
            place,
        })));
    }
}

/// Tells the placeholders what their option makes of them.
fn tell(line: &mut Line) {
    for index in 0..line.words.len() {
        let option = option_of(line, index).unwrap_or_default();
        for piece in &mut line.words[index].pieces {
            if let Piece::Hole(hole) = piece
                && let Place::Directive(directive) = &mut hole.place
            {
                directive.pattern = option.as_deref().is_some_and(is_pattern);
                directive.options = option.is_none();
            }
        }
    }
}

/// Looks at the options that values go into.
fn check(line: &Line, position: Position, allowed: &Allowed<'_>, problems: &mut Vec<Finding>) {
    for word in &line.words {
        let name = word.option();
        let is_array = |name: &String| name == "a" || (name.len() > 1 && "array".starts_with(name.as_str()));
        if let Some(name) = name.filter(is_array) {
            let text = format!("--{name}: one task is one job, so there can be no arrays");
            problems.push(Finding::new(position, text));
        }
        if matches!(word.head(), "hetjob" | "packjob" | ":") {
            problems.push(Finding::new(
                position,
                "one task is one job, so there can be no heterogeneous jobs",
            ));
        }
    }
    for index in 0..line.words.len() {
        for piece in &line.words[index].pieces {
            let Piece::Hole(hole) = piece else { continue };
            if let Err(why) =
                option_of(line, index).and_then(|name| permitted(hole, name.as_deref(), allowed))
            {
                let text = format!("${{{}}}: {why}", hole.placeholder.shown);
                problems.push(Finding::new(hole.position, text));
            }
        }
    }
}

/// The option whose argument a word with a placeholder is; `None`: it stands for options of its own.
fn option_of(line: &Line, index: usize) -> Result<Option<String>, String> {
    let word = &line.words[index];
    if let Some(name) = word.option() {
        let head = word.head().trim_start_matches(['"', '\'']);
        // `--name=${…}` or `-n${…}`; a placeholder in the name itself has no `=` before it.
        return if head.starts_with("--") && !head.contains('=') {
            Err("a value can't be the name of an option".to_owned())
        } else {
            Ok(Some(name))
        };
    }
    let before = index.checked_sub(1).and_then(|before| {
        let word = &line.words[before];
        let whole = !word.has_hole() && !word.head().contains('=');
        word.option().filter(|_| whole)
    });
    match before {
        Some(name) if WITH_ARGUMENT.contains(&name.as_str()) => Ok(Some(name)),
        Some(name) => Err(format!(
            "write it as the argument of an option, as in --{name}=${{…}}"
        )),
        None => Ok(None),
    }
}

fn permitted(hole: &Hole, option: Option<&str>, allowed: &Allowed<'_>) -> Result<(), String> {
    let words = hole.placeholder.has(&Operator::Words);
    let Some(option) = option else {
        return if words && !allowed.whole.is_empty() {
            Ok(())
        } else {
            Err("a value can't be an option; write --name=${…}, or |words and agent.slurm.allowed_sbatch_options".to_owned())
        };
    };
    if words {
        return Err("the argument of an option is one word; leave |words away".to_owned());
    }
    if hole.placeholder.has(&Operator::Raw) && !PATTERNS.contains(&option) {
        return Err("raw is for file names only (--output, --error, --input)".to_owned());
    }
    if hole.placeholder.source.is_from_user() && is_forbidden(option, allowed.user) {
        return Err(format!(
            "tasks can't decide --{option}; list it in agent.slurm.allow_user_options if they may"
        ));
    }
    Ok(())
}

/// sbatch accepts abbreviations, so those are forbidden too.
fn is_forbidden(option: &str, allowed: &[String]) -> bool {
    let is_allowed = allowed.iter().any(|name| name == option);
    if is_allowed || option.len() == 1 || PATTERNS.contains(&option) || WITH_ARGUMENT.contains(&option) {
        return false;
    }
    FORBIDDEN.iter().any(|forbidden| forbidden.starts_with(option))
}

/// Whether the argument of this option is a pattern for a file name.
fn is_pattern(option: &str) -> bool {
    PATTERNS.contains(&option) || (option.len() > 2 && PATTERNS.iter().any(|long| long.starts_with(option)))
}
