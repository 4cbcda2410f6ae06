//! The floor rules of `docs/architecture.md`: who may import whom.
//!
//! Only normal and build dependencies count: a test may use whatever proves its point.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};

use crate::workspace;

/// The floor of each crate, as drawn in `docs/architecture.md`.
const FLOORS: &[(&str, u8)] = &[
    ("clearml-support", 0),
    ("clearml-task-model", 0),
    ("clearml-agent-config", 1),
    ("clearml-api-client", 1),
    ("clearml-container", 1),
    ("clearml-env-builder", 1),
    ("clearml-gpu-alloc", 1),
    ("clearml-sbatch-template", 1),
    ("clearml-task-runner", 2),
    ("clearml-intake", 2),
    ("clearml-local-server", 2),
    ("clearml-commands", 3),
    ("clearml-slurm-glue", 3),
    ("clearml-worker", 3),
    ("clearml-agent", 4),
    ("clearml-simulation", 4),
    ("clearml-agent-slurm", 4),
    ("xtask", 4),
];

/// Crates that must stay lower than their own floor would allow, with the highest floor they may use.
const CEILINGS: &[(&str, u8)] = &[("clearml-local-server", 0)];

/// What each workspace crate imports from the workspace, by package name.
pub type Imports = BTreeMap<String, Vec<String>>;

/// Reads the imports of the workspace with `cargo metadata`.
///
/// # Errors
///
/// When `cargo metadata` fails.
pub fn imports() -> Result<Imports> {
    let metadata = MetadataCommand::new()
        .manifest_path(workspace::root().join("Cargo.toml"))
        .no_deps()
        .exec()
        .context("reading the workspace with cargo metadata")?;
    Ok(from_metadata(&metadata))
}

fn from_metadata(metadata: &Metadata) -> Imports {
    let members: Vec<_> = metadata.workspace_packages();
    let is_ours = |name: &str| members.iter().any(|package| package.name.as_str() == name);
    members
        .iter()
        .map(|package| {
            let ours = package
                .dependencies
                .iter()
                .filter(|dependency| dependency.kind != DependencyKind::Development)
                .filter(|dependency| is_ours(&dependency.name))
                .map(|dependency| dependency.name.clone())
                .collect();
            (package.name.to_string(), ours)
        })
        .collect()
}

/// Every broken rule as one sentence; empty when the house stands.
#[must_use]
pub fn violations(imports: &Imports) -> Vec<String> {
    let floor = |name: &str| {
        FLOORS
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, floor)| *floor)
    };
    let mut found = Vec::new();
    for (package, dependencies) in imports {
        let Some(own) = floor(package) else {
            found.push(format!(
                "{package} has no floor: add it to xtask/src/floors.rs and docs/architecture.md"
            ));
            continue;
        };
        let ceiling = CEILINGS
            .iter()
            .find(|(name, _)| name == package)
            .map(|(_, ceiling)| *ceiling);
        for dependency in dependencies {
            let Some(other) = floor(dependency) else { continue };
            if own < 4 && other >= own {
                found.push(format!(
                    "{package} (floor {own}) imports {dependency} (floor {other})"
                ));
            } else if ceiling.is_some_and(|ceiling| other > ceiling) {
                found.push(format!(
                    "{package} may use floor 0 only, but imports {dependency} (floor {other})"
                ));
            }
        }
    }
    found
}

/// Checks the workspace and prints the result.
///
/// # Errors
///
/// When a rule is broken, or the workspace cannot be read.
pub fn run() -> Result<()> {
    let imports = imports()?;
    let violations = violations(&imports);
    for violation in &violations {
        eprintln!("floors: {violation}");
    }
    anyhow::ensure!(violations.is_empty(), "{} floor rule(s) broken", violations.len());
    println!("floors: {} crates, every import goes downwards", imports.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(package: &str, dependencies: &[&str]) -> Imports {
        [(
            package.to_owned(),
            dependencies.iter().map(|&name| name.to_owned()).collect(),
        )]
        .into()
    }

    #[test]
    fn the_workspace_keeps_its_floors() {
        let violations = violations(&imports().unwrap());
        assert!(violations.is_empty(), "{violations:#?}");
    }

    #[test]
    fn upward_sideways_and_unknown_imports_are_found() {
        assert_eq!(
            violations(&one("clearml-env-builder", &["clearml-support"])),
            Vec::<String>::new()
        );
        assert_eq!(
            violations(&one("clearml-env-builder", &["clearml-agent-config"])).len(),
            1
        );
        assert_eq!(violations(&one("clearml-support", &["clearml-worker"])).len(), 1);
        assert_eq!(
            violations(&one("clearml-local-server", &["clearml-api-client"])).len(),
            1
        );
        assert_eq!(violations(&one("clearml-attic", &[])).len(), 1);
        assert_eq!(
            violations(&one("clearml-agent", &["xtask"])),
            Vec::<String>::new()
        );
    }
}
