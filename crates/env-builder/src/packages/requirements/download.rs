//! Archives that are named by their address are downloaded once per machine and kept.
//!
//! Each address has a folder of its own, so that two archives of the same name do not meet, and a file has
//! its name only when it is complete. uv has such a cache itself.

use std::fs;
use std::path::{Path, PathBuf};

use clearml_support::fs::{create_private_dir, remove_tree};
use clearml_support::id::hex32;

use crate::code::repo_url::{cache_id, folder_name};
use crate::error::{FileError, at};
use crate::packages::PackageError;
use crate::packages::requirements::line::{Requirement, Target};
use crate::packages::requirements::step::{Action, Step};
use crate::tools::Context;

/// The address of a line that is cached: nothing but an address of an archive.
pub(crate) fn address(requirement: &Requirement) -> Option<&str> {
    match &requirement.target {
        Target::Url(url) if requirement.name.is_none() && !requirement.editable => Some(url),
        _ => None,
    }
}

/// Where an archive is in the cache; the address has no fragment.
pub(crate) fn place(cache: &Path, url: &str) -> PathBuf {
    cache.join(cache_id(url)).join(folder_name(url))
}

/// The file of an archive in the cache, which is there when this returns. `None`, after a line that says
/// why, when that was not possible: the installer downloads it itself then.
pub(crate) fn fetch(
    context: &Context<'_>,
    cache: &Path,
    url: &str,
    step: Step,
    run: &mut dyn FnMut(&Step) -> Result<(), PackageError>,
) -> Result<Option<PathBuf>, PackageError> {
    let (plain, _) = url.split_once('#').unwrap_or((url, ""));
    let file = place(cache, plain);
    if file.is_file() {
        context.info(&format!("{plain} is in the download cache"));
        return Ok(Some(file));
    }
    let staging = cache.join(format!("_temp.{}", hex32()));
    let result = create_private_dir(&staging)
        .map_err(|error| PackageError::from(at("creating", &staging)(error)))
        .and_then(|()| {
            run(&Step {
                action: Action::Download(staging.clone()),
                requirements: vec![url.to_owned()],
                ..step
            })
        })
        .and_then(|()| Ok(keep(&staging, &file)?));
    // What is left behind is removed with the next try at the latest; it is only a cache.
    let _ = remove_tree(&staging);
    match result {
        Ok(kept) => Ok(kept.then_some(file)),
        Err(error) if context.host.cancel().is_cancelled() => Err(error),
        Err(error) => {
            context.warn(&format!("{plain} is not kept in the download cache: {error}"));
            Ok(None)
        }
    }
}

/// Gives what was downloaded its place. False when it has another name than its address says.
fn keep(staging: &Path, file: &Path) -> Result<bool, FileError> {
    let downloaded = staging.join(file.file_name().unwrap_or_default());
    if !downloaded.is_file() {
        return Ok(false);
    }
    let folder = file.parent().unwrap_or(staging);
    create_private_dir(folder).map_err(at("creating", folder))?;
    fs::rename(&downloaded, file).map_err(at("renaming", &downloaded))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packages::requirements::line::{Line, parse};

    #[test]
    fn what_is_cached() {
        for (line, expected) in [
            ("https://h/p-1.0-py3-none-any.whl", true),
            ("https://h/p.tar.gz#sha256=aa", true),
            ("ftp://h/p.zip", true),
            ("git+https://a", false),
            ("-e http://a", false),
            ("file://a", false),
            ("p @ https://h/p.whl", false),
            ("six", false),
        ] {
            let Line::Requirement(requirement) = &parse(line).unwrap()[0] else {
                panic!("{line}")
            };
            assert_eq!(address(requirement).is_some(), expected, "{line}");
        }
    }
}
