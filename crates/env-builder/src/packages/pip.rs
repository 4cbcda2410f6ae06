//! pip itself: which version a task gets, which resolver, which arguments.
//!
//! The Python agent upgrades pip in every environment, which asks the index each time. Here the pip that
//! comes with the interpreter stays where the configured range allows it; another one is fetched once per
//! machine and linked into environments from then on. Only where no range is configured, which means the
//! latest, the index is asked by every build that installs something.

use std::fs;
use std::path::Path;
use std::str::FromStr;

use clearml_support::fs::remove_tree;
use clearml_task_model::Requirements;
use pep440_rs::{Version, VersionSpecifiers};

use crate::error::at;
use crate::packages::PackageError;
use crate::packages::install::{Place, quiet_tool};
use crate::packages::requirements::compare::within;
use crate::packages::requirements::list::specifier_of;
use crate::packages::requirements::pep::Surroundings;
use crate::packages::requirements::step::write_private;
use crate::packages::uv::caches;
use crate::python::seed;
use crate::python::venv::Venv;
use crate::request::PackageManagerSettings;
use crate::tools::Context;

/// The pip that a task shall have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WantedPip {
    specs: Vec<String>,
}

impl WantedPip {
    /// From `pip_version`, unless the task says it.
    pub(crate) fn new(pip_version: &[String], by_task: Option<&str>) -> Self {
        let specs = match by_task.filter(|spec| !spec.is_empty()) {
            Some(spec) => vec![format!("pip{spec}")],
            None if pip_version.is_empty() => vec!["pip".to_owned()],
            None => pip_version.iter().map(|item| versioned("pip", item)).collect(),
        };
        Self { specs }
    }

    /// Whatever pip there is.
    pub(crate) fn any() -> Self {
        Self {
            specs: vec!["pip>=0".to_owned()],
        }
    }

    /// What pip is told to install.
    pub(crate) fn specs(&self) -> &[String] {
        &self.specs
    }

    /// Those whose condition holds, for a tool that does not know conditions.
    pub(crate) fn that_apply(&self, here: &Surroundings) -> Vec<String> {
        let parts = self
            .specs
            .iter()
            .map(|spec| spec.split_once(';').unwrap_or((spec, "")));
        parts
            .filter(|(_, marker)| marker.trim().is_empty() || here.satisfy(marker.trim()) != Some(false))
            .map(|(spec, _)| spec.trim().to_owned())
            .collect()
    }

    /// Whether this version is good enough. The latest is not known without asking, so it never is.
    pub(crate) fn allows(&self, version: &str, here: &Surroundings) -> bool {
        let Ok(version) = Version::from_str(version) else {
            return false;
        };
        self.specs.iter().all(|spec| {
            let (spec, marker) = spec.split_once(';').unwrap_or((spec, ""));
            let applies = marker.trim().is_empty() || here.satisfy(marker.trim()) != Some(false);
            let range = spec.trim().trim_start_matches("pip").trim();
            let inside = || VersionSpecifiers::from_str(range).is_ok_and(|range| range.contains(&version));
            !applies || !range.is_empty() && inside()
        })
    }
}

/// What pip is told to install so that it is itself as `pip_version` says.
#[must_use]
pub fn pip_requirements(pip_version: &[String]) -> Vec<String> {
    WantedPip::new(pip_version, None).specs
}

/// A requirement from a name and a configured version: with an operator as it is, else exactly that.
pub(crate) fn versioned(name: &str, item: &str) -> String {
    let item = item.trim();
    let version = item.split(';').next().unwrap_or_default();
    if version.trim().is_empty() || version.contains(['=', '~', '<', '>']) {
        format!("{name}{item}")
    } else {
        format!("{name}=={item}")
    }
}

/// The version of an installer (`pip`, `uv`) that a list of the task asks for: `==21.3`, or an empty text
/// for a line that leaves it open.
pub(crate) fn version_by_task(requirements: Option<&Requirements>, installer: &str) -> Option<String> {
    let requirements = requirements?;
    [&requirements.pip, &requirements.org_pip]
        .into_iter()
        .flatten()
        .find_map(|list| specifier_of(&list.text(), installer))
}

/// Whether a pip version falls into one of the ranges (`>=20.3,<24.3`) of the legacy resolver, which
/// accepts lists that contradict themselves, as frozen ones do. Pure.
pub(crate) fn legacy_resolver(version: &str, ranges: &[String]) -> bool {
    ranges.iter().any(|range| within(version, range))
}

/// The options of `pip install`, in order. Indexes are not among them: they stand in the list.
pub(crate) fn flags(version: &str, settings: &PackageManagerSettings) -> Vec<String> {
    let mut flags = Vec::new();
    if legacy_resolver(version, &settings.pip_legacy_resolver) {
        flags.push("--use-deprecated=legacy-resolver".to_owned());
    }
    flags.extend(proxy(&settings.extra_pip_install_flags).1);
    if settings.force_upgrade {
        flags.push("--upgrade".to_owned());
    }
    flags
}

/// Whether packages for this Python are so old that building them needs a Cython that is there first.
pub(crate) fn wants_cython(venv: &Venv) -> bool {
    venv.interpreter.version < [3, 9, 0]
}

/// Gives the environment the wanted pip; its version. `own` is the one that is there.
pub(crate) fn settle(
    context: &Context<'_>,
    place: &Place<'_>,
    own: &str,
    wanted: &WantedPip,
) -> Result<String, PackageError> {
    let venv = place.venv;
    let here = Surroundings::new(&venv.interpreter);
    let allowed = |version: &str| wanted.allows(version, &here);
    if allowed(own) {
        return Ok(own.to_owned());
    }
    if let Some((version, folder)) = seed::kept(context, venv, &allowed) {
        seed::exchange(venv, &folder)?;
        context.info(&format!("pip {version} replaces pip {own}"));
        return Ok(version);
    }
    let what = wanted.specs().join(", ");
    context.info(&format!("fetching {what}: pip {own} is not what is configured"));
    let staging = seed::staging(context)?;
    let list = place.temp.join("pip.txt");
    let mut text = extra_indexes(&context.settings.package_manager);
    text.extend(wanted.specs().iter().flat_map(|spec| [spec, "\n"]));
    write_private(&list, &text)?;
    let command = context
        .command(&venv.python)
        .args(["-m", "pip", "install", "--upgrade", "--no-deps", "--target"])
        .arg(&staging)
        .arg("-r")
        .arg(&list);
    let ended = context.stream(&quiet_tool(context, command))?;
    fs::remove_file(&list).map_err(at("removing", &list))?;
    if !ended.status.success() {
        remove_tree(&staging).map_err(at("removing", &staging))?;
        return Err(PackageError::Install {
            what,
            last_line: ended.last_line(),
        });
    }
    let (version, folder) = seed::keep(venv, &staging)?;
    seed::exchange(venv, &folder)?;
    Ok(version)
}

/// Fetches a pip for an interpreter that brings none, once per machine; its version. `None`, after a line
/// that says why, when that is not possible.
pub(crate) fn fetch_with_uv(
    context: &Context<'_>,
    venv: &Venv,
    uv: &Path,
    temp: &Path,
) -> Result<Option<String>, PackageError> {
    if let Some((version, folder)) = seed::kept(context, venv, &|_| true) {
        seed::exchange(venv, &folder)?;
        return Ok(Some(version));
    }
    let staging = seed::staging(context)?;
    let list = temp.join("pip.txt");
    let text = extra_indexes(&context.settings.package_manager) + "pip\n";
    write_private(&list, &text)?;
    let command = context
        .command(uv)
        .args(["pip", "install", "--no-deps", "--target"])
        .arg(&staging)
        .arg("--python")
        .arg(&venv.python)
        .arg("-r")
        .arg(&list)
        // The kept files are shared and made read-only; those of uv's cache are not ours to change.
        .env("UV_LINK_MODE", "copy");
    let ended = context.stream(&quiet_tool(context, caches(context, &staging, command)))?;
    fs::remove_file(&list).map_err(at("removing", &list))?;
    if !ended.status.success() {
        remove_tree(&staging).map_err(at("removing", &staging))?;
        context.warn(&format!(
            "the environment has no pip, and none can be fetched: {}",
            ended.last_line()
        ));
        return Ok(None);
    }
    let (version, folder) = seed::keep(venv, &staging)?;
    seed::exchange(venv, &folder)?;
    Ok(Some(version))
}

/// The lines of a list that name the configured indexes.
pub(crate) fn extra_indexes(settings: &PackageManagerSettings) -> String {
    let extra = settings.extra_index_url.iter();
    let (options, _) = index_options(&settings.extra_pip_install_flags);
    let lines = extra.map(|url| format!("--extra-index-url {url}\n"));
    lines
        .chain(options.iter().map(|option| format!("{option}\n")))
        .collect()
}

/// Takes what is about indexes out of the arguments, as lines of a list: addresses may contain passwords,
/// and arguments can be seen by everybody. Pure.
pub(crate) fn index_options(flags: &[String]) -> (Vec<String>, Vec<String>) {
    let (mut lines, mut rest) = (Vec::new(), Vec::new());
    let mut words = flags.iter();
    while let Some(word) = words.next() {
        let (name, value) = option(word);
        if !LINE_OPTIONS.contains(&name) {
            rest.push(word.clone());
        } else if !value.is_empty() {
            lines.push(format!("{name} {value}"));
        } else if let Some(value) = words.next() {
            lines.push(format!("{name} {value}"));
        }
    }
    (lines, rest)
}

/// Options that may stand in a list.
const LINE_OPTIONS: [&str; 6] = [
    "--index-url",
    "-i",
    "--extra-index-url",
    "--find-links",
    "-f",
    "--trusted-host",
];

/// An option and its value, as pip reads them: `-ihttps://h`, `--extra-index=https://h` are such too.
fn option(word: &str) -> (&str, &str) {
    for short in ["-i", "-f"] {
        if let Some(value) = word.strip_prefix(short) {
            return (short, value.strip_prefix('=').unwrap_or(value));
        }
    }
    let (name, value) = word.split_once('=').unwrap_or((word, ""));
    let shortened = |full: &&&str| name.len() > 5 && full.starts_with(name);
    let full = LINE_OPTIONS.iter().find(shortened).copied();
    (full.unwrap_or(name), value)
}

/// The proxy that the arguments name, and the arguments without it. Installers get it as a variable: it may
/// contain a password, and uv knows no argument for it. Pure.
pub(crate) fn proxy(flags: &[String]) -> (Option<String>, Vec<String>) {
    let (mut proxy, mut rest) = (None, Vec::new());
    let mut words = flags.iter();
    while let Some(word) = words.next() {
        match word.split_once('=').unwrap_or((word, "")) {
            ("--proxy", "") => proxy = words.next().cloned(),
            ("--proxy", value) => proxy = Some(value.to_owned()),
            _ => rest.push(word.clone()),
        }
    }
    let with_scheme = |proxy: String| {
        if proxy.contains("://") {
            proxy
        } else {
            format!("http://{proxy}")
        }
    };
    (proxy.map(with_scheme), rest)
}

/// The version of the pip that programs of an environment get: its own one, or that of the interpreter where the
/// environment sees what is installed there.
pub(crate) fn version_in(venv: &Venv) -> Option<String> {
    own_version(venv).or_else(|| base_version(venv))
}

/// The version of the pip that an environment has itself.
pub(crate) fn own_version(venv: &Venv) -> Option<String> {
    version_at(&venv.site_packages)
}

/// The version of the interpreter's pip, if the environment sees it.
pub(crate) fn base_version(venv: &Venv) -> Option<String> {
    let mut sites = venv.interpreter.base_sites.iter();
    sites
        .find(|site| venv.system_site_packages && site.join("pip/__main__.py").is_file())
        .and_then(|site| version_at(site))
}

fn version_at(site_packages: &Path) -> Option<String> {
    fs::read_dir(site_packages)
        .ok()?
        .filter_map(Result::ok)
        .find_map(|entry| {
            let name = entry.file_name();
            let version = name.to_str()?.strip_prefix("pip-")?.strip_suffix(".dist-info")?;
            Some(version.to_owned())
        })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::packages::requirements::pep::tests::interpreter;

    const DEFAULT: [&str; 3] = [
        "<20.2 ; python_version < '3.10'",
        "<22.3 ; python_version >= '3.10' and python_version <= '3.11'",
        ">=23,<26 ; python_version >= '3.12'",
    ];

    fn list(items: &[&str]) -> Vec<String> {
        items.iter().map(|item| (*item).to_owned()).collect()
    }

    #[test]
    fn specs_of_pip() {
        for (configured, by_task, specs) in [
            (&["20.1"][..], None, &["pip==20.1"][..]),
            (&["<20.2"], None, &["pip<20.2"]),
            (&[""], None, &["pip"]),
            (&[], None, &["pip"]),
            (&[">=23"], Some("==21.3"), &["pip==21.3"]),
            (&[">=23"], Some("<21"), &["pip<21"]),
            (&[">=23"], Some(""), &["pip>=23"]),
            (
                &["20.1 ; python_version < '3'"],
                None,
                &["pip==20.1 ; python_version < '3'"],
            ),
        ] {
            assert_eq!(WantedPip::new(&list(configured), by_task).specs(), specs);
        }
        let all = WantedPip::new(&list(&DEFAULT), None);
        assert_eq!(all.specs().len(), 3, "pip sees all of them and decides itself");
        assert_eq!(all.specs()[0], "pip<20.2 ; python_version < '3.10'");
    }

    #[test]
    fn a_pip_that_is_good_enough_stays() {
        let all = WantedPip::new(&list(&DEFAULT), None);
        for (python, version, expected) in [
            ([3, 8, 1], "20.1.1", true),
            ([3, 8, 1], "23.0.1", false),
            ([3, 10, 4], "22.2.2", true),
            ([3, 11, 2], "23.0.1", false),
            ([3, 12, 1], "24.2", true),
            ([3, 12, 1], "26.0", false),
            ([3, 12, 1], "odd", false),
        ] {
            let here = Surroundings::new(&interpreter(python));
            assert_eq!(all.allows(version, &here), expected, "{python:?} {version}");
        }
        let here = Surroundings::new(&interpreter([3, 12, 1]));
        assert_eq!(all.that_apply(&here), ["pip>=23,<26"]);
        assert!(
            !WantedPip::new(&[], None).allows("25.0", &here),
            "there may be a later one"
        );
        assert!(WantedPip::new(&list(&[">=0"]), None).allows("25.0", &here));
    }

    #[test]
    fn the_task_may_say_which_pip() {
        let by_task = |value| version_by_task(Some(&serde_json::from_value(value).unwrap()), "pip");
        for (value, expected) in [
            (json!({"pip": "six\npip==21.3"}), Some("==21.3")),
            (json!({"pip": "Pip < 21  # why"}), Some("<21")),
            (json!({"pip": "pip"}), Some("")),
            (json!({"pip": ["six"], "org_pip": "pip~=21.0"}), Some("~=21.0")),
            (json!({"pip": "pip==21\n", "org_pip": "pip==20"}), Some("==21")),
            (json!({"pip": "pip-tools==7"}), None),
            (json!({"pip": "pip @ https://h/pip.whl"}), None),
            (json!({}), None),
        ] {
            assert_eq!(by_task(value.clone()).as_deref(), expected, "{value}");
        }
    }

    #[test]
    fn legacy_resolver_ranges() {
        let default = list(&[">=20.3,<24.3"]);
        for (version, expected) in [
            ("22.2.2", true),
            ("20.3", true),
            ("24.3", false),
            ("24.3.1", false),
            ("19.3", false),
            ("x", false),
        ] {
            assert_eq!(legacy_resolver(version, &default), expected, "{version}");
        }
        assert!(!legacy_resolver("22.0", &[]));
        assert!(!legacy_resolver("22.0", &list(&["~=22"])));
        let settings = PackageManagerSettings {
            force_upgrade: true,
            extra_pip_install_flags: list(&["--no-deps"]),
            ..PackageManagerSettings::default()
        };
        assert_eq!(
            flags("22.2.2", &settings),
            ["--use-deprecated=legacy-resolver", "--no-deps", "--upgrade"]
        );
        assert_eq!(flags("24.3", &settings), ["--no-deps", "--upgrade"]);
    }

    #[test]
    fn a_proxy_is_no_argument() {
        for (given, expected) in [
            (&["--proxy", "u:p@h:1", "--pre"][..], Some("http://u:p@h:1")),
            (&["--proxy=https://h", "--pre"], Some("https://h")),
            (&["--pre"], None),
        ] {
            let (found, rest) = proxy(&list(given));
            assert_eq!((found.as_deref(), rest), (expected, list(&["--pre"])));
        }
    }

    #[test]
    fn addresses_of_indexes_are_no_arguments() {
        let short = list(&[
            "-ihttps://u:p@h",
            "-f=https://u:p@i",
            "--extra-index",
            "https://u:p@j",
            "--no-deps",
        ]);
        assert_eq!(
            index_options(&short),
            (
                list(&[
                    "-i https://u:p@h",
                    "-f https://u:p@i",
                    "--extra-index-url https://u:p@j"
                ]),
                list(&["--no-deps"])
            )
        );
        let given = list(&[
            "--pre",
            "--index-url",
            "https://u:p@h",
            "--find-links=/w",
            "--no-deps",
        ]);
        assert_eq!(
            index_options(&given),
            (
                list(&["--index-url https://u:p@h", "--find-links /w"]),
                list(&["--pre", "--no-deps"])
            )
        );
    }
}
