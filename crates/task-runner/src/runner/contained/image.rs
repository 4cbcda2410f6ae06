//! The image, and whether our program can run in it.

use clearml_agent_config::Settings;
use clearml_container::engine::{Engine, EngineError, ImageFacts, ImageReference};
use clearml_container::flags::{PullPolicy, RunSpec};

use super::super::Runner;
use super::super::setup::failure;
use super::remembered::Seen;
use super::{engine_failure, glibc};
use crate::console::Level;
use crate::record::Failure;

/// This machine's architecture, as images name it.
const ARCHITECTURE: &str = if cfg!(target_arch = "x86_64") {
    "amd64"
} else {
    "arm64"
};
const SHELLS: [&str; 3] = ["/bin/bash", "/usr/bin/bash", "/bin/sh"];

impl Runner {
    /// The image, pulled where that is wanted or needed.
    pub(super) async fn image(
        &self,
        image: &ImageReference,
        spec: &RunSpec,
        settings: &Settings,
    ) -> Result<ImageFacts, Failure> {
        let look = async || self.of_engine(async |engine| engine.image(image).await).await;
        let known = look().await.map_err(|e| engine_failure(&e))?;
        let forced = settings.agent.containers.docker_force_pull || spec.pull == PullPolicy::Always;
        if known.is_none() && spec.pull == PullPolicy::Never {
            let text = format!("image {image} is not on this machine, and --pull=never forbids to fetch it");
            return Err(failure("environment", &text));
        }
        if known.is_none() || forced {
            self.console.line(Level::Info, &format!("Pulling image {image}"));
            let platform = spec.platform.as_deref();
            let pulled = self.of_engine(async |engine| {
                engine
                    .pull(image, platform, |progress| {
                        const MEGABYTE: u64 = 1_000_000;
                        let text = format!(
                            "Pulling image {image}: {} of {} layers, {} of {} MB",
                            progress.layers_done,
                            progress.layers,
                            progress.bytes / MEGABYTE,
                            progress.total / MEGABYTE
                        );
                        self.console.line(Level::Info, &text);
                    })
                    .await
            });
            match pulled.await {
                Ok(()) => {}
                // The one that is there will do.
                Err(e) if known.is_some() => self.console.line(Level::Warning, &e.to_string()),
                Err(e @ EngineError::Refused { .. }) => return Err(failure("environment", &e.to_string())),
                Err(e) => return Err(engine_failure(&e)),
            }
        }
        let facts = look().await.map_err(|e| engine_failure(&e))?;
        let facts =
            facts.ok_or_else(|| failure("environment", &format!("image {image} has vanished again")))?;
        if !facts.architecture.is_empty() && facts.architecture != ARCHITECTURE {
            let text = format!(
                "image {image} is for {} and this machine is {ARCHITECTURE}; use an image for it",
                facts.architecture
            );
            return Err(failure("environment", &text));
        }
        Ok(facts)
    }
}

/// Looks for what the agent needs in a container that has not been started. What is known already is not looked for.
/// The inner error says what is missing.
pub(super) async fn look_into(
    engine: &Engine,
    id: &str,
    known: Option<&Seen>,
    with_shell: bool,
) -> Result<Result<Seen, String>, EngineError> {
    let loader = match known {
        Some(known) => Some(known.loader.clone()),
        None => engine.resolve(id, glibc::LOADER).await?,
    };
    let loader = match loader {
        None => return Ok(Err(glibc::missing())),
        Some(loader) => loader,
    };
    if let Some(text) = glibc::too_old(&loader) {
        return Ok(Err(text));
    }
    let mut seen = Seen::new(loader, known.and_then(|known| known.shell.clone()));
    if with_shell && seen.shell.is_none() {
        for shell in SHELLS {
            if engine.resolve(id, shell).await?.is_some() {
                seen.shell = Some(shell.to_owned());
                return Ok(Ok(seen));
            }
        }
        return Ok(Err("has no shell for the setup script".to_owned()));
    }
    Ok(Ok(seen))
}
