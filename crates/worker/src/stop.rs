//! Hearing that the daemon shall end.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// How often the daemon has been told to end, by SIGTERM or SIGINT.
#[derive(Debug, Clone)]
pub(crate) struct Stop {
    told: watch::Receiver<u32>,
}

impl Stop {
    /// Begins to listen. From here on the signals do not end the process by themselves.
    pub(crate) fn listen() -> std::io::Result<Self> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let (sender, told) = watch::channel(0);
        tokio::spawn(async move {
            loop {
                tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
                sender.send_modify(|times| *times += 1);
            }
        });
        Ok(Self { told })
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
