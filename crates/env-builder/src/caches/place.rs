//! Environments name their own place: in the first lines of scripts, in `activate`, in `.pth` files. A
//! restored environment gets the new place instead.

use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use clearml_support::fs::read_limited;

use crate::caches::tree::{Item, Kind};
use crate::error::{FileError, at};

/// Scripts and settings are smaller; a larger file is a program.
const MAX_TEXT: u64 = 1 << 20;
/// The kernel cuts the first line of a script off here.
const MAX_FIRST_LINE: usize = 126;

/// Whether a file may name its place, or is changed in place by installers.
pub(crate) fn is_own(path: &Path) -> bool {
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    path.starts_with("bin")
        || path.starts_with("etc")
        || path.starts_with("share")
        || path.parent() == Some(Path::new(""))
        || matches!(name, "RECORD" | "direct_url.json")
        || name.ends_with(".pth")
}

/// Whether text with this path in it can be given another path by replacing it, whatever quotes it stands in.
pub(crate) fn is_plain(root: &Path) -> bool {
    let bad = |byte: &u8| byte.is_ascii_control() || b"'\"\\$`!#%:".contains(byte);
    root.is_absolute() && !root.as_os_str().as_bytes().iter().any(bad)
}

/// Marks the items that name `root`. What names `outside`, but not as a part of `root`, is given back: it
/// would not be there for another task.
pub(crate) fn mark(items: &mut [Item], root: &Path, outside: &Path) -> Option<std::path::PathBuf> {
    let finder = |name: &str| name.starts_with("__editable__") && name.ends_with(".py");
    for item in items {
        let name = item
            .path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if item.kind != Kind::Own && !(item.kind == Kind::File && finder(name)) {
            continue;
        }
        let Ok(text) = read_limited(&root.join(&item.path), MAX_TEXT) else {
            // A program, which nobody edits.
            item.kind = Kind::File;
            continue;
        };
        let (replaced, count) = replace(&text, root.as_os_str().as_bytes(), b"");
        if contains(&replaced, outside.as_os_str().as_bytes()) {
            return Some(item.path.clone());
        }
        if count > 0 {
            item.kind = Kind::Placed;
        }
    }
    None
}

/// Gives a marked file of an environment that came from `old` the place `new`.
pub(crate) fn replace_in(file: &Path, mode: u32, old: &Path, new: &Path) -> Result<(), FileError> {
    let text = read_limited(file, MAX_TEXT).map_err(at("reading", file))?;
    let text = relocated(&text, old, new);
    // A new file: the old one may be shared, whatever was meant.
    fs::remove_file(file).map_err(at("removing", file))?;
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
        .and_then(|mut file| {
            file.write_all(&text)?;
            file.set_permissions(fs::Permissions::from_mode(mode))
        })
        .map_err(at("writing", file))
}

fn relocated(text: &[u8], old: &Path, new: &Path) -> Vec<u8> {
    let (old_bytes, new_bytes) = (old.as_os_str().as_bytes(), new.as_os_str().as_bytes());
    let Some((python, body)) = interpreter_line(text) else {
        return replace(text, old_bytes, new_bytes).0;
    };
    let (python, _) = replace(python, old_bytes, new_bytes);
    let mut out = first_line(&python);
    out.extend(replace(body, old_bytes, new_bytes).0);
    out
}

/// The interpreter of a script and what follows its first line, for both forms that installers write.
fn interpreter_line(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let (first, rest) = split_line(text)?;
    let program = first.strip_prefix(b"#!")?;
    if program != b"/bin/sh" {
        // Arguments would have to stay; such scripts are replaced as text.
        let is_python = program.starts_with(b"/") && !program.contains(&b' ');
        return is_python.then_some((program, rest));
    }
    let (second, rest) = split_line(rest)?;
    let (third, body) = split_line(rest)?;
    let program = second
        .strip_prefix(b"'''exec' ")?
        .strip_suffix(br#" "$0" "$@""#)?;
    let program = program
        .strip_prefix(b"\"")
        .and_then(|p| p.strip_suffix(b"\""))
        .unwrap_or(program);
    (third == b"' '''").then_some((program, body))
}

fn split_line(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = text.iter().position(|byte| *byte == b'\n')?;
    Some((&text[..end], &text[end + 1..]))
}

/// Long paths and blanks do not fit into the kernel's first line; the shell takes both.
fn first_line(python: &[u8]) -> Vec<u8> {
    if python.len() + 2 <= MAX_FIRST_LINE && !python.contains(&b' ') {
        return [b"#!", python, b"\n"].concat();
    }
    [b"#!/bin/sh\n'''exec' \"", python, b"\" \"$0\" \"$@\"\n' '''\n"].concat()
}

/// Replaces a path where it ends there or goes on below; says how often.
fn replace(text: &[u8], old: &[u8], new: &[u8]) -> (Vec<u8>, usize) {
    let mut out = Vec::with_capacity(text.len());
    let (mut rest, mut count) = (text, 0);
    while let Some(begin) = find(rest, old) {
        let after = &rest[begin + old.len()..];
        let ends = after
            .first()
            .is_none_or(|byte| !byte.is_ascii_alphanumeric() && !b"-_.+@~".contains(byte) && byte.is_ascii());
        out.extend_from_slice(&rest[..begin]);
        out.extend_from_slice(if ends { new } else { old });
        count += usize::from(ends);
        rest = after;
    }
    out.extend_from_slice(rest);
    (out, count)
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    find(text, part).is_some()
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    let first = *part.first()?;
    let mut from = 0;
    while let Some(at) = text.get(from..)?.iter().position(|byte| *byte == first) {
        if text[from + at..].starts_with(part) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_of_all_forms_get_the_new_place() {
        let long = format!("/{}", "l".repeat(200));
        for (text, new, expected) in [
            (
                "#!/a/venv/bin/python\nx",
                "/b/v",
                "#!/b/v/bin/python\nx".to_owned(),
            ),
            (
                "#!/a/venv/bin/python -E\nx",
                "/b/v",
                "#!/b/v/bin/python -E\nx".to_owned(),
            ),
            (
                "#!/bin/sh\n/a/venv/bin/x",
                "/b/v",
                "#!/bin/sh\n/b/v/bin/x".to_owned(),
            ),
            (
                "#!/a/venv/bin/python\nx",
                "/b b",
                "#!/bin/sh\n'''exec' \"/b b/bin/python\" \"$0\" \"$@\"\n' '''\nx".to_owned(),
            ),
            (
                "#!/a/venv/bin/python\nx",
                &long,
                format!("#!/bin/sh\n'''exec' \"{long}/bin/python\" \"$0\" \"$@\"\n' '''\nx"),
            ),
            (
                "#!/bin/sh\n'''exec' /a/venv/bin/python \"$0\" \"$@\"\n' '''\nx",
                "/b",
                "#!/b/bin/python\nx".to_owned(),
            ),
            (
                "VIRTUAL_ENV=/a/venv\nPATH=/a/venv/bin:/a/venv2/x",
                "/b",
                "VIRTUAL_ENV=/b\nPATH=/b/bin:/a/venv2/x".to_owned(),
            ),
        ] {
            let got = relocated(text.as_bytes(), Path::new("/a/venv"), Path::new(new));
            assert_eq!(String::from_utf8(got).unwrap(), expected, "{text:?}");
        }
        assert!(is_plain(Path::new("/a b/é")) && !is_plain(Path::new("/a'b")) && !is_plain(Path::new("a")));
    }
}
