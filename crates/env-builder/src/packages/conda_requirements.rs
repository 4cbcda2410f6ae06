//! What conda installs and what is left to pip. Pure.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::packages::requirements::line::{Line, Requirement, Target, parse};
use crate::packages::requirements::logical;
use crate::packages::requirements::pep::{Surroundings, normal_name};

/// The lists of a task, or of a file of its repository, and the machine that they are for.
#[derive(Debug)]
pub(crate) struct Wish<'a> {
    /// The list for conda: none means that conda shall try what is for pip, an empty one that it shall not.
    pub(crate) conda: Option<&'a str>,
    pub(crate) pip: Option<&'a str>,
    pub(crate) channels: &'a [String],
    /// Ten times the major plus the minor version of CUDA, if there is a GPU.
    pub(crate) cuda: Option<u32>,
    pub(crate) here: &'a Surroundings,
}

/// A package for conda: its name there, and the range as conda writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) range: String,
    /// The line that it comes from; none for what was added here.
    line: Option<String>,
}

/// Who installs what.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Split {
    pub(crate) conda: Vec<Package>,
    pub(crate) pip: Vec<String>,
}

const TOOLKITS: [&str; 2] = ["cudatoolkit", "cuda-toolkit"];
const TENSORFLOW: [&str; 3] = ["tensorflow", "tensorflow-gpu", "tensorflow-cpu"];

impl Split {
    /// Divides the lists.
    pub(crate) fn new(wish: &Wish<'_>) -> Self {
        let mut out = Self::default();
        let Some(source) = wish.conda.or(wish.pip) else {
            return out;
        };
        for (line, requirement) in requirements(source) {
            out.one(wish, line, requirement);
        }
        if wish.conda.is_some() {
            out.merge_pip(wish);
        }
        if wish.conda.is_some_and(|text| text.trim().is_empty()) {
            return out;
        }
        out.complete(wish);
        out
    }

    fn one(&mut self, wish: &Wish<'_>, line: String, requirement: Option<Requirement>) {
        let Some((name, range)) = requirement.as_ref().and_then(by_index) else {
            self.pip.push(line);
            return;
        };
        let marker = requirement.as_ref().and_then(|found| found.marker.as_deref());
        if marker.is_some_and(|marker| wish.here.satisfy(marker) == Some(false)) {
            return;
        }
        let of_channel = wish.channels.iter().any(|channel| channel == "clearml");
        match name.as_str() {
            "pip" | "virtualenv" => {}
            _ if name.contains("clearml") && !of_channel => self.pip.push(line),
            _ => self.conda.extend(package(wish, &name, &range, line)),
        }
    }

    /// What is in both lists gets the version of the one for pip.
    fn merge_pip(&mut self, wish: &Wish<'_>) {
        for (line, requirement) in requirements(wish.pip.unwrap_or_default()) {
            let found = requirement.as_ref().and_then(by_index);
            let same = found.as_ref().and_then(|(name, _)| {
                self.conda
                    .iter()
                    .position(|package| normal_name(&package.name) == normal_name(in_conda(name, wish)))
            });
            match (same, found) {
                (Some(index), Some((name, range))) => {
                    if let Some(package) = package(wish, &name, &range, line) {
                        self.conda[index] = Package {
                            name: self.conda[index].name.clone(),
                            ..package
                        };
                    }
                }
                (_, Some((name, _))) if matches!(name.as_str(), "pip" | "virtualenv") => {}
                _ => self.pip.push(line),
            }
        }
    }

    /// What the packages need on this machine.
    fn complete(&mut self, wish: &Wish<'_>) {
        let has = |names: &[&str]| self.conda.iter().any(|p| names.contains(&p.name.as_str()));
        let mut more: Vec<(&str, String)> = Vec::new();
        match wish.cuda {
            Some(cuda) if !has(&TOOLKITS) => {
                let nvidia = wish.channels.iter().any(|channel| channel == "nvidia");
                let name = if nvidia { "cuda-toolkit" } else { "cudatoolkit" };
                more.push((name, format!("={}.{}", cuda / 10, cuda % 10)));
            }
            None if has(&["pytorch", "tensorflow", "tensorflow-gpu"]) => {
                more.push(("cpuonly", String::new()));
            }
            _ => {}
        }
        if has(&["matplotlib"]) {
            let names = ["graphviz", "python-graphviz", "kiwisolver"];
            more.extend(
                names
                    .into_iter()
                    .filter(|name| !has(&[name]))
                    .map(|name| (name, String::new())),
            );
        }
        self.conda.extend(more.into_iter().map(|(name, range)| Package {
            name: name.to_owned(),
            range,
            line: None,
        }));
        self.conda
            .retain(|package| !matches!(package.name.as_str(), "cudnn" | "cupti"));
        self.keep_last();
    }

    fn keep_last(&mut self) {
        let last: BTreeMap<String, usize> = self
            .conda
            .iter()
            .enumerate()
            .map(|(index, package)| (package.name.clone(), index))
            .collect();
        let mut index = 0;
        self.conda.retain(|package| {
            index += 1;
            last.get(&package.name) == Some(&(index - 1))
        });
    }

    /// Gives packages that conda can't install to pip. False when none of the names is there.
    pub(crate) fn hand_over(&mut self, bad: &[String]) -> bool {
        let (moved, kept): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.conda).into_iter().partition(|package| {
                bad.iter()
                    .any(|name| normal_name(name) == normal_name(&package.name))
            });
        self.conda = kept;
        let any = !moved.is_empty();
        self.pip
            .extend(moved.into_iter().filter_map(|package| package.line));
        any
    }

    /// Gives everything to pip.
    pub(crate) fn hand_over_all(&mut self) {
        let all = std::mem::take(&mut self.conda);
        self.pip
            .extend(all.into_iter().filter_map(|package| package.line));
    }
}

/// The lines of a list; without requirement where it is an option or nothing that is known.
fn requirements(text: &str) -> Vec<(String, Option<Requirement>)> {
    let mut out = Vec::new();
    for line in logical::lines(text) {
        let text = conda_equality(line.1.trim());
        match parse(&text).ok().map(|mut lines| (lines.len(), lines.pop())) {
            Some((1, Some(Line::Requirement(requirement)))) => out.push((text, Some(requirement))),
            Some((0, _)) => {}
            _ => out.push((text, None)),
        }
    }
    out
}

/// `name=1.2` and `name=1.2=build` are written as `name==1.2`.
fn conda_equality(line: &str) -> String {
    let (requirement, marker) = match line.split_once(';') {
        Some((requirement, marker)) => (requirement, Some(marker)),
        None => (line, None),
    };
    let parts: Vec<&str> = requirement.split('=').map(str::trim).collect();
    let plain =
        |text: &str| !text.is_empty() && !text.contains(['<', '>', '!', '~', ' ', '/', ':', '-'].as_slice());
    let written = match parts.as_slice() {
        [name, version] | [name, version, _]
            if plain(version)
                && !name.contains(['<', '>', '!', '~', ' ', '/', ':'])
                && !name.starts_with('-') =>
        {
            format!("{name}=={version}")
        }
        _ => return line.to_owned(),
    };
    marker.map_or_else(|| written.clone(), |marker| format!("{written};{marker}"))
}

/// Name and range of what an index has.
fn by_index(requirement: &Requirement) -> Option<(String, String)> {
    match (&requirement.name, &requirement.target) {
        (Some(name), Target::Index(range)) if !requirement.editable && requirement.options.is_empty() => {
            Some((name.to_ascii_lowercase(), range.clone()))
        }
        _ => None,
    }
}

fn in_conda<'n>(name: &'n str, wish: &Wish<'_>) -> &'n str {
    match name {
        "torch" | "pytorch" => "pytorch",
        name if TENSORFLOW.contains(&name.replace('_', "-").as_str()) => match wish.cuda {
            Some(_) => "tensorflow-gpu",
            None => "tensorflow",
        },
        name => name,
    }
}

/// The package as conda calls it; none where it makes no sense on this machine.
fn package(wish: &Wish<'_>, name: &str, range: &str, line: String) -> Option<Package> {
    let toolkit = TOOLKITS.contains(&name.replace('_', "-").as_str());
    let mut range = range.to_owned();
    if toolkit {
        let version = short(&range)?;
        let major: u32 = version.split('.').next()?.parse().ok()?;
        if major > wish.cuda? / 10 {
            return None;
        }
        range = format!("={version}");
    } else if name == "python" {
        let version = short(&range).filter(|version| version.contains('.'))?;
        range = format!("={version}");
    } else {
        range = in_words_of_conda(&range);
    }
    let name = in_conda(name, wish);
    let name = match name.strip_prefix('_') {
        _ if wish.conda.is_some() => name.to_owned(),
        Some(rest) => format!("_{}", rest.replace('_', "-")),
        None => name.replace('_', "-"),
    };
    Some(Package {
        name,
        range,
        line: Some(line),
    })
}

/// The first two parts of the version in a range.
fn short(range: &str) -> Option<String> {
    let version = range
        .split(',')
        .next()?
        .trim_start_matches(['=', '<', '>', '~', '!', ' ']);
    let parts: Vec<&str> = version.split('.').take(2).collect();
    parts
        .iter()
        .all(|part| !part.is_empty() && part.chars().all(|c| c.is_ascii_digit()))
        .then(|| parts.join("."))
}

/// `==` is `~=`, which leaves conda the build; `.post1` is unknown there; `2` is written as `2.0`.
fn in_words_of_conda(range: &str) -> String {
    let condition = |text: &str| {
        let text = text.trim();
        let at = text.find(|c: char| !"<>=!~".contains(c)).unwrap_or(text.len());
        let (operator, version) = text.split_at(at);
        let mut version = version.trim().to_owned();
        if let Some(post) = version.find(".post") {
            version.truncate(post);
        }
        if !version.contains('.') && !version.is_empty() {
            version.push_str(".0");
        }
        let wildcard = version.ends_with(".*");
        match operator {
            "==" | "===" if !wildcard => format!("~={version}"),
            operator => format!("{operator}{version}"),
        }
    };
    range
        .split(',')
        .filter(|part| !part.trim().is_empty())
        .map(condition)
        .collect::<Vec<_>>()
        .join(",")
}

/// An environment file. The texts are JSON, which YAML contains.
pub(crate) fn environment_file(channels: &[String], packages: &[Package]) -> String {
    let dependencies = packages
        .iter()
        .map(|package| format!("{}{}", package.name, package.range));
    yaml(channels, dependencies)
}

fn yaml(channels: &[String], dependencies: impl Iterator<Item = String>) -> String {
    let quoted = |text: String| format!("  - {}\n", Value::String(text));
    let mut out = "channels:\n".to_owned();
    out.extend(channels.iter().cloned().map(quoted));
    out.push_str("dependencies:\n");
    out.extend(dependencies.map(quoted));
    out
}

/// An environment that was recorded in full: its file, and what pip installs into it. `repositories` are
/// lines that replace the recorded ones of the same name. `None` when it can't be read.
pub(crate) fn recorded(
    text: &str,
    channels: &[String],
    cuda: bool,
    repositories: &BTreeMap<String, String>,
) -> Option<(String, Vec<String>)> {
    let value: Value = serde_json::from_str(text).ok()?;
    let mut by_name: Vec<(String, String)> = Vec::new();
    let mut pip = Vec::new();
    for entry in value.get("dependencies")?.as_array()? {
        if let Some(lines) = entry.get("pip").and_then(Value::as_array) {
            for line in lines.iter().filter_map(Value::as_str) {
                let name = line
                    .split(|c: char| !c.is_ascii_alphanumeric() && !"._-".contains(c))
                    .next()
                    .map(normal_name);
                let repository = name.and_then(|name| repositories.get(&name));
                pip.push(repository.map_or_else(|| line.to_owned(), Clone::clone));
            }
            continue;
        }
        let written = entry.as_str()?;
        let (name, rest) = written.split_at(written.find('=').unwrap_or(written.len()));
        if name == "pip" || name.starts_with('_') || matches!(name, "cupti" | "cudnn") {
            continue;
        }
        let name = match (name, cuda) {
            ("tensorflow", true) => "tensorflow-gpu",
            ("tensorflow-gpu", false) => "tensorflow",
            (name, _) => name,
        };
        let rest = match (name, short(rest)) {
            ("python", Some(version)) => format!("={version}"),
            _ => rest.to_owned(),
        };
        by_name.retain(|(known, _)| known != name);
        by_name.push((name.to_owned(), rest));
    }
    let dependencies = by_name.into_iter().map(|(name, rest)| name + &rest);
    Some((yaml(channels, dependencies), pip))
}

/// The packages that conda complains of in its answer.
pub(crate) fn bad_packages(answer: &Value) -> Vec<String> {
    let mut out = Vec::new();
    let mut texts = Vec::new();
    collect(answer.get("bad_deps").unwrap_or(&Value::Null), &mut texts);
    let message = ["message", "error"]
        .iter()
        .find_map(|key| answer.get(*key).and_then(Value::as_str))
        .unwrap_or_default();
    if texts.is_empty() && (message.contains("Unsatisfiable") || message.contains("NotFound")) {
        texts.extend(
            message
                .lines()
                .filter_map(|line| line.trim_start().strip_prefix("- "))
                .map(str::to_owned),
        );
    }
    for text in texts {
        let text = text.split(" -> ").next().unwrap_or_default();
        let text = text.rsplit("::").next().unwrap_or_default().trim();
        let end = text
            .find(|c: char| !c.is_ascii_alphanumeric() && !"._-".contains(c))
            .unwrap_or(text.len());
        let name = text[..end].to_ascii_lowercase();
        if !name.is_empty() && !out.contains(&name) {
            out.push(name);
        }
    }
    out
}

fn collect(value: &Value, out: &mut Vec<String>) {
    match value {
        Value::String(text) => out.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| collect(item, out)),
        _ => {}
    }
}

/// The packages that came through conda, from the answer of `conda list`: `name==version` lines, without
/// those that pip has installed.
pub(crate) fn listed(answer: &Value) -> Vec<(String, String)> {
    let text = |entry: &Value, key: &str| entry.get(key).and_then(Value::as_str).map(str::to_owned);
    answer
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let (name, version) = (text(entry, "name")?, text(entry, "version")?);
            let channel = text(entry, "channel").unwrap_or_default();
            if name.starts_with('_') || channel.is_empty() || channel == "pypi" {
                return None;
            }
            let name = if name == "pytorch" {
                "torch".to_owned()
            } else {
                name
            };
            Some((name, version))
        })
        .collect()
}

#[cfg(test)]
mod tests;
