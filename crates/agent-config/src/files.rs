//! The section `files`: files that the configuration puts on this machine.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use serde_json::Value;

use crate::convert;
use crate::notice::{Notice, NoticeLevel};
use crate::settings::Settings;

/// Most files of one configuration.
const MAX_FILES: usize = 256;
/// Mode of a file for which none is given and that does not exist: it may well hold a secret.
const DEFAULT_MODE: u32 = 0o600;

/// A file that the configuration asks for.
#[derive(Clone, PartialEq, Eq)]
pub struct PlannedFile {
    /// The name of its entry.
    pub name: String,
    /// Where it goes; absolute.
    pub path: PathBuf,
    /// What goes into it.
    pub contents: Vec<u8>,
    /// Whether a file that is there already is replaced.
    pub overwrite: bool,
    /// Its mode; without one, that of the file that is there, else only the user may read it.
    pub mode: Option<u32>,
}

impl std::fmt::Debug for PlannedFile {
    /// Leaves out the contents.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PlannedFile")
            .field("name", &self.name)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// An entry of the section that can't become a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnusableFile {
    /// The name of the entry.
    pub name: String,
    /// Why.
    pub reason: String,
}

impl Settings {
    /// The files that the section `files` asks for, unless `agent.apply_files` is off.
    #[must_use]
    pub fn planned_files(&self) -> Vec<Result<PlannedFile, UnusableFile>> {
        let Some(Value::Object(entries)) = self.get("files").filter(|_| self.agent.apply_files) else {
            return Vec::new();
        };
        let plan = |(number, (name, entry)): (usize, (&String, &Value))| {
            if number >= MAX_FILES {
                return Err(UnusableFile {
                    name: name.clone(),
                    reason: format!("there are more than {MAX_FILES} files"),
                });
            }
            plan(self, name, entry).map_err(|reason| UnusableFile {
                name: name.clone(),
                reason,
            })
        };
        entries.iter().enumerate().map(plan).collect()
    }

    /// Writes the files of the section `files`, as far as possible, and tells what became of each.
    #[must_use]
    pub fn write_files(&self) -> Vec<Notice> {
        let planned = self.planned_files();
        if planned.is_empty() {
            return Vec::new();
        }
        let mut notices = vec![Notice::new(
            NoticeLevel::Info,
            "Creating files from configuration",
        )];
        notices.extend(planned.into_iter().map(|planned| {
            let (name, result) = match planned {
                Ok(file) => (file.name.clone(), file.write().map(|()| file.path)),
                Err(unusable) => (unusable.name, Err(unusable.reason)),
            };
            match result {
                Ok(path) => Notice::new(NoticeLevel::Info, format!("Saved [{name}]: {}", path.display())),
                Err(reason) => Notice::new(NoticeLevel::Warning, format!("Skipped [{name}]: {reason}")),
            }
        }));
        notices
    }
}

impl PlannedFile {
    /// Writes the file in one step: whoever reads it sees the old one or the new one. A link at its place
    /// is replaced, not followed.
    fn write(&self) -> Result<(), String> {
        let present = match std::fs::symlink_metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            present => Some(present.map_err(|error| error.to_string())?),
        };
        if let Some(present) = &present {
            if present.is_dir() {
                return Err(format!("{} is a folder", self.path.display()));
            }
            if !present.is_file() && !present.is_symlink() {
                return Err(format!("{} is no regular file", self.path.display()));
            }
            if !self.overwrite {
                return Err(format!("{} exists and overwrite is off", self.path.display()));
            }
        }
        let kept = present
            .filter(std::fs::Metadata::is_file)
            .map(|present| present.permissions().mode() & 0o7777);
        let mode = self.mode.or(kept).unwrap_or(DEFAULT_MODE);
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        std::fs::create_dir_all(folder)
            .map_err(|error| format!("cannot create the folder {}: {error}", folder.display()))?;
        clearml_support::fs::write_atomic(&self.path, &self.contents, mode)
            .map_err(|error| format!("cannot write {}: {error}", self.path.display()))
    }
}

fn plan(settings: &Settings, name: &str, entry: &Value) -> Result<PlannedFile, String> {
    let path = entry
        .get("path")
        .and_then(Value::as_str)
        .filter(|path| !path.is_empty())
        .ok_or("it has no path")?;
    if path.contains('\0') {
        return Err("its path has a zero byte".to_owned());
    }
    if path.ends_with('/') {
        return Err(format!("{path} is a folder"));
    }
    let overwrite = match entry.get("overwrite") {
        None | Some(Value::Null) => true,
        Some(value) => convert::flag(value).ok_or("overwrite must be true or false")?,
    };
    let word = |member: &str| {
        let text = entry.get(member).and_then(Value::as_str).unwrap_or("string");
        text.trim().to_ascii_lowercase()
    };
    Ok(PlannedFile {
        name: name.to_owned(),
        path: settings.sources().path(path),
        contents: contents(
            entry.get("contents").unwrap_or(&Value::Null),
            &word("format"),
            &word("target_format"),
        )?,
        overwrite,
        mode: entry
            .get("mode")
            .filter(|mode| !mode.is_null())
            .map(mode)
            .transpose()?,
    })
}

/// A mode in octal, as text or number: `"0o600"`, `"600"` and `600` are the same.
fn mode(value: &Value) -> Result<u32, String> {
    let text = convert::text(value).unwrap_or_default();
    let digits = text.trim().trim_start_matches("0o").trim_start_matches("0O");
    u32::from_str_radix(digits, 8)
        .ok()
        .filter(|mode| *mode <= 0o7777)
        .ok_or_else(|| "its mode is no octal number up to 7777".to_owned())
}

fn contents(value: &Value, format: &str, target: &str) -> Result<Vec<u8>, String> {
    let decoded = match (format, value) {
        ("base64", Value::String(text)) => {
            // Long texts are usually folded.
            let joined: String = text.split_whitespace().collect();
            let bytes = base64::engine::general_purpose::STANDARD
                .decode(joined)
                .map_err(|_| "its contents are not base64")?;
            if target == "bytes" {
                return Ok(bytes);
            }
            let text = String::from_utf8(bytes)
                .map_err(|_| "its contents are not UTF-8, set target_format: bytes")?;
            Value::from(text)
        }
        ("base64", _) => return Err("its contents are not base64".to_owned()),
        (_, Value::Null) => return Ok(Vec::new()),
        _ => value.clone(),
    };
    match target {
        "bytes" => {
            Err("its contents are text, so set format: base64 or leave out target_format: bytes".to_owned())
        }
        "json" => serde_json::to_vec_pretty(&decoded).map_err(|error| error.to_string()),
        "yaml" | "yml" => serde_saphyr::to_string(&decoded)
            .map(String::into_bytes)
            .map_err(|error| error.to_string()),
        _ => Ok(match decoded {
            Value::String(text) => text,
            other => other.to_string(),
        }
        .into_bytes()),
    }
}
