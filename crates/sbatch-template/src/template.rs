//! Reading a template, and everything that can be said about it without a task.

use crate::directive::{self, Allowed, Line, MARK, SbatchOption};
use crate::finding::{Finding, Position, TemplateError};
use crate::grammar::{Found, Part, Placeholder, Separator, Source, look};
use crate::piece::Piece;
use crate::shell;

/// Interpreters whose language is understood.
const SHELLS: [&str; 7] = ["sh", "bash", "dash", "ash", "ksh", "mksh", "zsh"];

/// The longest template that is read.
const MAX_TEMPLATE: usize = 1 << 20;

/// How the agent is started inside of the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// As a program, or inside of a container that Slurm itself has entered.
    #[default]
    Native,
    /// By `singularity exec` or `apptainer exec` (`--singularity-mode`).
    Singularity,
    /// By `srun` at the end of the script (`--srun-delegation`).
    SrunDelegation,
}

/// How a template is to be understood.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// How the agent is started.
    pub mode: Mode,
    /// What separates a path from its default.
    pub separator: Separator,
    /// Options that decide about privileges or environment, and that values may go into all the same.
    pub allow_user_options: Vec<String>,
    /// Options that a value with `|words` may consist of.
    pub allowed_sbatch_options: Vec<String>,
}

/// A template that can be used.
#[derive(Debug, Clone)]
pub struct Template {
    pub(crate) name: String,
    pub(crate) options: Options,
    pub(crate) head: Vec<Head>,
    pub(crate) body: Vec<Piece>,
    pub(crate) is_shell: bool,
    warnings: Vec<Finding>,
}

/// A line before the first command.
#[derive(Debug, Clone)]
pub(crate) enum Head {
    Text(String),
    Directive(Line),
}

impl Template {
    /// Reads a template. `name` is what messages call it, such as its path.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it, with the places.
    pub fn parse(name: &str, text: &str, options: Options) -> Result<Self, TemplateError> {
        let mut problems = Vec::new();
        let mut warnings = Vec::new();
        let text = clean(text, &mut problems, &mut warnings);
        let first = text.lines().next().unwrap_or_default();
        let is_shell = is_shell(first);
        let (head, body_start, body_line) = read_head(&text, &options, &mut problems, &mut warnings);
        let body = shell::read(&text[body_start..], body_line, &options.separator, is_shell);
        problems.extend(body.problems);
        warnings.extend(body.warnings);
        let template = Self {
            name: name.to_owned(),
            options,
            head,
            body: body.pieces,
            is_shell,
            warnings: Vec::new(),
        };
        template.check_parts(&text, &mut problems, &mut warnings);
        template.check_options(&mut warnings);
        check_comments(
            &text,
            body_start,
            &template.options.separator,
            &mut problems,
            &mut warnings,
        );
        problems.sort_by_key(|finding| finding.position);
        problems.dedup();
        if !problems.is_empty() {
            let template = name.to_owned();
            return Err(TemplateError { template, problems });
        }
        warnings.sort_by_key(|finding| finding.position);
        Ok(Self { warnings, ..template })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What is odd about it, though it can be used.
    #[must_use]
    pub fn warnings(&self) -> &[Finding] {
        &self.warnings
    }

    fn positions(&self, wanted: Part) -> Vec<Position> {
        let parts = self.body.iter().filter_map(|piece| match piece {
            Piece::Part(part, position) if *part == wanted => Some(*position),
            _ => None,
        });
        parts.collect()
    }

    pub(crate) fn has(&self, part: Part) -> bool {
        !self.positions(part).is_empty()
    }

    fn check_parts(&self, text: &str, problems: &mut Vec<Finding>, warnings: &mut Vec<Finding>) {
        let end = Position {
            line: text.lines().count().max(1),
            column: 1,
        };
        let delegation = self.options.mode == Mode::SrunDelegation;
        for (part, name) in [
            (Part::AgentExecute, "AGENT_EXECUTE"),
            (Part::PreSetup, "PRE_SETUP"),
            (Part::PostSetup, "POST_SETUP"),
        ] {
            for twice in self.positions(part).iter().skip(1) {
                problems.push(Finding::new(
                    *twice,
                    format!("${{CLEARML_{name}}} stands here a second time"),
                ));
            }
        }
        if !self.has(Part::AgentExecute) && !delegation {
            let text = "${CLEARML_AGENT_EXECUTE} is missing, so nothing would run the task; use --srun-delegation if \
                        srun is to start the agent";
            problems.push(Finding::new(end, text));
        }
        let needs = |part, name: &str, why: &str| {
            (!self.has(part)).then(|| Finding::new(end, format!("${{CLEARML_{name}}} is missing: {why}")))
        };
        if self.options.mode == Mode::Native {
            warnings.extend(needs(
                Part::PreSetup,
                "PRE_SETUP",
                "the agent then uses the node's own configuration",
            ));
            warnings.extend(needs(
                Part::PostSetup,
                "POST_SETUP",
                "lines after the agent run before things are cleaned up",
            ));
        } else {
            problems.extend(needs(Part::PreSetup, "PRE_SETUP", "this mode can't do without"));
        }
        if delegation && !self.has(Part::AgentExecute) {
            problems.extend(needs(
                Part::PostSetup,
                "POST_SETUP",
                "with --srun-delegation it starts the agent",
            ));
        }
        if !self.is_shell {
            for part in [Part::PreSetup, Part::PostSetup] {
                for position in self.positions(part) {
                    problems.push(Finding::new(
                        position,
                        "this is shell code, but the interpreter is no shell",
                    ));
                }
            }
        }
        self.check_order(problems);
        let singularity = text.contains("singularity exec") || text.contains("apptainer exec");
        if singularity != (self.options.mode == Mode::Singularity) && (singularity || !delegation) {
            let text = if singularity {
                "the template calls singularity or apptainer, but --singularity-mode is not given"
            } else {
                "--singularity-mode is given, but the template does not call singularity or apptainer"
            };
            warnings.push(Finding::new(end, text));
        }
    }

    fn check_order(&self, problems: &mut Vec<Finding>) {
        let [pre, run, post] =
            [Part::PreSetup, Part::AgentExecute, Part::PostSetup].map(|part| self.positions(part));
        let late = |first: &[Position], second: &[Position]| {
            first
                .first()
                .zip(second.first())
                .filter(|(a, b)| a > b)
                .map(|(a, _)| *a)
        };
        if let Some(position) = late(&pre, &run).or_else(|| late(&pre, &post)) {
            problems.push(Finding::new(
                position,
                "${CLEARML_PRE_SETUP} must come before the others",
            ));
        }
        if let Some(position) = late(&run, &post) {
            problems.push(Finding::new(
                position,
                "${CLEARML_AGENT_EXECUTE} must come before ${CLEARML_POST_SETUP}",
            ));
        }
    }

    /// Options that are legal and seldom meant.
    fn check_options(&self, warnings: &mut Vec<Finding>) {
        let lines = self
            .head
            .iter()
            .enumerate()
            .filter_map(|(index, head)| match head {
                Head::Directive(line) => Some((index + 1, line)),
                Head::Text(_) => None,
            });
        let mut seen = Seen::default();
        for (number, line) in lines {
            for word in &line.words {
                if let Some(option) = word.option() {
                    seen.note(&option, word, number, warnings);
                }
            }
        }
        seen.end(warnings);
    }
}

/// What the directives of a template have told so far.
#[derive(Default)]
struct Seen {
    job_name: Option<(usize, bool)>,
    ntasks: Option<usize>,
    variable_nodes: bool,
    container: Option<usize>,
    requeue: Option<usize>,
    no_requeue: bool,
}

impl Seen {
    fn note(&mut self, option: &str, word: &directive::Word, line: usize, warnings: &mut Vec<Finding>) {
        let mut warn = |text: &str| warnings.push(Finding::new(Position { line, column: 1 }, text));
        let written = word_text(word);
        match option {
            "job-name" | "J" => self.job_name = Some((line, written.contains("CLEARML_TASK.id"))),
            "ntasks" | "n" if !word.has_hole() => self.ntasks = Some(line),
            "nodes" | "N" => self.variable_nodes |= word.has_hole(),
            "requeue" => self.requeue = Some(line),
            "no-requeue" => self.no_requeue = true,
            "export" if written.ends_with("NONE") => warn(
                "--export=NONE: steps start without an environment; ${CLEARML_PRE_SETUP} repairs that for the agent's",
            ),
            "wait" | "W" => warn("--wait has no use here: nobody waits for sbatch"),
            "wrap" => warn("--wrap has no use in a script"),
            "dependency" | "d" => warn("--dependency: a job whose dependency fails waits for ever"),
            "priority" => warn("--priority: ordinary users may not raise it"),
            "output" | "o" if !written.contains("%j") && !written.contains("%A") => {
                warn("--output without %j: jobs of a task write to the same file");
            }
            "container-image" => {
                self.container = Some(line);
                if !word.has_hole() && !written.contains("://") && !written.contains("=/") {
                    warn("--container-image without docker://");
                }
            }
            _ => {}
        }
    }

    fn end(self, warnings: &mut Vec<Finding>) {
        let mut warn =
            |line: usize, text: &str| warnings.push(Finding::new(Position { line, column: 1 }, text));
        match self.job_name {
            Some((line, false)) => warn(
                line,
                "--job-name without the task's id; the glue gives the job its own name",
            ),
            None => warn(
                1,
                "no --job-name; the glue gives the job a name with the task's id",
            ),
            Some((_, true)) => {}
        }
        if let Some(line) = self.ntasks.filter(|_| self.variable_nodes) {
            warn(
                line,
                "a constant --ntasks with a variable --nodes: Slurm gives no more nodes than tasks; use --ntasks-per-node=1",
            );
        }
        if let Some(line) = self.container.filter(|_| self.variable_nodes) {
            warn(
                line,
                "--container-image on several nodes: a script inside of a container can't call srun",
            );
        }
        if let Some(line) = self.requeue.filter(|_| self.no_requeue) {
            warn(line, "--requeue and --no-requeue");
        }
    }
}

fn word_text(word: &directive::Word) -> String {
    word.pieces
        .iter()
        .map(|piece| match piece {
            Piece::Text(text) => text.as_str(),
            Piece::Hole(hole) => hole.placeholder.shown.as_str(),
            Piece::Part(..) => "",
        })
        .collect()
}

fn is_shell(first_line: &str) -> bool {
    let mut words = first_line.trim_start_matches("#!").split_whitespace();
    let base = |word: &str| word.rsplit('/').next().unwrap_or(word).to_owned();
    let program = words.next().map(base).unwrap_or_default();
    let program = if program == "env" {
        words
            .find(|word| !word.starts_with('-'))
            .map(base)
            .unwrap_or_default()
    } else {
        program
    };
    SHELLS.contains(&program.as_str())
}

/// One kind of line end, and the faults of a text as such.
fn clean(text: &str, problems: &mut Vec<Finding>, warnings: &mut Vec<Finding>) -> String {
    let start = Position { line: 1, column: 1 };
    if text.len() > MAX_TEMPLATE {
        problems.push(Finding::new(
            start,
            format!("it is longer than {MAX_TEMPLATE} bytes"),
        ));
    }
    if text.trim().is_empty() {
        problems.push(Finding::new(start, "it is empty"));
    } else if !text.starts_with("#!") {
        problems.push(Finding::new(
            start,
            "the first line has to name the interpreter, as in #!/bin/bash",
        ));
    }
    if text.contains('\0') {
        problems.push(Finding::new(start, "it contains a NUL byte"));
    }
    if text.contains("\r\n") {
        warnings.push(Finding::new(
            start,
            "lines end with CR LF; they are read as if they ended with LF",
        ));
    }
    text.replace("\r\n", "\n")
}

/// The lines before the first command; where that begins, and the number of its line.
fn read_head(
    text: &str,
    options: &Options,
    problems: &mut Vec<Finding>,
    warnings: &mut Vec<Finding>,
) -> (Vec<Head>, usize, usize) {
    let allowed = Allowed {
        user: &options.allow_user_options,
        whole: &options.allowed_sbatch_options,
    };
    let mut head = Vec::new();
    let mut at = 0;
    for (index, whole) in text.split_inclusive('\n').enumerate() {
        let number = index + 1;
        let line = whole.trim_end_matches('\n');
        let comment = line.trim_start().starts_with('#');
        if let Some(rest) = line.strip_prefix(MARK).filter(|_| index > 0) {
            let position = Position {
                line: number,
                column: MARK.len() + 1,
            };
            if !rest.is_empty() && !rest.starts_with([' ', '\t']) {
                problems.push(Finding::new(position, "a blank is missing after #SBATCH"));
            }
            let line = directive::read(rest, position, &options.separator, &allowed, problems, warnings);
            head.push(Head::Directive(line));
        } else if line.trim().is_empty() || comment {
            if index == 0 && line.contains("${CLEARML_") {
                let position = Position { line: 1, column: 1 };
                problems.push(Finding::new(
                    position,
                    "a placeholder can't stand in the line of the interpreter",
                ));
            }
            head.push(Head::Text(line.to_owned()));
        } else {
            return (head, at, number);
        }
        at += whole.len();
    }
    (head, at, text.lines().count() + 1)
}

/// Comments are not filled in; what looks as if that were expected is told.
fn check_comments(
    text: &str,
    body_start: usize,
    separator: &Separator,
    problems: &mut Vec<Finding>,
    warnings: &mut Vec<Finding>,
) {
    let mut at = 0;
    for (index, whole) in text.split_inclusive('\n').enumerate() {
        let line = whole.trim_end_matches('\n');
        let position = |column| Position {
            line: index + 1,
            column,
        };
        if at >= body_start && line.starts_with(MARK) {
            let text = "sbatch ignores directives after the first command";
            warnings.push(Finding::new(position(1), text));
        } else if line.trim_start().starts_with('#') && !line.starts_with(MARK) {
            for (offset, _) in line.match_indices("${CLEARML_") {
                if is_part(&line[offset..], separator) {
                    let text = "a part of the script stands in a comment; remove it";
                    problems.push(Finding::new(position(line[..offset].chars().count() + 1), text));
                }
            }
        }
        at += whole.len();
    }
}

fn is_part(text: &str, separator: &Separator) -> bool {
    matches!(look(text, separator), Ok(Found::Placeholder(placeholder, _))
        if matches!(*placeholder, Placeholder { source: Source::Part(_), .. }))
}

/// A rendered script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// The whole text, for sbatch.
    pub text: String,
    /// What its `#SBATCH` lines say.
    pub directives: Vec<SbatchOption>,
    /// What was left out or changed in values.
    pub warnings: Vec<String>,
}

impl Script {
    /// The argument of an option, the last one if it is given several times, as sbatch does.
    #[must_use]
    pub fn option(&self, long: &str, short: char) -> Option<&str> {
        self.directives
            .iter()
            .rev()
            .find(|option| option.is(long, short))
            .and_then(|option| option.value.as_deref())
    }
}
