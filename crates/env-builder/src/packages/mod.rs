//! Packages: which lists apply, what is in them, installing them, and reading what is installed.

use std::path::{Path, PathBuf};

use clearml_support::command::CommandError;
use clearml_support::fs::read_limited;
use clearml_task_model::{Requirements, TextOrLines};

use crate::error::FileError;
use crate::request::PackageManagerSettings;

pub(crate) mod freeze;
pub(crate) mod install;
pub mod lines;

/// A list that people have written is shorter.
const MAX_LIST: u64 = 16 << 20;

/// Packages could not be installed.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// The installer failed.
    #[error("Could not install {what}: {last_line}")]
    Install {
        /// The list.
        what: String,
        /// What the installer said.
        last_line: String,
    },
    /// There is nothing to install with.
    #[error(
        "packages are required, but the interpreter {} brings no pip and there is no uv on PATH; \
         install its venv package (for example `apt-get install python3-venv`) or uv",
        python.display()
    )]
    NoInstaller {
        /// The interpreter.
        python: PathBuf,
    },
    /// The installer could not be run.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The file system refused.
    #[error(transparent)]
    File(#[from] FileError),
}

/// A list of requirements and what to call it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RequirementSet {
    pub(crate) what: String,
    pub(crate) text: String,
    /// Where includes and local packages are looked for.
    pub(crate) folder: PathBuf,
}

/// The pip list of the task that counts, if it has one with content.
pub(crate) fn of_task(
    requirements: Option<&Requirements>,
    settings: &PackageManagerSettings,
) -> Option<String> {
    let requirements = requirements.filter(|_| !settings.force_repo_requirements_txt)?;
    let text = |field: &Option<TextOrLines>| {
        field
            .as_ref()
            .filter(|text| !text.is_blank())
            .map(TextOrLines::text)
    };
    let original = text(&requirements.org_pip).filter(|_| settings.force_original_requirements);
    original.or_else(|| text(&requirements.pip))
}

/// The text of a file whose encoding nobody has declared: by its byte order mark, else UTF-8. Bytes that
/// are not valid stand in comments, if anywhere.
fn text(bytes: &[u8]) -> String {
    let wide = |from: fn([u8; 2]) -> u16| {
        let units: Vec<u16> = bytes[2..]
            .chunks_exact(2)
            .map(|pair| from([pair[0], pair[1]]))
            .collect();
        String::from_utf16_lossy(&units)
    };
    match bytes {
        [0xff, 0xfe, ..] => wide(u16::from_le_bytes),
        [0xfe, 0xff, ..] => wide(u16::from_be_bytes),
        _ => {
            let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
            String::from_utf8_lossy(bytes).into_owned()
        }
    }
}

/// The `requirements.txt` files from the repository root down to the folder of the entry script.
pub(crate) fn of_repository(root: &Path, working_dir: &str, entry_point: &str) -> Vec<RequirementSet> {
    let script = entry_point
        .split_whitespace()
        .next()
        .filter(|word| !word.starts_with('-'))
        .unwrap_or("x");
    let relative = crate::code::info::normal_path(&format!("{working_dir}/{script}"));
    let mut folders = vec![root.to_owned()];
    let parts: Vec<&str> = relative.split('/').collect();
    let inside = !relative.starts_with('/') && parts.first() != Some(&"..");
    for part in parts
        .iter()
        .take(parts.len() - 1)
        .filter(|part| inside && **part != ".")
    {
        folders.push(folders[folders.len() - 1].join(part));
    }
    let read = |folder: PathBuf| {
        let file = folder.join("requirements.txt");
        // A link in a repository may lead to something that never ends.
        if !file.metadata().ok()?.is_file() {
            return None;
        }
        let text = text(&read_limited(&file, MAX_LIST).ok()?);
        Some(RequirementSet {
            what: file.display().to_string(),
            text,
            folder: root.to_owned(),
        })
    };
    folders.into_iter().filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn lists_of_any_encoding_are_read_and_things_that_never_end_are_not() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path();
        let file = root.join("requirements.txt");
        let wide: Vec<u8> = "\u{feff}six\n"
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect();
        for bytes in [&b"six\n"[..], b"\xef\xbb\xbfsix\n", b"six\n# caf\xe9\n", &wide] {
            fs::write(&file, bytes).unwrap();
            let sets = of_repository(root, ".", "main.py");
            assert!(sets[0].text.starts_with("six\n"), "{:?}", sets[0].text);
        }
        fs::remove_file(&file).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &file).unwrap();
        assert!(of_repository(root, ".", "main.py").is_empty());
    }
}
