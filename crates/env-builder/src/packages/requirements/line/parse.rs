//! Taking a line apart.

use crate::packages::requirements::line::{
    GlobalOption, Line, MAX_LINE, Problem, Requirement, Target, plain,
};
use crate::packages::requirements::pep::{is_extra, is_name, marker_tree, specifiers};

/// Options for the whole list: short name, long name, whether a value follows.
const OPTIONS: [(&str, &str, bool); 21] = [
    ("-r", "--requirement", true),
    ("-c", "--constraint", true),
    ("-i", "--index-url", true),
    ("", "--pypi-url", true),
    ("", "--extra-index-url", true),
    ("-f", "--find-links", true),
    ("", "--no-index", false),
    ("", "--no-binary", true),
    ("", "--only-binary", true),
    ("", "--prefer-binary", false),
    ("", "--pre", false),
    ("", "--trusted-host", true),
    ("", "--require-hashes", false),
    ("", "--use-feature", true),
    ("-Z", "--always-unzip", false),
    ("", "--use-wheel", false),
    ("", "--no-use-wheel", false),
    ("", "--process-dependency-links", false),
    ("", "--allow-all-external", false),
    ("", "--allow-external", true),
    ("", "--allow-unverified", true),
];

/// Options of one package; all of them have values.
const OWN_OPTIONS: [&str; 5] = [
    "--hash",
    "--config-settings",
    "--config-setting",
    "--global-option",
    "--install-option",
];

/// Reads one line, which has no comment and is not empty.
///
/// # Errors
///
/// [`Problem`] when it is not understood.
pub fn parse(line: &str) -> Result<Vec<Line>, Problem> {
    if line.len() > MAX_LINE {
        return Err(Problem::TooLong);
    }
    if let Some(target) = value_of(line, "-e", "--editable") {
        return Ok(vec![Line::Requirement(editable(target)?)]);
    }
    if line.starts_with('-') {
        return options(line);
    }
    Ok(vec![Line::Requirement(requirement(line)?)])
}

/// The value of `-x value`, `-xvalue`, `--long value` or `--long=value`.
fn value_of<'l>(line: &'l str, short: &str, long: &str) -> Option<&'l str> {
    if let Some(rest) = line.strip_prefix(long) {
        return rest.strip_prefix([' ', '=', '\t']).map(str::trim);
    }
    line.strip_prefix(short)
        .filter(|_| !line.starts_with("--"))
        .map(|rest| rest.trim_start_matches('=').trim())
}

/// What stands between quotes at the beginning, and what follows.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let quote = text.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    text[1..].split_once(quote)
}

fn options(line: &str) -> Result<Vec<Line>, Problem> {
    let mut words = shlex::split(line).ok_or(Problem::Quote)?.into_iter().peekable();
    let mut lines = Vec::new();
    while let Some(word) = words.next() {
        let (name, mut value) = match word.split_once('=') {
            Some((name, value)) if word.starts_with("--") => (name.to_owned(), Some(value.to_owned())),
            _ => (word.clone(), None),
        };
        let known = OPTIONS.iter().find(|(short, long, wants)| {
            *long == name || *short == name || (*wants && !short.is_empty() && sticks(&name, short))
        });
        let Some((short, long, wants_value)) = known else {
            return Err(Problem::Option(name));
        };
        if *wants_value && value.is_none() {
            let rest = name.strip_prefix(short).unwrap_or_default();
            let sticks = !short.is_empty() && name != *long && !rest.is_empty();
            value = if sticks {
                Some(rest.to_owned())
            } else {
                words.next()
            };
        }
        // Names of files may have blanks, as people write them without quotes.
        if let (Some(value), "--requirement" | "--constraint") = (&mut value, *long) {
            while let Some(part) = words.next_if(|word| !word.starts_with('-')) {
                value.push(' ');
                value.push_str(&part);
            }
        }
        if *wants_value && value.as_deref().is_none_or(str::is_empty) {
            return Err(Problem::Value((*long).to_owned()));
        }
        let value = value.filter(|_| *wants_value);
        lines.push(option(long, value));
    }
    Ok(lines)
}

/// Whether a word is a short option with its value behind it, as in `-rfile`.
fn sticks(word: &str, short: &str) -> bool {
    word.starts_with(short) && !word.starts_with("--") && word.len() > short.len()
}

fn option(name: &'static str, value: Option<String>) -> Line {
    match (name, value) {
        ("--requirement", Some(value)) => Line::Include(value),
        ("--extra-index-url", Some(value)) => Line::ExtraIndex(value),
        ("--pypi-url", value) => Line::Option(GlobalOption {
            name: "--index-url",
            value,
        }),
        (
            "--always-unzip"
            | "--use-wheel"
            | "--no-use-wheel"
            | "--process-dependency-links"
            | "--allow-all-external"
            | "--allow-external"
            | "--allow-unverified",
            _,
        ) => Line::Obsolete(name),
        (name, value) => Line::Option(GlobalOption { name, value }),
    }
}

/// A requirement without `-e`.
fn requirement(line: &str) -> Result<Requirement, Problem> {
    let (body, options) = match own_options_at(line) {
        Some(at) => (line[..at].trim(), own_options(&line[at..])?),
        None => (line, Vec::new()),
    };
    let (body, marker) = split_marker(body)?;
    let mut found = source(body)?;
    found.marker = marker;
    found.options = options;
    Ok(found)
}

/// Something after `-e`: a repository or a path, even where it looks like a name.
fn editable(text: &str) -> Result<Requirement, Problem> {
    let whole = match quoted(text) {
        Some((target, rest)) => {
            let (nothing, marker) = split_marker(rest.trim())?;
            let found = source(target).ok().filter(|_| nothing.is_empty());
            found.map(|found| Requirement { marker, ..found })
        }
        None => requirement(text).ok(),
    };
    let mut found = match whole {
        Some(found) => found,
        None if text.is_empty() => return Err(Problem::Empty),
        // pip takes what it does not understand there for a path, too.
        None => plain(Target::Path(text.to_owned())),
    };
    if let (Target::Index(specifiers), Some(name)) = (&found.target, &found.name)
        && specifiers.is_empty()
    {
        found.target = Target::Path(name.clone());
        found.name = None;
    }
    found.editable = true;
    Ok(found)
}

/// Where the options of a package begin.
fn own_options_at(line: &str) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = line[from..].find("--").map(|at| at + from) {
        if line[..at].ends_with([' ', '\t']) {
            return Some(at);
        }
        from = at + 2;
    }
    None
}

fn own_options(text: &str) -> Result<Vec<String>, Problem> {
    let mut words = shlex::split(text).ok_or(Problem::Quote)?.into_iter();
    let mut options = Vec::new();
    while let Some(word) = words.next() {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (word.clone(), words.next()),
        };
        if !OWN_OPTIONS.contains(&name.as_str()) {
            return Err(Problem::Option(name));
        }
        let value = value
            .filter(|value| !value.is_empty())
            .ok_or_else(|| Problem::Value(name.clone()))?;
        options.push(format!("{name}={value}"));
    }
    Ok(options)
}

/// Splits at the `;` of the marker. In an address it is only one beside a blank.
fn split_marker(body: &str) -> Result<(&str, Option<String>), Problem> {
    let address = body.split('#').next().unwrap_or_default();
    let at = if address.contains("://") {
        [" ;", "; "].iter().filter_map(|mark| body.find(mark)).min()
    } else {
        body.find(';')
    };
    let Some(at) = at else {
        return Ok((body, None));
    };
    let marker = body[at..].trim_start().trim_start_matches(';').trim();
    if marker.is_empty() {
        return Ok((body[..at].trim(), None));
    }
    if let Err(why) = marker_tree(marker)
        && why != "the marker is too large"
    {
        let text = marker.to_owned();
        return Err(Problem::Marker { text, why });
    }
    Ok((body[..at].trim(), Some(marker.to_owned())))
}

/// Addresses by their beginning.
fn address(text: &str) -> Option<Target> {
    let lower = text.get(..8.min(text.len())).map(str::to_ascii_lowercase)?;
    let begins = |list: &[&str]| list.iter().any(|prefix| lower.starts_with(prefix));
    if begins(&["git+", "hg+", "svn+", "bzr+", "git://"]) {
        return Some(Target::Vcs(text.to_owned()));
    }
    if begins(&["http://", "https://", "ftp://"]) {
        return Some(Target::Url(text.to_owned()));
    }
    begins(&["file:"]).then(|| Target::File(text.to_owned()))
}

/// Whether a text names a file or folder rather than a package.
fn is_path(text: &str) -> bool {
    let ends = [".whl", ".zip", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz"];
    let lower = text.to_ascii_lowercase();
    text.contains('/') || text.starts_with('.') || ends.iter().any(|end| lower.ends_with(end))
}

fn source(body: &str) -> Result<Requirement, Problem> {
    if body.is_empty() {
        return Err(Problem::Empty);
    }
    if let Some(target) = address(body) {
        return Ok(plain(target));
    }
    if let Some((left, right)) = body.split_once('@')
        && let Ok((name, extras, "")) = name_and_extras(left.trim())
        && !right.trim().is_empty()
        && !right.trim_start().starts_with('-')
    {
        let right = right.trim();
        let target = address(right).unwrap_or_else(|| Target::Path(right.to_owned()));
        return Ok(Requirement {
            name: Some(name.to_owned()),
            extras,
            ..plain(target)
        });
    }
    let (path, bracket) = body.split_at(body.find('[').unwrap_or(body.len()));
    let before_fragment = |text: &str| is_path(text.split('#').next().unwrap_or_default());
    if before_fragment(path) || before_fragment(body) {
        return path_with_extras(body, path, bracket);
    }
    let (name, extras, rest) = name_and_extras(body)?;
    let inner = rest
        .strip_prefix('(')
        .and_then(|rest| rest.strip_suffix(')'))
        .unwrap_or(rest);
    let conditions: String = inner.chars().filter(|c| !c.is_whitespace()).collect();
    if !conditions.is_empty() {
        let text = inner.trim();
        specifiers(text).map_err(|why| Problem::Version {
            text: text.to_owned(),
            why,
        })?;
    }
    Ok(Requirement {
        name: Some(name.to_owned()),
        extras,
        ..plain(Target::Index(conditions))
    })
}

/// `path[extras]`. What `#egg=` says is known to the folder anyway, and would make some installers ask an
/// index for that name.
fn path_with_extras(body: &str, path: &str, bracket: &str) -> Result<Requirement, Problem> {
    let without = |text: &str| text.split('#').next().unwrap_or_default().trim().to_owned();
    let (path, extras) = if bracket.is_empty() || path.contains('#') {
        (without(body), String::new())
    } else {
        (path.trim().to_owned(), extras(&without(bracket))?)
    };
    if path.is_empty() {
        return Err(Problem::Empty);
    }
    Ok(Requirement {
        extras,
        ..plain(Target::Path(path))
    })
}

/// A name, its extras, and what follows.
fn name_and_extras(text: &str) -> Result<(&str, String, &str), Problem> {
    let end = text
        .find(|c: char| !c.is_ascii_alphanumeric() && !"._-".contains(c))
        .unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let rest = rest.trim_start();
    let follows = rest.chars().next().is_none_or(|c| "<>=!~[(".contains(c));
    if !is_name(name) || !follows {
        return Err(Problem::Name(text.to_owned()));
    }
    if !rest.starts_with('[') {
        return Ok((name, String::new(), rest));
    }
    let close = rest.find(']').ok_or_else(|| Problem::Extras(rest.to_owned()))? + 1;
    Ok((name, extras(&rest[..close])?, rest[close..].trim_start()))
}

/// `[a, b]` without blanks; `[]` is nothing.
fn extras(text: &str) -> Result<String, Problem> {
    let wrong = || Problem::Extras(text.to_owned());
    let inner = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .ok_or_else(wrong)?
        .trim();
    if inner.is_empty() {
        return Ok(String::new());
    }
    let names: Vec<&str> = inner.split(',').map(str::trim).collect();
    if names.iter().all(|name| is_extra(name)) {
        Ok(format!("[{}]", names.join(",")))
    } else {
        Err(wrong())
    }
}

/// The name that a line begins with, if it asks for a package by name.
#[must_use]
pub fn name_of(line: &str) -> Option<&str> {
    let end = line
        .find(|c: char| !c.is_ascii_alphanumeric() && !"._-".contains(c))
        .unwrap_or(line.len());
    let (name, rest) = line.split_at(end);
    let rest = rest.trim_start();
    let follows = rest.chars().next().is_none_or(|c| "<>=!~;@[(,".contains(c));
    (is_name(name) && follows && !is_path(name)).then_some(name)
}
