//! Files that are either whole or absent, and folders that are private from the moment they exist.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// JSON files of ours are small; anything larger is not one of ours.
const MAX_JSON_BYTES: u64 = 64 << 20;

/// A JSON file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum JsonFileError {
    /// The file system refused.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The content is not what was expected.
    #[error("{} is not valid: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Line, column and cause.
        source: serde_json::Error,
    },
}

impl JsonFileError {
    /// Whether the reason is that the file does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Replaces `path` by a file with these bytes and this mode, so that a reader, or a crash at any
/// moment, sees the old content or the new one and never a part of it.
///
/// The bytes are on the disk when this returns: file and folder are synchronised.
///
/// # Errors
///
/// When the folder does not exist or the file system refuses; the old file is then untouched.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let folder = parent(path)?;
    let mut temp = tempfile::Builder::new()
        .prefix(".tmp-")
        .permissions(std::fs::Permissions::from_mode(mode))
        .tempfile_in(folder)?;
    // The umask may have removed bits that the caller asked for.
    temp.as_file()
        .set_permissions(std::fs::Permissions::from_mode(mode))?;
    temp.write_all(bytes)?;
    temp.as_file().sync_all()?;
    temp.persist(path).map_err(|e| e.error)?;
    sync_folder(folder)
}

/// Makes earlier creations, renames and removals in a folder durable.
///
/// # Errors
///
/// When the folder can't be opened or synchronised.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Makes everything durable that was written to the file system of a folder. For trees of many files,
/// where one by one would take long.
///
/// # Errors
///
/// When the folder can't be opened or the file system refuses.
pub fn sync_filesystem(folder: &Path) -> io::Result<()> {
    Ok(rustix::fs::syncfs(File::open(folder)?)?)
}

fn parent(path: &Path) -> io::Result<&Path> {
    match path.parent() {
        Some(p) if p.as_os_str().is_empty() => Ok(Path::new(".")),
        Some(p) => Ok(p),
        None => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "path has no parent folder",
        )),
    }
}

/// Creates a folder and its missing parents with mode 0700. An existing folder keeps its mode.
///
/// # Errors
///
/// When something that is not a folder is in the way, or the file system refuses.
pub fn create_private_dir(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
}

/// A file name for an id that comes from elsewhere and may contain anything: different ids have different
/// names, and no name leads out of its folder.
///
/// ```
/// use clearml_support::fs::safe_file_name;
/// assert_eq!(safe_file_name("0a1b-2"), "0a1b-2");
/// assert_eq!(safe_file_name("../x"), "_2e_2e_2fx");
/// ```
#[must_use]
pub fn safe_file_name(id: &str) -> String {
    if id.is_empty() {
        return "_".to_owned();
    }
    let byte = |byte: u8| {
        if byte.is_ascii_alphanumeric() || byte == b'-' {
            char::from(byte).to_string()
        } else {
            format!("_{byte:02x}")
        }
    };
    id.bytes().map(byte).collect()
}

/// Removes a file, a link, or a folder with everything below it. Folders that their owner may not write
/// to, which programs leave behind now and then, are opened up first. Nothing there is no error.
///
/// # Errors
///
/// When something can't be removed.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    match remove_once(path) {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            open_up(path)?;
            remove_once(path)
        }
        result => result,
    }
}

fn remove_once(path: &Path) -> io::Result<()> {
    let removed = match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(e) => Err(e),
    };
    match removed {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Lets the owner into all folders of a tree. Links are not followed.
fn open_up(path: &Path) -> io::Result<()> {
    let meta = std::fs::symlink_metadata(path)?;
    if !meta.is_dir() {
        return Ok(());
    }
    let mode = meta.permissions().mode();
    if mode & 0o700 != 0o700 {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode | 0o700))?;
    }
    for entry in std::fs::read_dir(path)? {
        open_up(&entry?.path())?;
    }
    Ok(())
}

/// Creates a new file that only its owner can read. Fails if anything, even a link, has that name.
///
/// # Errors
///
/// `AlreadyExists` when the name is taken; otherwise what the file system says.
pub fn create_private_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
        .open(path)
}

/// Reads a whole file of at most `max` bytes.
///
/// # Errors
///
/// `FileTooLarge` when the file is larger; otherwise what the file system says.
pub fn read_limited(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(max.saturating_add(1))
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("larger than {max} bytes"),
        ));
    }
    Ok(bytes)
}

/// Reads a JSON file of ours.
///
/// # Errors
///
/// When it can't be read, is larger than 64 MiB, or does not parse.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, JsonFileError> {
    let bytes = read_limited(path, MAX_JSON_BYTES).map_err(|source| JsonFileError::Io {
        action: "reading",
        path: path.to_owned(),
        source,
    })?;
    serde_json::from_slice(&bytes).map_err(|source| JsonFileError::Json {
        path: path.to_owned(),
        source,
    })
}

/// Writes a value as JSON with [`write_atomic`].
///
/// # Errors
///
/// When the value does not serialise or the file system refuses.
pub fn write_json_atomic<T: Serialize + ?Sized>(
    path: &Path,
    value: &T,
    mode: u32,
) -> Result<(), JsonFileError> {
    let bytes = serde_json::to_vec(value).map_err(|source| JsonFileError::Json {
        path: path.to_owned(),
        source,
    })?;
    write_atomic(path, &bytes, mode).map_err(|source| JsonFileError::Io {
        action: "writing",
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn atomic_write_replaces_content_and_mode_and_leaves_no_temporary_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        write_atomic(&path, b"one", 0o644).unwrap();
        write_atomic(&path, b"two", 0o600).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn private_file_is_never_opened_through_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(folder.path().join("target"), &link).unwrap();
        assert_eq!(
            create_private_file(&link).unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
        assert!(!folder.path().join("target").exists());
    }

    #[test]
    fn a_tree_with_closed_folders_is_removed_and_links_in_it_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (tree, other) = (folder.path().join("tree"), folder.path().join("other"));
        let closed = tree.join("a/closed");
        std::fs::create_dir_all(&closed).unwrap();
        std::fs::create_dir(&other).unwrap();
        std::fs::write(closed.join("file"), "x").unwrap();
        std::os::unix::fs::symlink(&other, tree.join("link")).unwrap();
        for path in [&closed, &other] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o500)).unwrap();
        }
        // The privileged are refused nothing, so the step is tested by itself as well.
        open_up(&tree).unwrap();
        assert_eq!(closed.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(other.metadata().unwrap().permissions().mode() & 0o777, 0o500);
        std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o500)).unwrap();
        remove_tree(&tree).unwrap();
        remove_tree(&tree).unwrap();
        assert!(!tree.exists() && other.exists());
    }

    #[test]
    fn a_file_over_the_limit_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        std::fs::write(&path, b"12345").unwrap();
        assert_eq!(read_limited(&path, 5).unwrap(), b"12345");
        assert_eq!(
            read_limited(&path, 4).unwrap_err().kind(),
            io::ErrorKind::FileTooLarge
        );
    }
}
