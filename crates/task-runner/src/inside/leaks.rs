//! Looking for secrets in files before they become part of an image.
//!
//! Only what has been written since the build began is read; what is mounted does not belong to the image. A secret
//! is found as it is, as it stands in addresses, and inside of a login in base64. One that was compressed or
//! encrypted is not found.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clearml_support::fs::read_limited;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use regex::bytes::{Regex, RegexBuilder};

/// What is shorter occurs by accident.
const SHORTEST: usize = 8;
/// The same for lines of files with keys.
const SHORTEST_LINE: usize = 16;
const MAX_KEY: u64 = 1 << 20;
/// Folders of keys have fewer files, with less in them.
const MOST_FILES: usize = 10_000;
const MAX_KEYS: usize = 4 << 20;
const WINDOW: usize = 1 << 20;
/// The expression of a thousand keys is smaller.
const MAX_EXPRESSION: usize = 256 << 20;

/// What to look for.
pub(super) struct Leaks {
    expression: Regex,
    longest: usize,
}

impl Leaks {
    /// `None` if there is nothing to look for. An error if it is too much.
    pub(super) fn new(secrets: impl Iterator<Item = String>) -> io::Result<Option<Self>> {
        let forms: BTreeSet<String> = secrets
            .filter(|secret| secret.len() >= SHORTEST)
            .flat_map(|secret| forms(&secret))
            .collect();
        let Some(longest) = forms.iter().map(String::len).max() else {
            return Ok(None);
        };
        let parts: Vec<String> = forms.iter().map(|form| regex::escape(form)).collect();
        let expression = RegexBuilder::new(&parts.join("|"))
            .unicode(false)
            .size_limit(MAX_EXPRESSION)
            .build()
            .map_err(io::Error::other)?;
        Ok(Some(Self { expression, longest }))
    }

    /// Files below a folder, on its own file system, that were changed since then and hold one of them; so many at
    /// most. What this user may not read was not written by this user.
    pub(super) fn find(&self, root: &Path, since: SystemTime, most: usize) -> io::Result<Vec<PathBuf>> {
        let mounted = mount_points();
        let mut found = Vec::new();
        let mut folders = vec![root.to_owned()];
        while let Some(folder) = folders.pop() {
            let entries = match std::fs::read_dir(&folder) {
                Ok(entries) => entries,
                Err(e) if is_elsewhere(&e) => continue,
                Err(e) => return Err(e),
            };
            for entry in entries {
                let path = entry?.path();
                if mounted.contains(&path) {
                    continue;
                }
                let meta = match path.symlink_metadata() {
                    Ok(meta) => meta,
                    Err(e) if is_elsewhere(&e) => continue,
                    Err(e) => return Err(e),
                };
                let is_new = changed(&meta) >= since;
                if is_new && self.is_in(&path, &meta)? {
                    found.push(path.clone());
                    if found.len() == most {
                        return Ok(found);
                    }
                }
                if meta.is_dir() {
                    folders.push(path);
                }
            }
        }
        Ok(found)
    }

    fn is_in(&self, path: &Path, meta: &std::fs::Metadata) -> io::Result<bool> {
        let name = path.file_name().unwrap_or_default();
        if self.expression.is_match(name.as_bytes()) {
            return Ok(true);
        }
        let read = if meta.is_symlink() {
            std::fs::read_link(path).map(|target| self.expression.is_match(target.as_os_str().as_bytes()))
        } else if meta.is_file() {
            File::open(path).and_then(|file| self.is_in_text(file))
        } else {
            Ok(false)
        };
        match read {
            Err(e) if is_elsewhere(&e) => Ok(false),
            read => read,
        }
    }

    fn is_in_text(&self, mut file: impl Read) -> io::Result<bool> {
        let mut window = vec![0; WINDOW + self.longest];
        let mut kept = 0;
        loop {
            let count = match file.read(&mut window[kept..]) {
                Ok(0) => return Ok(false),
                Ok(count) => count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            let end = kept + count;
            if self.expression.is_match(&window[..end]) {
                return Ok(true);
            }
            // The end may be the beginning of one.
            kept = end.min(self.longest - 1);
            window.copy_within(end - kept..end, 0);
        }
    }
}

/// How a secret may stand in a file.
fn forms(secret: &str) -> Vec<String> {
    let in_address = utf8_percent_encode(secret, NON_ALPHANUMERIC).to_string();
    let mut forms = vec![secret.to_owned(), in_address];
    // Inside of base64, a text has one of three forms, by how many bytes are before it.
    let skipped = (0..3).filter_map(|skipped| secret.as_bytes().get(skipped..));
    let whole = skipped.map(|bytes| STANDARD.encode(&bytes[..bytes.len() - bytes.len() % 3]));
    forms.extend(whole.filter(|form| form.len() >= SHORTEST));
    forms
}

/// Lines of files with keys. What everybody may know is no key. No link to a folder is followed, and only regular
/// files are opened. More than what is looked for is an error: nothing may be left out unnoticed.
pub(super) fn key_lines(folder: &Path) -> io::Result<Vec<String>> {
    let too_much = || {
        let folder = folder.display();
        io::Error::other(format!(
            "{folder} holds too much for a folder of keys; keep keys alone in it"
        ))
    };
    let (mut lines, mut count, mut size) = (Vec::new(), 0, 0);
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).into_iter().flatten().flatten() {
            count += 1;
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(entry.path());
            } else if !is_public(&entry.file_name().to_string_lossy()) {
                let own = lines_of(&entry.path()).unwrap_or_default();
                size += own.iter().map(String::len).sum::<usize>();
                lines.extend(own);
            }
            if count > MOST_FILES || size > MAX_KEYS {
                return Err(too_much());
            }
        }
    }
    Ok(lines)
}

fn is_public(name: &str) -> bool {
    ["config", "authorized_keys", ".gitconfig"].contains(&name)
        || name.starts_with("known_hosts")
        || name.ends_with(".pub")
}

/// The lines of a key that could be secrets. What is empty may be a file of the kernel that never ends.
fn lines_of(path: &Path) -> Option<Vec<String>> {
    let meta = path.metadata().ok()?;
    if !meta.is_file() || !(1..=MAX_KEY).contains(&meta.len()) {
        return None;
    }
    let text = read_limited(path, MAX_KEY).ok()?;
    let text = String::from_utf8_lossy(&text);
    let own = text
        .lines()
        .map(str::trim)
        .filter(|line| line.len() >= SHORTEST_LINE && !line.starts_with("-----") && !line.starts_with('#'));
    Some(own.map(str::to_owned).collect())
}

/// It is gone, or not ours.
fn is_elsewhere(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied
    )
}

/// The last change of a file or of its name, which no program can set.
fn changed(meta: &std::fs::Metadata) -> SystemTime {
    let (Ok(seconds), Ok(nanos)) = (u64::try_from(meta.ctime()), u64::try_from(meta.ctime_nsec())) else {
        return UNIX_EPOCH;
    };
    UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_nanos(nanos)
}

/// Where something is mounted; see proc_pid_mountinfo(5).
fn mount_points() -> BTreeSet<PathBuf> {
    let table = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    let points = table
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4).map(unescape));
    points.filter(|path| path != Path::new("/")).collect()
}

/// `\040` is a space.
fn unescape(text: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let octal = (*first == b'\\').then(|| after.get(..3)).flatten();
        let octal = octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match octal {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    std::ffi::OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_found_in_every_form_and_nowhere_else() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        std::fs::create_dir(root.join("deep")).unwrap();
        let write = |name: &str, text: &[u8]| std::fs::write(root.join(name), text).unwrap();
        write("deep/plain", b"a = 's3cret/w0rd!'");
        write("address", b"https://me:s3cret%2Fw0rd%21@host/");
        // robot:s3cret/w0rd!
        write("header", b"AUTHORIZATION: basic cm9ib3Q6czNjcmV0L3cwcmQh");
        let mut long = vec![b'x'; WINDOW - 4];
        long.extend(b"s3cret/w0rd!");
        write("across", &long);
        std::os::unix::fs::symlink("to-s3cret/w0rd!", root.join("link")).unwrap();
        write("s3cret", b"s3cret w0rd!");
        write("short", b"abc");
        let leaks = Leaks::new(["s3cret/w0rd!", "abc"].into_iter().map(str::to_owned))
            .unwrap()
            .unwrap();
        let mut found = leaks.find(root, UNIX_EPOCH, 100).unwrap();
        found.sort();
        let names = ["across", "address", "deep/plain", "header", "link"].map(|name| root.join(name));
        assert_eq!(found, names);
        assert_eq!(leaks.find(root, UNIX_EPOCH, 2).unwrap().len(), 2);
        let later = SystemTime::now() + Duration::from_secs(60);
        assert!(leaks.find(root, later, 100).unwrap().is_empty());
        let nothing = Leaks::new(std::iter::once("short".to_owned()));
        assert!(nothing.unwrap().is_none());
    }

    #[test]
    fn lines_of_keys_are_secrets_and_public_ones_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let line = "b3BlbnNzaC1rZXktdjEAAAAABG5vbmU";
        let text = format!(
            "-----BEGIN OPENSSH PRIVATE KEY-----\n{line}\nshort\n-----END OPENSSH PRIVATE KEY-----\n"
        );
        for name in ["id_ed25519", "id_ed25519.pub", "known_hosts", "config"] {
            std::fs::write(folder.path().join(name), &text).unwrap();
        }
        assert_eq!(key_lines(folder.path()).unwrap(), [line]);
        assert!(key_lines(&folder.path().join("none")).unwrap().is_empty());
        assert_eq!(unescape(br"/a\040b\x"), PathBuf::from(r"/a b\x"));
    }

    #[test]
    fn a_folder_of_keys_with_loops_pipes_and_masses_is_read_once_or_refused() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let line = "b3BlbnNzaC1rZXktdjEAAAAABG5vbmU";
        std::fs::write(root.join("id"), line).unwrap();
        for name in ["again", "once-more"] {
            std::os::unix::fs::symlink(".", root.join(name)).unwrap();
        }
        std::os::unix::fs::symlink("/proc/kmsg", root.join("endless")).unwrap();
        // Opening it would wait for somebody who writes.
        let pipe = std::process::Command::new("mkfifo")
            .arg(root.join("pipe"))
            .status();
        assert!(pipe.unwrap().success());
        assert_eq!(key_lines(root).unwrap(), [line]);
        // A link to a file is a key under another name.
        let other = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(root.join("id"), other.path().join("id")).unwrap();
        assert_eq!(key_lines(other.path()).unwrap(), [line]);
        let mass = "0123456789abcdef".repeat(60_000);
        for name in ["a", "b", "c", "d", "e"] {
            std::fs::write(root.join(name), &mass).unwrap();
        }
        let error = key_lines(root).unwrap_err().to_string();
        assert!(error.contains("too much for a folder of keys"), "{error}");
    }
}
