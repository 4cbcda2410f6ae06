//! Files with which jobs log in to the server, on a folder that glue and compute nodes share.
//!
//! The folder may be one in which everybody can write. So the files are in folders below it that belong to the glue
//! and nobody else can change; each is new, has mode 0600, and belongs to the user of the job.

use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use clearml_support::fs::{create_private_file, safe_file_name};
use clearml_task_model::WorkerId;

/// The folder below the shared one.
const FOLDER: &str = "credentials";

/// Kinds of files.
const KINDS: [&str; 2] = ["conf", "token"];

/// A file for a job could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The folder can't be made, or is not ours alone.
    #[error("the credentials of the job: {}: {reason}; check agent.slurm.shared_dir", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The file.
    #[error("the credentials of the job: {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It can't be given to the user of the job.
    #[error(
        "the credentials of the job: {} can't be given to user {uid}: {source}; only root can do that: use \
         agent.slurm.credentials: inline or none", path.display()
    )]
    Owner {
        /// The file.
        path: PathBuf,
        /// The user.
        uid: u32,
        /// Why not.
        source: io::Error,
    },
}

/// The files of one glue.
#[derive(Debug, Clone)]
pub struct Folder {
    top: PathBuf,
    own: PathBuf,
}

impl Folder {
    /// The folder of this glue below the shared one.
    #[must_use]
    pub fn below(shared: &Path, glue: &WorkerId) -> Self {
        let top = shared.join(FOLDER);
        Self {
            own: top.join(safe_file_name(glue.as_str())),
            top,
        }
    }

    /// Writes a file for the job of a task, in place of an older one, and gives it to a user.
    ///
    /// # Errors
    ///
    /// When the folder is not ours alone, or the file system refuses.
    pub fn write(
        &self,
        task: &str,
        kind: &str,
        text: &str,
        uid: Option<u32>,
    ) -> Result<PathBuf, CredentialError> {
        for folder in [&self.top, &self.own] {
            prepare(folder)?;
        }
        let path = self.path(task, kind);
        let failed = |source| CredentialError::File {
            path: path.clone(),
            source,
        };
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let mut file = create_private_file(&path).map_err(failed)?;
        let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
        written.map_err(failed)?;
        if let Some(uid) = uid.filter(|uid| *uid != rustix::process::geteuid().as_raw()) {
            chown(&path, Some(uid), None).map_err(|source| CredentialError::Owner {
                path: path.clone(),
                uid,
                source,
            })?;
        }
        Ok(path)
    }

    /// Removes the files of a task.
    pub fn remove(&self, task: &str) {
        for kind in KINDS {
            remove(&self.path(task, kind));
        }
    }

    /// Removes the files of tasks for which `keep` says no.
    pub fn retain(&self, keep: impl Fn(&str) -> bool) {
        let Ok(entries) = std::fs::read_dir(&self.own) else {
            return;
        };
        for entry in entries.flatten() {
            let path = entry.path();
            let is_kept = path.file_stem().and_then(|stem| stem.to_str()).is_some_and(&keep);
            if !is_kept {
                remove(&path);
            }
        }
    }

    fn path(&self, task: &str, kind: &str) -> PathBuf {
        self.own.join(format!("{}.{kind}", safe_file_name(task)))
    }
}

fn remove(path: &Path) {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!("removing {}: {error}", path.display());
        }
        _ => {}
    }
}

/// Makes a folder that others can pass through but neither list nor change, and sees that it is one.
fn prepare(folder: &Path) -> Result<(), CredentialError> {
    let wrong = |reason: String| CredentialError::Folder {
        path: folder.to_owned(),
        reason,
    };
    match std::fs::DirBuilder::new().mode(0o711).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(wrong(error.to_string())),
        _ => {}
    }
    let found = std::fs::symlink_metadata(folder).map_err(|error| wrong(error.to_string()))?;
    if !found.is_dir() || found.uid() != rustix::process::geteuid().as_raw() {
        return Err(wrong("it is not a folder of the glue's own user".to_owned()));
    }
    if found.mode() & 0o7777 != 0o711 {
        let mode = std::fs::Permissions::from_mode(0o711);
        std::fs::set_permissions(folder, mode).map_err(|error| wrong(error.to_string()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_private_and_folders_of_others_are_refused() {
        let shared = tempfile::tempdir().unwrap();
        let glue = WorkerId::new("login:slurm");
        let folder = Folder::below(shared.path(), &glue);
        let first = folder.write("t1", "conf", "secret", None).unwrap();
        let again = folder.write("t1", "conf", "newer", None).unwrap();
        assert_eq!(first, again);
        assert_eq!(std::fs::read_to_string(&first).unwrap(), "newer");
        let mode = |path: &Path| std::fs::symlink_metadata(path).unwrap().mode() & 0o7777;
        assert_eq!(mode(&first), 0o600);
        assert_eq!(mode(first.parent().unwrap()), 0o711);

        // A file that somebody has put there instead is not written through.
        let elsewhere = shared.path().join("elsewhere");
        std::fs::remove_file(&first).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &first).unwrap();
        folder.write("t1", "conf", "mine", None).unwrap();
        assert!(!elsewhere.exists());

        folder.write("t2", "token", "secret", None).unwrap();
        folder.retain(|task| task == "t2");
        let left = || std::fs::read_dir(first.parent().unwrap()).unwrap().count();
        assert!(left() == 1 && !first.exists());
        folder.remove("t2");
        assert_eq!(left(), 0);

        let planted = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(shared.path(), planted.path().join(FOLDER)).unwrap();
        let refused = Folder::below(planted.path(), &glue).write("t", "conf", "secret", None);
        assert!(refused.unwrap_err().to_string().contains("shared_dir"));
    }
}
