//! In which order a list is installed. Pure.

use std::path::PathBuf;

use crate::packages::requirements::line::{Requirement, Target};
use crate::packages::requirements::list::Entry;
use crate::packages::requirements::pep::{Surroundings, normal_name};
use crate::packages::requirements::torch;
use crate::request::PackageManagerSettings;

/// Only the last line for each of these counts, at the end of the list.
const COLLECTED: [&str; 4] = ["trains", "clearml", "nbconvert", "ipython"];
/// What is installed again in an environment from a cache.
const TOOLS: [&str; 2] = ["pip", "setuptools"];

/// The names that are installed before or after the others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// `priority_packages`.
    pub priority: Vec<String>,
    /// `priority_optional_packages`.
    pub priority_optional: Vec<String>,
    /// `post_packages`.
    pub post: Vec<String>,
    /// `post_optional_packages`.
    pub post_optional: Vec<String>,
}

impl From<&PackageManagerSettings> for Rules {
    fn from(settings: &PackageManagerSettings) -> Self {
        Self {
            priority: settings.priority_packages.clone(),
            priority_optional: settings.priority_optional_packages.clone(),
            post: settings.post_packages.clone(),
            post_optional: settings.post_optional_packages.clone(),
        }
    }
}

/// A single package that is installed on its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Single {
    /// Its name or, where the line says none, the line.
    pub name: String,
    /// What is handed to the installer.
    pub line: String,
    /// Whether its failure does not matter.
    pub optional: bool,
    /// The requirement itself.
    pub requirement: Requirement,
}

/// A line of the list, as far as it is installed as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Main {
    /// What is handed to the installer.
    pub line: String,
    /// The early installation that has to have succeeded for this line to stay.
    pub needs: Option<usize>,
}

/// What is installed when.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// First, one by one; those that are not optional may fail as well, as they come again.
    pub early: Vec<Single>,
    /// Then all of these together.
    pub main: Vec<Main>,
    /// Then what comes from repositories and folders.
    pub external: Vec<Single>,
    /// At last.
    pub late: Vec<Single>,
    /// Local folders by what the list calls them.
    pub local: Vec<(PathBuf, String)>,
    /// What is left out because its condition does not hold.
    pub skipped: Vec<String>,
}

/// Whether a requirement is installed on its own: from a repository, from a folder, or editable.
#[must_use]
pub fn is_external(requirement: &Requirement) -> bool {
    let folder = match &requirement.target {
        Target::Vcs(_) => return true,
        Target::Path(path) => requirement.name.is_none() && !path.ends_with(".whl"),
        _ => false,
    };
    folder || requirement.editable
}

/// Puts a list in order. `lines` are the lines to install, one for each entry, and `more` goes behind them.
#[must_use]
pub fn plan(
    entries: &[Entry],
    lines: &[String],
    more: &[String],
    rules: &Rules,
    here: &Surroundings,
) -> Plan {
    let mut plan = Plan::default();
    let mut collected: Vec<(String, &str)> = Vec::new();
    for (entry, line) in entries.iter().zip(lines) {
        let requirement = &entry.requirement;
        let name = requirement.known_name().map(normal_name).unwrap_or_default();
        let named = |list: &[String]| !name.is_empty() && list.iter().any(|one| normal_name(one) == name);
        let single = |line: &str, optional| Single {
            name: requirement.known_name().unwrap_or(&entry.text).to_owned(),
            line: line.to_owned(),
            optional,
            requirement: requirement.clone(),
        };
        let whole = |needs| Main {
            line: line.clone(),
            needs,
        };
        let (optional, required) = (named(&rules.priority_optional), named(&rules.priority));
        let applies = || {
            let marker = requirement.marker.as_deref();
            marker.is_none_or(|marker| here.satisfy(marker) != Some(false))
        };
        let by_name = matches!(requirement.target, Target::Index(_));
        if by_name && torch::FAMILY.contains(&name.as_str()) {
            plan.main.push(whole(None));
        } else if optional || required {
            // What must not fail comes again with the list, which says then what is wrong.
            let needs = (!required).then_some(plan.early.len());
            plan.early.push(single(line, !required));
            plan.main.push(whole(needs));
        } else if named(&rules.post) || named(&rules.post_optional) {
            if applies() {
                plan.late.push(single(
                    &requirement.for_installer().without_marker(),
                    !named(&rules.post),
                ));
            } else {
                plan.skipped.push(entry.text.clone());
            }
        } else if is_external(requirement) {
            if applies() {
                plan.external
                    .push(single(&requirement.for_installer().without_marker(), false));
                plan.local.extend(local(entry));
            } else {
                plan.skipped.push(entry.text.clone());
            }
        } else if COLLECTED.contains(&name.as_str()) {
            collected.retain(|(known, _)| *known != name);
            collected.push((name, line));
        } else {
            plan.main.push(whole(None));
        }
    }
    let rest = collected.into_iter().map(|(_, line)| line.to_owned());
    plan.main.extend(
        rest.chain(more.iter().cloned())
            .map(|line| Main { line, needs: None }),
    );
    plan
}

/// What a local folder is called in the list.
fn local(entry: &Entry) -> Option<(PathBuf, String)> {
    match &entry.requirement.target {
        Target::Path(path) => Some((PathBuf::from(path), entry.text.clone())),
        _ => None,
    }
}

/// What of a list has to be installed again in an environment from a cache: tools, whose version may differ,
/// and what comes from repositories and folders, which may have moved on.
#[must_use]
pub fn after_restoring(entries: Vec<Entry>) -> Vec<Entry> {
    let kept = |entry: &Entry| {
        let name = entry.requirement.known_name().map(normal_name);
        let tool = name.is_some_and(|name| TOOLS.contains(&name.as_str()));
        tool || is_external(&entry.requirement)
    };
    entries.into_iter().filter(kept).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;
    use crate::packages::requirements::pep::tests::interpreter;
    use crate::packages::requirements::{RequirementSet, list};

    fn rules() -> Rules {
        Rules::from(&PackageManagerSettings::default())
    }

    fn entries(text: &str) -> Vec<Entry> {
        let set = RequirementSet::new("l", text, Path::new("/r"));
        list::read(&set, &BTreeMap::new()).entries
    }

    /// `early / main / external / late`, lines joined by `|`; optional ones begin with `?`.
    fn order(text: &str, rules: &Rules) -> String {
        let entries = entries(text);
        let lines: Vec<String> = entries.iter().map(|e| e.requirement.to_string()).collect();
        let here = Surroundings::new(&interpreter([3, 11, 7]));
        let plan = plan(&entries, &lines, &[], rules, &here);
        let singles = |list: &[Single]| -> String {
            let one = |s: &Single| format!("{}{}", if s.optional { "?" } else { "" }, s.line);
            list.iter().map(one).collect::<Vec<_>>().join("|")
        };
        let main: Vec<&str> = plan.main.iter().map(|main| main.line.as_str()).collect();
        format!(
            "{} / {} / {} / {}",
            singles(&plan.early),
            main.join("|"),
            singles(&plan.external),
            singles(&plan.late)
        )
    }

    #[test]
    fn orders() {
        for (text, expected) in [
            (
                "Cython\nsetuptools<60\nnumpy>1\nfoo",
                "Cython|setuptools<60|numpy>1 / Cython|setuptools<60|numpy>1|foo /  / ",
            ),
            ("PyGObject\nfoo", "?PyGObject / PyGObject|foo /  / "),
            (
                "horovod==0.27; os_name=='posix'\nfoo",
                " / foo /  / horovod==0.27",
            ),
            ("horovod==0.27; os_name=='nt'\nfoo", " / foo /  / "),
            (
                "clearml==1.0\nx\nClearML==1.14\nnbconvert",
                " / x|ClearML==1.14|nbconvert /  / ",
            ),
            (
                "-e ./sub#egg=q\nsix\np @ git+https://h/r@v ; python_version > '3'\n./w-1-py3-none-any.whl",
                " / six|/r/w-1-py3-none-any.whl / -e /r/sub|p @ git+https://h/r@v / ",
            ),
            ("./old ; python_version < '3'", " /  /  / "),
            (
                "baz @ file:///a/c.whl\nhttps://h/z.zip",
                " / baz @ file:///a/c.whl|https://h/z.zip /  / ",
            ),
            ("torch==2.0; os_name=='nt'", " / torch==2.0; os_name=='nt' /  / "),
        ] {
            assert_eq!(order(text, &rules()), expected, "{text}");
        }
        let own = Rules {
            priority: vec!["A.b".into()],
            post_optional: vec!["c".into()],
            ..Rules::default()
        };
        assert_eq!(order("numpy\na-B==1\nC", &own), "a-B==1 / numpy|a-B==1 /  / ?C");
    }

    #[test]
    fn an_optional_line_stays_only_if_it_could_be_installed() {
        let entries = entries("numpy\npygobject\nfoo");
        let lines: Vec<String> = entries.iter().map(|e| e.requirement.to_string()).collect();
        let here = Surroundings::new(&interpreter([3, 11, 7]));
        let more = ["setuptools<59".to_owned()];
        let plan = plan(&entries, &lines, &more, &rules(), &here);
        let needs: Vec<Option<usize>> = plan.main.iter().map(|main| main.needs).collect();
        assert_eq!(needs, [None, Some(1), None, None]);
        assert_eq!(plan.main[3].line, "setuptools<59");
    }

    #[test]
    fn after_a_cache_only_what_may_have_changed() {
        let text = "six\npip==23\nr @ git+https://h/r@main\n-e .\n./p\nsetuptools<60\nhttps://h/z.zip";
        let kept = after_restoring(entries(text));
        let kept: Vec<&str> = kept.iter().map(|entry| entry.text.as_str()).collect();
        assert_eq!(
            kept,
            [
                "pip==23",
                "r @ git+https://h/r@main",
                "-e .",
                "./p",
                "setuptools<60"
            ]
        );
    }
}
