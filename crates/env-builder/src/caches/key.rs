//! What tells one environment from another. Pure, but for the files that a list includes.
//!
//! Two tasks share an environment when everything is equal that decides what an installer would install:
//! interpreter, platform, accelerator, settings, and the lists. How a list is written down does not
//! matter: order, comments, blanks and the spelling of names are taken out. Logins are taken out too, so
//! that a new password neither loses environments nor is guessable from a key.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::code::repo_url::without_password;
use crate::packages::requirements::line::name_of;
use crate::packages::requirements::logical;
use crate::packages::requirements::pep::normal_name;
use crate::packages::requirements::source::decoded;

/// Changes when entries or keys of earlier versions must not be used any more.
pub(crate) const SCHEMA: u32 = 1;

/// How deep lists may include each other.
const MAX_DEPTH: usize = 8;
/// A list that people have written is shorter.
const MAX_LIST: u64 = 16 << 20;

/// Everything that an environment depends on.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct KeyInputs {
    /// `pip`, or the tool whose project it is.
    pub(crate) manager: String,
    pub(crate) python: Python,
    pub(crate) platform: Platform,
    /// CUDA or ROCm as the torch rules name it, else `cpu`.
    pub(crate) cuda: String,
    /// The image that the task names, without arguments.
    pub(crate) image: String,
    /// The interpreter's own packages, if the environment sees them.
    pub(crate) site: Vec<String>,
    /// Settings and variables that reach the installer.
    pub(crate) options: BTreeMap<String, String>,
    pub(crate) lists: Lists,
    /// What a project with a lock file is known by.
    pub(crate) lock: Option<String>,
}

/// Which interpreter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Python {
    pub(crate) implementation: String,
    pub(crate) version: [u32; 3],
    /// Carries the ABI flags.
    pub(crate) cache_tag: String,
    pub(crate) executable: String,
}

/// Which machine.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Platform {
    pub(crate) os: String,
    pub(crate) arch: String,
    pub(crate) libc: String,
}

/// Requirements in a form in which equal ones are equal.
#[derive(Debug, Clone, Default, Serialize, PartialEq, Eq)]
pub(crate) struct Lists {
    /// Options that say where packages come from; their order counts.
    pub(crate) indexes: Vec<String>,
    pub(crate) pip: BTreeSet<String>,
    pub(crate) constraints: BTreeSet<String>,
    pub(crate) conda: BTreeSet<String>,
    /// What files of this machine contain that are to be installed.
    pub(crate) archives: BTreeSet<String>,
}

/// The key: 64 hexadecimal digits.
pub(crate) fn key(inputs: &KeyInputs) -> String {
    // Sets and maps are sorted and fields keep their order, so equal inputs have equal texts.
    let text = serde_json::to_string(&(SCHEMA, inputs)).unwrap_or_default();
    hex(&Sha256::digest(text))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}

impl Lists {
    /// Adds a list whose included files are looked for in `folder`. `false` when what it includes can't
    /// be known, which makes the environment one of a kind.
    pub(crate) fn add(&mut self, text: &str, folder: &Path) -> bool {
        self.add_lines(text, &[folder.to_owned()], false, 0)
    }

    /// Whether one of these packages is listed, by their normal names.
    pub(crate) fn have_any(&self, names: &[&str]) -> bool {
        let name = |line: &String| name_of(line).map(normal_name);
        self.pip
            .iter()
            .filter_map(name)
            .any(|name| names.contains(&name.as_str()))
    }

    /// Whether all requirements by name have one exact version.
    pub(crate) fn are_pinned(&self) -> bool {
        let pinned = |line: &String| {
            line.starts_with('-')
                || line.contains(" @ ")
                || line.contains("://")
                || (line.contains("==") && !line.contains('*'))
        };
        self.pip.iter().all(pinned) && self.conda.iter().all(|line| line.contains('='))
    }

    fn add_lines(&mut self, text: &str, folders: &[PathBuf], constraint: bool, depth: usize) -> bool {
        if depth > MAX_DEPTH {
            return false;
        }
        logical::lines(text).iter().all(|(_, line)| {
            if let Some(file) = option_value(line, "-r", "--requirement") {
                return self.add_file(line, file, folders, constraint, depth);
            }
            if let Some(file) = option_value(line, "-c", "--constraint") {
                return self.add_file(line, file, folders, true, depth);
            }
            if is_index_option(line) {
                self.indexes.push(words(line));
            } else if constraint {
                self.constraints.insert(normal_line(line));
            } else if name_of(line).is_none_or(|name| normal_name(name) != "clearml-agent") {
                self.pip.insert(normal_line(line));
                return self.add_archive(line, &folders[0]);
            }
            true
        })
    }

    /// A file of this machine is another package when it has another content. `false` when that can't be
    /// known.
    fn add_archive(&mut self, line: &str, folder: &Path) -> bool {
        let path = match (line.find("file://"), name_of(line)) {
            (Some(at), _) => &line[at + "file://".len()..],
            (None, None) if !line.starts_with('-') && !line.contains("://") => line,
            _ => return true,
        };
        let path = path.split(['#', ';', ' ']).next().unwrap_or_default();
        let path = folder.join(
            percent_encoding::percent_decode_str(path)
                .decode_utf8_lossy()
                .as_ref(),
        );
        if !path.is_file() {
            return true;
        }
        let mut hash = Sha256::new();
        let copied = std::fs::File::open(&path).and_then(|mut file| std::io::copy(&mut file, &mut hash));
        self.archives.insert(hex(&hash.finalize()));
        copied.is_ok()
    }

    fn add_file(
        &mut self,
        line: &str,
        file: &str,
        folders: &[PathBuf],
        constraint: bool,
        depth: usize,
    ) -> bool {
        if file.contains("://") {
            return false;
        }
        let found = folders
            .iter()
            .rev()
            .map(|folder| folder.join(file))
            .find(|path| path.is_file());
        let Some(path) = found else {
            self.pip.insert(words(line));
            return true;
        };
        let Ok(bytes) = clearml_support::fs::read_limited(&path, MAX_LIST) else {
            return false;
        };
        let mut folders = folders.to_vec();
        folders.extend(path.parent().map(Path::to_owned));
        self.add_lines(&decoded(&bytes), &folders, constraint, depth + 1)
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

fn is_index_option(line: &str) -> bool {
    const LONG: [&str; 6] = [
        "--index-url",
        "--extra-index-url",
        "--find-links",
        "--no-index",
        "--pre",
        "--trusted-host",
    ];
    LONG.iter().any(|option| line.starts_with(option))
        || ["-i", "-f"]
            .iter()
            .any(|option| option_value(line, option, "--no-such-option").is_some())
}

/// Single blanks, and addresses without logins.
fn words(line: &str) -> String {
    let word = |word: &str| match word.split_once("://") {
        // The scheme may stand behind `--index-url=`.
        Some((before, _)) => {
            let begin = before.rfind(['=', '@']).map_or(0, |at| at + 1);
            format!("{}{}", &word[..begin], without_login(&word[begin..]))
        }
        None => word.to_owned(),
    };
    line.split_whitespace().map(word).collect::<Vec<_>>().join(" ")
}

/// An address without user and password. The user of ssh is part of the address.
fn without_login(url: &str) -> String {
    let plain = without_password(url);
    match plain.split_once("://") {
        Some((scheme, rest)) if !scheme.ends_with("ssh") => {
            let end = rest.find('/').unwrap_or(rest.len());
            let host = rest[..end].rfind('@').map_or(0, |at| at + 1);
            format!("{scheme}://{}", &rest[host..])
        }
        _ => plain,
    }
}

/// A value that may be an address, or several, without logins.
pub(crate) fn address(value: &str) -> String {
    words(value)
}

/// A requirement, spelled in the one way in which it is compared.
fn normal_line(line: &str) -> String {
    let Some(name) = name_of(line) else {
        return words(line);
    };
    let rest = &line[name.len()..];
    let (rest, options) = match rest.find(" --") {
        Some(at) => (&rest[..at], &rest[at..]),
        None => (rest, ""),
    };
    let (extras, rest) = match rest
        .trim_start()
        .strip_prefix('[')
        .and_then(|r| r.split_once(']'))
    {
        Some((extras, rest)) => (sorted(extras, normal_name), rest),
        None => (String::new(), rest),
    };
    let (what, marker) = match rest.trim_start().strip_prefix('@') {
        // A semicolon may be part of an address; the one of a marker has a blank before it.
        Some(url) => {
            let (url, marker) = url.split_once(" ;").unwrap_or((url, ""));
            (format!(" @ {}", words(url)), marker)
        }
        None => {
            let (specifiers, marker) = rest.split_once(';').unwrap_or((rest, ""));
            let bare = specifiers.trim().trim_start_matches('(').trim_end_matches(')');
            (
                sorted(bare, |one| one.split_whitespace().collect::<String>()),
                marker,
            )
        }
    };
    let mut options: Vec<&str> = options.split_whitespace().collect();
    options.sort_unstable();
    let mut text = normal_name(name);
    if !extras.is_empty() {
        let _infallible = write!(text, "[{extras}]");
    }
    text.push_str(&what);
    if !marker.trim().is_empty() {
        let _infallible = write!(
            text,
            ";{}",
            marker.replace('"', "'").split_whitespace().collect::<String>()
        );
    }
    for option in options {
        let _infallible = write!(text, " {option}");
    }
    text
}

fn sorted(list: &str, normal: impl Fn(&str) -> String) -> String {
    let mut parts: Vec<String> = list
        .split(',')
        .map(|part| normal(part.trim()))
        .filter(|part| !part.is_empty())
        .collect();
    parts.sort_unstable();
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lists(text: &str) -> Lists {
        let mut lists = Lists::default();
        assert!(lists.add(text, Path::new("/nonexistent")));
        lists
    }

    fn of(text: &str) -> String {
        key(&KeyInputs {
            lists: lists(text),
            ..KeyInputs::default()
        })
    }

    #[test]
    fn how_a_list_is_written_does_not_matter() {
        for (one, other) in [
            ("b==1\n# x\na==2", "a==2\nb==1"),
            ("Foo.Bar == 1 # why", "foo-bar==1"),
            ("a>=1,<2", "a <2 , >=1"),
            ("a[X,y]==1", "a[y,x]==1"),
            ("a==1 ; python_version > \"3\"", "a==1;python_version>'3'"),
            (
                "a==1 \\\n  --hash=sha256:bb --hash=sha256:aa",
                "a==1 --hash=sha256:aa --hash=sha256:bb",
            ),
            ("a (==1)", "a==1"),
            ("clearml-agent==1.9\na==1", "a==1\na==1"),
            (
                "--index-url https://u:old@h/simple",
                "--index-url  https://u:new@h/simple",
            ),
            (
                "p @ git+https://me:secret@h/r.git@v1",
                "p @ git+https://h/r.git@v1",
            ),
        ] {
            assert_eq!(of(one), of(other), "{one:?} {other:?}: {:?}", lists(one));
        }
        for (one, other) in [
            ("a==1", "a==2"),
            ("a==1", "a>=1"),
            ("a==1", "a[x]==1"),
            ("a==1", "a==1; python_version > '3'"),
            ("a==1", "--pre\na==1"),
            ("-f x\n-f y", "-f y\n-f x"),
            ("p @ git+https://h/r.git@v1", "p @ git+https://h/r.git@v2"),
            ("p @ git+ssh://one@h/r.git", "p @ git+ssh://two@h/r.git"),
            ("-e ./a", "./a"),
        ] {
            assert_ne!(of(one), of(other), "{one:?} {other:?}");
        }
        assert!(
            !format!(
                "{:?}",
                lists("-i https://u:geheim@h/s\na @ https://u:geheim@h/a.whl")
            )
            .contains("geheim")
        );
    }

    #[test]
    fn what_a_list_includes_is_part_of_it() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path();
        let write = |name: &str, text: &str| std::fs::write(root.join(name), text).unwrap();
        std::fs::create_dir(root.join("sub")).unwrap();
        write("a.txt", "one\n-r sub/b.txt\n");
        write("sub/b.txt", "two\n-c limits.txt\n");
        write("sub/limits.txt", "three<4\n");
        let read = || {
            let mut lists = Lists::default();
            lists.add("-r a.txt", root).then_some(lists)
        };
        let before = read().unwrap();
        assert_eq!(before.pip.iter().collect::<Vec<_>>(), ["one", "two"]);
        assert_eq!(before.constraints.iter().collect::<Vec<_>>(), ["three<4"]);
        write("sub/limits.txt", "three<5\n");
        assert_ne!(read().unwrap(), before);
        write("sub/b.txt", "./w-1.whl");
        write("w-1.whl", "1");
        let before = read().unwrap();
        write("w-1.whl", "2");
        assert_ne!(read().unwrap(), before, "the content of files counts");
        write("sub/b.txt", "-r ../a.txt\n");
        assert!(read().is_none(), "lists that include each other have no end");
        assert!(!Lists::default().add("-r https://h/list.txt", root));
        assert!(lists("a==1\n--pre\nb @ https://h/b.whl").are_pinned());
        assert!(!lists("a==1\nb>=2").are_pinned() && !lists("a==1.*").are_pinned());
    }

    fn sample() -> KeyInputs {
        KeyInputs {
            manager: "pip".into(),
            python: Python {
                implementation: "cpython".into(),
                version: [3, 10, 4],
                cache_tag: "cpython-310".into(),
                executable: "/usr/bin/python3.10".into(),
            },
            platform: Platform {
                os: "linux".into(),
                arch: "x86_64".into(),
                libc: "glibc 2.36".into(),
            },
            cuda: "118".into(),
            image: "img".into(),
            site: vec!["a".into()],
            options: [("upgrade".to_owned(), "false".to_owned())].into(),
            lists: lists("a==1"),
            lock: Some("x".into()),
        }
    }

    type Change = fn(&mut KeyInputs);

    #[test]
    fn every_input_changes_the_key() {
        let changes: &[(&str, Change)] = &[
            ("manager", |i| i.manager = "uv-project".into()),
            ("implementation", |i| i.python.implementation = "pypy".into()),
            ("patch version", |i| i.python.version = [3, 10, 12]),
            ("abi", |i| i.python.cache_tag = "cpython-310t".into()),
            ("executable", |i| i.python.executable = "/opt/python3.10".into()),
            ("os", |i| i.platform.os = "macos".into()),
            ("arch", |i| i.platform.arch = "aarch64".into()),
            ("libc", |i| i.platform.libc = "musl".into()),
            ("cuda", |i| i.cuda = "121".into()),
            ("image", |i| i.image = "other".into()),
            ("site", |i| i.site.clear()),
            ("options", |i| {
                drop(i.options.insert("upgrade".into(), "true".into()))
            }),
            ("indexes", |i| i.lists.indexes.push("--pre".into())),
            ("pip", |i| i.lists.pip.extend(["b".into()])),
            ("constraints", |i| i.lists.constraints.extend(["b".into()])),
            ("conda", |i| i.lists.conda.extend(["b".into()])),
            ("archives", |i| i.lists.archives.extend(["b".into()])),
            ("lock", |i| i.lock = None),
        ];
        let mut seen: BTreeMap<String, &str> = [(key(&sample()), "nothing")].into();
        for (name, change) in changes {
            let mut inputs = sample();
            change(&mut inputs);
            let other = seen.insert(key(&inputs), name);
            assert_eq!(other, None, "{name}");
        }
        assert_eq!(key(&sample()), key(&sample()));
        assert_eq!(key(&sample()).len(), 64);
    }

    proptest! {
        #[test]
        fn order_blanks_and_comments_are_nothing(
            names in proptest::collection::btree_set("[a-z]{1,6}", 1..8), seed in any::<u64>(),
        ) {
            let names: Vec<String> = names.into_iter().collect();
            let plain: String = names.iter().map(|name| format!("{name}==1.0\n")).collect();
            let mut mixed = names.clone();
            let length = mixed.len();
            for at in 0..length {
                mixed.swap(at, (usize::try_from(seed % 97).unwrap() * (at + 3)) % length);
            }
            let mixed: String = mixed
                .iter()
                .map(|name| format!("\n  {} ==  1.0   # {seed}\n# {name}\n", name.to_uppercase()))
                .collect();
            prop_assert_eq!(of(&plain), of(&mixed));
            prop_assert_ne!(of(&plain), of(&format!("{plain}zzzzzzzz\n")));
        }
    }
}
