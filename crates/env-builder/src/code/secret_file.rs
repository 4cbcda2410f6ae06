//! A file that exists in memory only and disappears with this process, for what git and hg must read and
//! nobody else may see. Its path can be told to anybody: only processes of the same user can open it.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use rustix::fs::MemfdFlags;

use crate::error::{FileError, at};

/// The file, as long as this lives.
#[derive(Debug)]
pub(crate) struct SecretFile {
    _file: File,
    path: PathBuf,
}

impl SecretFile {
    /// A file with these bytes.
    pub(crate) fn new(bytes: &[u8]) -> Result<Self, FileError> {
        let what = Path::new("a file in memory");
        let descriptor = rustix::fs::memfd_create("clearml-agent", MemfdFlags::CLOEXEC)
            .map_err(|e| at("creating", what)(e.into()))?;
        let mut file = File::from(descriptor);
        file.write_all(bytes).map_err(at("writing", what))?;
        let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
        Ok(Self {
            _file: file,
            path: path.into(),
        })
    }

    /// Where other processes of this user find it.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}
