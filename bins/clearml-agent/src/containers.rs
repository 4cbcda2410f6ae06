//! What `--docker` and `--podman` ask for.

use anyhow::{Context, bail};
use clearml_agent_config::Settings;
use clearml_container::choice::DefaultContainer;
use clearml_container::engine::Engine;
use clearml_task_runner::ContainerOptions;

/// The values of the options; `None` where an option is not given.
#[derive(Clone, Copy, Default)]
pub(crate) struct Containers<'a> {
    pub(crate) docker: Option<&'a [String]>,
    pub(crate) podman: Option<&'a [String]>,
    pub(crate) force_current_version: bool,
}

impl Containers<'_> {
    /// Whether tasks shall run in containers.
    pub(crate) fn wanted(self) -> bool {
        self.docker.is_some() || self.podman.is_some()
    }

    /// Refuses contradictions.
    pub(crate) fn check(self) -> anyhow::Result<()> {
        if let (Some(docker), Some(podman)) = (self.docker, self.podman) {
            let (docker, podman) = (image(docker), image(podman));
            if !docker.is_empty() && !podman.is_empty() && docker != podman {
                bail!(
                    "different containers provided: --docker \"{docker}\" and --podman \"{podman}\"; give only one of them"
                );
            }
        }
        Ok(())
    }

    /// Refuses a machine on which no engine answers, before any task is taken.
    pub(crate) async fn reach_engine(self) -> anyhow::Result<()> {
        if self.wanted() {
            let engine = Engine::connect().await;
            engine.context(if self.podman.is_some() {
                "tasks shall run in containers (--podman); systemctl start podman.socket, or podman system service, makes \
                 Podman listen, and DOCKER_HOST says where, such as unix:///run/podman/podman.sock"
            } else {
                "tasks shall run in containers (--docker)"
            })?;
        }
        Ok(())
    }

    /// What a run has to know.
    pub(crate) fn options(self) -> Option<ContainerOptions> {
        let given = [self.docker, self.podman];
        let words = given.into_iter().flatten().find(|words| !words.is_empty());
        self.wanted().then(|| ContainerOptions {
            words: words.unwrap_or_default().to_vec(),
            current_version: self.force_current_version,
        })
    }

    /// The line by which people see what tasks get that name no image.
    pub(crate) fn introduction(
        self,
        settings: &Settings,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Option<String> {
        let options = self.options()?;
        let containers = &settings.agent.containers;
        let variable = variable("CLEARML_DOCKER_IMAGE").or_else(|| variable("TRAINS_DOCKER_IMAGE"));
        let default = DefaultContainer::new(
            &options.words,
            variable.as_deref(),
            containers.image.as_deref(),
            &containers.arguments,
        );
        let standalone = if settings.agent.standalone_mode {
            " *standalone*"
        } else {
            ""
        };
        let note = if default.from_command_line {
            " (default docker commandline override, config matching rules are ignored)"
        } else {
            ""
        };
        let arguments = settings.command_mask().words(&default.arguments).join(" ");
        let line = format!(
            "Running in Docker{standalone} mode (v19.03 and above) - using default docker image: {} {arguments}",
            default.image
        );
        Some(format!("{}{note}", line.trim_end()))
    }
}

/// One value: image and arguments.
fn image(words: &[String]) -> String {
    words.join(" ").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use clearml_agent_config::Sources;

    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn both_options_may_say_the_same() {
        let (one, same, bare, other) = (
            words(&["img", "a"]),
            words(&["img a"]),
            words(&[]),
            words(&["two"]),
        );
        let of = |docker: Option<&'static str>, podman: Option<&'static str>| {
            let find = |name| match name {
                "one" => one.clone(),
                "same" => same.clone(),
                "bare" => bare.clone(),
                _ => other.clone(),
            };
            let (docker, podman) = (docker.map(find), podman.map(find));
            let containers = Containers {
                docker: docker.as_deref(),
                podman: podman.as_deref(),
                force_current_version: false,
            };
            let checked = containers.check().map_err(|error| error.to_string());
            checked.map(|()| containers.options().map(|options| options.words))
        };
        let error = of(Some("one"), Some("other")).unwrap_err();
        assert!(error.contains("different containers provided"), "{error}");
        assert_eq!(of(Some("one"), Some("same")), Ok(Some(one.clone())));
        assert_eq!(of(Some("bare"), Some("one")), Ok(Some(one.clone())));
        assert_eq!(of(None, Some("bare")), Ok(Some(Vec::new())));
        assert_eq!(of(None, None), Ok(None));
    }

    #[test]
    fn what_is_said_at_the_start_hides_secrets() {
        let settings = Settings::load(&Sources {
            home: Some("/nowhere".into()),
            ..Sources::default()
        })
        .unwrap();
        let given = words(&["img", "-e", "CLEARML_AUTH_TOKEN=hidden", "--init"]);
        let containers = Containers {
            docker: Some(&given),
            podman: None,
            force_current_version: false,
        };
        let line = containers.introduction(&settings, |_| None).unwrap();
        assert!(
            line.starts_with(
                "Running in Docker mode (v19.03 and above) - using default docker image: img -e "
            ),
            "{line}"
        );
        assert!(
            line.contains("--init (default docker commandline override"),
            "{line}"
        );
        assert!(!line.contains("hidden"), "{line}");
    }
}
