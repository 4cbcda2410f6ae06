//! What pip has been told outside of this agent, in the words of uv.
//!
//! uv reads neither `pip.conf` nor the `PIP_*` variables. Indexes, certificates and time limits are
//! translated; where anything else is set, pip itself has to install.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clearml_support::fs::read_limited;

use crate::tools::Context;

/// A configuration file that people have written is shorter.
const MAX_FILE: u64 = 1 << 20;

/// Settings of pip that do not change which packages are installed, or that uv has no need for.
const WITHOUT_EFFECT: [&str; 24] = [
    "break-system-packages",
    "cache-dir",
    "color",
    "compile",
    "config-file",
    "debug",
    "disable-pip-version-check",
    "exists-action",
    "format",
    "log",
    "no-cache-dir",
    "no-clean",
    "no-color",
    "no-compile",
    "no-input",
    "no-python-version-warning",
    "no-warn-conflicts",
    "no-warn-script-location",
    "progress-bar",
    "quiet",
    "require-virtualenv",
    "retries",
    "root-user-action",
    "verbose",
];

/// The configuration of pip for uv. Addresses may contain passwords, so they are lines of the list and
/// not arguments.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PipConfig {
    pub(crate) lines: Vec<String>,
    pub(crate) arguments: Vec<String>,
    pub(crate) variables: Vec<(&'static str, String)>,
}

/// Reads what is in effect. `Err` names the setting that only pip understands.
pub(crate) fn read(context: &Context<'_>) -> Result<PipConfig, String> {
    let (mut settings, mut of_install) = (BTreeMap::new(), BTreeMap::new());
    for file in files(context) {
        // A file that is not there or not readable says nothing, to pip as well.
        let Ok(bytes) = read_limited(&file, MAX_FILE) else {
            continue;
        };
        for (section, key, value) in entries(&String::from_utf8_lossy(&bytes)) {
            match section.as_str() {
                "global" => settings.insert(key, value),
                "install" => of_install.insert(key, value),
                _ => None,
            };
        }
    }
    settings.append(&mut of_install);
    for (name, value) in &context.settings.env {
        if let Some(name) = name.strip_prefix("PIP_").filter(|_| !value.is_empty()) {
            settings.insert(normal_key(name), value.clone());
        }
    }
    translate(&settings)
}

/// The files that pip reads, the last one counting most.
fn files(context: &Context<'_>) -> Vec<PathBuf> {
    let named = context.var("PIP_CONFIG_FILE");
    if named == Some("/dev/null") {
        return Vec::new();
    }
    let home = context.var("HOME").map(PathBuf::from);
    let system = context.var("XDG_CONFIG_DIRS").unwrap_or("/etc/xdg");
    let mut files: Vec<PathBuf> = std::env::split_paths(system)
        .map(|folder| folder.join("pip/pip.conf"))
        .collect();
    files.push(PathBuf::from("/etc/pip.conf"));
    files.extend(home.as_ref().map(|home| home.join(".pip/pip.conf")));
    let user = context.var("XDG_CONFIG_HOME").map(PathBuf::from);
    let user = user.or_else(|| home.map(|home| home.join(".config")));
    files.extend(user.map(|folder| folder.join("pip/pip.conf")));
    files.extend(named.map(PathBuf::from));
    files
}

fn normal_key(key: &str) -> String {
    key.trim()
        .trim_start_matches("--")
        .to_ascii_lowercase()
        .replace('_', "-")
}

/// Section, key and value of each entry. Pure.
fn entries(text: &str) -> Vec<(String, String, String)> {
    let mut out: Vec<(String, String, String)> = Vec::new();
    let mut section = String::new();
    let mut open = false;
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        if let Some(last) = out.last_mut().filter(|_| open && line.starts_with([' ', '\t'])) {
            last.2.push('\n');
            last.2.push_str(trimmed);
        } else if let Some(name) = trimmed.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name.trim().to_owned();
            open = false;
        } else if let Some((key, value)) = trimmed.split_once(['=', ':']) {
            out.push((section.clone(), normal_key(key), value.trim().to_owned()));
            open = true;
        }
    }
    out
}

/// Says it to uv. Pure, except that folders of packages are looked for: uv stops at one that is missing.
fn translate(settings: &BTreeMap<String, String>) -> Result<PipConfig, String> {
    let mut out = PipConfig::default();
    for (key, value) in settings {
        let words = || value.split_whitespace();
        match key.as_str() {
            "index-url" | "pypi-url" => out.lines.push(format!("--index-url {}", value.trim())),
            "extra-index-url" => out
                .lines
                .extend(words().map(|url| format!("--extra-index-url {url}"))),
            "find-links" => {
                let there = |place: &&str| place.contains("://") || Path::new(place).exists();
                let places = words().filter(there);
                out.lines
                    .extend(places.map(|place| format!("--find-links {place}")));
            }
            "no-index" if is_on(value) => out.lines.push("--no-index".to_owned()),
            "trusted-host" => {
                for host in words() {
                    out.arguments
                        .extend(["--allow-insecure-host".to_owned(), host.to_owned()]);
                }
            }
            "cert" => out.variables.push(("SSL_CERT_FILE", value.trim().to_owned())),
            "timeout" | "default-timeout" => {
                let seconds: f64 = value.trim().parse().map_err(|_| key.clone())?;
                out.variables
                    .push(("UV_HTTP_TIMEOUT", format!("{:.0}", seconds.ceil().max(1.0))));
            }
            key if WITHOUT_EFFECT.contains(&key) => {}
            // A switch that is off changes nothing.
            _ if matches!(value.trim(), "0" | "false" | "no" | "off") => {}
            _ => return Err(key.clone()),
        }
    }
    Ok(out)
}

fn is_on(value: &str) -> bool {
    matches!(
        value.trim().to_ascii_lowercase().as_str(),
        "1" | "true" | "yes" | "on" | "y" | "t"
    )
}

/// Says arguments of `pip install` to uv, or gives the one that it does not know. Pure.
pub(crate) fn arguments(flags: &[String]) -> Result<Vec<String>, String> {
    let mut out = Vec::new();
    let mut words = flags.iter();
    while let Some(word) = words.next() {
        let (name, own) = match word.split_once('=') {
            Some((name, value)) if word.starts_with("--") => (name, Some(value.to_owned())),
            _ => (word.as_str(), None),
        };
        match name {
            "--use-deprecated" => {
                if own.is_none() {
                    words.next();
                }
            }
            "--no-deps"
            | "--no-build-isolation"
            | "--no-index"
            | "--upgrade"
            | "--require-hashes"
            | "--quiet"
            | "--verbose" => out.push(name.to_owned()),
            "-U" => out.push("--upgrade".to_owned()),
            "-q" | "-v" => out.push(name.to_owned()),
            "--no-cache-dir" => out.push("--no-cache".to_owned()),
            "--pre" => out.push("--prerelease=allow".to_owned()),
            "--progress-bar"
            | "--no-color"
            | "--no-input"
            | "--disable-pip-version-check"
            | "--no-warn-script-location"
            | "--root-user-action" => {
                if own.is_none() && matches!(name, "--progress-bar" | "--root-user-action") {
                    words.next();
                }
            }
            "--no-binary" | "--only-binary" | "--find-links" | "-f" | "--trusted-host" | "--index-url"
            | "-i" | "--extra-index-url" | "--constraint" | "-c" => {
                let value = own
                    .or_else(|| words.next().cloned())
                    .ok_or_else(|| word.clone())?;
                let name = match name {
                    "--trusted-host" => "--allow-insecure-host",
                    name => name,
                };
                out.extend([name.to_owned(), value]);
            }
            _ => return Err(word.clone()),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn configuration_of_pip_is_said_to_uv() {
        let text = "# mine\n[global]\nindex_url = https://u:p@i/simple\nextra-index-url =\n    https://a/\n    https://b/\n\
            trusted-host: h1 h2\ntimeout = 7.2\ncert = /c.pem\nno-index = false\nroot-user-action=ignore\n[freeze]\nodd = 1\n";
        let found: BTreeMap<String, String> = entries(text)
            .into_iter()
            .filter(|(section, ..)| section == "global")
            .map(|(_, key, value)| (key, value))
            .collect();
        let config = translate(&found).unwrap();
        assert_eq!(
            config.lines,
            [
                "--extra-index-url https://a/",
                "--extra-index-url https://b/",
                "--index-url https://u:p@i/simple"
            ]
        );
        assert_eq!(
            config.arguments,
            words("--allow-insecure-host h1 --allow-insecure-host h2")
        );
        assert_eq!(
            config.variables,
            [
                ("SSL_CERT_FILE", "/c.pem".to_owned()),
                ("UV_HTTP_TIMEOUT", "8".to_owned())
            ]
        );
        let only_pip = BTreeMap::from([("proxy".to_owned(), "http://p".to_owned())]);
        assert_eq!(translate(&only_pip), Err("proxy".to_owned()));
    }

    #[test]
    fn arguments_of_pip_are_said_to_uv() {
        for (given, expected) in [
            (
                "--no-deps --use-deprecated=legacy-resolver --pre",
                Ok("--no-deps --prerelease=allow"),
            ),
            (
                "--trusted-host h --only-binary=:all:",
                Ok("--allow-insecure-host h --only-binary :all:"),
            ),
            ("--use-deprecated legacy-resolver -U", Ok("--upgrade")),
            ("--user", Err("--user")),
            ("--cert=/c", Err("--cert=/c")),
        ] {
            let expected = expected.map(words).map_err(str::to_owned);
            assert_eq!(arguments(&words(given)), expected, "{given}");
        }
    }
}
