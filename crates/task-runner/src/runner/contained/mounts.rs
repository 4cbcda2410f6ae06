//! Files and folders of this machine for a container.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use clearml_agent_config::{ContainerSettings, PackageManager, Settings};
use clearml_container::request::Bind;
use clearml_env_builder::kept_environments;

use super::given::variable;
use super::remembered::Remembered;
use super::scripts::GIT_FOLDER;
use crate::inside;
use crate::record::RunInputs;
use crate::run_dir::RunDir;

/// Keys are small; what is larger in their folder is none.
const MAX_KEY: u64 = 1 << 20;
/// And there are few.
const MAX_KEYS: usize = 1000;

/// The login of this user for programs in the container.
#[derive(Default)]
pub(super) struct Keys {
    pub(super) binds: Vec<Bind>,
    /// From where to where they are copied inside.
    pub(super) copies: Vec<(String, String)>,
}

pub(super) fn bind(source: impl Into<PathBuf>, target: &str, read_only: bool, optional: bool) -> Bind {
    Bind {
        source: source.into(),
        target: target.to_owned(),
        read_only,
        optional,
    }
}

/// What every container has.
pub(super) fn own(run: &RunDir, program: PathBuf) -> Vec<Bind> {
    vec![
        bind(program, inside::PROGRAM, true, false),
        bind(run.given_dir(), inside::GIVEN, true, false),
        bind(
            run.given_dir().join(inside::CONFIG_FILE),
            inside::CONFIG,
            true,
            false,
        ),
        bind(run.box_dir(), inside::RUN, false, false),
        bind(run.output_dir(), inside::OUTPUT, false, false),
    ]
}

/// The folder of the agent inside for what it finds out about the image.
pub(super) fn remembered(image: &Remembered) -> Option<Bind> {
    match image.inside() {
        Ok(folder) => Some(bind(folder, inside::CACHES, false, true)),
        Err(e) => {
            tracing::warn!("the folder for caches of containers: {e}");
            None
        }
    }
}

/// The caches, each where it is switched on. Folders that are missing are made.
pub(super) fn caches(settings: &Settings) -> Vec<Bind> {
    let agent = &settings.agent;
    let (containers, mounts) = (&agent.containers, &agent.containers.mounts);
    let poetry = agent.package_manager.kind == PackageManager::Poetry;
    let sdk = settings
        .text("sdk.storage.cache.default_base_dir")
        .map(|path| at_home(&path));
    let kept = kept_environments(Path::new(&mounts.venvs_cache));
    let vcs = agent.vcs_cache.enabled.then(|| agent.vcs_cache.path.clone());
    [
        (containers.apt_cache.clone(), &mounts.apt_cache),
        (containers.pip_cache.clone(), &mounts.pip_cache),
        (
            containers.poetry_cache.clone().filter(|_| poetry),
            &mounts.poetry_cache,
        ),
        (Some(agent.pip_download_cache.path.clone()), &mounts.pip_download),
        (sdk, &mounts.sdk_cache),
        (vcs, &mounts.vcs_cache),
        (agent.venvs_cache.path.clone(), &mounts.venvs_cache),
        (
            agent.venvs_cache.path.as_deref().map(of_containers),
            &kept.to_string_lossy().into_owned(),
        ),
    ]
    .into_iter()
    .filter_map(|(source, target)| Some((source.filter(|_| target.starts_with('/'))?, target)))
    .filter_map(|(source, target)| match shared_folder(&source) {
        Ok(()) => Some(bind(source, target, false, true)),
        Err(e) => {
            tracing::warn!("folder {} for containers: {e}", source.display());
            None
        }
    })
    .collect()
}

/// Where environments of containers are kept: not among those of tasks that run without one, because what is in a
/// container may write there.
fn of_containers(venvs_cache: &Path) -> PathBuf {
    let mut name = kept_environments(venvs_cache).into_os_string();
    name.push("-containers");
    name.into()
}

/// Makes a folder that users of the container may read, whatever this process keeps from others. One that is there
/// already stays as it is.
fn shared_folder(path: &Path) -> std::io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    std::fs::create_dir_all(path)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o755))
}

pub(super) fn at_home(path: &str) -> PathBuf {
    match (path.strip_prefix('~'), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) => PathBuf::from(home).join(rest.trim_start_matches('/')),
        _ => path.into(),
    }
}

/// Keys for SSH: the agent that holds them, or else a copy, unless that is switched off; and the files of git.
pub(super) fn keys(
    run: &RunDir,
    inputs: &RunInputs,
    settings: &ContainerSettings,
    socket: Option<&str>,
) -> Keys {
    let mut keys = Keys::default();
    let home = variable(inputs, "HOME")
        .filter(|home| !home.is_empty())
        .map(PathBuf::from);
    let Some(home) = home else { return keys };
    if let Some(socket) = socket {
        keys.binds.push(bind(socket, socket, false, true));
    } else if !settings.disable_ssh_mount {
        let (from, copy) = (home.join(".ssh"), run.given_dir().join("ssh"));
        match copy_folder(&from, &copy, &mut 0) {
            Ok(()) => {
                keys.binds
                    .push(bind(copy, &settings.mounts.ssh_ro_folder, true, true));
                let to = settings.mounts.ssh_folder.clone();
                keys.copies.push((settings.mounts.ssh_ro_folder.clone(), to));
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => tracing::warn!("Failed creating temporary copy of ~/.ssh: {e}"),
        }
    }
    let copy = run.given_dir().join("git");
    for name in [".git-credentials", ".gitconfig"] {
        match copy_file(&home.join(name), &copy.join(name)) {
            Ok(()) if keys.copies.iter().all(|(from, _)| from != GIT_FOLDER) => {
                keys.binds.push(bind(&copy, GIT_FOLDER, true, true));
                keys.copies.push((GIT_FOLDER.to_owned(), "~".to_owned()));
            }
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => tracing::warn!("copying ~/{name} for a container: {e}"),
        }
    }
    keys
}

/// Copies one of them, into a folder that is made for it.
fn copy_file(from: &Path, to: &Path) -> std::io::Result<()> {
    let meta = std::fs::metadata(from)?;
    if meta.is_file() && meta.len() <= MAX_KEY {
        to.parent().map(shared_folder).transpose()?;
        std::fs::copy(from, to)?;
        std::fs::set_permissions(to, Permissions::from_mode(0o644))?;
        return Ok(());
    }
    Err(std::io::ErrorKind::NotFound.into())
}

/// Copies small files for any user of the container to read; the folder around is closed to others.
fn copy_folder(from: &Path, to: &Path, count: &mut usize) -> std::io::Result<()> {
    let entries = std::fs::read_dir(from)?;
    shared_folder(to)?;
    for entry in entries {
        let entry = entry?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        *count += 1;
        if *count > MAX_KEYS {
            break;
        }
        // Keys may be links.
        let Ok(meta) = std::fs::metadata(&path) else {
            continue;
        };
        if entry.file_type()?.is_dir() {
            copy_folder(&path, &target, count)?;
        } else if meta.is_file() && meta.len() <= MAX_KEY {
            std::fs::copy(&path, &target)?;
            std::fs::set_permissions(&target, Permissions::from_mode(0o644))?;
        }
    }
    Ok(())
}
