//! Reading what is installed, in the form of `pip freeze`, without starting anything.
//!
//! Every installer leaves a `<name>-<version>.dist-info` folder (PEP 376, PEP 610 for where it came
//! from); older ones an `.egg-info`.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use clearml_support::fs::read_limited;
use serde_json::Value;

use crate::packages::requirements::Requested;
use crate::packages::requirements::external::FromRepository;
use crate::packages::requirements::pep::normal_name;
use crate::python::venv::Venv;

/// Metadata headers are short; the description that follows them is not read.
const MAX_HEADER: u64 = 1 << 20;
const MAX_DIRECT_URL: u64 = 1 << 20;

/// The repository of the task, for packages that are installed from its working copy.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    pub(crate) root: PathBuf,
    pub(crate) url: String,
    pub(crate) commit: String,
}

/// A package that is there.
#[derive(Debug)]
pub(crate) struct Installed {
    pub(crate) name: String,
    pub(crate) version: String,
    folder: PathBuf,
}

impl Installed {
    /// What PEP 610 says about where it came from.
    fn direct_url(&self) -> Option<Value> {
        let bytes = read_limited(&self.folder.join("direct_url.json"), MAX_DIRECT_URL).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// The repository and the commit that it was made of.
    pub(crate) fn from_repository(&self) -> Option<FromRepository> {
        let info = self.direct_url()?;
        let text = |key: &str| info["vcs_info"][key].as_str().map(str::to_owned);
        Some(FromRepository {
            name: self.name.clone(),
            vcs: text("vcs")?,
            commit: text("commit_id")?,
        })
    }
}

/// The packages that an environment sees.
pub(crate) fn installed_in(venv: &Venv) -> Vec<Installed> {
    let mut sites = vec![venv.site_packages.clone()];
    if venv.system_site_packages {
        sites.extend(venv.interpreter.base_sites.iter().cloned());
    }
    installed(&sites)
}

/// The installed packages, one or two lines each, sorted by name without regard to case.
pub(crate) fn freeze(venv: &Venv, requested: &[Requested], origin: Option<&Origin>) -> Vec<String> {
    let mut packages = installed_in(venv);
    let version_of = |packages: &[Installed], name: &str| {
        packages
            .iter()
            .find(|p| normal_name(&p.name) == name)
            .map(|p| p.version.clone())
    };
    let pip = version_of(&packages, "pip");
    let old_tools = venv.interpreter.version < [3, 12, 0];
    packages.retain(|package| match normal_name(&package.name).as_str() {
        "pip" | "clearml-agent" => false,
        "setuptools" | "wheel" | "distribute" => !old_tools,
        _ => true,
    });
    packages.sort_by_key(|package| package.name.to_lowercase());
    let local: Vec<&(PathBuf, String)> = requested.iter().flat_map(|list| &list.local).collect();
    let mut lines: Vec<String> = packages
        .iter()
        .flat_map(|package| lines_of(package, &local, origin))
        .collect();
    // Tools that a list names belong into the answer although pip itself leaves them out.
    let names: Vec<&(String, String)> = requested.iter().flat_map(|list| &list.names).collect();
    if let Some((_, line)) = names
        .iter()
        .find(|(name, _)| name == "setuptools")
        .filter(|_| old_tools)
    {
        lines.insert(0, line.clone());
    }
    if let Some(version) = pip.filter(|_| names.iter().any(|(name, _)| name == "pip")) {
        lines.insert(0, format!("pip=={version}"));
    }
    lines
}

/// Packages by name; where two folders have the same one, the first is the one that is imported.
fn installed(sites: &[PathBuf]) -> Vec<Installed> {
    let mut seen = BTreeSet::new();
    let mut packages = Vec::new();
    for site in sites {
        // A site folder that is not there holds nothing.
        let Ok(entries) = fs::read_dir(site) else { continue };
        for path in entries.filter_map(Result::ok).map(|entry| entry.path()) {
            if let Some(package) = read(&path)
                && seen.insert(normal_name(&package.name))
            {
                packages.push(package);
            }
        }
    }
    packages
}

fn read(path: &Path) -> Option<Installed> {
    let file = match path.extension()?.to_str()? {
        "dist-info" => path.join("METADATA"),
        "egg-info" if path.is_dir() => path.join("PKG-INFO"),
        "egg-info" => path.to_owned(),
        _ => return None,
    };
    let (mut name, mut version) = (None, None);
    for line in BufReader::new(fs::File::open(file).ok()?.take(MAX_HEADER)).lines() {
        let line = line.ok()?;
        if line.is_empty() {
            break;
        }
        let header = |key: &str| line.strip_prefix(key).map(|value| value.trim().to_owned());
        name = name.or_else(|| header("Name:"));
        version = version.or_else(|| header("Version:"));
    }
    Some(Installed {
        name: name?,
        version: version?,
        folder: path.to_owned(),
    })
}

fn lines_of(package: &Installed, local: &[&(PathBuf, String)], origin: Option<&Origin>) -> Vec<String> {
    let pinned = || format!("{}=={}", package.name, package.version);
    let Some(direct) = package.direct_url() else {
        return vec![pinned()];
    };
    let text = |path: &[&str]| {
        let value = path.iter().try_fold(&direct, |value, key| value.get(key));
        value.and_then(Value::as_str).map(str::to_owned)
    };
    let Some(url) = text(&["url"]) else {
        return vec![pinned()];
    };
    let mut fragments = Vec::new();
    let mut target = url.clone();
    if let (Some(vcs), Some(commit)) = (text(&["vcs_info", "vcs"]), text(&["vcs_info", "commit_id"])) {
        target = format!("{vcs}+{url}@{commit}");
    } else if let Some(hash) = text(&["archive_info", "hash"]) {
        fragments.push(hash);
    } else if let Some(path) = url.strip_prefix("file://").map(decoded) {
        if let Some((_, line)) = local.iter().find(|(folder, _)| *folder == path) {
            return vec![line.clone()];
        }
        if direct["dir_info"]["editable"] == Value::Bool(true) {
            return editable(package, &path, origin);
        }
    }
    fragments.extend(text(&["subdirectory"]).map(|folder| format!("subdirectory={folder}")));
    if !fragments.is_empty() {
        target.push('#');
        target.push_str(&fragments.join("&"));
    }
    vec![format!("{} @ {target}", package.name)]
}

fn decoded(path: &str) -> PathBuf {
    PathBuf::from(
        percent_encoding::percent_decode_str(path)
            .decode_utf8_lossy()
            .into_owned(),
    )
}

fn editable(package: &Installed, path: &Path, origin: Option<&Origin>) -> Vec<String> {
    if let Some(origin) = origin
        && let Ok(below) = path.strip_prefix(&origin.root)
    {
        let egg = package.name.replace('-', "_");
        let folder = match below.to_string_lossy().as_ref() {
            "" => String::new(),
            folder => format!("&subdirectory={folder}"),
        };
        return vec![format!(
            "-e git+{}@{}#egg={egg}{folder}",
            origin.url, origin.commit
        )];
    }
    vec![
        format!(
            "# Editable install with no version control ({}=={})",
            package.name, package.version
        ),
        format!("-e {}", path.display()),
    ]
}
