//! What differs where the agent is the entry point of an image that `build --docker` has made.

use std::path::{Path, PathBuf};

use clearml_agent_config::Sources;
use serde_json::Value;

/// Where people mount a configuration.
const MOUNTED: &str = "/tmp/clearml.conf";
/// What the build has left in the home of the image: addresses of servers.
const DEFAULT: &str = "default_clearml.conf";

/// The folder of builds is that of the image, whatever the configuration says. And there may be no configuration but
/// the addresses that came with the image: the credentials are variables then.
pub(crate) fn adapt(sources: &mut Sources, builds: &Path) {
    let folder = Value::from(builds.to_string_lossy().into_owned());
    let option = "--from-image".to_owned();
    sources
        .overrides
        .push(("agent.venvs_dir".to_owned(), folder, option));
    if sources.config_file.is_none() {
        sources.config_file = config_file(sources, Path::new(MOUNTED));
    }
}

fn config_file(sources: &Sources, mounted: &Path) -> Option<PathBuf> {
    // Empty is what a mount leaves behind.
    if mounted
        .metadata()
        .is_ok_and(|meta| meta.is_file() && meta.len() > 0)
    {
        return Some(mounted.to_owned());
    }
    let named = |name: &str| sources.env.get(name).is_some_and(|path| !path.is_empty());
    let home = sources.home.as_ref()?;
    let own = ["clearml.conf", "trains.conf"].map(|name| home.join(name));
    if named("CLEARML_CONFIG_FILE") || named("TRAINS_CONFIG_FILE") || own.iter().any(|path| path.is_file()) {
        return None;
    }
    Some(home.join(DEFAULT)).filter(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_of_ones_own_counts_more_than_that_of_the_image() {
        let folder = tempfile::tempdir().unwrap();
        let mounted = folder.path().join("mounted");
        let mut sources = Sources {
            home: Some(folder.path().to_owned()),
            ..Sources::default()
        };
        let found = |sources: &Sources| config_file(sources, &mounted);
        assert_eq!(found(&sources), None);
        let default = folder.path().join(DEFAULT);
        std::fs::write(&default, "{}").unwrap();
        std::fs::write(&mounted, "").unwrap();
        assert_eq!(found(&sources), Some(default));
        std::fs::write(folder.path().join("clearml.conf"), "{}").unwrap();
        assert_eq!(found(&sources), None);
        std::fs::remove_file(folder.path().join("clearml.conf")).unwrap();
        sources
            .env
            .insert("CLEARML_CONFIG_FILE".to_owned(), "x".to_owned());
        assert_eq!(found(&sources), None);
        std::fs::write(&mounted, "{}").unwrap();
        assert_eq!(found(&sources), Some(mounted.clone()));
    }
}
