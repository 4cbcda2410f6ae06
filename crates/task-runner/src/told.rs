//! Hearing that this process shall end, and stop what it has started.

use std::io;

use clearml_support::process::ignores_signal;
use rustix::process::Signal;
use tokio::signal::unix::{self, SignalKind, signal};

/// SIGTERM and SIGINT; for a process that people have started, also the end of their terminal and SIGQUIT, unless
/// these are ignored, as by `nohup`. The task has a session of its own, so nobody else would tell it.
pub(crate) struct ToldToEnd {
    terminate: unix::Signal,
    interrupt: unix::Signal,
    hang_up: Option<unix::Signal>,
    quit: Option<unix::Signal>,
}

impl ToldToEnd {
    /// Begins to listen. From here on the signals do not end the process by themselves.
    pub(crate) fn listen(in_foreground: bool) -> io::Result<Self> {
        let unless_ignored = |kind, number| {
            let wanted = in_foreground && !ignores_signal(number);
            wanted.then(|| signal(kind)).transpose()
        };
        Ok(Self {
            hang_up: unless_ignored(SignalKind::hangup(), Signal::HUP)?,
            quit: unless_ignored(SignalKind::quit(), Signal::QUIT)?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for one, and says which it is.
    pub(crate) async fn heard(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::TERM,
            _ = self.interrupt.recv() => Signal::INT,
            () = of(&mut self.hang_up) => Signal::HUP,
            () = of(&mut self.quit) => Signal::QUIT,
        }
    }
}

async fn of(signal: &mut Option<unix::Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}
