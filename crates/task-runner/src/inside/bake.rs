//! For an image: the environment is made and stays, and nothing is run.
//!
//! What came in for this purpose alone goes out again: keys are taken back, and before the container may become an
//! image, everything that has been written since its beginning is searched for secrets ([`leaks`](super::leaks)).

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use clearml_support::fs::write_json_atomic;
use clearml_support::redact::mask_url;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::leaks::{Leaks, key_lines};
use super::{CONFIG_FILE, Failed, GIVEN, Inside, PROGRAM, Reports, SAVED, State, write};
use crate::execute::Built;
use crate::execute::build_only::Work;
use crate::execute::silent::{TOLD_TO_END, say};
use crate::record::SCHEMA;
use crate::runner::build_host::BuildHost;
use crate::runner::environment::{Parts, base};
use crate::runner::setup::strings;

/// Clocks of files are coarser than those of programs.
const COARSE: Duration = Duration::from_secs(2);
/// Below the home of the image's user: our program, for entry points.
const PROGRAM_FOLDER: &str = ".clearml/image";
/// In that home: the addresses of the servers, where nobody gives a configuration.
const DEFAULT_CONFIG: &str = "default_clearml.conf";
/// How many files with secrets are named.
const MOST_NAMED: usize = 10;

/// What is wanted of an image.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Bake {
    pub(crate) python_version: Option<String>,
    /// Our program stays in the image, because it is what the image runs.
    pub(crate) with_program: bool,
    /// When it began, in milliseconds: what is older is the base image's.
    pub(crate) begun_ms: u64,
    /// Folders with keys of this user.
    pub(crate) keys: Vec<String>,
}

/// What has become of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Baked {
    pub(crate) built: Built,
    /// The folder of all builds.
    pub(crate) builds: PathBuf,
    /// Our program, where it stays.
    pub(crate) program: Option<PathBuf>,
}

impl Inside {
    pub(super) async fn bake(&self, wanted: &Bake) -> Result<i32, Failed> {
        self.provide()?;
        let redactor = &self.run_settings.redactor;
        let venvs_dir = self.settings.agent.venvs_dir.clone();
        let work = Work {
            task: &self.task,
            id: &self.given.task,
            environment: self.environment_for_baking(),
            target: None,
            globally: true,
            python_version: wanted.python_version.clone(),
            venvs_dir: venvs_dir.clone(),
            redactor,
            say,
        };
        let host = |host: BuildHost| self.with_files(host);
        let Some((built, reported)) = work.make(host).await? else {
            return Ok(TOLD_TO_END);
        };
        if let Some(tools) = &self.given.tools {
            let back = tools.take_back(&self.run.join(SAVED));
            back.map_err(|e| Failed::new("environment", format!("removing keys that came in: {e}")))?;
        }
        say(redactor, "Looking for secrets in what has been made");
        self.search(wanted)?;
        let program = wanted.with_program.then(|| self.leave_program()).transpose()?;
        let reports = Reports {
            schema: SCHEMA,
            state: State::Started,
            baked: Some(Baked {
                built,
                builds: venvs_dir,
                program,
            }),
            ..Reports::of(reported)
        };
        write(&self.run, &reports).map_err(|e| Failed::new("infrastructure", e.to_string()))?;
        Ok(0)
    }

    fn environment_for_baking(&self) -> clearml_env_builder::EnvSettings {
        let config = Path::new(GIVEN).join(CONFIG_FILE);
        let variables = base(&Parts {
            base: &self.inputs.environment,
            options: &self.inputs.options,
            task: &self.given.task,
            worker: &self.given.worker,
            run_id: Some(&self.given.run_id),
            config: Some(&config),
            configured: &self.run_settings.configured_environment,
        });
        let mut environment = self.run_settings.environment.clone();
        environment.optimization = self.inputs.options.optimization;
        environment.env = strings(variables);
        let python = environment.env.get("LOCAL_PYTHON");
        if let Some(python) = python.filter(|python| !python.is_empty()) {
            environment.python_binary = Some(python.into());
        }
        environment
    }

    /// Refuses an image with a secret in it.
    fn search(&self, wanted: &Bake) -> Result<(), Failed> {
        let known = self.run_settings.redactor.known();
        let known = known.iter().map(|secret| secret.expose().to_owned());
        let failed = |e| {
            let text = format!("looking for secrets in the container: {e}");
            Failed::new("environment", text)
        };
        let keys = wanted.keys.iter().map(|folder| key_lines(Path::new(folder)));
        let keys = keys.collect::<Result<Vec<_>, _>>().map_err(failed)?;
        let secrets = known.chain(keys.into_iter().flatten());
        let Some(leaks) = Leaks::new(secrets).map_err(failed)? else {
            return Ok(());
        };
        let since = UNIX_EPOCH + Duration::from_millis(wanted.begun_ms);
        let since = since.checked_sub(COARSE).unwrap_or(UNIX_EPOCH);
        let found = leaks.find(Path::new("/"), since, MOST_NAMED);
        let found = found.map_err(failed)?;
        if found.is_empty() {
            return Ok(());
        }
        let list: Vec<String> = found.iter().map(|path| path.display().to_string()).collect();
        Err(Failed::new(
            "environment",
            format!(
                "the image would hold a secret of this agent's configuration, or a key, in {}; have the setup script \
                 or the package that writes it remove it again. No image was made",
                list.join(", ")
            ),
        ))
    }

    /// Our program and the addresses of the servers. No credentials: those come with `docker run`.
    fn leave_program(&self) -> Result<PathBuf, Failed> {
        let home = std::env::var_os("HOME").map_or_else(|| "/".into(), PathBuf::from);
        let path = home.join(PROGRAM_FOLDER).join("clearml-agent");
        let copied = std::fs::create_dir_all(home.join(PROGRAM_FOLDER))
            .and_then(|()| std::fs::copy(PROGRAM, &path))
            .and_then(|_| std::fs::set_permissions(&path, Permissions::from_mode(0o755)));
        let failed = |path: &Path, e: &dyn std::fmt::Display| {
            let text = format!("writing {} for the entry point: {e}", path.display());
            Failed::new("environment", text)
        };
        copied.map_err(|e| failed(&path, &e))?;
        let api = &self.settings.api;
        let servers = [
            ("api_server", &api.api_server),
            ("web_server", &api.web_server),
            ("files_server", &api.files_server),
        ];
        // An address with a login is a secret as a whole.
        let plain = |url: &String| mask_url(url) == *url && !url.contains('@');
        let servers: Map<String, Value> = servers
            .into_iter()
            .filter_map(|(name, url)| Some((name.to_owned(), url.clone().filter(plain)?.into())))
            .collect();
        let config = home.join(DEFAULT_CONFIG);
        write_json_atomic(&config, &json!({ "api": servers }), 0o644).map_err(|e| failed(&config, &e))?;
        Ok(path)
    }
}
