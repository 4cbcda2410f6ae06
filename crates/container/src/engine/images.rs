//! Images: looking, pulling, and making one of a container.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bollard::auth::DockerCredentials;
use bollard::errors::Error as ApiError;
use bollard::models::{ContainerConfig, CreateImageInfo};
use bollard::query_parameters as query;
use docker_credential::{CredentialRetrievalError, DockerCredential};
use futures::TryStreamExt as _;

use super::{CALL, Engine, EngineError, ImageReference};

/// How often progress is told at most.
const TELL: Duration = Duration::from_secs(5);
/// The longest silence while an image is pulled.
const PULL_SILENCE: Duration = Duration::from_secs(600);

/// What is known about an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageFacts {
    /// Its id.
    pub id: String,
    /// Its architecture, as Go names it (`amd64`).
    pub architecture: String,
    /// Its variables, `NAME=VALUE`.
    pub env: Vec<String>,
    /// Its entry point.
    pub entrypoint: Vec<String>,
    /// Its command, or the arguments of its entry point.
    pub cmd: Vec<String>,
    /// Its user; empty for root.
    pub user: String,
    /// Bytes of all its layers.
    pub size: u64,
    /// How many layers it has.
    pub layers: usize,
}

/// How far a pull has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullProgress {
    /// Layers that are there.
    pub layers_done: usize,
    /// Layers that are known.
    pub layers: usize,
    /// Bytes that have come.
    pub bytes: u64,
    /// Bytes of the layers that are on their way.
    pub total: u64,
}

impl Engine {
    /// An image of the engine; `None` if it has to be pulled.
    ///
    /// # Errors
    ///
    /// When the call fails.
    pub async fn image(&self, image: &ImageReference) -> Result<Option<ImageFacts>, EngineError> {
        match self.docker.inspect_image(&image.to_string()).await {
            Ok(image) => {
                let config = image.config.unwrap_or_default();
                Ok(Some(ImageFacts {
                    id: image.id.unwrap_or_default(),
                    architecture: image.architecture.unwrap_or_default(),
                    env: config.env.unwrap_or_default(),
                    entrypoint: config.entrypoint.unwrap_or_default(),
                    cmd: config.cmd.unwrap_or_default(),
                    user: config.user.unwrap_or_default(),
                    size: image
                        .size
                        .and_then(|bytes| bytes.try_into().ok())
                        .unwrap_or_default(),
                    layers: image
                        .root_fs
                        .and_then(|layers| layers.layers)
                        .map_or(0, |layers| layers.len()),
                }))
            }
            Err(ApiError::DockerResponseServerError { status_code: 404, .. }) => Ok(None),
            Err(e) => Err(self.error(&format!("looking for image {image}"), e)),
        }
    }

    /// Pulls an image, with the credentials that `docker login` has left for its registry. `tell` hears about
    /// every few seconds how far it is.
    ///
    /// # Errors
    ///
    /// When the registry or the engine says no; their words are in it.
    pub async fn pull(
        &self,
        image: &ImageReference,
        platform: Option<&str>,
        mut tell: impl FnMut(&PullProgress),
    ) -> Result<(), EngineError> {
        let doing = format!("pulling image {image}");
        let options = query::CreateImageOptions {
            from_image: Some(image.to_string()),
            platform: platform.unwrap_or_default().to_owned(),
            ..Default::default()
        };
        let (credentials, trouble) = match login(image.registry()).await {
            Ok(credentials) => (credentials, None),
            Err(trouble) => (None, Some(trouble)),
        };
        // It may be why the registry says no.
        let refused = |error| match (error, &trouble) {
            (
                EngineError::Refused {
                    doing,
                    status,
                    message,
                },
                Some(trouble),
            ) => EngineError::Refused {
                doing,
                status,
                message: format!(
                    "{message}; what docker login has left for {} can't be used: {trouble}",
                    image.registry()
                ),
            },
            (error, _) => error,
        };
        let patient = self.docker.clone().with_timeout(PULL_SILENCE);
        let mut events = Box::pin(patient.create_image(Some(options), None, credentials));
        let mut layers = Layers::default();
        let mut told = Instant::now();
        while let Some(event) = events
            .try_next()
            .await
            .map_err(|e| refused(self.error(&doing, e)))?
        {
            layers.note(&event);
            if told.elapsed() >= TELL {
                told = Instant::now();
                tell(&layers.progress());
            }
        }
        Ok(())
    }

    /// Makes an image of a container, under a name. `changes` are lines of a Dockerfile, such as `ENTRYPOINT []`.
    /// Returns its id.
    ///
    /// # Errors
    ///
    /// When the call fails.
    pub async fn commit(
        &self,
        container: &str,
        image: &ImageReference,
        changes: &[String],
    ) -> Result<String, EngineError> {
        let options = query::CommitContainerOptions {
            container: Some(container.to_owned()),
            repo: Some(image.name.clone()),
            tag: image.tag.clone(),
            pause: true,
            changes: (!changes.is_empty()).then(|| changes.join("\n")),
            ..Default::default()
        };
        // The layer of a whole environment takes its time.
        let patient = self.docker.clone().with_timeout(PULL_SILENCE);
        let committed = patient
            .commit_container(options, ContainerConfig::default())
            .await;
        Ok(committed
            .map_err(|e| self.error(&format!("making image {image}"), e))?
            .id)
    }
}

/// What `docker login` has left for a registry, if it has; the error is for people. Programs that keep logins may ask
/// for a password that nobody types.
async fn login(registry: &str) -> Result<Option<DockerCredentials>, String> {
    let registry = registry.to_owned();
    let read = tokio::task::spawn_blocking(move || credentials(&registry));
    match tokio::time::timeout(CALL, read).await {
        Ok(read) => read.unwrap_or_else(|e| Err(e.to_string())),
        Err(_) => Err(format!(
            "the program that keeps it has not answered for {} s",
            CALL.as_secs()
        )),
    }
}

fn credentials(registry: &str) -> Result<Option<DockerCredentials>, String> {
    use CredentialRetrievalError as Failure;
    // The name under which the docker program stores its own registry.
    let server = if registry == "docker.io" {
        "https://index.docker.io/v1/"
    } else {
        registry
    };
    let serveraddress = Some(server.to_owned());
    match docker_credential::get_credential(server) {
        Ok(DockerCredential::UsernamePassword(username, password)) => Ok(Some(DockerCredentials {
            username: Some(username),
            password: Some(password),
            serveraddress,
            ..Default::default()
        })),
        Ok(DockerCredential::IdentityToken(token)) => Ok(Some(DockerCredentials {
            identitytoken: Some(token),
            serveraddress,
            ..Default::default()
        })),
        // A file that is not there can't be read either.
        Err(Failure::ConfigNotFound | Failure::ConfigReadError | Failure::NoCredentialConfigured) => Ok(None),
        // So these programs say that they have none.
        Err(Failure::HelperFailure { stdout, .. }) if stdout.contains("credentials not found") => Ok(None),
        Err(Failure::HelperFailure { helper, .. }) => Err(format!("{helper} has failed")),
        Err(Failure::HelperCommunicationError) => {
            Err("the program that keeps it (docker-credential-…) can't be started".to_owned())
        }
        Err(e) => Err(e.to_string()),
    }
}

/// Layers by their ids: bytes that have come, bytes in all, and whether it is there.
#[derive(Default)]
struct Layers(BTreeMap<String, (u64, u64, bool)>);

impl Layers {
    fn note(&mut self, event: &CreateImageInfo) {
        let (Some(id), Some(status)) = (&event.id, &event.status) else {
            return;
        };
        // More layers than an image can have would be an engine gone mad.
        if self.0.len() > 1024 {
            return;
        }
        let is_layer = [
            "Pulling fs layer",
            "Waiting",
            "Downloading",
            "Verifying",
            "Download complete",
            "Extracting",
            "Pull complete",
            "Already exists",
        ]
        .iter()
        .any(|known| status.starts_with(known));
        if !is_layer {
            return;
        }
        let layer = self.0.entry(id.clone()).or_default();
        if status.starts_with("Downloading")
            && let Some(progress) = &event.progress_detail
        {
            layer.0 = progress
                .current
                .and_then(|bytes| bytes.try_into().ok())
                .unwrap_or(layer.0);
            layer.1 = progress
                .total
                .and_then(|bytes| bytes.try_into().ok())
                .unwrap_or(layer.1);
        }
        if status.starts_with("Download complete") {
            layer.0 = layer.1;
        }
        layer.2 |= status.starts_with("Pull complete") || status.starts_with("Already exists");
    }

    fn progress(&self) -> PullProgress {
        PullProgress {
            layers_done: self.0.values().filter(|layer| layer.2).count(),
            layers: self.0.len(),
            bytes: self.0.values().map(|layer| layer.0).sum(),
            total: self.0.values().map(|layer| layer.1).sum(),
        }
    }
}
