//! What a run needs from the configuration.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use clearml_api_client::ClientOptions;
use clearml_env_builder::EnvSettings;
use clearml_support::redact::Redactor;

use crate::record::RunInputs;
use crate::shipper::ShipOptions;

/// The configuration of a run can't be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
}

/// The part of the configuration that the runner itself uses.
#[derive(Debug, Clone)]
pub(crate) struct RunSettings {
    pub(crate) client: ClientOptions,
    pub(crate) environment: EnvSettings,
    pub(crate) ship: ShipOptions,
    pub(crate) redactor: Redactor,
    pub(crate) host_name: String,
    /// The number of this node when several run one task.
    pub(crate) rank: u32,
    pub(crate) status_poll: Duration,
    pub(crate) ping: Option<Duration>,
    pub(crate) abort_grace: Duration,
    pub(crate) abort_callback_max: Duration,
    pub(crate) console_max_bytes: u64,
    pub(crate) segment_bytes: u64,
    /// Variables of the section `environment`; empty if it does not apply.
    pub(crate) configured_environment: BTreeMap<String, String>,
    /// Whether the task's own section `Environment` applies.
    pub(crate) enable_task_env: bool,
}

impl RunSettings {
    pub(crate) fn load(config: &Path, inputs: &RunInputs) -> Result<Self, SettingsError> {
        unimplemented!()
    }
}
