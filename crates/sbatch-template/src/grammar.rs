//! The language of placeholders: `${CLEARML_TASK.hyperparams.properties.nodes.value:1|int}`.
//!
//! Only names of the tables below are placeholders; everything else that begins with `${` belongs to the shell.

use crate::operators::Operator;

/// A part of the script that is generated as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// `${CLEARML_PRE_SETUP}`
    PreSetup,
    /// `${CLEARML_AGENT_EXECUTE}`
    AgentExecute,
    /// `${CLEARML_POST_SETUP}`
    PostSetup,
}

/// A variable that is one text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Single {
    /// Name of the queue the task came from.
    QueueName,
    /// Id of that queue.
    QueueId,
    /// The worker inside the job.
    WorkerId,
    /// Name of the task's project.
    ProjectName,
    /// Id of the task's project.
    ProjectId,
    /// The Linux user of the job.
    SlurmUser,
    /// The worker id of the glue.
    GlueId,
}

/// A variable that is an object and needs a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Object {
    /// The task.
    Task,
    /// Its owner.
    User,
    /// The configuration of the glue, secrets left out.
    Config,
    /// The owner's vaults, secrets left out.
    UserVaults,
    /// What identity providers say about the owner, secrets left out.
    ProvidersInfo,
}

/// What a placeholder names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    Part(Part),
    Single(Single),
    Object(Object, Vec<Segment>),
}

impl Source {
    /// Whether ordinary users of the ClearML server decide what it says.
    pub(crate) fn is_from_user(&self) -> bool {
        match self {
            Self::Part(_) => false,
            Self::Single(single) => matches!(single, Single::ProjectName),
            Self::Object(object, _) => *object != Object::Config,
        }
    }
}

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) name: String,
    /// A quoted one is never joined with its neighbours.
    pub(crate) quoted: bool,
}

/// A placeholder as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Placeholder {
    pub(crate) source: Source,
    pub(crate) default: Option<String>,
    pub(crate) operators: Vec<Operator>,
    /// The text between `${` and `}`, for messages.
    pub(crate) shown: String,
}

impl Placeholder {
    pub(crate) fn has(&self, operator: &Operator) -> bool {
        self.operators.contains(operator)
    }

    /// `container.arguments` is a list of words in the form of a text.
    pub(crate) fn is_container_arguments(&self) -> bool {
        matches!(&self.source, Source::Object(Object::Task, path)
            if path.iter().map(|s| s.name.as_str()).eq(["container", "arguments"]))
    }

    pub(crate) fn is_container_image(&self) -> bool {
        matches!(&self.source, Source::Object(Object::Task, path)
            if path.iter().map(|s| s.name.as_str()).eq(["container", "image"]))
    }
}

const OPEN: &str = "${CLEARML_";

const NAMES: [(&str, Kind); 15] = [
    ("PRE_SETUP", Kind::Part(Part::PreSetup)),
    ("AGENT_EXECUTE", Kind::Part(Part::AgentExecute)),
    ("POST_SETUP", Kind::Part(Part::PostSetup)),
    ("QUEUE_NAME", Kind::Single(Single::QueueName)),
    ("QUEUE_ID", Kind::Single(Single::QueueId)),
    ("WORKER_ID", Kind::Single(Single::WorkerId)),
    ("PROJECT_NAME", Kind::Single(Single::ProjectName)),
    ("PROJECT_ID", Kind::Single(Single::ProjectId)),
    ("SLURM_USER", Kind::Single(Single::SlurmUser)),
    ("GLUE_ID", Kind::Single(Single::GlueId)),
    ("TASK", Kind::Object(Object::Task)),
    ("USER", Kind::Object(Object::User)),
    ("CONFIG", Kind::Object(Object::Config)),
    ("USER_VAULTS", Kind::Object(Object::UserVaults)),
    ("PROVIDERS_INFO", Kind::Object(Object::ProvidersInfo)),
];

#[derive(Clone, Copy)]
enum Kind {
    Part(Part),
    Single(Single),
    Object(Object),
}

/// What stands at a `$`.
pub(crate) enum Found {
    /// Nothing of ours.
    Nothing,
    /// A name that looks like one of ours, and how that is spelled.
    Misspelt(String, &'static str),
    /// A placeholder of so many bytes.
    Placeholder(Box<Placeholder>, usize),
    /// `$${…}`: so many bytes, of which the first is to be left out.
    Escaped(usize),
}

/// The text that separates a path from its default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Separator(String);

impl Default for Separator {
    fn default() -> Self {
        Self(":".to_owned())
    }
}

impl Separator {
    /// One to three characters that have no other meaning in a placeholder.
    ///
    /// # Errors
    ///
    /// The text itself, when it can't be one.
    pub fn new(text: &str) -> Result<Self, String> {
        let taken = |c: char| c.is_alphanumeric() || c.is_whitespace() || r#"_.|{}"\[]$"#.contains(c);
        if (1..=3).contains(&text.chars().count()) && !text.chars().any(taken) {
            Ok(Self(text.to_owned()))
        } else {
            Err(text.to_owned())
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Looks at text that begins with `$`.
///
/// # Errors
///
/// A placeholder of ours that is not well-formed: what is wrong.
pub(crate) fn look(text: &str, separator: &Separator) -> Result<Found, String> {
    if let Some(inner) = text.strip_prefix('$').filter(|inner| inner.starts_with(OPEN)) {
        return match name_of(inner) {
            (_, Some(_)) => Ok(Found::Escaped(1 + inner.find('}').map_or(2, |at| at + 1))),
            _ => Ok(Found::Nothing),
        };
    }
    if !text.starts_with(OPEN) {
        return Ok(Found::Nothing);
    }
    match name_of(text) {
        (name, Some(kind)) => Parser::new(text, OPEN.len() + name.len(), separator)
            .parse(kind)
            .map(|(placeholder, used)| Found::Placeholder(Box::new(placeholder), used)),
        (name, None) => {
            Ok(similar(name).map_or(Found::Nothing, |known| Found::Misspelt(name.to_owned(), known)))
        }
    }
}

/// Whether a placeholder of ours begins here.
pub(crate) fn begins(text: &str) -> bool {
    text.starts_with(OPEN) && name_of(text).1.is_some()
}

fn name_of(text: &str) -> (&str, Option<Kind>) {
    let rest = &text[OPEN.len()..];
    let end = rest
        .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .unwrap_or(rest.len());
    let name = &rest[..end];
    let kind = NAMES
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, kind)| *kind);
    (name, kind)
}

fn similar(name: &str) -> Option<&'static str> {
    let upper = name.to_ascii_uppercase();
    let near = |known: &&str| name.len() > 2 && strsim::levenshtein(&upper, known) <= 2;
    NAMES.iter().map(|(known, _)| *known).find(near)
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    separator: &'a str,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str, at: usize, separator: &'a Separator) -> Self {
        Self {
            text,
            at,
            separator: separator.as_str(),
        }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn take(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn next(&mut self) -> Option<char> {
        let c = self.rest().chars().next().filter(|c| *c != '\n')?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn parse(mut self, kind: Kind) -> Result<(Placeholder, usize), String> {
        let mut path = Vec::new();
        loop {
            if self.take(".") {
                path.push(self.segment()?);
            } else if self.rest().starts_with("[\"") {
                self.at += 1;
                path.push(self.quoted()?);
                if !self.take("]") {
                    return Err("a `]` is missing after the quoted name".to_owned());
                }
            } else {
                break;
            }
        }
        let default = if self.take(self.separator) {
            Some(self.default()?)
        } else {
            None
        };
        let mut operators = Vec::new();
        while self.take("|") {
            operators.push(self.operator()?);
        }
        if !self.take("}") {
            return Err(self.unexpected());
        }
        let source = source(kind, path)?;
        if matches!(source, Source::Part(_)) && (default.is_some() || !operators.is_empty()) {
            return Err(
                "this name stands for a part of the script; it takes no default and no operator".to_owned(),
            );
        }
        let shown = self.text[2..self.at - 1].to_owned();
        Ok((
            Placeholder {
                source,
                default,
                operators,
                shown,
            },
            self.at,
        ))
    }

    fn unexpected(&self) -> String {
        match self.rest().chars().next() {
            None | Some('\n') => "it is not closed on its line; add the missing `}`".to_owned(),
            Some('$') => "placeholders can't be nested; use a default without `${…}`".to_owned(),
            Some(c) => format!(
                "unexpected {c:?}; after the name come `.path`, `{}default`, `|operator` or `}}`",
                self.separator
            ),
        }
    }

    fn segment(&mut self) -> Result<Segment, String> {
        if self.rest().starts_with('"') {
            return self.quoted();
        }
        let start = self.at;
        loop {
            let rest = self.rest();
            match rest.chars().next() {
                None | Some('\n' | '.' | '"' | '[' | ']' | '|' | '}') => break,
                Some('$') if rest.starts_with("${") => return Err(self.unexpected()),
                Some(_) if rest.starts_with(self.separator) => break,
                Some(c) => self.at += c.len_utf8(),
            }
        }
        if start == self.at {
            return Err("a name is missing after the dot".to_owned());
        }
        Ok(Segment {
            name: self.text[start..self.at].to_owned(),
            quoted: false,
        })
    }

    fn quoted(&mut self) -> Result<Segment, String> {
        self.at += 1;
        let mut name = String::new();
        loop {
            match self.next() {
                None => return Err("a quoted name is not closed on its line".to_owned()),
                Some('"') => return Ok(Segment { name, quoted: true }),
                Some('\\') if self.rest().starts_with(['"', '\\']) => name.extend(self.next()),
                Some(c) => name.push(c),
            }
        }
    }

    fn default(&mut self) -> Result<String, String> {
        let mut text = String::new();
        loop {
            if self.rest().starts_with("${") {
                return Err(self.unexpected());
            }
            if self.rest().starts_with(['|', '}']) {
                return Ok(text);
            }
            match self.next() {
                None => return Err(self.unexpected()),
                Some('\\') if self.rest().starts_with(['}', '|', '\\']) => text.extend(self.next()),
                Some(c) => text.push(c),
            }
        }
    }

    fn operator(&mut self) -> Result<Operator, String> {
        let rest = self.rest();
        let end = rest
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(rest.len());
        let name = &rest[..end];
        self.at += end;
        let mut argument = None;
        if self.take("(") {
            let mut text = String::new();
            let quoted = self.take("\"");
            loop {
                match self.next() {
                    None => return Err(format!("the `(` of operator {name:?} is not closed on its line")),
                    Some('"') if quoted => {
                        if !self.take(")") {
                            return Err(format!("a `)` is missing after the argument of {name:?}"));
                        }
                        break;
                    }
                    Some(')') if !quoted => break,
                    Some('\\') if quoted => text.extend(self.next()),
                    Some(c) => text.push(c),
                }
            }
            argument = Some(text);
        }
        Operator::new(name, argument.as_deref())
    }
}

fn source(kind: Kind, path: Vec<Segment>) -> Result<Source, String> {
    match kind {
        Kind::Object(_) if path.is_empty() => {
            Err("this name stands for a whole object; add a path, such as `.id`".to_owned())
        }
        Kind::Object(object) => Ok(Source::Object(object, path)),
        Kind::Part(_) | Kind::Single(_) if !path.is_empty() => {
            Err("this name stands for one text; it takes no path".to_owned())
        }
        Kind::Part(part) => Ok(Source::Part(part)),
        Kind::Single(single) => Ok(Source::Single(single)),
    }
}
