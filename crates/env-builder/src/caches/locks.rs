//! Locks of the cache. All are `flock` locks, which the kernel takes back from whoever dies.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use clearml_support::command::CancelToken;
use clearml_support::lock::open;

/// How often a waiting build asks again.
const POLL: Duration = Duration::from_millis(100);
/// How long a failed build is reason for others not to queue up behind each other.
const FRESH: Duration = Duration::from_secs(600);

/// What became of waiting.
pub(crate) enum Waited<T> {
    Got(T),
    TooLong,
    Cancelled,
}

/// Takes a lock as soon as `attempt` gets it. `told` is called once, before the first wait.
fn wait(
    patience: Duration,
    cancel: &CancelToken,
    told: &mut dyn FnMut(),
    attempt: &mut dyn FnMut() -> Result<(), TryLockError>,
) -> io::Result<Waited<()>> {
    let begun = Instant::now();
    let mut is_told = false;
    loop {
        match attempt() {
            Ok(()) => return Ok(Waited::Got(())),
            Err(TryLockError::Error(e)) => return Err(e),
            Err(TryLockError::WouldBlock) => {}
        }
        if cancel.is_cancelled() {
            return Ok(Waited::Cancelled);
        }
        if begun.elapsed() >= patience {
            return Ok(Waited::TooLong);
        }
        if !std::mem::replace(&mut is_told, true) {
            told();
        }
        std::thread::sleep(POLL);
    }
}

/// Keeps an entry from being removed, for as long as the file is open.
pub(crate) fn shared(path: &Path, patience: Duration, cancel: &CancelToken) -> io::Result<Waited<File>> {
    let file = open(path)?;
    Ok(
        match wait(patience, cancel, &mut || {}, &mut || file.try_lock_shared())? {
            Waited::Got(()) => Waited::Got(file),
            Waited::TooLong => Waited::TooLong,
            Waited::Cancelled => Waited::Cancelled,
        },
    )
}

/// The right to build the environment of one key, for as long as it lives.
#[derive(Debug)]
pub(crate) struct BuildRight {
    file: File,
    /// Whether somebody else had it before.
    pub(crate) waited: bool,
    /// Whether that one has failed just now, so that queueing up makes no sense.
    pub(crate) has_failed: bool,
}

impl BuildRight {
    /// Waits for whoever builds the same.
    pub(crate) fn wait(
        path: &Path,
        patience: Duration,
        cancel: &CancelToken,
        told: &mut dyn FnMut(),
    ) -> io::Result<Waited<Self>> {
        let file = open(path)?;
        let mut waited = false;
        let mut told = || {
            waited = true;
            told();
        };
        Ok(
            match wait(patience, cancel, &mut told, &mut || file.try_lock())? {
                Waited::Got(()) => {
                    let mut right = Self {
                        file,
                        waited,
                        has_failed: false,
                    };
                    right.has_failed = right.read_failure().unwrap_or(false);
                    Waited::Got(right)
                }
                Waited::TooLong => Waited::TooLong,
                Waited::Cancelled => Waited::Cancelled,
            },
        )
    }

    fn read_failure(&mut self) -> io::Result<bool> {
        let mut text = String::new();
        (&self.file).take(4).read_to_string(&mut text)?;
        let age = SystemTime::now().duration_since(self.file.metadata()?.modified()?);
        Ok(text == "fail" && age.unwrap_or_default() < FRESH)
    }

    /// Leaves word for those who wait.
    pub(crate) fn ended(mut self, has_kept: bool) {
        let text: &[u8] = if has_kept { b"" } else { b"fail" };
        // Without the word they queue up, which is slower but not wrong.
        let _written = self
            .file
            .set_len(0)
            .and_then(|()| self.file.rewind())
            .and_then(|()| self.file.write_all(text));
    }
}
