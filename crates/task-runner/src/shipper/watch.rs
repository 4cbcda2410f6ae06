//! Waiting until there may be something new in the console folder.

use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
use tokio::net::unix::pipe::Receiver;

/// How often to look where the kernel does not tell.
const POLL: Duration = Duration::from_millis(250);

/// Tells when files of a folder change. The kernel's notices cost nothing while nothing happens; where
/// there are none (too many watchers on this machine, an unusual file system) it is time that passes.
#[derive(Debug)]
pub(crate) struct FolderWatch {
    notices: Option<Receiver>,
}

impl FolderWatch {
    pub(crate) fn new(folder: &Path) -> Self {
        let notices = Self::subscribe(folder);
        if let Err(e) = &notices {
            tracing::debug!(
                "looking at {} every {POLL:?}, because the kernel does not tell: {e}",
                folder.display()
            );
        }
        Self {
            notices: notices.ok(),
        }
    }

    fn subscribe(folder: &Path) -> io::Result<Receiver> {
        let fd = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        add_watch(&fd, folder, WatchFlags::MODIFY | WatchFlags::CREATE)?;
        // Not a pipe, but read and waited for like one.
        Receiver::from_owned_fd_unchecked(fd)
    }

    /// Returns when something has changed since the last call, at the latest after `limit`.
    pub(crate) async fn changed(&mut self, limit: Duration) {
        let Some(notices) = &mut self.notices else {
            tokio::time::sleep(limit.min(POLL)).await;
            return;
        };
        if let Ok(Ok(())) = tokio::time::timeout(limit, notices.readable()).await {
            // What exactly has changed does not matter.
            let mut buffer = [0; 4096];
            while notices.try_read(&mut buffer).is_ok_and(|count| count > 0) {}
        }
    }
}
