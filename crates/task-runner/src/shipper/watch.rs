//! Waiting until there may be something new in the console folder.

use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::fs::inotify::{CreateFlags, Reader, WatchFlags, add_watch, init, remove_watch};
use tokio::net::unix::pipe::Receiver;
use tokio::sync::Notify;

/// How often to look where the kernel does not tell.
const POLL: Duration = Duration::from_millis(250);
const EVENTS: WatchFlags = WatchFlags::MODIFY.union(WatchFlags::CREATE);
/// Reading notices needs little.
const STACK: usize = 64 << 10;

/// Tells when files of a folder change. The kernel's notices cost nothing while nothing happens; where
/// there are none (too many watchers on this machine, an unusual file system) it is time that passes.
#[derive(Debug)]
pub(crate) struct FolderWatch {
    notices: Option<Notices>,
}

#[derive(Debug)]
enum Notices {
    Own(Receiver),
    Together(Place),
}

impl FolderWatch {
    pub(crate) fn new(folder: &Path) -> Self {
        let notices = match TOGETHER.get() {
            Some(together) => together.watch(folder).map(Notices::Together),
            None => Self::subscribe(folder).map(Notices::Own),
        };
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
        add_watch(&fd, folder, EVENTS)?;
        // Not a pipe, but read and waited for like one.
        Receiver::from_owned_fd_unchecked(fd)
    }

    /// Returns when something has changed since the last call, at the latest after `limit`.
    pub(crate) async fn changed(&mut self, limit: Duration) {
        match &mut self.notices {
            None => tokio::time::sleep(limit.min(POLL)).await,
            Some(Notices::Own(notices)) => {
                if let Ok(Ok(())) = tokio::time::timeout(limit, notices.readable()).await {
                    // What exactly has changed does not matter.
                    let mut buffer = [0; 4096];
                    while notices.try_read(&mut buffer).is_ok_and(|count| count > 0) {}
                }
            }
            Some(Notices::Together(place)) => {
                let _changed_or_not = tokio::time::timeout(limit, place.changed.notified()).await;
            }
        }
    }
}

/// Set in a process with many consoles: the kernel gives a user few watchers, and each of them many folders.
static TOGETHER: OnceLock<Arc<Together>> = OnceLock::new();

/// From now on all folders of this process are watched by one watcher of the kernel.
///
/// # Errors
///
/// When the kernel gives no watcher or no thread.
pub(crate) fn watch_together() -> io::Result<()> {
    let together = Arc::new(Together {
        fd: init(CreateFlags::CLOEXEC)?,
        places: Mutex::default(),
    });
    if TOGETHER.set(Arc::clone(&together)).is_ok() {
        thread::Builder::new()
            .name("consoles".to_owned())
            .stack_size(STACK)
            .spawn(move || together.listen())?;
    }
    Ok(())
}

#[derive(Debug)]
struct Together {
    fd: OwnedFd,
    places: Mutex<HashMap<i32, Arc<Notify>>>,
}

/// One folder among many.
#[derive(Debug)]
struct Place {
    together: Arc<Together>,
    number: i32,
    changed: Arc<Notify>,
}

impl Together {
    fn places<T>(&self, change: impl FnOnce(&mut HashMap<i32, Arc<Notify>>) -> T) -> T {
        change(&mut self.places.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn watch(self: &Arc<Self>, folder: &Path) -> io::Result<Place> {
        let changed = Arc::new(Notify::new());
        // The number must be known before its first notice is looked up.
        let number = self.places(|places| {
            let number = add_watch(&self.fd, folder, EVENTS)?;
            places.insert(number, Arc::clone(&changed));
            io::Result::Ok(number)
        })?;
        Ok(Place {
            together: Arc::clone(self),
            number,
            changed,
        })
    }

    fn listen(&self) {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(&self.fd, &mut buffer);
        loop {
            match reader.next() {
                Ok(event) => {
                    let changed = self.places(|places| places.get(&event.wd()).cloned());
                    if let Some(changed) = changed {
                        changed.notify_one();
                    }
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => {
                    tracing::error!("watching the consoles: {e}; they are sent with a delay from now on");
                    return;
                }
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.together.places(|places| {
            places.remove(&self.number);
            // The folder may be gone, and the watch with it.
            let _gone = remove_watch(&self.together.fd, self.number);
        });
    }
}
