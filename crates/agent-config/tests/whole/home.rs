//! A home folder with configuration files in it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clearml_agent_config::{Settings, Sources};

/// A home folder of its own with the given files in it.
pub(crate) struct Home {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) sources: Sources,
}

impl Home {
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let sources = Sources {
            home: Some(folder.path().to_path_buf()),
            host_name: Some("box".to_owned()),
            ..Sources::default()
        };
        Self { folder, sources }
    }

    pub(crate) fn env(mut self, variables: &[(&str, &str)]) -> Self {
        let variables = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        self.sources.env = variables.collect::<BTreeMap<_, _>>();
        self
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn load(&self) -> Settings {
        Settings::load(&self.sources).unwrap()
    }

    pub(crate) fn error(&self) -> String {
        Settings::load(&self.sources).unwrap_err().to_string()
    }
}
