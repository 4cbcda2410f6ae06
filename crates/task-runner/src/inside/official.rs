//! The official agent in place of this one: pip installs it, and it becomes the user's program.
//!
//! It is told not to watch over itself, so that it prints everything, prepares the environment, tells the server
//! what is in it, and becomes the task. Console, status, aborts and the verdict stay with the agent outside.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clearml_env_builder::PreparedEnvironment;
use clearml_support::command::Command;
use clearml_task_model::TaskId;
use serde::{Deserialize, Serialize};

/// The longest that pip may take.
const LIMIT: Duration = Duration::from_secs(1800);
/// The newest and the oldest Python 3 that is looked for by its name.
const VERSIONS: (u32, u32) = (20, 5);
/// Where interpreters of systems are.
const SYSTEM: [&str; 3] = ["/usr/local/bin/python3", "/usr/bin/python3", "/bin/python3"];

/// How the official agent comes to run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Official {
    /// What pip itself is brought to first.
    pub(crate) pip: Vec<String>,
    /// `NVIDIA_VISIBLE_DEVICES` as the official agent sees it.
    pub(crate) visible_gpus: String,
}

impl Official {
    /// Has pip install what stands in a list, once: the note says by which interpreter.
    pub(super) fn install(&self, list: &Path, note: &Path, say: &mut dyn FnMut(&str)) -> Result<(), String> {
        if note.exists() {
            return Ok(());
        }
        let python =
            with_pip().ok_or("the image has no Python with pip, which installs the official agent")?;
        let mut pip = |arguments: &[&OsStr]| {
            let command = Command::new(&python)
                .args(["-m", "pip", "install", "-U"])
                .args(arguments)
                .timeout(LIMIT);
            match command.run_streamed(&mut *say) {
                Ok(status) if status.success() => Ok(()),
                Ok(status) => Err(format!("pip failed ({status})")),
                Err(e) => Err(e.to_string()),
            }
        };
        let versions: Vec<&OsStr> = self.pip.iter().map(OsStr::new).collect();
        let own = pip(&versions);
        let agent = pip(&[OsStr::new("-r"), list.as_os_str()]);
        if let Err(why) = own {
            say(&format!("Warning: pip is not the configured one: {why}"));
        }
        agent.map_err(|why| {
            format!(
                "the official agent could not be installed in the container: {why}; the console says more. Without \
                 agent.docker_install_agent and FORCE_* variables nothing has to be installed"
            )
        })?;
        std::fs::write(note, python.as_os_str().as_bytes())
            .map_err(|e| format!("noting what is installed: {e}"))
    }

    /// The official agent with the task.
    pub(super) fn program(&self, note: &Path, task: &TaskId, standalone: bool) -> PreparedEnvironment {
        let installed = || Some(PathBuf::from(OsString::from_vec(std::fs::read(note).ok()?)));
        let python = if standalone {
            preset()
        } else {
            preset().filter(|python| has_pip(python)).or_else(installed)
        };
        let python = python.unwrap_or_else(|| "python3".into());
        let mut argv: Vec<OsString> = vec![python.clone().into()];
        argv.extend(["-u", "-m", "clearml_agent", "execute", "--disable-monitoring"].map(OsString::from));
        if standalone {
            argv.push("--standalone-mode".into());
        }
        argv.extend(["--id", task.as_str()].map(OsString::from));
        PreparedEnvironment {
            argv,
            cwd: std::env::current_dir().unwrap_or_else(|_| "/".into()),
            env: vec![(
                "NVIDIA_VISIBLE_DEVICES".into(),
                Some(self.visible_gpus.clone().into()),
            )],
            python: Some(python),
            commit: None,
            repository_root: None,
            summary: String::new(),
        }
    }
}

/// The interpreter that people want.
fn preset() -> Option<PathBuf> {
    let python = std::env::var_os("LOCAL_PYTHON").filter(|python| !python.is_empty())?;
    find(&python).or(Some(python.into()))
}

/// The interpreter that is used: the wanted one, or else the newest, or else the system's.
pub(super) fn with_pip() -> Option<PathBuf> {
    let (newest, oldest) = VERSIONS;
    let named = (oldest..=newest).rev().map(|minor| format!("python3.{minor}"));
    let names = named.chain(["python3".to_owned()]);
    preset()
        .into_iter()
        .chain(names.filter_map(|name| find(name.as_ref())))
        .chain(SYSTEM.map(PathBuf::from))
        .find(|python| has_pip(python))
}

fn has_pip(python: &Path) -> bool {
    let command = Command::new(python)
        .args(["-m", "pip", "--version"])
        .timeout(Duration::from_secs(60));
    command.output().is_ok_and(|output| output.status.success())
}

fn find(name: &OsStr) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&path).map(|folder| folder.join(name));
    places.find(|place| place.is_file())
}
