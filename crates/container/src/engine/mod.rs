//! The Docker Engine, or Podman's socket that speaks the same language.
//!
//! Everything is asked over its API; no `docker` program is needed. A container is found again by its name: the
//! engine itself refuses a second one of the same name, which is what makes "started twice" impossible.

mod exec;
mod images;
mod reference;

use std::collections::HashMap;
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error as ApiError;
pub use bollard::models::ContainerCreateBody;
use bollard::models::{ContainerInspectResponse, ContainerStateStatusEnum, SystemInfo};
use bollard::query_parameters as query;
use thiserror::Error;

pub use images::{ImageFacts, PullProgress};
pub use reference::{ImageReference, ReferenceError};

/// The longest that a call may take that waits for nothing.
const CALL: Duration = Duration::from_secs(60);

/// A call of the engine that failed.
#[derive(Debug, Error)]
pub enum EngineError {
    /// Nobody answers.
    #[error(
        "the container engine at {address} can't be reached: {source}; is it running, and may this user use it?"
    )]
    Unreachable {
        /// Where it was looked for.
        address: String,
        /// Why.
        source: Box<ApiError>,
    },
    /// It took too long.
    #[error("{doing}: the container engine has not answered for {} s", CALL.as_secs())]
    TimeOut {
        /// What was asked for.
        doing: String,
    },
    /// The engine says no.
    #[error("{doing}: {message}")]
    Refused {
        /// What was asked for.
        doing: String,
        /// The engine's status code.
        status: u16,
        /// The engine's words.
        message: String,
    },
    /// Another failure, of the connection or of its language.
    #[error("{doing}: {source}")]
    Call {
        /// What was asked for.
        doing: String,
        /// Why it failed.
        source: Box<ApiError>,
    },
    /// A name of an image that is none.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
}

impl EngineError {
    /// Whether the engine said that there is no such thing.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }

    /// Whether the engine is away, so that the same call may succeed later.
    #[must_use]
    pub fn is_away(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. } | Self::TimeOut { .. } | Self::Call { .. }
        )
    }
}

/// What is known about an engine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EngineFacts {
    /// Its version.
    pub version: String,
    /// Its operating system.
    pub system: String,
    /// Whether NVIDIA's runtime is configured.
    pub nvidia_runtime: bool,
    /// Whether it looks for CDI devices.
    pub cdi: bool,
    /// Whether containers live on while it is restarted.
    pub live_restore: bool,
    /// The version of Podman, if it is that.
    pub podman: Option<String>,
}

/// Where a container stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContainerState {
    /// It has not been started.
    Created,
    /// It runs, or is paused, or is about to be restarted.
    Running,
    /// It has ended.
    Ended {
        /// The exit code of its first process.
        exit_code: i64,
        /// Whether the kernel killed something in it for want of memory.
        out_of_memory: bool,
        /// What the engine says about a start that failed; empty otherwise.
        error: String,
    },
}

/// A container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its id.
    pub id: String,
    /// Its labels.
    pub labels: HashMap<String, String>,
    /// Where it stands.
    pub state: ContainerState,
    /// Its network, as it was asked for.
    pub network: Option<String>,
}

/// A connection to an engine.
#[derive(Debug, Clone)]
pub struct Engine {
    docker: Docker,
    address: String,
}

impl Engine {
    /// Connects to the engine that `DOCKER_HOST` names, or to the one of this machine, and asks for its version.
    ///
    /// # Errors
    ///
    /// When nobody answers there.
    pub async fn connect() -> Result<Self, EngineError> {
        let address = std::env::var("DOCKER_HOST")
            .ok()
            .filter(|address| !address.is_empty())
            .unwrap_or_else(|| "unix:///var/run/docker.sock".to_owned());
        let unreachable = |source| EngineError::Unreachable {
            address: address.clone(),
            source: Box::new(source),
        };
        let docker = Docker::connect_with_host(&address)
            .map_err(unreachable)?
            .with_timeout(CALL);
        let docker = docker.negotiate_version().await.map_err(unreachable)?;
        Ok(Self { docker, address })
    }

    /// What it is.
    ///
    /// # Errors
    ///
    /// When the call fails.
    pub async fn facts(&self) -> Result<EngineFacts, EngineError> {
        let (info, version) = futures::future::try_join(self.docker.info(), self.docker.version())
            .await
            .map_err(|e| self.error("asking for the engine's version", e))?;
        let parts = version.components.unwrap_or_default().into_iter();
        let podman = parts.into_iter().find(|part| part.name == "Podman Engine");
        Ok(EngineFacts {
            podman: podman.map(|part| part.version),
            ..facts(&info)
        })
    }

    /// Creates a container. `true` says that it was there already, from an earlier call whose answer was lost.
    ///
    /// # Errors
    ///
    /// When the engine refuses it.
    pub async fn create(
        &self,
        name: &str,
        platform: Option<&str>,
        body: ContainerCreateBody,
    ) -> Result<(String, bool), EngineError> {
        let options = query::CreateContainerOptions {
            name: Some(name.to_owned()),
            platform: platform.unwrap_or_default().to_owned(),
        };
        match self.docker.create_container(Some(options), body).await {
            Ok(created) => Ok((created.id, false)),
            Err(ApiError::DockerResponseServerError {
                status_code: 409,
                message,
            }) => match self.find(name).await? {
                Some(found) => Ok((found.id, true)),
                None => Err(EngineError::Refused {
                    doing: creating(name),
                    status: 409,
                    message,
                }),
            },
            Err(e) => Err(self.error(&creating(name), e)),
        }
    }

    /// A container by its name or id; `None` if there is none.
    ///
    /// # Errors
    ///
    /// When the call fails.
    pub async fn find(&self, name: &str) -> Result<Option<Found>, EngineError> {
        let inspected = self
            .docker
            .inspect_container(name, None::<query::InspectContainerOptions>)
            .await;
        match inspected {
            Ok(container) => Ok(Some(found(container))),
            Err(ApiError::DockerResponseServerError { status_code: 404, .. }) => Ok(None),
            Err(e) => Err(self.error(&format!("looking at container {name}"), e)),
        }
    }

    /// Names of all containers that carry a label (`NAME` or `NAME=VALUE`), also of those that have ended.
    ///
    /// # Errors
    ///
    /// When the call fails.
    pub async fn labelled(&self, label: &str) -> Result<Vec<String>, EngineError> {
        let filters = HashMap::from([("label".to_owned(), vec![label.to_owned()])]);
        let options = query::ListContainersOptions {
            all: true,
            filters: Some(filters),
            ..Default::default()
        };
        let containers = self.docker.list_containers(Some(options)).await;
        let containers = containers.map_err(|e| self.error("listing containers", e))?;
        let name = |names: Option<Vec<String>>| Some(names?.first()?.trim_start_matches('/').to_owned());
        Ok(containers
            .into_iter()
            .filter_map(|container| name(container.names))
            .collect())
    }

    /// Starts a container; one that runs already is left alone. One that has ended would run again, so this is for
    /// containers that [`Engine::find`] has seen as [`ContainerState::Created`].
    ///
    /// # Errors
    ///
    /// When the engine can't start it: its words say why.
    pub async fn start(&self, id: &str) -> Result<(), EngineError> {
        let started = self
            .docker
            .start_container(id, None::<query::StartContainerOptions>)
            .await;
        started.map_err(|e| self.error("starting the container", e))
    }

    /// Returns when a container is not running any more, or at least `limit` later, or when the engine goes away:
    /// [`Engine::find`] says what is the case.
    pub async fn wait(&self, id: &str, limit: Duration) {
        use futures::StreamExt as _;
        let patient = self.docker.clone().with_timeout(limit.saturating_add(CALL));
        let mut ends = Box::pin(patient.wait_container(id, None::<query::WaitContainerOptions>));
        // Whatever comes is a reason to look; an exit code that is not zero is an error here.
        let _any = tokio::time::timeout(limit, ends.next()).await;
    }

    /// Stops a container: its stop signal, `grace` later SIGKILL. One that does not run is left alone.
    ///
    /// # Errors
    ///
    /// When the call fails.
    pub async fn stop(&self, id: &str, grace: Duration) -> Result<(), EngineError> {
        let seconds = i32::try_from(grace.as_secs()).unwrap_or(i32::MAX);
        let options = query::StopContainerOptions {
            t: Some(seconds),
            ..Default::default()
        };
        let patient = self.docker.clone().with_timeout(CALL.saturating_add(grace));
        match patient.stop_container(id, Some(options)).await {
            // It has ended by itself, or is gone.
            Ok(())
            | Err(ApiError::DockerResponseServerError {
                status_code: 304 | 404,
                ..
            }) => Ok(()),
            Err(e) => Err(self.error("stopping the container", e)),
        }
    }

    /// Removes a container with its anonymous volumes, whatever it is doing. One that is gone is no error.
    ///
    /// # Errors
    ///
    /// When the call fails.
    pub async fn remove(&self, id: &str) -> Result<(), EngineError> {
        let options = query::RemoveContainerOptions {
            force: true,
            v: true,
            ..Default::default()
        };
        match self.docker.remove_container(id, Some(options)).await {
            // Gone, or somebody is removing it at this moment.
            Ok(())
            | Err(ApiError::DockerResponseServerError {
                status_code: 404 | 409,
                ..
            }) => Ok(()),
            Err(e) => Err(self.error("removing the container", e)),
        }
    }

    /// Where a path leads in a container that need not run: the path itself, or what it is a link to in the end.
    /// `None` where nothing is there.
    ///
    /// # Errors
    ///
    /// When the call fails.
    pub async fn resolve(&self, id: &str, path: &str) -> Result<Option<String>, EngineError> {
        let options = query::ContainerArchiveInfoOptions {
            path: path.to_owned(),
        };
        match self.docker.get_container_archive_info(id, Some(options)).await {
            Ok(found) if found.link_target.is_empty() => Ok(Some(path.to_owned())),
            Ok(found) => Ok(Some(found.link_target)),
            Err(ApiError::DockerResponseServerError { status_code: 404, .. }) => Ok(None),
            Err(e) => Err(self.error(&format!("looking for {path} in the container"), e)),
        }
    }

    /// The last words of a container that the agent's own supervision has not seen, such as a program loader's.
    ///
    /// # Errors
    ///
    /// When the call fails.
    pub async fn last_words(&self, id: &str, lines: u32) -> Result<String, EngineError> {
        use futures::TryStreamExt as _;
        const MAX: usize = 64 << 10;
        let options = query::LogsOptions {
            stdout: true,
            stderr: true,
            tail: lines.to_string(),
            ..Default::default()
        };
        let mut text = String::new();
        let mut log = Box::pin(self.docker.logs(id, Some(options)));
        while let Some(part) = log
            .try_next()
            .await
            .map_err(|e| self.error("reading the container's log", e))?
        {
            text.push_str(&String::from_utf8_lossy(&part.into_bytes()));
            if text.len() > MAX {
                break;
            }
        }
        Ok(text)
    }

    fn error(&self, doing: &str, source: ApiError) -> EngineError {
        let doing = doing.to_owned();
        match source {
            ApiError::DockerResponseServerError { status_code, message } => EngineError::Refused {
                doing,
                status: status_code,
                message: message.trim().to_owned(),
            },
            // It has come after the engine had begun to answer.
            ApiError::DockerStreamError { error } => EngineError::Refused {
                doing,
                status: 500,
                message: error.trim().to_owned(),
            },
            ApiError::RequestTimeoutError => EngineError::TimeOut { doing },
            source @ (ApiError::HyperLegacyError { .. } | ApiError::SocketNotFoundError(_)) => {
                EngineError::Unreachable {
                    address: self.address.clone(),
                    source: Box::new(source),
                }
            }
            source => EngineError::Call {
                doing,
                source: Box::new(source),
            },
        }
    }
}

fn creating(name: &str) -> String {
    format!("creating container {name}")
}

fn facts(info: &SystemInfo) -> EngineFacts {
    let runtimes = info.runtimes.as_ref();
    EngineFacts {
        version: info.server_version.clone().unwrap_or_default(),
        system: info.operating_system.clone().unwrap_or_default(),
        nvidia_runtime: runtimes.is_some_and(|runtimes| runtimes.contains_key("nvidia")),
        cdi: info
            .cdi_spec_dirs
            .as_ref()
            .is_some_and(|folders| !folders.is_empty()),
        live_restore: info.live_restore_enabled.unwrap_or_default(),
        podman: None,
    }
}

fn found(container: ContainerInspectResponse) -> Found {
    use ContainerStateStatusEnum as Status;
    let state = container.state.unwrap_or_default();
    let ended = || ContainerState::Ended {
        exit_code: state.exit_code.unwrap_or_default(),
        out_of_memory: state.oom_killed.unwrap_or_default(),
        error: state.error.clone().unwrap_or_default(),
    };
    let state = match state.status {
        // A start that has failed leaves the container as it was, with an error.
        Some(Status::CREATED) if state.error.as_deref().unwrap_or_default().is_empty() => {
            ContainerState::Created
        }
        Some(Status::RUNNING | Status::PAUSED | Status::RESTARTING) => ContainerState::Running,
        _ => ended(),
    };
    Found {
        id: container.id.unwrap_or_default(),
        labels: container
            .config
            .and_then(|config| config.labels)
            .unwrap_or_default(),
        state,
        network: container
            .host_config
            .and_then(|host| host.network_mode)
            .filter(|network| !network.is_empty()),
    }
}
