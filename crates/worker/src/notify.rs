//! Telling the service manager how the daemon does: ready, reading its configuration, ending, and that it
//! is alive, over the datagram socket of `sd_notify(3)`. Without such a manager, nothing happens.

use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::task::JoinHandle;

const SOCKET: &str = "NOTIFY_SOCKET";
const WATCHDOG_PERIOD: &str = "WATCHDOG_USEC";
const WATCHDOG_PROCESS: &str = "WATCHDOG_PID";

/// How long a message may wait for room in the manager's queue.
const PATIENCE: Duration = Duration::from_millis(200);

/// The variables by which a manager speaks to this process. They are not for tasks: what those say must
/// not be taken for ours.
pub(crate) const VARIABLES: [&str; 3] = [SOCKET, WATCHDOG_PERIOD, WATCHDOG_PROCESS];

/// The way to the service manager, if there is one. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Notifier {
    manager: Option<Arc<Manager>>,
}

#[derive(Debug)]
struct Manager {
    socket: UnixDatagram,
    address: SocketAddr,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// As the environment of this process says.
    pub(crate) fn from_environment() -> Self {
        let Some(address) = env::var_os(SOCKET).filter(|address| !address.is_empty()) else {
            return Self::default();
        };
        let watchdog = watchdog(
            env::var(WATCHDOG_PERIOD).ok().as_deref(),
            env::var(WATCHDOG_PROCESS).ok().as_deref(),
        );
        match Manager::at(address.as_encoded_bytes(), watchdog) {
            Ok(manager) => Self {
                manager: Some(Arc::new(manager)),
            },
            Err(e) => {
                tracing::warn!(
                    "{SOCKET} is {}, which can't be used: {e}; the service manager will not be told anything",
                    address.to_string_lossy()
                );
                Self::default()
            }
        }
    }

    /// Whether there is a manager, which collects the output as well.
    pub(crate) fn is_present(&self) -> bool {
        self.manager.is_some()
    }

    fn tell(&self, text: &str) {
        if let Some(manager) = &self.manager
            && let Err(e) = manager.socket.send_to_addr(text.as_bytes(), &manager.address)
        {
            tracing::debug!("telling the service manager {text:?}: {e}");
        }
    }

    /// What goes on, for people who ask the manager.
    pub(crate) fn status(&self, text: &str) {
        self.tell(&format!("STATUS={}", text.replace('\n', " ")));
    }

    /// It serves.
    pub(crate) fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={}", status.replace('\n', " ")));
    }

    /// It reads its configuration anew; [`Self::ready`] ends that.
    pub(crate) fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let microseconds = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={microseconds}"));
    }

    /// It is about to end.
    pub(crate) fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// Says again and again that the daemon is alive, if the manager wants to know. It is said from the same
    /// thread that everything else happens on, so a daemon that hangs does not say it.
    pub(crate) fn keep_alive(&self) -> Option<KeepAlive> {
        let period = self.manager.as_ref()?.watchdog?;
        let notifier = self.clone();
        Some(KeepAlive(tokio::spawn(async move {
            loop {
                notifier.tell("WATCHDOG=1");
                tokio::time::sleep(period / 2).await;
            }
        })))
    }
}

impl Manager {
    fn at(address: &[u8], watchdog: Option<Duration>) -> io::Result<Self> {
        let address = match address {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            [b'/', ..] => SocketAddr::from_pathname(std::path::Path::new(
                <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(address),
            ))?,
            _ => return Err(io::Error::other("it is neither a path nor an abstract name")),
        };
        let socket = UnixDatagram::unbound()?;
        // A manager that is busy for a moment must not miss it; one that does not listen must not hold anything up.
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Self {
            socket,
            address,
            watchdog,
        })
    }
}

/// The period within which the manager wants to hear from this process.
fn watchdog(period: Option<&str>, process: Option<&str>) -> Option<Duration> {
    let is_other = process.is_some_and(|pid| pid.parse() != Ok(std::process::id()));
    let period = period?.parse().ok().map(Duration::from_micros)?;
    (!is_other && !period.is_zero()).then_some(period)
}

/// See [`Notifier::keep_alive`].
#[derive(Debug)]
pub(crate) struct KeepAlive(JoinHandle<()>);

impl Drop for KeepAlive {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_at_paths_and_abstract_names() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let name = format!("clearml-agent-test-{}", std::process::id());
        let at_path = UnixDatagram::bind(&path).unwrap();
        let abstract_address = SocketAddr::from_abstract_name(&name).unwrap();
        let at_name = UnixDatagram::bind_addr(&abstract_address).unwrap();
        for (socket, address) in [
            (at_path, path.to_str().unwrap().to_owned()),
            (at_name, format!("@{name}")),
        ] {
            let manager = Manager::at(address.as_bytes(), None).unwrap();
            let notifier = Notifier {
                manager: Some(Arc::new(manager)),
            };
            notifier.ready("two\nlines");
            let mut buffer = [0; 100];
            let count = socket.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..count], b"READY=1\nSTATUS=two lines");
        }
        assert!(Manager::at(b"vsock:2:1", None).is_err());
    }

    #[test]
    fn the_watchdog_of_another_process_is_not_ours() {
        let me = std::process::id().to_string();
        let period = Some(Duration::from_secs(2));
        assert_eq!(watchdog(Some("2000000"), None), period);
        assert_eq!(watchdog(Some("2000000"), Some(&me)), period);
        assert_eq!(watchdog(Some("2000000"), Some("1")), None);
        assert_eq!(watchdog(Some("0"), None), None);
        assert_eq!(watchdog(Some("soon"), None), None);
        assert_eq!(watchdog(None, None), None);
    }
}
