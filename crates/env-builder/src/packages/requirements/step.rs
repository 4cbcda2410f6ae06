//! One call of an installer, as a value: what goes into its file, its arguments and its environment.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use clearml_support::command::Command;
use clearml_support::fs::{create_private_file, read_limited};

use crate::code::credentials::Access;
use crate::code::git::with_helper;
use crate::code::hg::with_config;
use crate::code::secret_file::SecretFile;
use crate::error::{FileError, at};
use crate::packages::requirements::line::GlobalOption;
use crate::packages::requirements::logins;
use crate::tools::Context;

/// A netrc file of a person is shorter.
const MAX_NETRC: u64 = 1 << 20;

/// What the installer does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// It installs.
    Install,
    /// It downloads to this folder, without what the packages need.
    Download(PathBuf),
}

/// One call of the installer.
#[derive(Debug)]
pub(crate) struct Step {
    /// For people.
    pub(crate) what: String,
    pub(crate) action: Action,
    /// Lines of the requirements file.
    pub(crate) requirements: Vec<String>,
    /// Options for all of them, also from the list.
    pub(crate) options: Vec<GlobalOption>,
    /// Addresses of more indexes, those of the configuration first.
    pub(crate) indexes: Vec<String>,
    /// The login for the repository that the package comes from.
    pub(crate) access: Option<Access>,
    /// The same for a repository of Mercurial.
    pub(crate) hg: Option<SecretFile>,
    /// What uv takes torch for, in its own words.
    pub(crate) torch_backend: Option<String>,
    /// The name, normalised, of the only package. After `pip`, pip is another one.
    pub(crate) name: Option<String>,
}

/// The text of a requirements file, and what goes beside it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) text: String,
    /// More arguments.
    pub(crate) flags: Vec<String>,
    /// A file with logins, for the variable `NETRC`.
    pub(crate) netrc: Option<String>,
    /// Variables that lose their logins to that file.
    pub(crate) env: Vec<(&'static str, String)>,
}

impl Step {
    /// The text of the requirements file. An index in it replaces all that came before, so options go first.
    pub(crate) fn text(&self) -> String {
        self.text_with(&self.options, &self.indexes)
    }

    fn text_with(&self, options: &[GlobalOption], indexes: &[String]) -> String {
        let mut text = String::new();
        for option in options {
            text.push_str(&format!("{option}\n"));
        }
        for url in indexes {
            text.push_str(&format!("--extra-index-url {url}\n"));
        }
        for line in &self.requirements {
            text.push_str(line);
            text.push('\n');
        }
        text
    }

    /// What pip is called with: logins of indexes go into a file, `theirs` being the one of the user, and
    /// `variables` those that name more indexes.
    pub(crate) fn for_pip(&self, theirs: &str, variables: &[(&'static str, &str)]) -> Call {
        let is_index = |option: &&GlobalOption| matches!(option.name, "--index-url" | "--find-links");
        let of_options = self.options.iter().filter(is_index);
        let urls: Vec<String> = of_options
            .filter_map(|option| option.value.clone())
            .chain(self.indexes.iter().cloned())
            .chain(variables.iter().flat_map(|(_, value)| words(value)))
            .collect();
        let (plain, ours) = logins::to_netrc(&urls, &logins::hosts(theirs));
        if ours.is_empty() {
            return Call {
                text: self.text(),
                ..Call::default()
            };
        }
        let mut plain = plain.into_iter();
        let mut options = self.options.clone();
        for option in options.iter_mut().filter(|option| is_index(&&**option)) {
            option.value = plain.next();
        }
        let indexes: Vec<String> = plain.by_ref().take(self.indexes.len()).collect();
        let without_login = |(name, value): &(&'static str, &str)| {
            let plain: Vec<String> = plain.by_ref().take(words(value).count()).collect();
            (*name, plain.join(" "))
        };
        Call {
            text: self.text_with(&options, &indexes),
            netrc: Some(format!("{ours}\n{theirs}")),
            env: variables.iter().map(without_login).collect(),
            flags: Vec::new(),
        }
    }

    /// What uv is called with: some options of lists are arguments there.
    pub(crate) fn for_uv(&self) -> Call {
        let mut flags = Vec::new();
        let mut options = self.options.clone();
        options.retain(|option| {
            let value = option.value.as_deref().unwrap_or_default();
            match option.name {
                "--pre" => flags.push("--prerelease=allow".to_owned()),
                "--trusted-host" => flags.push(format!("--allow-insecure-host={value}")),
                "--require-hashes" => flags.push("--require-hashes".to_owned()),
                "--prefer-binary" | "--use-feature" => {}
                _ => return true,
            }
            false
        });
        Call {
            text: self.text_with(&options, &self.indexes),
            flags,
            ..Call::default()
        }
    }

    /// Why uv can't do this, if so.
    pub(crate) fn pip_only(&self) -> Option<String> {
        let odd = self.requirements.iter().find(|line| {
            let editable_repository = line.starts_with("-e ") && line.contains("+") && line.contains("://");
            let other_than_git = ["hg+", "svn+", "bzr+"].iter().any(|vcs| line.contains(vcs));
            let own = [" --global-option=", " --install-option=", " --config-setting"];
            editable_repository || other_than_git || own.iter().any(|option| line.contains(option))
        });
        let option = self.options.iter().find(|option| option.name == "--use-feature");
        odd.cloned().or_else(|| option.map(ToString::to_string))
    }

    /// Adds to the environment of the installer what git needs to reach the repository, and what uv needs to
    /// know about torch.
    pub(crate) fn prepare(&self, context: &Context<'_>, mut command: Command) -> Command {
        if let Some(backend) = self
            .torch_backend
            .as_ref()
            .filter(|_| context.var("UV_TORCH_BACKEND").is_none())
        {
            command = command.env("UV_TORCH_BACKEND", backend);
        }
        if let Some(config) = &self.hg {
            command = with_config(context, command, config);
        }
        let Some(access) = &self.access else {
            return command;
        };
        command = with_helper(context, command, access);
        let mut settings: Vec<String> = access.options.clone();
        if let Some(header) = &access.header {
            settings.push(format!("include.path={}", header.path().display()));
        }
        // Installers call git themselves, so what would be `-c` is in variables, behind the user's own.
        let before = context
            .var("GIT_CONFIG_COUNT")
            .and_then(|count| count.trim().parse::<usize>().ok())
            .unwrap_or(0);
        for (index, setting) in settings.iter().enumerate() {
            // The value has no `=` in front of the first of its own; keys may have one in an address.
            let Some((key, value)) = split_setting(setting) else {
                continue;
            };
            command = command
                .env(format!("GIT_CONFIG_KEY_{}", before + index), key)
                .env(format!("GIT_CONFIG_VALUE_{}", before + index), value);
        }
        command.env("GIT_CONFIG_COUNT", (before + settings.len()).to_string())
    }
}

fn words(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split_whitespace().map(str::to_owned)
}

/// Splits `section.name=value` as `git -c` does: at the first `=`.
fn split_setting(setting: &str) -> Option<(&str, &str)> {
    setting.split_once('=')
}

/// The netrc file of the user, or nothing.
pub(crate) fn own_netrc(context: &Context<'_>) -> String {
    let home = context.var("HOME").map(PathBuf::from);
    let named = context.var("NETRC").map(PathBuf::from);
    let candidates = match named {
        Some(path) => vec![path],
        None => home
            .iter()
            .flat_map(|home| [home.join(".netrc"), home.join("_netrc")])
            .collect(),
    };
    candidates
        .iter()
        .filter(|path| path.is_file())
        .find_map(|path| read_limited(path, MAX_NETRC).ok())
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}

/// Writes a file that only this user can read; one of an earlier call is replaced.
pub(crate) fn write_private(path: &Path, text: &str) -> Result<(), FileError> {
    if path.exists() {
        fs::remove_file(path).map_err(at("removing", path))?;
    }
    create_private_file(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(at("writing", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn option(name: &'static str, value: &str) -> GlobalOption {
        GlobalOption {
            name,
            value: Some(value.to_owned()).filter(|value| !value.is_empty()),
        }
    }

    fn step(options: Vec<GlobalOption>, lines: &[&str]) -> Step {
        Step {
            what: "w".into(),
            action: Action::Install,
            requirements: lines.iter().map(|line| (*line).to_owned()).collect(),
            options,
            indexes: vec!["https://a/simple".into(), "https://u:p@b/simple".into()],
            access: None,
            hg: None,
            torch_backend: None,
            name: None,
        }
    }

    #[test]
    fn files_for_pip_and_uv() {
        let options = vec![
            option("--pre", ""),
            option("--index-url", "https://v:q@c/simple"),
            option("--trusted-host", "h"),
            option("--no-binary", ":all:"),
        ];
        let step = step(options, &["six==1"]);
        let more = [("PIP_EXTRA_INDEX_URL", "https://w:r@d/simple https://e/simple")];
        let pip = step.for_pip("machine mine login x password y", &more);
        assert_eq!(
            pip.env,
            [(
                "PIP_EXTRA_INDEX_URL",
                "https://d/simple https://e/simple".to_owned()
            )]
        );
        assert_eq!(
            pip.text,
            "--pre\n--index-url https://c/simple\n--trusted-host h\n--no-binary :all:\n\
             --extra-index-url https://a/simple\n--extra-index-url https://b/simple\nsix==1\n"
        );
        let netrc = pip.netrc.unwrap();
        assert!(
            netrc.starts_with(
                "machine c\nlogin v\npassword q\nmachine b\nlogin u\npassword p\nmachine d\nlogin w"
            ),
            "{netrc}"
        );
        assert!(netrc.ends_with("machine mine login x password y"), "{netrc}");
        let uv = step.for_uv();
        assert_eq!(
            uv.text,
            "--index-url https://v:q@c/simple\n--no-binary :all:\n--extra-index-url https://a/simple\n\
             --extra-index-url https://u:p@b/simple\nsix==1\n"
        );
        assert_eq!(uv.flags, ["--prerelease=allow", "--allow-insecure-host=h"]);
    }

    #[test]
    fn what_only_pip_can_do() {
        for (line, expected) in [
            ("six", false),
            ("-e ./x", false),
            ("-e git+https://h/r", true),
            ("p @ git+https://h/r", false),
            ("hg+https://h/r", true),
            ("a --global-option=x", true),
            ("a --hash=sha256:aa", false),
        ] {
            assert_eq!(step(Vec::new(), &[line]).pip_only().is_some(), expected, "{line}");
        }
        assert!(step(vec![option("--use-feature", "x")], &[]).pip_only().is_some());
    }
}
