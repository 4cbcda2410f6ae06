//! The parts of a run directory that its container sees. The run directory itself is closed to everybody else,
//! so that what lies in these may be open to any user of the container.
//!
//! * `given`: what goes in; mounted read-only.
//! * `box`: the run directory of the shim inside.
//! * `output`: its console. A mount of its own, because a folder in `box` could be replaced by a link.
//!
//! Whatever comes out of `box` and `output` was written by strangers: links are not followed, only files are read,
//! and only so much of them.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use clearml_support::fs;
use rustix::fs::OFlags;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{CLAIM, RunDir, RunDirError, VERDICT, io_error, optional};
use crate::record::{ContainerRecord, Launch, SCHEMA, Verdict};

const BOX: &str = "box";
const OUTPUT: &str = "output";
const GIVEN: &str = "given";
const CONTAINER: &str = "container.json";
/// Says in `box` that a runner has given the run up.
const GIVEN_UP: &str = "given_up";
/// What the shim writes is small.
const MAX_VERDICT: u64 = 64 << 10;
const MAX_TEXT: usize = 4096;
/// No time is that late.
const MAX_MS: i64 = 1 << 50;

/// The folders of a container; removed with the other things that only a living run needs.
pub(super) const FOLDERS: [&str; 3] = [BOX, OUTPUT, GIVEN];

impl RunDir {
    /// Makes the folders for a container, for what its users write and read.
    pub(crate) fn make_box(&self) -> Result<(), RunDirError> {
        for (folder, mode) in [
            (self.box_dir(), 0o777),
            (self.box_dir().join("console"), 0o777),
            (self.output_dir(), 0o777),
            (self.given_dir(), 0o755),
        ] {
            let made = DirBuilder::new().recursive(true).mode(mode).create(&folder);
            made.and_then(|()| std::fs::set_permissions(&folder, Permissions::from_mode(mode)))
                .map_err(io_error("creating folder", &folder))?;
        }
        Ok(())
    }

    pub(crate) fn box_dir(&self) -> PathBuf {
        self.path.join(BOX)
    }

    pub(crate) fn output_dir(&self) -> PathBuf {
        self.path.join(OUTPUT)
    }

    pub(crate) fn given_dir(&self) -> PathBuf {
        self.path.join(GIVEN)
    }

    /// Where the console of the task is, which for a container is another place than that of the agent.
    pub(crate) fn task_console_dir(&self) -> PathBuf {
        let output = self.output_dir();
        if output.is_dir() {
            output
        } else {
            self.console_dir()
        }
    }

    /// The container of the run, once its name is decided.
    ///
    /// # Errors
    ///
    /// When the file is there and can't be read.
    pub fn container(&self) -> Result<Option<ContainerRecord>, RunDirError> {
        optional(self.read(CONTAINER))
    }

    pub(crate) fn write_container(&self, record: &ContainerRecord) -> Result<(), RunDirError> {
        self.write(CONTAINER, record)
    }

    /// The run as the shim inside sees it.
    pub(crate) fn inside(&self) -> Self {
        Self { path: self.box_dir() }
    }

    /// Gives the run up: no shim that is restarted begins it again.
    pub(crate) fn give_up_inside(&self) -> io::Result<()> {
        match fs::create_private_file(&self.box_dir().join(GIVEN_UP)) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
            _ => Ok(()),
        }
    }

    /// For a shim that has not got the claim: whether it is one of the same container, which was started again, and
    /// may begin. What the one before has written about its end does not hold then.
    pub(crate) fn begins_again(&self, launch: &Launch) -> io::Result<bool> {
        if !launch.restarts || self.path.join(GIVEN_UP).symlink_metadata().is_ok() {
            return Ok(false);
        }
        match std::fs::remove_file(self.path.join(VERDICT)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(true),
        }
    }

    /// Whether a shim, or a runner that has given the run up, has claimed the run.
    pub(crate) fn is_claimed_inside(&self) -> bool {
        self.box_dir().join(CLAIM).symlink_metadata().is_ok()
    }

    /// The verdict of the shim inside, as far as it makes sense.
    pub(crate) fn verdict_inside(&self) -> Result<Option<Verdict>, RunDirError> {
        let Some(mut verdict) = self.read_out::<Verdict>(VERDICT, MAX_VERDICT)? else {
            return Ok(None);
        };
        verdict.schema = SCHEMA;
        verdict.exit_code = verdict.exit_code.map(|code| code & 0xff);
        verdict.signal = verdict.signal.map(|signal| signal.clamp(1, 64));
        if let Some(text) = &mut verdict.launch_error {
            *text = text.chars().take(MAX_TEXT).collect();
        }
        verdict.started_ms = verdict.started_ms.clamp(0, MAX_MS);
        verdict.finished_ms = verdict.finished_ms.clamp(verdict.started_ms, MAX_MS);
        Ok(Some(verdict))
    }

    /// A file that was written inside. `None` where there is none.
    pub(crate) fn read_out<T: DeserializeOwned>(
        &self,
        name: &str,
        max: u64,
    ) -> Result<Option<T>, RunDirError> {
        let path = self.box_dir().join(name);
        let bytes = match read_untrusted(&path, max) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(io_error("reading", &path)(e)),
        };
        let read = serde_json::from_slice(&bytes).map(Some);
        read.map_err(|e| io_error("reading", &path)(io::Error::new(io::ErrorKind::InvalidData, e)))
    }

    /// A file for the container to read.
    pub(crate) fn give(&self, name: &str, bytes: &[u8]) -> Result<PathBuf, RunDirError> {
        let path = self.given_dir().join(name);
        fs::write_atomic(&path, bytes, 0o644).map_err(io_error("writing", &path))?;
        Ok(path)
    }

    /// As [`RunDir::give`], for a value.
    pub(crate) fn give_json<T: Serialize + ?Sized>(
        &self,
        name: &str,
        value: &T,
    ) -> Result<PathBuf, RunDirError> {
        let path = self.given_dir().join(name);
        fs::write_json_atomic(&path, value, 0o644)?;
        Ok(path)
    }
}

/// Reads a file that somebody else may have replaced by anything.
fn read_untrusted(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file: File = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is not a file"));
    }
    let mut bytes = Vec::new();
    file.take(max.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        return Err(io::Error::from(io::ErrorKind::FileTooLarge));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_container_leaves_is_read_with_care() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir {
            path: folder.path().to_owned(),
        };
        run.make_box().unwrap();
        assert!(run.verdict_inside().unwrap().is_none());
        let path = run.box_dir().join(VERDICT);
        let secret = folder.path().join("secret");
        std::fs::write(&secret, "{}").unwrap();
        std::os::unix::fs::symlink(&secret, &path).unwrap();
        assert!(run.verdict_inside().is_err(), "a link");
        std::fs::remove_file(&path).unwrap();
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        if made.is_ok_and(|status| status.success()) {
            assert!(run.verdict_inside().is_err(), "a pipe");
            std::fs::remove_file(&path).unwrap();
        }
        std::fs::create_dir(&path).unwrap();
        assert!(run.verdict_inside().is_err(), "a folder");
        std::fs::remove_dir(&path).unwrap();
        std::fs::write(&path, vec![b' '; 1 << 20]).unwrap();
        assert!(run.verdict_inside().is_err(), "too large");
        std::fs::write(
            &path,
            r#"{"schema": 99, "exit_code": 513, "signal": -3, "launch_error": null, "started_ms": 9223372036854775807,
            "finished_ms": -5, "aborted": false, "dropped_lines": 0, "dropped_bytes": 0, "survivors": 0}"#,
        )
        .unwrap();
        let verdict = run.verdict_inside().unwrap().unwrap();
        assert_eq!((verdict.code(), verdict.signal), (Some(1), Some(1)));
        assert!(verdict.finished_ms >= verdict.started_ms);
    }
}
