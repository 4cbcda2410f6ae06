//! What a daemon checks and prints before it serves.

use std::path::{Path, PathBuf};

use clearml_agent_config::{ConfigError, PackageManager, Settings, Sources};
use clearml_intake::ServedQueue;
use clearml_support::fs::create_private_dir;
use clearml_support::text::printable_in_line;
use clearml_task_model::WorkerId;
use serde_json::Value;

use crate::refused::DaemonError;
use crate::serve::say;

const VENVS: &str = "agent.venvs_dir";
const APT_CACHE: &str = "agent.docker_apt_cache";
const SDK_CACHE: &str = "sdk.storage.cache.default_base_dir";
/// With this variable, agents of one machine work under one user that is not theirs.
const EXEC_USER: &str = "CLEARML_AGENT_EXEC_USER";

/// A daemon that is not the first of its machine works in folders of its own.
pub(crate) fn settings_of_slot(
    settings: Settings,
    sources: &Sources,
    slot: u32,
) -> Result<Settings, ConfigError> {
    if slot == 0 {
        return Ok(settings);
    }
    let own_user = sources.env.get(EXEC_USER).is_some_and(|user| !user.is_empty());
    let keys = [VENVS, APT_CACHE]
        .into_iter()
        .chain(own_user.then_some(SDK_CACHE));
    let mut overrides = Vec::new();
    for key in keys {
        if let Some(folder) = settings
            .get(key)
            .and_then(Value::as_str)
            .filter(|folder| !folder.is_empty())
        {
            let own = Value::from(format!("{}.{slot}", folder.trim_end_matches('/')));
            overrides.push((key.to_owned(), own, format!("slot {slot} of this machine")));
        }
    }
    settings.with_overrides(&overrides)
}

/// Tasks are started from the present folder.
pub(crate) fn check_current_folder() -> Result<(), DaemonError> {
    std::env::current_dir()
        .map(drop)
        .map_err(DaemonError::NoCurrentFolder)
}

/// Packages are chosen by the version of CUDA, so its absence is odd where GPUs are wanted.
pub(crate) fn check_cuda(settings: &Settings) -> Result<(), DaemonError> {
    if settings
        .agent
        .cuda_version
        .as_deref()
        .is_some_and(|version| version != "0")
    {
        return Ok(());
    }
    if settings.agent.package_manager.kind == PackageManager::Conda {
        return Err(DaemonError::NoCuda);
    }
    say(
        "clearml_agent: Warning: GPUs are wanted (--gpus), but no CUDA was found on this machine; packages are \
         chosen as if it had none. CUDA_VERSION and CUDNN_VERSION say otherwise",
    );
    Ok(())
}

/// The folders that tools of all kinds will have in their command lines and scripts.
pub(crate) fn check_folders(settings: &Settings, home: Option<&Path>) -> Result<(), DaemonError> {
    let venvs = settings.agent.venvs_dir.clone();
    let cache = settings
        .get(SDK_CACHE)
        .and_then(Value::as_str)
        .map(|text| at_home(text, home));
    for (key, folder) in [(VENVS, Some(venvs)), (SDK_CACHE, cache)] {
        // What has a variable in it is for the SDK to work out.
        let Some(folder) = folder.filter(|folder| !folder.to_string_lossy().contains('$')) else {
            continue;
        };
        let invalid = |reason: String| DaemonError::Folder {
            key,
            folder: folder.clone(),
            reason,
        };
        if folder.to_string_lossy().contains(char::is_whitespace) {
            return Err(invalid("it contains whitespace".to_owned()));
        }
        if !folder.as_os_str().is_empty() {
            create_private_dir(&folder).map_err(|e| invalid(format!("it can't be created: {e}")))?;
        }
    }
    Ok(())
}

fn at_home(text: &str, home: Option<&Path>) -> PathBuf {
    match (text.strip_prefix("~/"), home) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => text.into(),
    }
}

/// Who this is and which queues it serves.
pub(crate) fn table(worker: &WorkerId, queues: &[ServedQueue]) -> String {
    let mut rows = vec![["id", "name", "tags"].map(str::to_owned)];
    rows.extend(queues.iter().map(|queue| {
        let tags: Vec<String> = queue.tags.iter().map(|tag| format!("'{tag}'")).collect();
        // Whoever may create queues must not steer this terminal.
        [queue.id.as_str(), &queue.name, &format!("[{}]", tags.join(", "))]
            .map(|cell| printable_in_line(cell).into_owned())
    }));
    let widths: [usize; 3] = std::array::from_fn(|column| {
        let longest = rows.iter().map(|row| row[column].chars().count()).max();
        (longest.unwrap_or(0) + 1).max(3)
    });
    let border: String = widths
        .iter()
        .map(|width| format!("+{}", "-".repeat(width + 1)))
        .collect();
    let mut lines = vec![
        format!("Worker \"{worker}\" - Listening to queues:"),
        format!("{border}+"),
    ];
    for (index, row) in rows.iter().enumerate() {
        let cells: String = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("| {cell:<width$}"))
            .collect();
        lines.push(format!("{cells}|"));
        if index == 0 {
            lines.push(format!("{border}+"));
        }
    }
    lines.push(format!("{border}+\n"));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sources(home: &Path, overrides: &[(&str, Value)], env: &[(&str, &str)]) -> Sources {
        Sources {
            home: Some(home.to_owned()),
            env: env
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
            overrides: overrides
                .iter()
                .map(|(key, value)| ((*key).to_owned(), value.clone(), "test".to_owned()))
                .collect(),
            ..Sources::default()
        }
    }

    #[test]
    fn the_table_is_as_wide_as_its_longest_cells() {
        let queue = |name: &str, tags: &[&str]| ServedQueue {
            id: "1234".into(),
            name: name.to_owned(),
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        };
        let queues = [
            queue("default", &[]),
            queue("müll", &["x"]),
            queue("\u{1b}c\n", &[]),
        ];
        let table = table(&"host:0".into(), &queues);
        let expected = "Worker \"host:0\" - Listening to queues:\n\
            +------+-----------+-------+\n\
            | id   | name      | tags  |\n\
            +------+-----------+-------+\n\
            | 1234 | default   | []    |\n\
            | 1234 | müll      | ['x'] |\n\
            | 1234 | \\u{1b}c\\n | []    |\n\
            +------+-----------+-------+\n";
        assert_eq!(table, expected);
    }

    #[test]
    fn later_slots_have_folders_of_their_own() {
        let home = tempfile::tempdir().unwrap();
        let folders = [
            (VENVS, json!("/x/venvs")),
            (APT_CACHE, json!("/x/apt/")),
            (SDK_CACHE, json!("/x/cache")),
        ];
        let texts = |slot, env: &[(&str, &str)]| {
            let sources = sources(home.path(), &folders, env);
            let settings = settings_of_slot(Settings::load(&sources).unwrap(), &sources, slot).unwrap();
            let text = |key| settings.get(key).unwrap().as_str().unwrap().to_owned();
            assert_eq!(settings.agent.venvs_dir.to_str().unwrap(), text(VENVS));
            [text(VENVS), text(APT_CACHE), text(SDK_CACHE)]
        };
        assert_eq!(texts(0, &[]), ["/x/venvs", "/x/apt/", "/x/cache"]);
        assert_eq!(texts(2, &[]), ["/x/venvs.2", "/x/apt.2", "/x/cache"]);
        assert_eq!(
            texts(1, &[(EXEC_USER, "me")]),
            ["/x/venvs.1", "/x/apt.1", "/x/cache.1"]
        );
    }

    #[test]
    fn gpus_without_cuda_are_odd_and_an_error_with_conda() {
        let home = tempfile::tempdir().unwrap();
        let check = |manager: &str, version: &str| {
            let overrides = [
                ("agent.package_manager.type", json!(manager)),
                ("agent.cuda_version", json!(version)),
            ];
            let settings = Settings::load(&sources(home.path(), &overrides, &[])).unwrap();
            check_cuda(&settings).map_err(|e| e.to_string())
        };
        check("pip", "0").unwrap();
        check("conda", "12.6").unwrap();
        assert!(check("conda", "0").unwrap_err().contains("CUDA_VERSION"));
    }

    #[test]
    fn folders_that_tools_cannot_use_are_refused_at_the_start() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("file");
        std::fs::write(&file, "").unwrap();
        let check = |key, folder: &str| {
            let settings = Settings::load(&sources(home.path(), &[(key, json!(folder))], &[])).unwrap();
            check_folders(&settings, Some(home.path())).map_err(|e| e.to_string())
        };
        for (key, folder, wanted) in [
            (VENVS, "/tmp/two words".to_owned(), "whitespace"),
            (SDK_CACHE, "~/two words".to_owned(), "whitespace"),
            (VENVS, file.join("below").display().to_string(), "created"),
        ] {
            let error = check(key, &folder).unwrap_err();
            assert!(
                error.contains(&format!("Invalid config key \"{key}\"")) && error.contains(wanted),
                "{error}"
            );
        }
        check(SDK_CACHE, "~/new/cache").unwrap();
        assert!(home.path().join("new/cache").is_dir());
    }
}
