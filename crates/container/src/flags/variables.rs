//! Variables and labels, also from files of this machine.

use std::fs;
use std::io::Read as _;
use std::path::Path;

use super::draft::Draft;
use super::fields::Set;

/// A file that an option names is not read beyond this.
const MAX_FILE: u64 = 1 << 20;

pub(super) fn env(draft: &mut Draft<'_>, value: &str) -> Set {
    let line = variable(draft, value)?;
    draft.env.extend(line);
    Ok(())
}

/// A variable that is named without a value has the caller's one; if there is none, it is taken away.
fn variable(draft: &Draft<'_>, text: &str) -> Result<Option<String>, String> {
    let name = text.split('=').next().unwrap_or_default();
    if name.is_empty() {
        return Err("NAME or NAME=VALUE is expected".to_owned());
    }
    if text.contains('=') {
        return Ok(Some(text.to_owned()));
    }
    Ok(Some((draft.environment)(name).map_or_else(
        || name.to_owned(),
        |value| format!("{name}={value}"),
    )))
}

pub(super) fn env_file(draft: &mut Draft<'_>, value: &str) -> Set {
    for line in lines(value)? {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if line
            .split('=')
            .next()
            .is_some_and(|name| name.contains(char::is_whitespace))
        {
            return Err("a name in this file contains white space".to_owned());
        }
        // A name alone that has no value here is left out.
        if let Some(variable) = variable(draft, line)?.filter(|variable| variable.contains('=')) {
            draft.env_of_files.push(variable);
        }
    }
    Ok(())
}

pub(super) fn label(draft: &mut Draft<'_>, value: &str) -> Set {
    let entry = label_of(value)?;
    draft.labels.push(entry);
    Ok(())
}

pub(super) fn label_file(draft: &mut Draft<'_>, value: &str) -> Set {
    for line in lines(value)? {
        let line = line.trim_start();
        if !line.is_empty() && !line.starts_with('#') {
            let entry = label_of(line)?;
            draft.labels_of_files.push(entry);
        }
    }
    Ok(())
}

fn label_of(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    if name.is_empty() {
        return Err("NAME or NAME=VALUE is expected".to_owned());
    }
    Ok((name.to_owned(), value.to_owned()))
}

/// The lines of a small file of this machine.
pub(super) fn lines(path: &str) -> Result<Vec<String>, String> {
    let failed = |e: std::io::Error| format!("the file can't be read: {e}");
    let file = fs::File::open(Path::new(path)).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err("this is not a file".to_owned());
    }
    let mut text = String::new();
    file.take(MAX_FILE + 1)
        .read_to_string(&mut text)
        .map_err(failed)?;
    if text.len() as u64 > MAX_FILE {
        return Err("the file is larger than 1 MiB".to_owned());
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    Ok(text.lines().map(str::to_owned).collect())
}
