//! A whole list: its lines with what they include, paths made absolute, variables replaced. Looks at files,
//! changes none.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clearml_support::fs::read_limited;
use percent_encoding::percent_decode_str;

use crate::code::info::normal_path;
use crate::packages::requirements::line::{GlobalOption, Line, Problem, Requirement, Target, parse};
use crate::packages::requirements::pep::normal_name;
use crate::packages::requirements::{RequirementSet, logical, source};

/// Lists that include each other more often than this are left alone.
const MAX_FILES: usize = 200;
/// A list that people have written is shorter.
pub(crate) const MAX_LIST: u64 = 16 << 20;

/// A requirement and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What is asked for; paths are absolute.
    pub requirement: Requirement,
    /// The line as it was written.
    pub text: String,
}

/// What a list asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct List {
    /// In order.
    pub entries: Vec<Entry>,
    /// Options for all of them.
    pub options: Vec<GlobalOption>,
    /// Addresses of more indexes, in order, each once.
    pub indexes: Vec<String>,
    /// What is not understood or left out, with the line that it is in.
    pub warnings: Vec<String>,
}

/// Reads a list; `env` has the variables that `${NAME}` stands for.
#[must_use]
pub fn read(set: &RequirementSet, env: &BTreeMap<String, String>) -> List {
    let mut reader = Reader {
        root: &set.folder,
        env,
        files: 0,
        room: MAX_LIST,
        open: Vec::new(),
        list: List::default(),
    };
    reader.text(&set.what, &set.text, &set.includes);
    reader.list
}

/// What a list says about the version of one package: `==1.0` of the first line for it without a place of
/// its own; empty when any will do. Lists that it includes are not looked at.
#[must_use]
pub fn specifier_of(text: &str, name: &str) -> Option<String> {
    let wanted = normal_name(name);
    let found = logical::lines(text).into_iter().filter_map(|(_, line)| {
        let lines = parse(&line).ok()?;
        lines.into_iter().find_map(|line| match line {
            Line::Requirement(Requirement {
                name: Some(name),
                target: Target::Index(specifiers),
                ..
            }) if normal_name(&name) == wanted => Some(specifiers),
            _ => None,
        })
    });
    found.into_iter().next()
}

struct Reader<'a> {
    /// Where paths start.
    root: &'a Path,
    env: &'a BTreeMap<String, String>,
    files: usize,
    /// How many bytes more may be read.
    room: u64,
    /// The files that are being read, for circles.
    open: Vec<PathBuf>,
    list: List,
}

impl Reader<'_> {
    /// Reads the text of `what`; files that it names are looked for in `folder` first.
    fn text(&mut self, what: &str, text: &str, folder: &Path) {
        for (number, written) in logical::lines(text) {
            let place = format!("{what}, line {number}");
            let line = expand(&written, self.env);
            match parse(&line) {
                Ok(lines) => {
                    for line in lines {
                        self.line(line, &place, &written, folder);
                    }
                }
                Err(problem) => self.not_understood(&line, &written, &place, &problem),
            }
        }
    }

    /// The installer may know better than we do, or will say what it thinks of the line.
    fn not_understood(&mut self, line: &str, written: &str, place: &str, problem: &Problem) {
        self.warn(format!(
            "{place}: {written:?} is not understood, and is left to the installer: {problem}"
        ));
        self.list.entries.push(Entry {
            requirement: Requirement::unknown(line),
            text: written.to_owned(),
        });
    }

    fn warn(&mut self, warning: String) {
        self.list.warnings.push(warning);
    }

    fn line(&mut self, line: Line, place: &str, written: &str, folder: &Path) {
        match line {
            Line::Obsolete(option) => {
                self.warn(format!(
                    "{place}: the option {option} does nothing and is left out"
                ));
            }
            Line::ExtraIndex(url) => {
                if !self.list.indexes.contains(&url) {
                    self.list.indexes.push(url);
                }
            }
            Line::Include(file) if file.contains("://") => self.list.options.push(GlobalOption {
                name: "--requirement",
                value: Some(file),
            }),
            Line::Include(file) => self.include(&file, place, folder),
            Line::Option(option) => {
                let option = self.absolute_option(option, folder);
                if !self.list.options.contains(&option) {
                    self.list.options.push(option);
                }
            }
            Line::Requirement(requirement) => self.requirement(requirement, written, folder),
        }
    }

    fn requirement(&mut self, mut requirement: Requirement, written: &str, folder: &Path) {
        // The agent is not a package of the task, whatever an older freeze says.
        let agent = requirement
            .name
            .as_deref()
            .is_some_and(|name| normal_name(name) == "clearml-agent");
        if agent {
            return;
        }
        if let Target::Path(path) = &requirement.target {
            let path = self.local(path, folder);
            requirement.target = Target::Path(path.display().to_string());
        }
        self.list.entries.push(Entry {
            requirement,
            text: written.to_owned(),
        });
    }

    /// A path below the root, or beside the list that names it.
    fn local(&self, path: &str, folder: &Path) -> PathBuf {
        let below = |folder: &Path| match normal_path(path).as_str() {
            "." => folder.to_owned(),
            path => folder.join(path),
        };
        let candidates = [below(self.root), below(folder)];
        let found = candidates.iter().find(|path| path.exists());
        found.unwrap_or(&candidates[0]).clone()
    }

    fn absolute_option(&self, mut option: GlobalOption, folder: &Path) -> GlobalOption {
        let Some(value) = option.value.as_deref().filter(|value| !value.contains("://")) else {
            return option;
        };
        let path = folder.join(value);
        let path = if path.exists() {
            path
        } else {
            self.root.join(value)
        };
        match option.name {
            // pip fails with the name of the file if it is not there, and so it should.
            "--constraint" => option.value = Some(path.display().to_string()),
            "--find-links" if path.exists() => option.value = Some(path.display().to_string()),
            _ => {}
        }
        option
    }

    fn include(&mut self, file: &str, place: &str, folder: &Path) {
        let candidates = [folder.join(file), self.root.join(file)];
        let Some(path) = candidates.iter().find(|path| path.is_file()) else {
            self.warn(format!("{place}: {file} does not exist and is left out"));
            return;
        };
        let real = path.canonicalize().unwrap_or_else(|_| path.clone());
        if self.open.contains(&real) {
            self.warn(format!("{place}: {file} includes itself and is left out"));
            return;
        }
        if self.files == MAX_FILES || self.room == 0 {
            return;
        }
        self.files += 1;
        if self.files == MAX_FILES {
            self.warn(format!(
                "{place}: {file} is left out, and all that follow: these lists include too many others"
            ));
            return;
        }
        match read_limited(path, self.room) {
            Ok(bytes) => {
                self.room -= u64::try_from(bytes.len()).unwrap_or(self.room).min(self.room);
                let folder = path.parent().unwrap_or(self.root).to_owned();
                let what = path.strip_prefix(self.root).unwrap_or(path).display().to_string();
                self.open.push(real);
                self.text(&what, &source::decoded(&bytes), &folder);
                self.open.pop();
            }
            Err(error) => self.warn(format!("{place}: {file} is left out: {error}")),
        }
    }
}

/// Replaces `${NAME}` as pip does: capital letters only, and what is not set stays.
#[must_use]
pub fn expand(line: &str, env: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find("${") {
        out.push_str(&rest[..at]);
        let after = &rest[at + 2..];
        let name = after.split('}').next().unwrap_or_default();
        let is_name = !name.is_empty()
            && name.len() < after.len()
            && name
                .chars()
                .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
        // A value with a line end would be another line for the installer.
        let value = env.get(name).filter(|value| {
            is_name && !value.is_empty() && !value.contains(|c: char| c.is_control() || c == '\u{2028}')
        });
        match value {
            Some(value) => {
                out.push_str(value);
                rest = &after[name.len() + 1..];
            }
            None => {
                out.push_str("${");
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

/// The path of a `file:` address, if it has one, as written and decoded.
pub(crate) fn file_paths(address: &str) -> Option<[PathBuf; 2]> {
    let rest = address
        .get(..5)?
        .eq_ignore_ascii_case("file:")
        .then(|| &address[5..])?;
    let rest = rest.strip_prefix("//").unwrap_or(rest);
    let path = rest
        .strip_prefix("localhost")
        .filter(|rest| rest.starts_with('/'));
    let path = path.unwrap_or(rest);
    let path = path.split(['#', '?']).next().unwrap_or_default();
    let decoded = percent_decode_str(path).decode_utf8_lossy().into_owned();
    Some([PathBuf::from(path), PathBuf::from(decoded)])
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    fn lines(list: &List) -> Vec<String> {
        list.entries.iter().map(|e| e.requirement.to_string()).collect()
    }

    fn read_in(root: &Path, text: &str) -> List {
        read(&RequirementSet::new("the list", text, root), &BTreeMap::new())
    }

    #[test]
    fn paths_are_independent_of_the_folder() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path();
        fs::create_dir_all(root.join("pkg")).unwrap();
        fs::create_dir_all(root.join("sub/own")).unwrap();
        fs::write(root.join("sub/c.txt"), "").unwrap();
        fs::write(root.join("sub/more.txt"), "./own\n-c c.txt\n-f own\n").unwrap();
        let at = |name: &str| root.join(name).display().to_string();
        let list = read_in(
            root,
            "./pkg\n-e .\n-e pkg\n./absent\n-r sub/more.txt\n-f https://h/x\n",
        );
        let expected = [
            at("pkg"),
            format!("-e {}", root.display()),
            format!("-e {}", at("pkg")),
            at("absent"),
            at("sub/own"),
        ];
        assert_eq!(lines(&list), expected);
        assert_eq!(list.entries[0].text, "./pkg");
        let options: Vec<String> = list.options.iter().map(ToString::to_string).collect();
        let expected = [
            format!("--constraint {}", at("sub/c.txt")),
            format!("--find-links {}", at("sub/own")),
            "--find-links https://h/x".to_owned(),
        ];
        assert_eq!(options, expected);
    }

    #[test]
    fn lists_include_others_relative_to_themselves_and_never_for_ever() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path();
        fs::create_dir_all(root.join("sub")).unwrap();
        fs::write(root.join("sub/a.txt"), "one\n-r b.txt\n-r none.txt\n").unwrap();
        fs::write(root.join("sub/b.txt"), "two\n-r ../top.txt\n").unwrap();
        fs::write(root.join("top.txt"), "\u{feff}three\n-r sub/a.txt\n").unwrap();
        std::os::unix::fs::symlink("/dev/zero", root.join("endless")).unwrap();
        let list = read_in(root, "-r sub/a.txt\nfour\n-r endless\n");
        assert_eq!(lines(&list), ["one", "two", "three", "four"]);
        let warnings = list.warnings.join("\n");
        for part in [
            "top.txt, line 2: sub/a.txt includes itself",
            "sub/a.txt, line 3: none.txt does not exist",
            "the list, line 3: endless does not exist",
        ] {
            assert!(warnings.contains(part), "{warnings}");
        }
        // Two files that include each other twice would be read 2ⁿ times.
        for name in ["x", "y"] {
            fs::write(root.join(name), "-r sub/a.txt\n".repeat(300)).unwrap();
        }
        let warnings = read_in(root, "-r x\n-r y").warnings;
        assert!(warnings.last().unwrap().contains("include too many others"));
    }

    #[test]
    fn lines_that_are_not_understood_are_named_and_left_to_the_installer() {
        let list = read_in(
            Path::new("/r"),
            "six\n\n# c\ntwo words  # why\n-Z\nclearml_agent==1\n",
        );
        assert_eq!(lines(&list), ["six", "two words"]);
        assert_eq!(
            list.warnings[0],
            "the list, line 4: \"two words\" is not understood, and is left to the installer: \
             \"two words\" is no name of a package"
        );
        assert!(list.warnings[1].starts_with("the list, line 5: the option --always-unzip"));
    }

    #[test]
    fn indexes_and_variables() {
        let env = BTreeMap::from([
            ("TOKEN".to_owned(), "s3cret".to_owned()),
            ("EMPTY".into(), String::new()),
        ]);
        let text = "--extra-index-url https://u:${TOKEN}@x/simple # c\n--extra-index-url https://u:${TOKEN}@x/simple\n\
                    --index-url https://y\nsix${EMPTY}${token}${}\n--extra-index-url https://z";
        let list = read(&RequirementSet::new("l", text, Path::new("/r")), &env);
        assert_eq!(list.indexes, ["https://u:s3cret@x/simple", "https://z"]);
        assert_eq!(list.options[0].to_string(), "--index-url https://y");
        assert_eq!(lines(&list), ["six${EMPTY}${token}${}"]);
        assert_eq!(expand("${A", &env), "${A");
    }

    #[test]
    fn versions_of_single_packages() {
        for (text, expected) in [
            ("pip==21.3", Some("==21.3")),
            ("six\nPIP < 21", Some("<21")),
            ("pip", Some("")),
            ("pip @ https://h/pip.whl", None),
            ("six", None),
        ] {
            assert_eq!(specifier_of(text, "pip").as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn file_addresses() {
        let of = |text: &str| file_paths(text).map(|[raw, decoded]| (raw.display().to_string(), decoded));
        assert_eq!(of("file:///a%20b#x"), Some(("/a%20b".to_owned(), "/a b".into())));
        assert_eq!(of("file://localhost/a"), Some(("/a".to_owned(), "/a".into())));
        assert_eq!(of("https://a"), None);
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "[ -~\\n\\\\é]{0,120}") {
            let list = read_in(Path::new("/nowhere"), &text);
            prop_assert!(list.entries.len() <= text.lines().count());
            for line in lines(&list) {
                prop_assert!(!line.contains(['\n', '\r']));
            }
        }
    }
}
