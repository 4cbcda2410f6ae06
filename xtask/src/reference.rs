//! `cargo xtask reference`: the pages of `docs/reference`, which the program writes about itself.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::workspace;

/// Writes the pages, or with `check` says whether those in the repository are up to date.
///
/// # Errors
///
/// When the agent can't be built or run, or the pages are out of date.
pub fn run(check: bool) -> Result<()> {
    let agent = workspace::build_agent(false)?;
    let pages = workspace::root().join("docs/reference");
    if !check {
        return write(&agent, &pages);
    }
    let scratch = workspace::target().join("reference");
    match fs::remove_dir_all(&scratch) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("removing {}", scratch.display()));
        }
        _ => {}
    }
    write(&agent, &scratch)?;
    let stale = differing(&read(&pages)?, &read(&scratch)?);
    ensure!(
        stale.is_empty(),
        "docs/reference is out of date ({}); run `cargo xtask reference` and commit what it changes",
        stale.join(", ")
    );
    println!("docs/reference is up to date");
    Ok(())
}

fn write(agent: &Path, folder: &Path) -> Result<()> {
    let status = Command::new(agent)
        .args(["reference", "--output"])
        .arg(folder)
        .status()
        .with_context(|| format!("starting {}", agent.display()))?;
    ensure!(status.success(), "writing the reference pages failed ({status})");
    Ok(())
}

/// Name and text of every page in a folder, which need not exist.
fn read(folder: &Path) -> Result<BTreeMap<String, String>> {
    let mut pages = BTreeMap::new();
    if !folder.is_dir() {
        return Ok(pages);
    }
    for entry in fs::read_dir(folder).with_context(|| format!("listing {}", folder.display()))? {
        let path = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        pages.insert(name, text);
    }
    Ok(pages)
}

/// The pages that are missing, too many, or different. Pure.
fn differing(present: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> Vec<String> {
    let names: std::collections::BTreeSet<&String> = present.keys().chain(wanted.keys()).collect();
    names
        .into_iter()
        .filter(|name| present.get(*name) != wanted.get(*name))
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_extra_and_changed_pages_are_named() {
        let pages = |pages: &[(&str, &str)]| -> BTreeMap<String, String> {
            pages
                .iter()
                .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
                .collect()
        };
        let present = pages(&[("a", "1"), ("b", "1"), ("c", "1")]);
        let wanted = pages(&[("b", "1"), ("c", "2"), ("d", "1")]);
        assert_eq!(differing(&present, &wanted), ["a", "c", "d"]);
    }
}
