//! What is remembered about an image from one container to the next, below the agent's state folder:
//!
//! * `SEEN`: what the agent has found in the image, so that the engine is not asked for each container.
//! * `INSIDE`: mounted into the containers, for what the agent inside finds out and unpacks. Programs of tasks may
//!   write there, as into the other mounted caches, so nothing outside reads it.
//!
//! There is a folder for each image. Those of images that have not been used for long are removed.

use std::fs::{DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clearml_support::fs::{create_private_dir, read_json, remove_tree, safe_file_name, write_json_atomic};
use serde::{Deserialize, Serialize};

use crate::record::SCHEMA;

const SEEN: &str = "seen.json";
const INSIDE: &str = "inside";
/// How many images are remembered, beyond those of the last days.
const IMAGES: usize = 32;
/// No container runs so long that starts its first task only then.
const IN_USE: Duration = Duration::from_secs(72 * 3600);

/// What was found in an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seen {
    schema: u32,
    /// Where the loader of programs leads.
    pub(super) loader: String,
    /// The shell for scripts, where one was looked for.
    pub(super) shell: Option<String>,
}

impl Seen {
    pub(super) fn new(loader: String, shell: Option<String>) -> Self {
        Self {
            schema: SCHEMA,
            loader,
            shell,
        }
    }
}

/// The folder of an image.
pub(super) struct Remembered(PathBuf);

impl Remembered {
    /// The folder of the image with this id, below the folder of the agent's caches.
    pub(super) fn open(caches: &Path, image: &str) -> io::Result<Self> {
        let all = caches.join("images");
        create_private_dir(&all)?;
        let folder = all.join(safe_file_name(image));
        match DirBuilder::new().mode(0o700).create(&folder) {
            Ok(()) => forget_old(&all)?,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                File::open(&folder)?.set_modified(SystemTime::now())?;
            }
            Err(e) => return Err(e),
        }
        Ok(Self(folder))
    }

    /// The folder for containers. Each of their users makes one of his own in it.
    pub(super) fn inside(&self) -> io::Result<PathBuf> {
        let folder = self.0.join(INSIDE);
        if !folder.is_dir() {
            create_private_dir(&folder)?;
            std::fs::set_permissions(&folder, Permissions::from_mode(0o1777))?;
        }
        Ok(folder)
    }

    /// What was found before. A file that can't be read is none.
    pub(super) fn seen(&self) -> Option<Seen> {
        let seen: Seen = read_json(&self.0.join(SEEN)).ok()?;
        (seen.schema == SCHEMA).then_some(seen)
    }

    /// Keeps what was found.
    pub(super) fn keep(&self, seen: &Seen) {
        if let Err(e) = write_json_atomic(&self.0.join(SEEN), seen, 0o600) {
            tracing::debug!("remembering an image: {e}");
        }
    }
}

fn forget_old(all: &Path) -> io::Result<()> {
    let mut folders: Vec<(SystemTime, PathBuf)> = std::fs::read_dir(all)?
        .filter_map(|entry| {
            let entry = entry.ok()?;
            Some((entry.metadata().ok()?.modified().ok()?, entry.path()))
        })
        .collect();
    folders.sort();
    let limit = SystemTime::now().checked_sub(IN_USE);
    let surplus = folders.len().saturating_sub(IMAGES);
    for (used, folder) in folders.into_iter().take(surplus) {
        if limit.is_some_and(|limit| used < limit)
            && let Err(e) = remove_tree(&folder)
        {
            // Users of containers may have made what only they can remove.
            tracing::debug!("removing {}: {e}", folder.display());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_remembered_and_old_ones_forgotten() {
        let scratch = tempfile::tempdir().unwrap();
        let open = |image: &str| Remembered::open(scratch.path(), image).unwrap();
        let first = open("sha256:0");
        assert_eq!(first.seen(), None);
        let seen = Seen::new("/lib/ld-2.31.so".to_owned(), Some("/bin/sh".to_owned()));
        first.keep(&seen);
        assert_eq!(open("sha256:0").seen(), Some(seen));
        assert_eq!(open("sha256:1").seen(), None);
        let mode = first.inside().unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o1777);

        // Old, but few.
        let old = SystemTime::now() - 2 * IN_USE;
        File::open(&first.0).unwrap().set_modified(old).unwrap();
        for image in 2..IMAGES {
            open(&image.to_string());
        }
        assert!(first.0.is_dir());
        // One more: the old one goes, and no other that is in use.
        for image in 0..4 {
            open(&format!("new-{image}"));
        }
        assert!(!first.0.exists());
        let left = std::fs::read_dir(scratch.path().join("images")).unwrap().count();
        assert_eq!(left, IMAGES - 1 + 4);
    }
}
