//! Templates on the disk: read at the start, read again when they change, kept when a change is bad.

use std::path::PathBuf;
use std::time::SystemTime;

use clearml_sbatch_template::{Options, Template, TemplateError};
use clearml_support::fs::read_limited;
use sha2::{Digest, Sha256};

const MAX_BYTES: u64 = 1 << 20;

/// A template could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file.
    #[error("reading the template {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// It is not UTF-8.
    #[error("the template {} is not UTF-8", .0.display())]
    Encoding(PathBuf),
    /// What it says.
    #[error(transparent)]
    Template(#[from] TemplateError),
}

/// A template and the file that it came from.
#[derive(Debug)]
pub struct Loaded {
    path: PathBuf,
    options: Options,
    changed: Option<SystemTime>,
    /// The template.
    pub template: Template,
    /// The digest of its text.
    pub digest: String,
    /// Its text, to see which values it needs.
    pub text: String,
}

impl Loaded {
    /// Reads a template.
    ///
    /// # Errors
    ///
    /// When the file can't be read, or the template can't be used.
    pub fn read(path: PathBuf, options: Options) -> Result<Self, LoadError> {
        let failed = |source| LoadError::File {
            path: path.clone(),
            source,
        };
        let changed = std::fs::metadata(&path)
            .and_then(|meta| meta.modified())
            .map_err(failed)?;
        let bytes = read_limited(&path, MAX_BYTES).map_err(failed)?;
        let text = String::from_utf8(bytes).map_err(|_| LoadError::Encoding(path.clone()))?;
        let template = Template::parse(&path.to_string_lossy(), &text, options.clone())?;
        let digest = Sha256::digest(text.as_bytes())
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Ok(Self {
            path,
            options,
            changed: Some(changed),
            template,
            digest,
            text,
        })
    }

    /// Reads it again if the file has changed. A version that can't be used is told once; the old one stays.
    pub fn refresh(&mut self) {
        let changed = std::fs::metadata(&self.path)
            .and_then(|meta| meta.modified())
            .ok();
        if changed == self.changed {
            return;
        }
        self.changed = changed;
        match Self::read(self.path.clone(), self.options.clone()) {
            Ok(loaded) => {
                tracing::info!("the template {} has changed", self.path.display());
                *self = loaded;
            }
            Err(error) => tracing::error!("{error}; the version before stays in force"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_bad_change_leaves_the_template_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.sh");
        let write = |text: &str, age: u64| {
            std::fs::write(&path, text).unwrap();
            let file = std::fs::File::options().write(true).open(&path).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(age))
                .unwrap();
        };
        write("#!/bin/bash\n${CLEARML_AGENT_EXECUTE}\n", 1);
        let mut loaded = Loaded::read(path.clone(), Options::default()).unwrap();
        let first = loaded.digest.clone();
        write("#!/bin/bash\n#SBATCH -n 1\n${CLEARML_AGENT_EXECUTE}\n", 2);
        loaded.refresh();
        let second = loaded.digest.clone();
        assert_ne!(first, second);
        write("no template\n", 3);
        loaded.refresh();
        assert_eq!(loaded.digest, second);
        std::fs::remove_file(&path).unwrap();
        loaded.refresh();
        assert_eq!(loaded.digest, second);
    }
}
