//! How one file comes from one place to the other.

use std::fs::{self, File, FileTimes};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};

use super::{Item, Kind};
use crate::error::{FileError, at};
use crate::request::LinkMode;

/// How files come from one place to the other. Each way that turns out not to work gives way to the next.
pub(crate) struct Means(AtomicU8);

const REFLINK: u8 = 0;
const REFLINK_OR_COPY: u8 = 1;
const HARD_LINK: u8 = 2;
const COPY: u8 = 3;

impl Means {
    pub(crate) fn new(mode: LinkMode, allow_hard_links: bool) -> Self {
        Self(AtomicU8::new(match mode {
            LinkMode::Auto if allow_hard_links => REFLINK,
            LinkMode::Auto | LinkMode::Reflink => REFLINK_OR_COPY,
            LinkMode::HardLink => HARD_LINK,
            LinkMode::Copy => COPY,
        }))
    }

    /// What has been used, for people.
    pub(crate) fn name(&self) -> &'static str {
        match self.0.load(Ordering::Relaxed) {
            REFLINK | REFLINK_OR_COPY => "reflinks",
            HARD_LINK => "hard links",
            _ => "copies",
        }
    }

    /// Whether both places share their files now.
    pub(crate) fn shares(&self) -> bool {
        self.0.load(Ordering::Relaxed) == HARD_LINK
    }

    pub(super) fn bring(&self, from: &Path, to: &Path, item: &Item) -> Result<(), FileError> {
        loop {
            let means = self.0.load(Ordering::Relaxed);
            let next = match means {
                REFLINK | REFLINK_OR_COPY => match reflink(from, to) {
                    Ok(()) => return finish(to, item),
                    Err(e) if is_unsupported(&e) => {
                        if means == REFLINK {
                            HARD_LINK
                        } else {
                            COPY
                        }
                    }
                    Err(e) => return Err(at("copying", from)(e)),
                },
                HARD_LINK if item.kind == Kind::File => match fs::hard_link(from, to) {
                    Ok(()) => return Ok(()),
                    // This one file has too many links, or belongs to somebody else.
                    Err(e) if !is_unsupported(&e) && cannot_link(&e) => return copy(from, to, item),
                    Err(e) if is_unsupported(&e) => COPY,
                    Err(e) => return Err(at("linking", from)(e)),
                },
                _ => return copy(from, to, item),
            };
            // Threads that find out at the same time find out the same.
            self.0.store(next, Ordering::Relaxed);
        }
    }
}

fn reflink(from: &Path, to: &Path) -> io::Result<()> {
    let source = File::open(from)?;
    let target = File::create_new(to)?;
    let result = rustix::fs::ioctl_ficlone(&target, &source);
    if result.is_err() {
        fs::remove_file(to)?;
    }
    Ok(result?)
}

fn copy(from: &Path, to: &Path, item: &Item) -> Result<(), FileError> {
    fs::copy(from, to).map_err(at("copying", from))?;
    finish(to, item)
}

/// Compiled modules belong to sources of one time, so copies keep the times.
fn finish(to: &Path, item: &Item) -> Result<(), FileError> {
    let file = File::open(to).map_err(at("opening", to))?;
    file.set_permissions(fs::Permissions::from_mode(item.mode))
        .and_then(|()| file.set_times(FileTimes::new().set_modified(item.stamp.modified())))
        .map_err(at("changing", to))
}

fn is_unsupported(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let known = [
        Errno::OPNOTSUPP,
        Errno::NOTTY,
        Errno::INVAL,
        Errno::XDEV,
        Errno::NOSYS,
    ];
    error
        .raw_os_error()
        .is_some_and(|code| known.iter().any(|errno| errno.raw_os_error() == code))
}

fn cannot_link(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::PermissionDenied | io::ErrorKind::TooManyLinks
    )
}
