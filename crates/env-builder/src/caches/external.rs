//! Packages that an environment can't keep for others: those from a repository's moving branch, from a
//! folder of this machine, and editable ones. They are left out of what is kept, and installed
//! anew into a restored environment.

use std::collections::HashSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

use clearml_support::fs::read_limited;
use serde_json::Value;

const MAX_FILE: u64 = 16 << 20;
fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The `direct_url.json` of each installed package that has one, with its folder.
fn direct_urls(site_packages: &Path) -> Vec<(PathBuf, Value)> {
    let entries = fs::read_dir(site_packages)
        .into_iter()
        .flatten()
        .filter_map(Result::ok);
    entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "dist-info"))
        .filter_map(|path| {
            let bytes = read_limited(&path.join("direct_url.json"), MAX_FILE).ok()?;
            Some((path, serde_json::from_slice(&bytes).ok()?))
        })
        .collect()
}

/// Paths, relative to the environment, that belong to external packages.
///
/// # Errors
///
/// Why an environment can't be kept at all: packages that do not say what belongs to them.
pub(crate) fn paths(root: &Path, site_packages: &Path) -> Result<HashSet<PathBuf>, String> {
    let mut found = HashSet::new();
    let below = site_packages
        .strip_prefix(root)
        .map_err(|_| "its packages lie elsewhere".to_owned())?;
    let entries = fs::read_dir(site_packages).map_err(|e| e.to_string())?;
    for name in entries.filter_map(Result::ok).map(|entry| entry.file_name()) {
        let name = name.to_string_lossy();
        if name.ends_with(".egg-link") || name == "easy-install.pth" {
            return Err(format!("{name} leads to a folder of this task"));
        }
    }
    for (info, direct) in direct_urls(site_packages) {
        if !moves(&direct) {
            continue;
        }
        let record = fs::read_to_string(info.join("RECORD"))
            .map_err(|_| format!("{} does not list its files", info.display()))?;
        for line in record.lines() {
            found.extend(normal(&below.join(record_path(line))));
        }
        found.extend(info.strip_prefix(root).map(Path::to_owned));
        if direct["dir_info"]["editable"] == Value::Bool(true) {
            // Where installers check out what is editable and comes from a repository.
            found.insert(PathBuf::from("src"));
        }
    }
    Ok(found)
}

/// Whether a package may be another one tomorrow although its line is the same.
fn moves(direct: &Value) -> bool {
    if direct["vcs_info"].is_object() {
        let asked = direct["vcs_info"]["requested_revision"]
            .as_str()
            .unwrap_or_default();
        let is_editable = direct["dir_info"]["editable"] == Value::Bool(true);
        return is_editable || !is_commit(asked);
    }
    direct["dir_info"].is_object()
}

/// The first field of a line of comma-separated values.
fn record_path(line: &str) -> String {
    match line.strip_prefix('"') {
        Some(quoted) => {
            let end = quoted.rfind("\",").unwrap_or(quoted.len());
            quoted[..end].replace("\"\"", "\"")
        }
        None => line.split(',').next().unwrap_or_default().to_owned(),
    }
}

/// A path without `..`; `None` when it leads out of the environment.
fn normal(path: &Path) -> Option<PathBuf> {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::ParentDir if out.pop() => {}
            Component::CurDir => {}
            _ => return None,
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_fixed_commit_is_kept_and_a_branch_is_not() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let direct = |asked: &str, more: Value| {
            let mut direct = json!({"url": "https://h/r.git",
                "vcs_info": {"vcs": "git", "commit_id": commit, "requested_revision": asked}});
            direct["dir_info"] = more;
            direct
        };
        for (direct, expected) in [
            (direct(commit, Value::Null), false),
            (direct("main", Value::Null), true),
            (direct(commit, json!({"editable": true})), true),
            (json!({"url": "file:///x", "dir_info": {}}), true),
            (json!({"url": "file:///x/p-1.whl", "archive_info": {}}), false),
            (json!({"url": "https://h/p-1.whl", "archive_info": {}}), false),
        ] {
            assert_eq!(moves(&direct), expected, "{direct}");
        }
    }

    #[test]
    fn files_of_external_packages_are_those_that_they_record() {
        let temp = tempfile::tempdir().unwrap();
        let site = temp.path().join("lib/python3/site-packages");
        let info = site.join("p-1.dist-info");
        fs::create_dir_all(&info).unwrap();
        fs::write(
            info.join("direct_url.json"),
            r#"{"url": "file:///x", "dir_info": {}}"#,
        )
        .unwrap();
        let record =
            "p/a.py,,\n../../../bin/p,,\n\"p/a,\"\"b.py\",sha256=x,1\n../../../../outside,,\n/etc/x,,\n";
        fs::write(info.join("RECORD"), record).unwrap();
        let mut found: Vec<String> = paths(temp.path(), &site)
            .unwrap()
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        found.sort();
        let site = "lib/python3/site-packages";
        assert_eq!(
            found,
            [
                "bin/p".to_owned(),
                format!("{site}/p-1.dist-info"),
                format!("{site}/p/a,\"b.py"),
                format!("{site}/p/a.py")
            ]
        );
    }
}
