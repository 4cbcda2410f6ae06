//! Reading the configuration anew while the daemon runs: before each task where `agent.reload_config` says so,
//! and on SIGHUP.

use std::time::Duration;

use clearml_agent_config::Settings;

use crate::serve::Server;

impl Server {
    /// What was changed in the configuration reaches the next task, if that is wanted.
    pub(crate) fn reload(&mut self) {
        if self.settings.agent.reload_config {
            self.reload_settings();
        }
    }

    /// Somebody has asked for it (SIGHUP).
    pub(crate) fn reload_on_demand(&mut self) {
        self.notifier.reloading();
        if self.reload_settings() {
            tracing::info!(
                "the configuration was read anew; queues, names, schedules and servers stay until the next start"
            );
        }
        self.notifier.ready("the configuration was read anew");
    }

    fn reload_settings(&mut self) -> bool {
        match self.settings.reload() {
            Ok(settings) => {
                settings.register_secrets(&self.redactor);
                let agent = &settings.agent;
                self.poll = agent.poll.queue_interval(self.polling_interval);
                self.orphans.be_patient(adopt_after(&settings));
                self.settings = settings;
                true
            }
            Err(e) => {
                tracing::warn!("{e}; going on with the configuration as it was");
                false
            }
        }
    }
}

/// How long to wait for the daemon of another worker id before its tasks are taken over.
pub(crate) fn adopt_after(settings: &Settings) -> Duration {
    Duration::try_from_secs_f64(settings.agent.adopt_after_sec).unwrap_or(Duration::MAX)
}
