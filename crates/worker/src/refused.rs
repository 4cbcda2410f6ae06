//! Why a daemon could not be started.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use clearml_agent_config::ConfigError;
use clearml_api_client::ApiError;
use clearml_intake::{QueueError, SlotError};
use clearml_task_model::WorkerId;
use clearml_task_runner::RunDirError;

use crate::owner::OwnerRefused;

/// The daemon could not be started.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The configuration lacks something.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The server refuses or does not answer.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// A queue can't be found.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The worker id is taken, or nothing can be written where ids are kept.
    #[error(transparent)]
    Identity(#[from] SlotError),
    /// The server, or the role of the agent's user, does not allow to work for owners of tasks.
    #[error(transparent)]
    Owner(#[from] OwnerRefused),
    /// The state folder can't be used.
    #[error(transparent)]
    State(#[from] RunDirError),
    /// Another daemon of this worker id uses the same state folder.
    #[error(
        "another daemon with the worker id {0} is running on this machine. \
         Stop it, or give this one another id with CLEARML_WORKER_ID"
    )]
    SameWorker(WorkerId),
    /// Nobody can work in a folder that is gone.
    #[error("the current working directory does not exist ({0}); change to another folder and start again")]
    NoCurrentFolder(#[source] io::Error),
    /// Conda would choose packages for a machine without GPUs.
    #[error(
        "GPUs are wanted (--gpus), but no CUDA was found on this machine, and conda chooses packages by its version; \
         say it with CUDA_VERSION and CUDNN_VERSION"
    )]
    NoCuda,
    /// A configured folder can't be used.
    #[error("Invalid config key \"{key}\": the folder {} can't be used: {reason}; set the key to another one", folder.display())]
    Folder {
        /// The key.
        key: &'static str,
        /// Its value.
        folder: PathBuf,
        /// Why not.
        reason: String,
    },
    /// Metrics can't be offered there.
    #[error("listening on {address} for readers of metrics: {source}; choose another --metrics-address")]
    Metrics {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The operating system refused something.
    #[error("{doing}: {source}")]
    System {
        /// What was being done.
        doing: String,
        /// Why it failed.
        source: io::Error,
    },
}

impl DaemonError {
    /// Whether the server may answer differently in a moment.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Api(e) => e.is_transient(),
            Self::Queue(QueueError::Api { source, .. } | QueueError::Create { source, .. }) => {
                source.is_transient()
            }
            _ => false,
        }
    }
}

pub(crate) fn system(doing: impl Into<String>) -> impl FnOnce(io::Error) -> DaemonError {
    let doing = doing.into();
    move |source| DaemonError::System { doing, source }
}
