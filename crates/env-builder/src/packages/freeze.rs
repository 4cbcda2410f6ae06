//! Reading what is installed, in the form of `pip freeze`, without starting anything.
//!
//! Every installer leaves a `<name>-<version>.dist-info` folder (PEP 376, PEP 610 for where it came
//! from); older ones an `.egg-info`, and for packages that stay where they are an `.egg-link`.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use clearml_support::fs::read_limited;
use serde_json::Value;

use crate::code::repo_url::without_password;
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
    /// Where it stays, if an `.egg-link` says so.
    linked: Option<PathBuf>,
}

impl Installed {
    /// What PEP 610 says about where it came from.
    fn direct_url(&self) -> Option<Value> {
        let bytes = read_limited(&self.folder.join("direct_url.json"), MAX_DIRECT_URL).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// The repository and the commit that it was made of.
    pub(crate) fn repository(&self) -> Option<FromRepository> {
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
        .flat_map(|package| lines_of(package, &local, origin, &venv.root))
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
    // What an interrupted removal has left is no package.
    if path.file_name()?.to_str()?.starts_with('~') {
        return None;
    }
    let file = match path.extension()?.to_str()? {
        "dist-info" => path.join("METADATA"),
        "egg-info" if path.is_dir() => path.join("PKG-INFO"),
        "egg-info" => path.to_owned(),
        "egg-link" => return read_link(path),
        _ => return None,
    };
    let (mut name, mut version) = (None, None);
    for line in BufReader::new(fs::File::open(file).ok()?.take(MAX_HEADER)).split(b'\n') {
        let line = line.ok()?;
        let line = String::from_utf8_lossy(&line);
        if line.trim_end().is_empty() {
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
        linked: None,
    })
}

/// The package behind an `.egg-link`, whose first line is the folder in which it stays.
fn read_link(path: &Path) -> Option<Installed> {
    let bytes = read_limited(path, MAX_HEADER).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let folder = PathBuf::from(text.lines().next()?.trim());
    let wanted = normal_name(path.file_stem()?.to_str()?);
    let entries = fs::read_dir(&folder).ok()?.filter_map(Result::ok);
    let found = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "egg-info"))
        .filter_map(|path| read(&path))
        .find(|package| normal_name(&package.name) == wanted)?;
    Some(Installed {
        linked: Some(folder),
        ..found
    })
}

/// The repository that a folder belongs to, if one is there within the environment: installers check out
/// editable packages to its `src`. Its root, address and commit.
fn checkout(folder: &Path, environment: &Path) -> Option<Origin> {
    let below = folder
        .ancestors()
        .take_while(|path| path.starts_with(environment));
    let root = below.into_iter().find(|path| path.join(".git").is_dir())?;
    let read = |name: &str| {
        let bytes = read_limited(&root.join(".git").join(name), MAX_HEADER).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    };
    let head = read("HEAD")?;
    let commit = match head.trim().strip_prefix("ref: ") {
        None => head.trim().to_owned(),
        Some(name) => match read(name) {
            Some(commit) => commit.trim().to_owned(),
            None => read("packed-refs")?.lines().find_map(|line| {
                let (commit, of) = line.split_once(' ')?;
                (of == name).then(|| commit.to_owned())
            })?,
        },
    };
    let config = read("config")?;
    let mut lines = config.lines().map(str::trim);
    lines.find(|line| *line == "[remote \"origin\"]")?;
    let url = lines
        .take_while(|line| !line.starts_with('['))
        .find_map(|line| line.strip_prefix("url")?.trim_start().strip_prefix('='))?;
    Some(Origin {
        root: root.to_owned(),
        url: without_password(url.trim()),
        commit,
    })
}

fn lines_of(
    package: &Installed,
    local: &[&(PathBuf, String)],
    origin: Option<&Origin>,
    environment: &Path,
) -> Vec<String> {
    let pinned = || format!("{}=={}", package.name, package.version);
    let listed = |path: &Path| {
        local
            .iter()
            .find(|(folder, _)| folder == path)
            .map(|(_, line)| vec![line.clone()])
    };
    if let Some(path) = &package.linked {
        return listed(path).unwrap_or_else(|| editable(package, path, origin, environment));
    }
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
        if let Some(line) = listed(&path) {
            return line;
        }
        if direct["dir_info"]["editable"] == Value::Bool(true) {
            return editable(package, &path, origin, environment);
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

fn editable(package: &Installed, path: &Path, origin: Option<&Origin>, environment: &Path) -> Vec<String> {
    let own = checkout(path, environment);
    if let Some(origin) = own.as_ref().or(origin)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packages::requirements::pep::tests::interpreter;

    fn bench(packages: &[(&str, &str)], version: [u32; 3]) -> (tempfile::TempDir, Venv) {
        let temp = tempfile::tempdir().unwrap();
        let site = temp.path().join("site");
        fs::create_dir(&site).unwrap();
        for (name, version) in packages {
            let folder = site.join(format!("{}-{version}.dist-info", name.replace('-', "_")));
            fs::create_dir(&folder).unwrap();
            let text =
                format!("Metadata-Version: 2.1\r\nName: {name}\r\nVersion: {version}\r\n\r\nName: wrong\r\n");
            fs::write(folder.join("METADATA"), text).unwrap();
        }
        let venv = Venv {
            root: temp.path().to_owned(),
            python: temp.path().join("bin/python"),
            site_packages: site,
            interpreter: interpreter(version),
            system_site_packages: false,
        };
        (temp, venv)
    }

    fn requested(names: &[(&str, &str)]) -> Requested {
        Requested {
            names: names
                .iter()
                .map(|(name, line)| ((*name).to_owned(), (*line).to_owned()))
                .collect(),
            ..Requested::default()
        }
    }

    #[test]
    fn tools_are_listed_where_the_task_asks_for_them_and_the_agent_never_is() {
        let packages = [
            ("pip", "21.0"),
            ("setuptools", "65.0"),
            ("wheel", "0.4"),
            ("Jinja2", "3.1"),
            ("huggingface_hub", "0.2"),
            ("clearml-agent", "1.9"),
            ("clearml", "2.0"),
        ];
        let plain = ["clearml==2.0", "huggingface_hub==0.2", "Jinja2==3.1"];
        let (_temp, venv) = bench(&packages, [3, 11, 7]);
        assert_eq!(freeze(&venv, &[], None), plain);
        let asked = requested(&[("setuptools", "setuptools == 65"), ("jinja2", "Jinja2")]);
        let expected = [&["setuptools == 65"], &plain[..]].concat();
        assert_eq!(freeze(&venv, &[asked], None), expected);
        let asked = requested(&[("pip", "pip<22")]);
        assert_eq!(
            freeze(&venv, &[asked], None),
            [&["pip==21.0"], &plain[..]].concat()
        );
        // Newer environments have no setuptools of their own, so one that is there was asked for.
        let (_temp, venv) = bench(&packages, [3, 12, 0]);
        let expected = [&plain[..], &["setuptools==65.0", "wheel==0.4"]].concat();
        assert_eq!(freeze(&venv, &[], None), expected);
    }

    #[test]
    fn packages_that_stay_where_they_are() {
        let (temp, venv) = bench(&[("~ip", "1"), ("a", "1")], [3, 11, 7]);
        let folder = temp.path().join("src/my-pkg/python");
        fs::create_dir_all(folder.join("my_pkg.egg-info")).unwrap();
        fs::write(
            folder.join("my_pkg.egg-info/PKG-INFO"),
            "Name: my-pkg\nVersion: 3\n\n",
        )
        .unwrap();
        let link = format!("{}\n.", folder.display());
        fs::write(venv.site_packages.join("my-pkg.egg-link"), link).unwrap();
        let comment = "# Editable install with no version control (my-pkg==3)".to_owned();
        let expected = ["a==1".to_owned(), comment, format!("-e {}", folder.display())];
        assert_eq!(freeze(&venv, &[], None), expected);

        let git = temp.path().join("src/my-pkg/.git");
        fs::create_dir(&git).unwrap();
        fs::write(
            git.join("config"),
            "[core]\n\turl = no\n[remote \"origin\"]\n\turl = https://u:p@h/r.git\n",
        )
        .unwrap();
        for (head, packed) in [
            ("0123\n", ""),
            ("ref: refs/heads/main\n", "# x\n0123 refs/heads/main\n"),
        ] {
            fs::write(git.join("HEAD"), head).unwrap();
            fs::write(git.join("packed-refs"), packed).unwrap();
            let expected = [
                "a==1",
                "-e git+https://u@h/r.git@0123#egg=my_pkg&subdirectory=python",
            ];
            assert_eq!(freeze(&venv, &[], None), expected);
        }
        let listed = Requested {
            local: vec![(folder, "-e ./mine".to_owned())],
            ..Requested::default()
        };
        assert_eq!(freeze(&venv, &[listed], None), ["a==1", "-e ./mine"]);
    }
}
