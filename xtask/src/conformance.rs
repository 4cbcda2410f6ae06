//! `cargo xtask conformance-rows`: every promise in `fixtures/conformance` names a test, and the test exists.
//!
//! A row has an `id`, a `case` in words, and `test = "path: name, name; other/path: name"`, where paths are
//! relative to `crates`, `bins` or the root, or the path is `conformance_suite` and the names are ids of its cases.
//! A row whose time has not come has `later = "reason"` instead; a row that is held only in part may have both.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::{conformance_suite, workspace};

/// What stands for the cases that run over HTTP.
const SUITE: &str = "conformance_suite";

/// One promise.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Row {
    /// The file that it stands in.
    pub file: String,
    /// Its name in the list that it comes from.
    pub id: String,
    /// What is promised.
    pub case: String,
    /// Which tests hold it.
    pub test: Option<String>,
    /// Why no test holds it, or not all of it.
    pub later: Option<String>,
}

impl Row {
    fn named(&self) -> String {
        format!("{} {}: {}", self.file, self.id, self.case)
    }
}

/// Says which rows are not held, and what is wrong with the others.
///
/// # Errors
///
/// When a row can't be read, names no test without a reason, or names a test that does not exist.
pub fn run() -> Result<()> {
    let rows = rows()?;
    let mut wrong = Vec::new();
    let (mut held, mut waiting) = (0, 0);
    for row in &rows {
        match problem(row) {
            Some(problem) => wrong.push(format!("{}: {problem}", row.named())),
            None if row.test.is_some() => held += 1,
            None => {}
        }
        if let Some(reason) = &row.later {
            waiting += 1;
            println!("later: {}: {reason}", row.named());
        }
    }
    println!(
        "{} rows: {held} held by tests, {waiting} not or not completely yet",
        rows.len()
    );
    ensure!(wrong.is_empty(), "rows that nothing holds:\n{}", wrong.join("\n"));
    Ok(())
}

/// All rows of all files.
///
/// # Errors
///
/// When a file can't be read or is not of the form that is used here.
pub fn rows() -> Result<Vec<Row>> {
    let folder = workspace::root().join("fixtures/conformance");
    let entries = fs::read_dir(&folder).with_context(|| format!("listing {}", folder.display()))?;
    let mut paths = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<PathBuf>>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.sort();
    let mut rows = Vec::new();
    for path in paths {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        rows.extend(parse(&name, &text).with_context(|| format!("reading {}", path.display()))?);
    }
    Ok(rows)
}

/// Reads the small part of TOML that these files use: one key and one plain value a line.
fn parse(file: &str, text: &str) -> Result<Vec<Row>> {
    let mut rows: Vec<Row> = Vec::new();
    for (number, line) in text
        .lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.trim()))
    {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if line == "[[row]]" {
            rows.push(Row {
                file: file.to_owned(),
                ..Row::default()
            });
            continue;
        }
        let (Some(row), Some((key, value))) = (rows.last_mut(), line.split_once(" = ")) else {
            bail!("line {number} is neither a row nor a key of one: {line}");
        };
        let value = value.trim_matches('"').to_owned();
        match key {
            "id" => row.id = value,
            "case" => row.case = value,
            "test" => row.test = Some(value),
            "later" => row.later = Some(value),
            other => bail!("line {number}: a row has no {other:?}"),
        }
    }
    Ok(rows)
}

fn problem(row: &Row) -> Option<String> {
    if row.id.is_empty() || row.case.is_empty() {
        return Some("id or case is missing".to_owned());
    }
    let Some(tests) = &row.test else {
        return row
            .later
            .is_none()
            .then(|| "names neither a test nor a reason".to_owned());
    };
    for group in tests.split(';') {
        let Some((path, names)) = group.trim().split_once(": ") else {
            return Some(format!("{group:?} is not of the form \"path: name\""));
        };
        if path == SUITE {
            let known = conformance_suite::cases();
            let missing = names
                .split(',')
                .map(str::trim)
                .find(|name| !known.iter().any(|case| case.id == *name));
            if let Some(missing) = missing {
                return Some(format!("the suite has no case {missing}"));
            }
            continue;
        }
        let Some(source) = source(path) else {
            return Some(format!("there is no {path}"));
        };
        if let Some(missing) = names
            .split(',')
            .map(str::trim)
            .find(|name| !has_test(&source, name))
        {
            return Some(format!("{path} has no test {missing}"));
        }
    }
    None
}

fn source(path: &str) -> Option<String> {
    ["crates", "bins", ""]
        .map(|folder| workspace::root().join(folder).join(path))
        .iter()
        .find(|path| Path::is_file(path))
        .and_then(|path| fs::read_to_string(path).ok())
}

/// Whether the source has a function of this name that the harness runs.
fn has_test(source: &str, name: &str) -> bool {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let head = format!("fn {name}(");
    lines.iter().enumerate().any(|(index, line)| {
        let line = line.strip_prefix("async ").unwrap_or(line);
        line.starts_with(&head)
            && lines[..index]
                .iter()
                .rev()
                .take_while(|above| above.starts_with("#[") || above.starts_with("//"))
                .any(|above| above.starts_with("#[test") || above.starts_with("#[tokio::test"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_held_by_a_test_or_says_why_not() {
        run().unwrap();
    }

    #[test]
    fn a_name_alone_is_no_test() {
        let source = "fn helper() {}\n#[tokio::test]\n// Slow.\n#[ignore]\nasync fn real() {}\n";
        assert!(has_test(source, "real"));
        assert!(!has_test(source, "helper"));
        assert!(!has_test(source, "rea"));
    }

    #[test]
    fn rows_that_hold_nothing_are_found() {
        let text = "[[row]]\nid = 1\ncase = \"c\"\ntest = \"worker/src/lib.rs: nowhere\"\n\
                    [[row]]\nid = \"F2\"\ncase = \"c\"\n\
                    [[row]]\nid = 3\ncase = \"c\"\nlater = \"not built\"\n\
                    [[row]]\nid = 4\ncase = \"c\"\ntest = \"conformance_suite: 64, tasks.get_all, nothing\"\n";
        let rows = parse("f", text).unwrap();
        let problems: Vec<_> = rows.iter().map(problem).collect();
        assert_eq!(
            problems[0].as_deref(),
            Some("worker/src/lib.rs has no test nowhere")
        );
        assert_eq!(problems[1].as_deref(), Some("names neither a test nor a reason"));
        assert_eq!(problems[2], None);
        assert_eq!(problems[3].as_deref(), Some("the suite has no case nothing"));
        assert!(parse("f", "id = 1\n").is_err());
        assert!(parse("f", "[[row]]\ntset = \"x\"\n").is_err());
    }
}
