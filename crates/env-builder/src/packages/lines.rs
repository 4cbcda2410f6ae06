//! The lines of a requirements list. Pure, except that included files are looked for.
//!
//! Versions, markers and hashes are the installer's business; here lines are joined, cleaned and made
//! independent of the folder that the generated file lies in.

use std::path::{Path, PathBuf};

/// A list in the form in which it goes to the installer.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// The lines.
    pub lines: Vec<String>,
    /// Names that the list asks for, normalised, with their lines.
    pub names: Vec<(String, String)>,
    /// Local folders by what the list calls them.
    pub local: Vec<(PathBuf, String)>,
    /// What was left out, and why.
    pub warnings: Vec<String>,
}

/// A package name as PEP 503 compares it.
#[must_use]
pub fn normal_name(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            '-' | '_' | '.' if out.ends_with('-') => {}
            '-' | '_' | '.' => out.push('-'),
            c => out.push(c.to_ascii_lowercase()),
        }
    }
    out
}

/// The name that a line begins with, if it is a requirement by name.
#[must_use]
pub fn name_of(line: &str) -> Option<&str> {
    let end = line
        .find(|c: char| !c.is_ascii_alphanumeric() && !"._-".contains(c))
        .unwrap_or(line.len());
    let (name, rest) = line.split_at(end);
    let follows = rest
        .trim_start()
        .chars()
        .next()
        .is_none_or(|c| "<>=!~;@[(,".contains(c));
    (name.starts_with(|c: char| c.is_ascii_alphanumeric()) && follows).then_some(name)
}

/// Prepares a list whose relative paths start in `folder`.
#[must_use]
pub fn prepare(text: &str, folder: &Path) -> Prepared {
    let mut out = Prepared::default();
    for line in logical_lines(text) {
        one(&line, folder, &mut out);
    }
    out
}

/// Joins continued lines, and drops comments and empty lines.
fn logical_lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut open = String::new();
    for raw in text.lines() {
        let comment = raw.trim_start().starts_with('#');
        if let Some(begun) = raw.strip_suffix('\\').filter(|_| !comment) {
            open.push_str(begun);
            continue;
        }
        if !comment {
            open.push_str(raw);
        }
        let whole = std::mem::take(&mut open);
        let cut = [" #", "\t#"]
            .iter()
            .filter_map(|mark| whole.find(mark))
            .min()
            .unwrap_or(whole.len());
        let line = whole[..cut].trim();
        if !line.is_empty() {
            lines.push(line.to_owned());
        }
    }
    let rest = open.trim();
    if !rest.is_empty() {
        lines.push(rest.to_owned());
    }
    lines
}

fn one(line: &str, folder: &Path, out: &mut Prepared) {
    if let Some(name) = name_of(line) {
        let name = normal_name(name);
        // The agent is not a package of the task, whatever an older freeze says.
        if name != "clearml-agent" {
            out.lines.push(line.to_owned());
            out.names.push((name, line.to_owned()));
        }
        return;
    }
    if line == "-Z" || line == "--always-unzip" {
        out.warnings
            .push(format!("the option {line} does nothing and is left out"));
        return;
    }
    if let Some((file, option)) = option_value(line, "-r", "--requirement")
        .map(|file| (file, "-r"))
        .or_else(|| option_value(line, "-c", "--constraint").map(|file| (file, "-c")))
    {
        if file.contains("://") {
            out.lines.push(line.to_owned());
        } else if folder.join(file).is_file() {
            out.lines
                .push(format!("{option} {}", folder.join(file).display()));
        } else {
            out.warnings
                .push(format!("{file} does not exist and is left out"));
        }
        return;
    }
    match option_value(line, "-e", "--editable") {
        Some(target) => {
            let target = absolute(target, folder, line, true, out);
            out.lines.push(format!("-e {target}"));
        }
        None => {
            let target = absolute(line, folder, line, false, out);
            out.lines.push(target);
        }
    }
}

/// The value of `-x value`, `-xvalue`, `--long value` or `--long=value`.
fn option_value<'l>(line: &'l str, short: &str, long: &str) -> Option<&'l str> {
    if let Some(rest) = line.strip_prefix(long) {
        return rest.strip_prefix([' ', '=', '\t']).map(str::trim);
    }
    line.strip_prefix(short)
        .filter(|_| !line.starts_with("--"))
        .map(|rest| rest.trim_start_matches('=').trim())
}

/// Makes `./folder`, `../folder` and `.` absolute and remembers what they were called.
fn absolute(target: &str, folder: &Path, line: &str, editable: bool, out: &mut Prepared) -> String {
    let end = target.find([';', ' ', '[', '#']).unwrap_or(target.len());
    let (path, rest) = target.split_at(end);
    let relative = path == "." || path == ".." || path.starts_with("./") || path.starts_with("../");
    let implied = editable && !path.contains("://") && !path.starts_with('/') && folder.join(path).is_dir();
    if !relative && !implied {
        return target.to_owned();
    }
    let normal = crate::code::info::normal_path(path);
    let path = if normal == "." {
        folder.to_owned()
    } else {
        folder.join(normal)
    };
    // `#egg=` names what the folder already knows, and would make some installers ask the index.
    let rest = if rest.trim_start().starts_with('#') {
        ""
    } else {
        rest
    };
    out.local.push((path.clone(), line.to_owned()));
    format!("{}{rest}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_all_kinds() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path();
        std::fs::write(root.join("more.txt"), "").unwrap();
        std::fs::create_dir(root.join("pkg")).unwrap();
        let at = |name: &str| root.join(name).display().to_string();
        for (text, expected) in [
            (
                "# Python 3.11\n\n  six == 1.16.0  # why\n",
                vec!["six == 1.16.0".to_owned()],
            ),
            ("clearml_agent==1.9\nClearML==2", vec!["ClearML==2".into()]),
            (
                "a==1 \\\n  --hash=sha256:aa",
                vec!["a==1   --hash=sha256:aa".into()],
            ),
            (
                "https://h/p-1.0-py3-none-any.whl#sha256=aa",
                vec!["https://h/p-1.0-py3-none-any.whl#sha256=aa".into()],
            ),
            (
                "p @ git+https://h/r.git@abc#egg=p",
                vec!["p @ git+https://h/r.git@abc#egg=p".into()],
            ),
            ("git+https://h/r.git@v1", vec!["git+https://h/r.git@v1".into()]),
            (
                "--pre\n--extra-index-url https://x/simple # c",
                vec!["--pre".into(), "--extra-index-url https://x/simple".into()],
            ),
            ("-r more.txt", vec![format!("-r {}", at("more.txt"))]),
            ("--requirement=more.txt", vec![format!("-r {}", at("more.txt"))]),
            ("-r none.txt", vec![]),
            ("-Z", vec![]),
            ("./pkg", vec![at("pkg")]),
            (
                "./pkg[x] ; python_version>'3'",
                vec![format!("{}[x] ; python_version>'3'", at("pkg"))],
            ),
            ("-e .", vec![format!("-e {}", root.display())]),
            ("-e ./pkg#egg=q", vec![format!("-e {}", at("pkg"))]),
            ("-e pkg", vec![format!("-e {}", at("pkg"))]),
            (
                "-e git+https://h/r@v#egg=q",
                vec!["-e git+https://h/r@v#egg=q".into()],
            ),
            ("# c \\\nsix==1", vec!["six==1".into()]),
            ("a\\", vec!["a".into()]),
        ] {
            assert_eq!(prepare(text, root).lines, expected, "{text:?}");
        }
        assert_eq!(prepare("-r none.txt\n-Z", root).warnings.len(), 2);
        assert_eq!(
            prepare("./pkg", root).local,
            [(root.join("pkg"), "./pkg".to_owned())]
        );
        assert_eq!(
            prepare("Pip==1", root).names,
            [("pip".to_owned(), "Pip==1".to_owned())]
        );
    }

    #[test]
    fn names() {
        assert_eq!(normal_name("Foo.._Bar-baz"), "foo-bar-baz");
        for (line, name) in [
            ("six", Some("six")),
            ("six[a]>=1", Some("six")),
            ("six @ https://h", Some("six")),
            ("six; x", Some("six")),
            ("https://h/x", None),
            ("./six", None),
            ("git+https://h/x", None),
            ("two words", None),
            ("--pre", None),
            ("_x", None),
        ] {
            assert_eq!(name_of(line), name, "{line:?}");
        }
    }
}
