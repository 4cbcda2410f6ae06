//! Hearing that the daemon shall end, or read its configuration anew.
//!
//! SIGHUP has two meanings, as with most daemons: from a service manager or a person it asks for a reload;
//! from the kernel it says that the terminal has gone away, which ends a daemon that was started there.

use std::fs::File;
use std::time::Duration;

use clearml_support::process::ignores_signal;
use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::sleep;

/// The kernel sends the signal a moment before it takes the terminal away.
const HANG_UP: Duration = Duration::from_millis(50);

/// How often the daemon has been told to end, by SIGTERM or SIGINT, and to reload, by SIGHUP.
#[derive(Debug, Clone)]
pub(crate) struct Stop {
    told: watch::Receiver<u32>,
    reloads: watch::Receiver<()>,
}

impl Stop {
    /// Begins to listen. From here on the signals do not end the process by themselves.
    pub(crate) fn listen() -> std::io::Result<Self> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        // Asked before it is listened to: under `nohup` the end of the terminal is nothing to us.
        let had_terminal = has_terminal() && !ignores_signal(Signal::HUP);
        let mut hang_up = signal(SignalKind::hangup())?;
        let (sender, told) = watch::channel(0);
        let (reload, reloads) = watch::channel(());
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                    _ = hang_up.recv() => {
                        sleep(HANG_UP).await;
                        if !had_terminal || has_terminal() {
                            reload.send_replace(());
                            continue;
                        }
                    }
                }
                sender.send_modify(|times| *times += 1);
            }
        });
        Ok(Self { told, reloads })
    }

    /// Waits until the configuration shall be read anew. Remembers what was asked for meanwhile.
    pub(crate) async fn wait_for_reload(&mut self) {
        if self.reloads.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Whether the daemon shall end.
    pub(crate) fn requested(&self) -> bool {
        *self.told.borrow() > 0
    }

    /// Waits until the daemon shall end.
    pub(crate) async fn wait(&self) {
        self.wait_for(1).await;
    }

    /// Waits until the daemon has been told a second time, by somebody who can't wait.
    pub(crate) async fn wait_for_hurry(&self) {
        self.wait_for(2).await;
    }

    async fn wait_for(&self, times: u32) {
        let mut told = self.told.clone();
        if told.wait_for(|told| *told >= times).await.is_err() {
            // Nobody listens to signals any more: then none will come.
            std::future::pending::<()>().await;
        }
    }
}

/// Whether this process has a terminal that could go away.
fn has_terminal() -> bool {
    File::open("/dev/tty").is_ok()
}
