//! Trees of files: what is in one, written down so that any later change shows ([`record`]), and bringing one
//! to another place by reflinks, hard links or copies ([`means`]), with several threads ([`transfer`]).

mod means;
mod record;
mod transfer;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

pub(crate) use self::means::Means;
pub(crate) use self::record::{read_items, write_items};
pub(crate) use self::transfer::{Orders, transfer};
use crate::error::{FileError, at};

/// What something in a tree is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Folder,
    Link,
    /// A file that nobody changes.
    File,
    /// A file that installers or we do change, so that it is never shared.
    Own,
    /// Likewise, and it names the place of its environment.
    Placed,
}

/// One thing in a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) path: PathBuf,
    pub(crate) kind: Kind,
    pub(crate) mode: u32,
    pub(crate) stamp: Stamp,
}

/// What changes when a file is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Stamp {
    pub(crate) size: u64,
    pub(crate) mtime: i64,
    pub(crate) nanos: i64,
    pub(crate) inode: u64,
}

impl Stamp {
    fn of(meta: &fs::Metadata) -> Self {
        Self {
            size: meta.size(),
            mtime: meta.mtime(),
            nanos: meta.mtime_nsec(),
            inode: meta.ino(),
        }
    }

    fn modified(&self) -> SystemTime {
        let nanos = Duration::from_nanos(u64::try_from(self.nanos).unwrap_or(0));
        let whole = Duration::from_secs(self.mtime.unsigned_abs());
        let seconds = if self.mtime < 0 {
            SystemTime::UNIX_EPOCH - whole
        } else {
            SystemTime::UNIX_EPOCH + whole
        };
        seconds + nanos
    }
}

/// Why a tree could not be transferred.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TreeError {
    #[error(transparent)]
    File(#[from] FileError),
    /// The source is not what was written down.
    #[error("{} has changed", _0.display())]
    Changed(PathBuf),
    #[error("the build was cancelled")]
    Cancelled,
}

/// Lists a tree, parents first. `leave_out` says what does not belong to it; folders that hold nothing else
/// are left out as well.
pub(crate) fn list(
    root: &Path,
    leave_out: &dyn Fn(&Path) -> bool,
    kind_of: &dyn Fn(&Path) -> Kind,
) -> Result<Vec<Item>, FileError> {
    let mut items = Vec::new();
    list_folder(root, Path::new(""), leave_out, kind_of, &mut items)?;
    Ok(items)
}

/// Whether something was left out.
fn list_folder(
    root: &Path,
    folder: &Path,
    leave_out: &dyn Fn(&Path) -> bool,
    kind_of: &dyn Fn(&Path) -> Kind,
    items: &mut Vec<Item>,
) -> Result<bool, FileError> {
    let mut incomplete = false;
    let here = root.join(folder);
    for entry in fs::read_dir(&here).map_err(at("reading", &here))? {
        let entry = entry.map_err(at("reading", &here))?;
        let path = folder.join(entry.file_name());
        if leave_out(&path) {
            incomplete = true;
            continue;
        }
        let whole = entry.path();
        let meta = entry.metadata().map_err(at("reading", &whole))?;
        let kind = match meta.file_type() {
            t if t.is_dir() => Kind::Folder,
            t if t.is_symlink() => Kind::Link,
            t if t.is_file() => kind_of(&path),
            // Pipes and sockets belong to running programs.
            _ => continue,
        };
        let index = items.len();
        items.push(Item {
            path: path.clone(),
            kind,
            mode: meta.mode() & 0o7777,
            stamp: Stamp::of(&meta),
        });
        if kind == Kind::Folder && list_folder(root, &path, leave_out, kind_of, items)? {
            incomplete = true;
            if items.len() == index + 1 {
                items.pop();
            }
        }
    }
    Ok(incomplete)
}
#[cfg(test)]
mod tests;
