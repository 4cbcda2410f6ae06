//! An agent that is itself in a container, with the engine of the machine: containers of its tasks are siblings of its
//! own. The engine sees folders of the machine, not those of the agent's container, so whatever the agent mounts has
//! to be in the one folder of which both names are known.

use std::path::{Path, PathBuf};

use clearml_container::engine::{Engine, EngineError};
use clearml_container::request::Bind;

use super::super::Runner;
use super::given;
use crate::console::Level;

/// Names of the variable with both folders, the first that is set counts.
const FOLDERS: [&str; 4] = [
    "CLEARML_AGENT_K8S_HOST_MOUNT",
    "CLEARML_AGENT_DOCKER_HOST_MOUNT",
    "TRAINS_AGENT_K8S_HOST_MOUNT",
    "TRAINS_AGENT_DOCKER_HOST_MOUNT",
];
/// What is there in every pod.
const POD: [&str; 2] = ["KUBERNETES_SERVICE_HOST", "KUBERNETES_PORT"];

/// A folder of the machine, and where the agent has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shared {
    machine: PathBuf,
    here: PathBuf,
}

impl Shared {
    /// `FOLDER OF THE MACHINE:FOLDER HERE`.
    fn parse(text: &str) -> Result<Self, String> {
        let (machine, here) = text.split_once(':').unwrap_or_default();
        let shared = Self {
            machine: machine.into(),
            here: here.into(),
        };
        if shared.machine.is_absolute() && shared.here.is_absolute() {
            Ok(shared)
        } else {
            Err(format!(
                "{} is {text:?}, which is not FOLDER_OF_THE_MACHINE:FOLDER_IN_THE_CONTAINER, both absolute",
                FOLDERS[0]
            ))
        }
    }

    /// What the machine calls a path of this container; `None` if it does not have it.
    fn of_machine(&self, path: &Path) -> Option<PathBuf> {
        let rest = path.strip_prefix(&self.here).ok()?;
        // What leads up again leads out.
        let inside = rest
            .components()
            .all(|part| matches!(part, std::path::Component::Normal(_)));
        inside.then(|| self.machine.join(rest))
    }
}

/// Where the agent is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Surroundings {
    /// Whether it is in a container beside which it starts others.
    pub(super) contained: bool,
    shared: Option<Shared>,
}

impl Surroundings {
    pub(super) fn new(variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, String> {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let shared = FOLDERS.iter().find_map(|name| set(name));
        let shared = shared.map(|text| Shared::parse(&text)).transpose()?;
        Ok(Self {
            contained: shared.is_some() || POD.iter().all(|name| set(name).is_some()),
            shared,
        })
    }

    /// Gives folders the names that the engine knows. Returns them with those that had to be left out, because only
    /// this container has them.
    ///
    /// The error names one that no task can do without.
    pub(super) fn translate(&self, binds: Vec<Bind>) -> Result<(Vec<Bind>, Vec<PathBuf>), String> {
        let Some(shared) = &self.shared else {
            return Ok((binds, Vec::new()));
        };
        let (mut known, mut left_out) = (Vec::new(), Vec::new());
        for mut bind in binds {
            match shared.of_machine(&bind.source) {
                Some(source) => {
                    bind.source = source;
                    known.push(bind);
                }
                None if bind.optional => left_out.push(bind.source),
                None => {
                    return Err(format!(
                        "{} is not in {}, the folder that this container shares with the machine; set agent.state_dir \
                         to a folder below that",
                        bind.source.display(),
                        shared.here.display()
                    ));
                }
            }
        }
        Ok((known, left_out))
    }

    /// Whether files have to be copied to a place that the machine knows.
    pub(super) fn knows(&self, path: &Path) -> bool {
        self.shared
            .as_ref()
            .is_none_or(|shared| shared.of_machine(path).is_some())
    }
}

impl Runner {
    /// Where this agent is; the error is the user's.
    pub(super) fn surroundings(&self) -> Result<Surroundings, String> {
        Surroundings::new(&|name| given::variable(&self.inputs, name))
    }

    /// The folders as the engine has to be told them.
    pub(super) fn for_engine(
        &self,
        surroundings: &Surroundings,
        binds: Vec<Bind>,
    ) -> Result<Vec<Bind>, String> {
        let (known, left_out) = surroundings.translate(binds)?;
        for path in left_out {
            let text = format!(
                "Warning: K8S mount missing, ignoring cached folder {}",
                path.display()
            );
            self.console.line(Level::Warning, &text);
        }
        Ok(known)
    }
}

/// The network of the container that this agent is in; `None` where that can't be found out.
pub(super) async fn own_network(engine: &Engine) -> Result<Option<String>, EngineError> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let by_groups = own_id(&read("/proc/self/cgroup"));
    let by_mounts = || own_id(&read("/proc/self/mountinfo"));
    // The engine names a container after the beginning of its id, if nobody has chosen another name.
    let by_name = || Some(read("/etc/hostname").trim().to_owned()).filter(|name| !name.is_empty());
    let Some(id) = by_groups.or_else(by_mounts).or_else(by_name) else {
        return Ok(None);
    };
    let found = engine.find(&id).await?;
    Ok(found.and_then(|found| found.network))
}

/// The id of a container in a list of control groups, or of mounts of its files.
fn own_id(text: &str) -> Option<String> {
    const DIGITS: usize = 64;
    let is_id = |word: &&str| word.len() == DIGITS && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    // Layers of images have such names as well.
    let lines = text.lines().filter(|line| {
        ["/docker", "/containers/", "docker-", "/kubepods", "libpod"]
            .iter()
            .any(|mark| line.contains(mark))
    });
    lines
        .filter(|line| !line.contains("/overlay2/"))
        .flat_map(|line| line.split(|c: char| !c.is_ascii_alphanumeric()))
        .find(is_id)
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn surroundings(variables: &[(&str, &str)]) -> Result<Surroundings, String> {
        Surroundings::new(&|name| {
            let (_, value) = variables.iter().find(|(known, _)| *known == name)?;
            Some((*value).to_owned())
        })
    }

    fn bind(source: &str, optional: bool) -> Bind {
        Bind {
            source: source.into(),
            target: "/there".to_owned(),
            read_only: false,
            optional,
        }
    }

    #[test]
    fn folders_get_the_names_of_the_machine() {
        let inside =
            surroundings(&[("TRAINS_AGENT_DOCKER_HOST_MOUNT", "/opt/agent:/root/.clearml")]).unwrap();
        assert!(inside.contained);
        let binds = vec![
            bind("/root/.clearml/runs/1", false),
            bind("/root/.clearml/pip-cache", true),
            bind("/root/.clearml2/x", true),
            bind("/root/.clearml/../x", true),
        ];
        let (known, left_out) = inside.translate(binds).unwrap();
        let known: Vec<_> = known
            .iter()
            .map(|bind| bind.source.display().to_string())
            .collect();
        assert_eq!(known, ["/opt/agent/runs/1", "/opt/agent/pip-cache"]);
        assert_eq!(left_out.len(), 2);
        let error = inside.translate(vec![bind("/var/run/x", false)]).unwrap_err();
        assert!(error.contains("agent.state_dir"), "{error}");
        assert!(!inside.knows(Path::new("/usr/bin/clearml-agent")));

        let outside = surroundings(&[("CLEARML_AGENT_K8S_HOST_MOUNT", "")]).unwrap();
        assert_eq!(outside, Surroundings::default());
        assert_eq!(
            outside.translate(vec![bind("/x", false)]).unwrap().0,
            [bind("/x", false)]
        );
        let pod = surroundings(&[("KUBERNETES_SERVICE_HOST", "h"), ("KUBERNETES_PORT", "p")]).unwrap();
        assert!(pod.contained && pod.knows(Path::new("/x")));
        for wrong in ["/only", "a:/b", "/a:b"] {
            assert!(
                surroundings(&[("CLEARML_AGENT_K8S_HOST_MOUNT", wrong)]).is_err(),
                "{wrong}"
            );
        }
    }

    #[test]
    fn the_own_container_is_found_with_both_kinds_of_control_groups() {
        let first = format!("12:pids:/docker/{ID}\n11:cpu:/docker/{ID}\n");
        let pod = format!("0::/kubepods/besteffort/pod1/{ID}\n");
        let scope = format!("0::/system.slice/docker-{ID}.scope\n");
        let mounts = format!(
            "1 2 0:5 / / rw - overlay overlay rw,upperdir=/var/lib/docker/overlay2/{}/diff\n\
             3 1 8:1 /var/lib/docker/containers/{ID}/hostname /etc/hostname rw - ext4 /dev/sda rw\n",
            "f".repeat(64)
        );
        for text in [first, pod, scope, mounts] {
            assert_eq!(own_id(&text).as_deref(), Some(ID), "{text}");
        }
        assert_eq!(own_id("0::/user.slice/user-0.slice/session-1.scope\n"), None);
    }
}
