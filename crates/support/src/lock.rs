//! Advisory locks on files, released by the kernel when their holder dies.
//!
//! They are `flock` locks: on a local file system they hold between all processes of the machine, on
//! NFS between machines when the server supports them (Linux maps them to byte-range locks there). A
//! file system that has no locks answers with an error, which is passed on rather than ignored.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// How often a waiting [`FileLock::acquire`] asks again.
const RETRY: Duration = Duration::from_millis(50);

/// An exclusive lock on a file, held until dropped. The file itself stays.
#[derive(Debug)]
pub struct FileLock {
    _file: File,
}

/// Opens a lock file, for whoever needs another lock on it than [`FileLock`]. Creates it (mode 0600) when it is
/// missing; a link is not followed.
///
/// # Errors
///
/// When the file can't be opened or created.
pub fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
        .open(path)
}

impl FileLock {
    /// Takes the lock if nobody holds it. Creates the file (mode 0600) when it is missing.
    ///
    /// # Errors
    ///
    /// When the file can't be opened, or the file system does not support locks.
    pub fn try_acquire(path: &Path) -> io::Result<Option<Self>> {
        let file = open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(e)) => Err(e),
        }
    }

    /// Takes the lock, waiting up to `timeout` for the present holder.
    ///
    /// # Errors
    ///
    /// `TimedOut` when it is still held after that time; otherwise as [`FileLock::try_acquire`].
    pub fn acquire(path: &Path, timeout: Duration) -> io::Result<Self> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(lock) = Self::try_acquire(path)? {
                return Ok(lock);
            }
            if Instant::now() >= deadline {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!(
                        "{} is still locked by another process after {timeout:?}",
                        path.display()
                    ),
                ));
            }
            std::thread::sleep(RETRY);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_holder_waits_until_the_first_lets_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let first = FileLock::try_acquire(&path).unwrap().unwrap();
        assert!(FileLock::try_acquire(&path).unwrap().is_none());
        let error = FileLock::acquire(&path, Duration::from_millis(60)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(first);
        FileLock::acquire(&path, Duration::from_secs(5)).unwrap();
    }
}
