//! What depends on the server: by its API version, and by whether it is more than the open server.
//!
//! Which versions these are is known from the API's history; the server tells its version and its
//! feature set in every token, so nothing is probed.

use crate::token::Version;

/// Something that not every server can do. Ask with
/// [`SessionInfo::supports`](crate::SessionInfo::supports).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Feature {
    /// `system_tags` apart from `tags` (2.3).
    SystemTags,
    /// Queues and workers (2.4).
    Queues,
    /// Parameters of tasks in sections, user properties, and logs that can be read page by page (2.9).
    HyperParams,
    /// Runtime properties of workers: working hours, dynamic GPUs, numbers of instances (2.10). Servers
    /// of this version may still lack the calls, which then answer that they are unsupported.
    RuntimeProperties,
    /// The section `container` of tasks; older servers have `execution.docker_cmd` (2.13).
    Containers,
    /// Time for a task to react to an abort (2.13).
    AbortCallbacks,
    /// Rules that choose a container by properties of the task (2.13, beyond the open server).
    MatchRules,
    /// Sessions of the owner of a task (2.14, beyond the open server).
    OwnerToken,
    /// Configuration kept on the server (2.15, beyond the open server).
    Vaults,
    /// Labels of access keys (2.17).
    CredentialLabels,
    /// `${CLEARML_…}` in arguments of containers (2.20).
    ArgumentTemplates,
    /// Values without iterations among a task's metrics, and lengths of queues (2.20).
    SingleValues,
    /// Events of models (2.23).
    ModelEvents,
    /// Reports about a whole cluster (beyond the open server).
    ClusterReports,
}

impl Feature {
    /// The API version that has it.
    #[must_use]
    pub const fn since(self) -> Version {
        match self {
            Self::SystemTags => Version::new(2, 3),
            Self::Queues => Version::new(2, 4),
            Self::HyperParams => Version::new(2, 9),
            Self::RuntimeProperties => Version::new(2, 10),
            Self::Containers | Self::AbortCallbacks | Self::MatchRules => Version::new(2, 13),
            Self::OwnerToken => Version::new(2, 14),
            Self::Vaults => Version::new(2, 15),
            Self::CredentialLabels => Version::new(2, 17),
            Self::ArgumentTemplates | Self::SingleValues => Version::new(2, 20),
            Self::ModelEvents => Version::new(2, 23),
            Self::ClusterReports => Version::new(2, 1),
        }
    }

    /// Whether only servers with another feature set than `basic` have it.
    #[must_use]
    pub const fn is_beyond_basic(self) -> bool {
        matches!(
            self,
            Self::MatchRules | Self::OwnerToken | Self::Vaults | Self::ClusterReports
        )
    }
}
