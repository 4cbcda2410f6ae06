//! The image, and whether our program can run in it.

use std::ops::ControlFlow;

use clearml_agent_config::Settings;
use clearml_container::engine::{Engine, EngineError, ImageFacts, ImageReference};
use clearml_container::flags::{PullPolicy, RunSpec};

use super::super::Runner;
use super::super::setup::failure;
use super::engine_failure;
use super::scripts::Scripts;
use crate::console::Level;
use crate::record::Failure;

/// The loader of programs, without which ours can't run.
#[cfg(target_arch = "x86_64")]
const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";
#[cfg(not(target_arch = "x86_64"))]
const LOADER: &str = "/lib/ld-linux-aarch64.so.1";
/// This machine's architecture, as images name it.
const ARCHITECTURE: &str = if cfg!(target_arch = "x86_64") {
    "amd64"
} else {
    "arm64"
};

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

    /// Whether our program can run there, and the command that does the rest.
    pub(super) async fn look_into(
        &self,
        engine: &Engine,
        id: &str,
        scripts: &Scripts,
    ) -> Result<ControlFlow<String, Vec<String>>, EngineError> {
        if !engine.has(id, LOADER).await? {
            return Ok(ControlFlow::Break(format!(
                "has no GNU C library ({LOADER} is missing), which the agent needs there; images of Alpine Linux and \
                 others with musl can't be used, take one that is based on Debian, Ubuntu, or a Red Hat system"
            )));
        }
        if !scripts.needed {
            return Ok(ControlFlow::Continue(scripts.direct()));
        }
        for shell in ["/bin/bash", "/usr/bin/bash", "/bin/sh"] {
            if engine.has(id, shell).await? {
                return Ok(ControlFlow::Continue(scripts.by(shell)));
            }
        }
        Ok(ControlFlow::Break("has no shell for the setup script".to_owned()))
    }
}
