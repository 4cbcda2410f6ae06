//! The builder's outside world: lines go to a console, reports are kept until the build is through.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use clearml_api_client::Client;
use clearml_env_builder as env_builder;
use clearml_support::command::CancelToken;
use clearml_support::time::now_ms;
use clearml_task_model::Task;
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};
use tokio::runtime::Handle;

use crate::console::Level;

/// Where lines go.
type LineSink = dyn Fn(Level, &str) + Send + Sync;

/// What the builder tells.
pub(crate) struct BuildHost {
    line: Box<LineSink>,
    cancel: CancelToken,
    reported: Mutex<Reported>,
    files: Option<RemoteFiles>,
}

/// The file server, for a thread that has no runtime of its own.
struct RemoteFiles {
    client: Client,
    server: String,
    runtime: Handle,
}

/// The list of conda, and its own description of the environment.
pub(crate) type Conda = (Vec<String>, Option<Value>);

/// What the builder has told besides lines.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reported {
    pub(crate) packages: Option<Vec<String>>,
    pub(crate) conda: Option<Conda>,
    pub(crate) commit: Option<String>,
    /// Begin and duration of what people want to know the duration of.
    pub(crate) stations: BTreeMap<&'static str, (i64, Duration)>,
}

impl BuildHost {
    /// `line` gets everything that is for the console.
    pub(crate) fn new(cancel: CancelToken, line: impl Fn(Level, &str) + Send + Sync + 'static) -> Self {
        Self {
            line: Box::new(line),
            cancel,
            reported: Mutex::default(),
            files: None,
        }
    }

    /// Fetches files of tasks from the file server. Must be called inside the runtime.
    pub(crate) fn with_files(mut self, client: &Client, server: Option<&str>) -> Self {
        self.files = server.map(|server| RemoteFiles {
            client: client.clone(),
            server: server.trim_end_matches('/').to_owned(),
            runtime: Handle::current(),
        });
        self
    }

    fn with(&self, change: impl FnOnce(&mut Reported)) {
        change(
            &mut self
                .reported
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner),
        );
    }

    pub(crate) fn reported(&self) -> Reported {
        self.reported
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone()
    }
}

impl env_builder::Host for BuildHost {
    fn line(&self, level: env_builder::Level, text: &str) {
        let level = match level {
            env_builder::Level::Info => Level::Info,
            env_builder::Level::Warning => Level::Warning,
            env_builder::Level::Error => Level::Error,
        };
        (self.line)(level, text);
    }

    fn phase(&self, phase: env_builder::Phase, event: env_builder::PhaseEvent) {
        use env_builder::{Phase, PhaseEvent};
        let station = match phase {
            Phase::Clone | Phase::Checkout | Phase::Patch => "clone",
            Phase::Python | Phase::Packages | Phase::Script => "environment",
        };
        if let PhaseEvent::Finished(duration) = event {
            let begin = now_ms() - i64::try_from(duration.as_millis()).unwrap_or(0);
            self.with(|reported| {
                let entry = reported
                    .stations
                    .entry(station)
                    .or_insert((begin, Duration::ZERO));
                entry.1 += duration;
            });
            let text = format!("{} finished in {:.2} s", phase.as_str(), duration.as_secs_f64());
            (self.line)(Level::Info, &text);
        }
    }

    fn report_packages(&self, freeze: &[String]) {
        self.with(|reported| reported.packages = Some(freeze.to_vec()));
    }

    fn report_conda(&self, packages: &[String], environment: Option<&Value>) {
        self.with(|reported| reported.conda = Some((packages.to_vec(), environment.cloned())));
    }

    fn report_commit(&self, commit: &str) {
        self.with(|reported| reported.commit = Some(commit.to_owned()));
    }

    fn fetch(&self, url: &str) -> Result<Vec<u8>, String> {
        let Some(files) = &self.files else {
            return Err("no file server is configured; set api.files_server".to_owned());
        };
        // Our token is for this server, and a task may name any.
        let path = url
            .strip_prefix(&files.server)
            .and_then(|rest| rest.strip_prefix('/'))
            .ok_or_else(|| format!("it is not on the file server {}", files.server))?;
        let path = percent_decode_str(path).decode_utf8_lossy().into_owned();
        let download = async { files.client.files(&files.server)?.download(&path).await };
        let bytes = files.runtime.block_on(download).map_err(|e| e.to_string())?;
        Ok(bytes.to_vec())
    }

    fn cancel(&self) -> &CancelToken {
        &self.cancel
    }
}

/// Writes packages and commit back to the task. Useful to people, but no reason not to run.
pub(crate) async fn write_back(client: &Client, task: &Task, reported: Reported) {
    let Some(id) = &task.id else { return };
    if let Some(freeze) = reported.packages {
        // Somebody may have written into it since the build began.
        let task = match client.tasks_get_by_id(id).await {
            Ok(task) => task,
            Err(e) => {
                tracing::warn!("reading the requirements of task {id} again: {e}");
                task.clone()
            }
        };
        let known = task
            .script
            .as_ref()
            .and_then(|script| script.requirements.as_ref());
        let known = known.and_then(|requirements| serde_json::to_value(requirements).ok());
        let requirements = merge_requirements(known.clone(), freeze, reported.conda);
        if known.as_ref() != Some(&requirements)
            && let Err(e) = client.tasks_set_requirements(id, requirements).await
        {
            tracing::warn!("writing the installed packages to task {id}: {e}");
        }
    }
    if let Some(commit) = reported.commit {
        let fields = json!({"script": {"version_num": commit}});
        if let Err(e) = client.tasks_edit(id, true, fields).await {
            tracing::warn!("writing the commit to task {id}: {e}");
        }
    }
}

/// The requirements to write back: the lists that are installed, and beside them, once, what the user wrote.
/// What is not known here stays.
fn merge_requirements(known: Option<Value>, freeze: Vec<String>, conda: Option<Conda>) -> Value {
    let mut requirements = match known {
        Some(Value::Object(map)) => map,
        _ => Map::new(),
    };
    for (current, original) in [("pip", "org_pip"), ("conda", "org_conda")] {
        if requirements.get(original).is_none_or(is_blank)
            && let Some(value) = requirements.get(current).filter(|value| !is_blank(value))
        {
            let value = value.clone();
            requirements.remove(current);
            requirements.insert(original.to_owned(), value);
        }
    }
    requirements.insert("pip".to_owned(), freeze.into());
    if let Some((packages, environment)) = conda {
        requirements.insert("conda".to_owned(), packages.into());
        if let Some(environment) = environment {
            // All of these fields are texts.
            requirements.insert("conda_env_json".to_owned(), environment.to_string().into());
        }
    }
    Value::Object(requirements)
}

/// Whether a list, as text or as lines, says nothing.
fn is_blank(list: &Value) -> bool {
    match list {
        Value::String(text) => text.trim().is_empty(),
        Value::Array(lines) => lines.iter().all(is_blank),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_own_requirements_are_kept_once() {
        let freeze = |line: &str| vec![line.to_owned()];
        let first = merge_requirements(
            Some(json!({"pip": "six", "conda": "x", "other": 1})),
            freeze("six==1.16.0"),
            None,
        );
        assert_eq!(
            first,
            json!({"pip": ["six==1.16.0"], "org_pip": "six", "org_conda": "x", "other": 1})
        );
        let second = merge_requirements(Some(first), freeze("six==1.17.0"), None);
        assert_eq!(second["org_pip"], json!("six"));
        assert_eq!(second["pip"], json!(["six==1.17.0"]));
        // Nothing is nothing to keep.
        for empty in [
            json!(null),
            json!({"pip": "", "org_pip": ""}),
            json!({"pip": [" "]}),
        ] {
            let merged = merge_requirements(Some(empty), freeze("a==1"), None);
            assert_eq!(merged["pip"], json!(["a==1"]));
            assert!(merged["org_pip"].as_str().is_none_or(str::is_empty), "{merged}");
        }
    }

    #[test]
    fn lists_of_conda_stand_beside() {
        let conda = (vec!["numpy==1".to_owned()], Some(json!({"dependencies": []})));
        let merged = merge_requirements(
            Some(json!({"conda": ["numpy"]})),
            vec!["a==1".into()],
            Some(conda),
        );
        assert_eq!(
            merged,
            json!({"pip": ["a==1"], "conda": ["numpy==1"], "org_conda": ["numpy"],
                "conda_env_json": "{\"dependencies\":[]}"})
        );
    }
}
