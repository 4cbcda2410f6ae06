//! Where things are in this repository, and how to build them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// The root of the repository.
#[must_use]
pub fn root() -> &'static Path {
    // The manifest of this crate lies one level below the root.
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("."))
}

/// The build folder, where scratch data of the commands lives as well.
#[must_use]
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The cargo that runs us.
#[must_use]
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Builds the agent and returns the path of its executable.
///
/// # Errors
///
/// When the build fails.
pub fn build_agent(release: bool) -> Result<PathBuf> {
    let mut command = cargo();
    command.args(["build", "--package", "clearml-agent", "--bin", "clearml-agent"]);
    if release {
        command.arg("--release");
    }
    let status = command.status().context("starting cargo build")?;
    ensure!(status.success(), "building clearml-agent failed ({status})");
    let profile = if release { "release" } else { "debug" };
    let executable = target().join(profile).join("clearml-agent");
    ensure!(executable.is_file(), "cargo built no {}", executable.display());
    Ok(executable)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use cargo_metadata::DependencyKind;

    use super::*;

    /// The names of the external entries of `[workspace.dependencies]`.
    fn workspace_dependencies() -> Vec<String> {
        let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
        let (_, section) = manifest.split_once("[workspace.dependencies]").unwrap();
        let section = section.split("\n[").next().unwrap();
        let entries = section
            .lines()
            .filter(|line| !line.contains("path =") && !line.starts_with('#'));
        entries
            .filter_map(|line| Some(line.split_once(" = ")?.0.to_owned()))
            .collect()
    }

    #[test]
    fn every_dependency_is_explained_and_every_explanation_is_needed() {
        let document = fs::read_to_string(root().join("docs/dependencies.md")).unwrap();
        let rows = document
            .lines()
            .filter_map(|line| line.strip_prefix("| ")?.split(' ').next());
        let explained: Vec<_> = rows.filter(|name| !matches!(*name, "crate" | "---")).collect();
        let mut dependencies = workspace_dependencies();
        dependencies.sort();
        assert_eq!(
            explained, dependencies,
            "docs/dependencies.md and Cargo.toml differ"
        );
    }

    #[test]
    fn every_workspace_dependency_is_used() {
        let mut manifests = String::new();
        for folder in ["crates", "bins"] {
            for entry in fs::read_dir(root().join(folder)).unwrap() {
                manifests += &fs::read_to_string(entry.unwrap().path().join("Cargo.toml")).unwrap();
            }
        }
        manifests += &fs::read_to_string(root().join("xtask/Cargo.toml")).unwrap();
        let used = |name: &String| {
            manifests.contains(&format!("\n{name}.workspace"))
                || manifests.contains(&format!("\n{name} = {{"))
        };
        let unused: Vec<_> = workspace_dependencies()
            .into_iter()
            .filter(|name| !used(name))
            .collect();
        assert!(
            unused.is_empty(),
            "declared in Cargo.toml but used nowhere: {unused:?}"
        );
    }

    /// The source of a package, from these of its folders.
    fn sources(package: &Path, folders: &[&str]) -> String {
        let mut text = String::new();
        let mut open: Vec<PathBuf> = folders.iter().map(|folder| package.join(folder)).collect();
        while let Some(folder) = open.pop() {
            // Not every package has every folder.
            for entry in fs::read_dir(folder).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    open.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    text += &fs::read_to_string(path).unwrap();
                }
            }
        }
        text
    }

    #[test]
    fn every_dependency_of_a_crate_is_used_by_it() {
        let metadata = cargo_metadata::MetadataCommand::new()
            .manifest_path(root().join("Cargo.toml"))
            .exec()
            .unwrap();
        let resolved = metadata.resolve.as_ref().unwrap();
        let mut unused = Vec::new();
        for package in metadata.workspace_packages() {
            let folder = package.manifest_path.parent().unwrap().as_std_path();
            let program = sources(folder, &["src"]);
            let all = sources(folder, &["src", "tests", "examples", "benches"]);
            let node = resolved.nodes.iter().find(|node| node.id == package.id).unwrap();
            for dependency in &node.deps {
                let only_tests = dependency
                    .dep_kinds
                    .iter()
                    .all(|kind| kind.kind == DependencyKind::Development);
                let text = if only_tests { &all } else { &program };
                let word = regex::Regex::new(&format!(r"\b{}\b", dependency.name)).unwrap();
                if !word.is_match(text) {
                    unused.push(format!("{} does not use {}", package.name, dependency.name));
                }
            }
        }
        assert!(unused.is_empty(), "{unused:#?}");
    }
}
