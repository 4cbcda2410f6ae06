//! What the checks have found, and how it is shown.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use clearml_support::redact::Redactor;
use serde::Serialize;
use serde_json::{Value, json};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Tasks run, but somebody will be surprised.
    Warning,
    /// Tasks do not run, or not as they should.
    Problem,
}

impl Level {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }

    fn colour(self) -> &'static str {
        match self {
            Self::Ok => "\u{1b}[32m",
            Self::Warning => "\u{1b}[33m",
            Self::Problem => "\u{1b}[31m",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The group that it belongs to.
    pub section: &'static str,
    /// What was looked at.
    pub name: String,
    /// How bad it is.
    pub level: Level,
    /// What was seen.
    pub message: String,
    /// What to do, unless all is well.
    pub advice: Option<String>,
}

/// Everything that was found, in the order of the sections.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// The findings.
    pub findings: Vec<Finding>,
}

impl Report {
    /// How many findings are of this level.
    #[must_use]
    pub fn count(&self, level: Level) -> usize {
        self.findings
            .iter()
            .filter(|finding| finding.level == level)
            .count()
    }

    /// 0 when nothing stops tasks, otherwise 1.
    #[must_use]
    pub fn exit_code(&self) -> i32 {
        i32::from(self.count(Level::Problem) > 0)
    }

    /// The report for machines.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "schema": 1,
            "problems": self.count(Level::Problem),
            "warnings": self.count(Level::Warning),
            "checks": self.findings,
        })
    }

    /// Writes the report for people, without any character that a plain terminal lacks.
    ///
    /// # Errors
    ///
    /// When the writer fails.
    pub fn write(&self, output: &mut dyn Write, colours: bool) -> io::Result<()> {
        let mut section = "";
        for finding in &self.findings {
            if finding.section != section {
                if !section.is_empty() {
                    writeln!(output)?;
                }
                section = finding.section;
                writeln!(output, "{section}")?;
            }
            let word = finding.level.word();
            let (start, end) = match colours {
                true => (finding.level.colour(), "\u{1b}[0m"),
                false => ("", ""),
            };
            let mut lines = finding.message.lines();
            let first = lines.next().unwrap_or_default();
            writeln!(output, "  {start}{word:<8}{end} {}: {first}", finding.name)?;
            for line in lines {
                writeln!(output, "           {line}")?;
            }
            for line in finding.advice.iter().flat_map(|advice| advice.lines()) {
                writeln!(output, "           -> {line}")?;
            }
        }
        let (problems, warnings) = (self.count(Level::Problem), self.count(Level::Warning));
        writeln!(
            output,
            "\n{problems} problem{}, {warnings} warning{}",
            plural(problems),
            plural(warnings)
        )
    }
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// Where the checks of one section put what they find; what is there counts even if they never end.
#[derive(Clone)]
pub(crate) struct Section {
    name: &'static str,
    redactor: Redactor,
    findings: Arc<Mutex<Vec<Finding>>>,
}

impl Section {
    pub(crate) fn new(name: &'static str, redactor: &Redactor) -> Self {
        Self {
            name,
            redactor: redactor.clone(),
            findings: Arc::default(),
        }
    }

    pub(crate) fn ok(&self, name: impl Into<String>, message: impl AsRef<str>) {
        self.add(name.into(), Level::Ok, message.as_ref(), None);
    }

    pub(crate) fn warning(&self, name: impl Into<String>, message: impl AsRef<str>, advice: impl AsRef<str>) {
        self.add(
            name.into(),
            Level::Warning,
            message.as_ref(),
            Some(advice.as_ref()),
        );
    }

    pub(crate) fn problem(&self, name: impl Into<String>, message: impl AsRef<str>, advice: impl AsRef<str>) {
        self.add(
            name.into(),
            Level::Problem,
            message.as_ref(),
            Some(advice.as_ref()),
        );
    }

    fn add(&self, name: String, level: Level, message: &str, advice: Option<&str>) {
        // What a tool printed may hold anything; it must not steer the terminal.
        let clean = |text: &str| {
            let text = self.redactor.redact(text.trim_end());
            let printable = |c: char| if c.is_control() && c != '\n' { '?' } else { c };
            text.chars().map(printable).collect::<String>()
        };
        let finding = Finding {
            section: self.name,
            name: clean(&name),
            level,
            message: clean(message),
            advice: advice.map(clean),
        };
        self.findings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(finding);
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn take(&self) -> Vec<Finding> {
        std::mem::take(&mut *self.findings.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use clearml_support::secret::Secret;

    use super::*;

    #[test]
    fn the_report_is_plain_text_without_secrets_and_says_what_to_do() {
        let redactor = Redactor::new();
        redactor.add(&Secret::new("hunter22"));
        let (first, second) = (Section::new("One", &redactor), Section::new("Two", &redactor));
        first.ok("a", "fine");
        second.problem("b", "it said \u{1b}[2J hunter22\nand more", "do this\nthen that");
        let report = Report {
            findings: [first.take(), second.take()].concat(),
        };
        let mut text = Vec::new();
        report.write(&mut text, false).unwrap();
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "One\n  ok       a: fine\n\nTwo\n  problem  b: it said ?[2J ****\n           and more\n           -> do this\n\
             \u{20}          -> then that\n\n1 problem, 0 warnings\n"
        );
        assert_eq!(
            (report.exit_code(), report.to_json()["checks"][1]["level"].clone()),
            (1, "problem".into())
        );
    }
}
