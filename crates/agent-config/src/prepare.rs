//! What the configuration does to this machine when a command that runs tasks starts.

use serde_json::Value;

use crate::notice::{Notice, NoticeLevel};
use crate::settings::Settings;

/// Folders that must exist, and that tasks are told by their full path.
const FOLDERS: &[&str] = &[
    "agent.venvs_dir",
    "agent.vcs_cache.path",
    "agent.pip_download_cache.path",
    "agent.docker_pip_cache",
    "agent.docker_apt_cache",
];
/// The same where tasks run as another user.
const SDK_CACHE: &str = "sdk.storage.cache.default_base_dir";

/// Settings of a command that is about to run tasks, and what was done for it.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// The settings, with full paths of folders.
    pub settings: Settings,
    /// What was done, and what could not be done.
    pub notices: Vec<Notice>,
}

impl Settings {
    /// Prepares this machine for running tasks: creates the folders of the caches and the files of the
    /// section `files`. Nothing that goes wrong stops anything; it is told.
    ///
    /// The variables of the section `environment` are not set in this process, which may have threads:
    /// they are for the processes that it starts, see [`Settings::environment`].
    #[must_use]
    pub fn prepare(&self) -> Prepared {
        let settings = self.with_full_paths();
        let mut notices = Vec::new();
        for key in settings.folders() {
            let Some(path) = settings.get(key).and_then(Value::as_str) else {
                continue;
            };
            if let Err(error) = std::fs::create_dir_all(path) {
                let text = format!("cannot create the folder {path} of {key}: {error}");
                notices.push(Notice::new(NoticeLevel::Warning, text));
            }
        }
        let names: Vec<String> = settings.environment().into_iter().map(|(name, _)| name).collect();
        if !names.is_empty() {
            let text = format!("Environment variables set from configuration: {names:?}").replace('"', "'");
            notices.push(Notice::new(NoticeLevel::Info, text));
        }
        notices.extend(settings.unusable_environment().into_iter().map(|name| {
            let text = format!(
                "the variable {name:?} of the section environment is left out: no process can have a variable of that name or value"
            );
            Notice::new(NoticeLevel::Warning, text)
        }));
        notices.extend(settings.write_files());
        Prepared { settings, notices }
    }

    /// The same settings, with `~` and variables in the paths of the caches replaced.
    #[must_use]
    pub fn with_full_paths(&self) -> Settings {
        self.rewritten(self.folders().filter_map(|key| {
            let text = self.get(key)?.as_str().filter(|text| !text.is_empty())?;
            let path = self.sources().path(text);
            Some((key, Value::from(path.to_string_lossy().into_owned())))
        }))
    }

    fn folders(&self) -> impl Iterator<Item = &'static str> {
        let as_other_user = self.variable_text("CLEARML_AGENT_EXEC_USER").is_some();
        FOLDERS.iter().copied().chain(as_other_user.then_some(SDK_CACHE))
    }
}
