//! Filling in a template.

use crate::directive::{Line, MARK, Word, read_directives};
use crate::finding::RenderError;
use crate::grammar::Part;
use crate::operators::{Operator, is_forbidden, one_line, shortened};
use crate::piece::{self, Delimiter, Hole, Piece, Place, Quote};
use crate::quote;
use crate::setup::Setup;
use crate::template::{Head, Script, Template};
use crate::values::{Resolved, Values};

/// What sbatch takes at most, with some room for what it adds itself.
const MAX_SCRIPT: usize = (4 << 20) - (64 << 10);

/// The longest name of a job, in bytes.
const MAX_JOB_NAME: usize = 1000;

impl Template {
    /// Fills in the values of a task.
    ///
    /// # Errors
    ///
    /// When a placeholder has no value, or one that can't stand there, or the script gets too long.
    pub fn render(&self, values: &Values, setup: &Setup) -> Result<Script, RenderError> {
        let mut renderer = Renderer {
            template: self,
            values,
            warnings: Vec::new(),
            out: String::new(),
            documents: Vec::new(),
        };
        for head in &self.head {
            match head {
                Head::Text(text) => {
                    renderer.out.push_str(text);
                    renderer.out.push('\n');
                }
                Head::Directive(line) => renderer.directive(line)?,
            }
        }
        let head = renderer.out.clone();
        let directives =
            read_directives(&head).map_err(|(line, why)| self.script_error(format!("line {line}: {why}")))?;
        let parts = setup
            .parts(self, values, &directives)
            .map_err(|cause| self.script_error(cause))?;
        renderer.warnings.extend(parts.warnings.iter().cloned());
        for piece in &self.body {
            match piece {
                Piece::Text(text) => renderer.out.push_str(text),
                Piece::Part(Part::PreSetup, _) => renderer.out.push_str(&parts.pre),
                Piece::Part(Part::AgentExecute, _) => renderer.out.push_str(&parts.run),
                Piece::Part(Part::PostSetup, _) => renderer.out.push_str(&parts.post),
                Piece::Hole(hole) => renderer.hole(hole)?,
            }
        }
        renderer.check_documents()?;
        let script = Script {
            text: renderer.out,
            directives,
            warnings: renderer.warnings,
        };
        self.check(&script)?;
        Ok(script)
    }

    fn script_error(&self, cause: String) -> RenderError {
        RenderError::Script {
            template: self.name.clone(),
            cause,
        }
    }

    fn check(&self, script: &Script) -> Result<(), RenderError> {
        if script.text.len() > MAX_SCRIPT {
            return Err(self.script_error(format!(
                "the script has {} bytes, sbatch takes {MAX_SCRIPT}; put less of the task into it",
                script.text.len()
            )));
        }
        match script.option("job-name", 'J') {
            Some(name) if name.len() > MAX_JOB_NAME => Err(self.script_error(format!(
                "the name of the job has {} bytes, Slurm takes {MAX_JOB_NAME}; shorten it with |trunc(100)",
                name.len()
            ))),
            _ => Ok(()),
        }
    }
}

struct Renderer<'a> {
    template: &'a Template,
    values: &'a Values,
    warnings: Vec<String>,
    out: String,
    /// Values in here-documents: where they are in the output, and what would end the document.
    documents: Vec<(std::ops::Range<usize>, &'a Delimiter, &'a Hole)>,
}

impl<'a> Renderer<'a> {
    fn error(&self, hole: &Hole, cause: impl Into<String>) -> RenderError {
        RenderError::Value {
            template: self.template.name.clone(),
            position: hole.position,
            placeholder: hole.placeholder.shown.clone(),
            cause: cause.into(),
        }
    }

    /// The value after all operators, without what no script may contain.
    fn value(&mut self, hole: &Hole, in_directive: bool) -> Result<Resolved, RenderError> {
        let resolved = self.values.resolve(&hole.placeholder, in_directive);
        let mut resolved = resolved.map_err(|cause| {
            self.error(
                hole,
                format!("{cause}; set it in the task, or give a default as in ${{…:value}}"),
            )
        })?;
        for operator in &hole.placeholder.operators {
            let text = std::mem::take(&mut resolved.text);
            resolved.text = operator.apply(text).map_err(|cause| self.error(hole, cause))?;
        }
        let mut text = resolved.text;
        if text.contains(is_forbidden) {
            text.retain(|c| !is_forbidden(c));
            let warning = format!(
                "control characters were removed from ${{{}}}",
                hole.placeholder.shown
            );
            self.warnings.push(warning);
        }
        let keeps_lines = !in_directive && hole.placeholder.has(&Operator::Raw);
        resolved.text = if keeps_lines {
            text.split('\n').map(one_line).collect::<Vec<_>>().join("\n")
        } else {
            one_line(&text)
        };
        Ok(resolved)
    }

    fn hole(&mut self, hole: &'a Hole) -> Result<(), RenderError> {
        let resolved = self.value(hole, false)?;
        let text = &resolved.text;
        let start = self.out.len();
        match &hole.place {
            Place::Plain { always, may_split } => {
                let piece = self.plain(hole, &resolved, *always, *may_split)?;
                self.out.push_str(&piece);
            }
            Place::Double => self.out.push_str(&quote::escape(text, "\\\"$`")),
            Place::Single => self.out.push_str(&quote::in_single(text)),
            Place::Here(delimiter) => {
                self.out.push_str(&quote::escape(text, "\\$`"));
                self.documents.push((start..self.out.len(), delimiter, hole));
            }
            Place::QuotedHere(delimiter) => {
                self.out.push_str(text);
                self.documents.push((start..self.out.len(), delimiter, hole));
            }
            Place::Number => self.out.push_str(text),
            Place::SafeOnly if quote::is_safe(text) => self.out.push_str(text),
            Place::SafeOnly => {
                return Err(self.error(
                    hole,
                    format!(
                        "{:?} can't stand here, where quoting does not help; only letters, digits and _.,:/@%+=^- can. \
                         Pass it on in another way, or make it fit with |slug",
                        shortened(text)
                    ),
                ));
            }
            Place::Directive(_) => unreachable!("directives are rendered by the line"),
        }
        Ok(())
    }

    fn plain(
        &self,
        hole: &Hole,
        resolved: &Resolved,
        always: bool,
        may_split: bool,
    ) -> Result<String, RenderError> {
        let placeholder = &hole.placeholder;
        let text = &resolved.text;
        let splits = placeholder.has(&Operator::Words) || (placeholder.is_container_arguments() && !always);
        if may_split && splits {
            let words = shlex::split(text)
                .ok_or_else(|| self.error(hole, format!("a quote is not closed in {:?}", shortened(text))))?;
            let words: Vec<String> = words.iter().map(|word| quote::word(word)).collect();
            return Ok(words.join(" "));
        }
        Ok(if text.is_empty() && resolved.is_default {
            String::new()
        } else if always || text.starts_with('-') {
            quote::single(text)
        } else {
            quote::word(text)
        })
    }

    fn directive(&mut self, line: &'a Line) -> Result<(), RenderError> {
        let mut written: Vec<Option<String>> = Vec::new();
        for word in &line.words {
            let (text, empty) = self.word(word)?;
            let has_value = word.head().trim_end_matches('=').len() < word.head().len();
            match (empty, word.option()) {
                // `--name=` and nothing.
                (true, Some(_)) if has_value || word.head().len() == 2 => written.push(None),
                // `-n` and nothing.
                (true, None) if word.head().is_empty() => {
                    if let Some(option) = written.last_mut() {
                        *option = None;
                    }
                    written.push(None);
                }
                _ => written.push(Some(text)),
            }
        }
        if !line.words.is_empty() && written.iter().all(Option::is_none) {
            return Ok(());
        }
        self.out.push_str(MARK);
        for (word, text) in line.words.iter().zip(&written) {
            if let Some(text) = text {
                self.out.push_str(&word.gap);
                self.out.push_str(text);
            }
        }
        self.out.push_str(&line.tail);
        self.out.push('\n');
        Ok(())
    }

    /// A word of a directive, and whether its placeholders have nothing to say on purpose.
    fn word(&mut self, word: &'a Word) -> Result<(String, bool), RenderError> {
        let mut out = String::new();
        let mut holes = 0;
        let mut empty = true;
        for (index, piece) in word.pieces.iter().enumerate() {
            match piece {
                Piece::Text(text) => {
                    empty &= index == 0 || matches!(text.as_str(), "\"" | "'");
                    out.push_str(text);
                }
                Piece::Hole(hole) => {
                    holes += 1;
                    let value = self.value(hole, true)?;
                    if value.text.is_empty() && !value.is_default {
                        return Err(self.error(hole, "it is empty; set it in the task, or give a default"));
                    }
                    empty &= value.text.is_empty();
                    out.push_str(&self.argument(hole, &value)?);
                }
                Piece::Part(..) => {}
            }
        }
        Ok((out, empty && holes > 0))
    }

    fn argument(&self, hole: &Hole, value: &Resolved) -> Result<String, RenderError> {
        let Place::Directive(place) = &hole.place else {
            return Ok(String::new());
        };
        if place.options {
            return self.whole_options(hole, &value.text);
        }
        let mut text = value.text.clone();
        if place.pattern && !value.is_default {
            let raw = hole.placeholder.has(&Operator::Raw);
            if !raw && (text.contains('/') || text.starts_with('.')) {
                return Err(self.error(
                    hole,
                    format!(
                        "{:?} can't be a part of a file name: a value may not contain a slash or begin with a dot; use \
                         |slug, or |raw if tasks may choose the folder",
                        shortened(&text)
                    ),
                ));
            }
            text = text.replace('%', "%%");
        }
        Ok(in_directive(&text, place))
    }

    fn whole_options(&self, hole: &Hole, text: &str) -> Result<String, RenderError> {
        let words = shlex::split(text)
            .ok_or_else(|| self.error(hole, format!("a quote is not closed in {:?}", shortened(text))))?;
        let allowed = &self.template.options.allowed_sbatch_options;
        let mut out = Vec::new();
        for word in words {
            let name = word
                .strip_prefix("--")
                .map(|rest| rest.split('=').next().unwrap_or(rest));
            if !name.is_some_and(|name| allowed.iter().any(|known| known == name)) {
                return Err(self.error(
                    hole,
                    format!(
                        "{:?} is none of the options that tasks may give: {}",
                        shortened(&word),
                        allowed
                            .iter()
                            .map(|name| format!("--{name}=…"))
                            .collect::<Vec<_>>()
                            .join(", ")
                    ),
                ));
            }
            let place = piece::Directive {
                quote: Quote::None,
                pattern: false,
                at_start: false,
                options: false,
            };
            out.push(in_directive(&word, &place));
        }
        Ok(out.join(" "))
    }

    /// A value must not be, or make, the line that ends its here-document.
    fn check_documents(&self) -> Result<(), RenderError> {
        for (range, delimiter, hole) in &self.documents {
            let start = self.out[..range.start].rfind('\n').map_or(0, |at| at + 1);
            let end = self.out[range.end..]
                .find('\n')
                .map_or(self.out.len(), |at| range.end + at);
            if self.out[start..end].split('\n').any(|line| delimiter.is(line)) {
                return Err(self.error(
                    hole,
                    format!(
                        "its value would end the here-document, which ends with {:?}",
                        delimiter.text
                    ),
                ));
            }
        }
        Ok(())
    }
}

/// A value as a piece of a word of a directive.
fn in_directive(text: &str, place: &piece::Directive) -> String {
    match place.quote {
        Quote::Double => quote::escape(text, "\\\""),
        Quote::Single => quote::escape(text, "\\'"),
        // A word that begins with a colon separates the parts of a heterogeneous job.
        Quote::None if quote::is_safe(text) && !(place.at_start && text.starts_with(':')) => text.to_owned(),
        Quote::None => format!("\"{}\"", quote::escape(text, "\\\"")),
    }
}
