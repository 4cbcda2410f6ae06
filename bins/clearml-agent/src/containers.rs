//! What `--docker` and `--podman` ask for. Tasks in containers are not there yet; what is asked for is
//! checked all the same, so that a wrong command line is found before that day.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;

use anyhow::bail;

use crate::task_options::not_yet;

/// The values of the options; `None` where an option is not given.
#[derive(Clone, Copy, Default)]
pub(crate) struct Containers<'a> {
    pub(crate) docker: Option<&'a [String]>,
    pub(crate) podman: Option<&'a [String]>,
}

impl Containers<'_> {
    /// Whether tasks shall run in containers.
    pub(crate) fn wanted(self) -> bool {
        self.docker.is_some() || self.podman.is_some()
    }

    /// Refuses contradictions, and a machine without Docker, in this order.
    pub(crate) fn check(self, path: Option<&OsStr>) -> anyhow::Result<()> {
        if let (Some(docker), Some(podman)) = (self.docker, self.podman) {
            let (docker, podman) = (image(docker), image(podman));
            if !docker.is_empty() && !podman.is_empty() && docker != podman {
                bail!(
                    "different containers provided: --docker \"{docker}\" and --podman \"{podman}\"; give only one of them"
                );
            }
        }
        if self.wanted() && !has_docker(path) {
            bail!(
                "Running in Docker mode, 'docker' command was not found; install Docker, or the docker alias of Podman, or leave --docker away"
            );
        }
        Ok(())
    }

    /// Says that it is not there yet, if it was asked for.
    pub(crate) fn refuse(self) -> anyhow::Result<()> {
        let option = match (self.docker, self.podman) {
            (None, None) => return Ok(()),
            (Some(_), _) => "--docker",
            (None, Some(_)) => "--podman",
        };
        Err(not_yet(
            &format!("running tasks in containers ({option})"),
            "leave the option away to run them directly on this machine",
        ))
    }
}

/// One value: image and arguments.
fn image(words: &[String]) -> String {
    words.join(" ").trim().to_owned()
}

fn has_docker(path: Option<&OsStr>) -> bool {
    let is_program = |file: std::path::PathBuf| {
        std::fs::metadata(file).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    path.is_some_and(|path| std::env::split_paths(path).any(|folder| is_program(folder.join("docker"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn contradictions_come_before_missing_programs_and_those_before_missing_features() {
        let with_docker = tempfile::tempdir().unwrap();
        let program = with_docker.path().join("docker");
        std::fs::write(&program, "").unwrap();
        let path = Some(with_docker.path().as_os_str());
        let (one, same, bare, other) = (
            words(&["img", "a"]),
            words(&["img a"]),
            words(&[]),
            words(&["two"]),
        );
        let of = |docker: &'static str, podman: &'static str| {
            let find = |name| match name {
                "one" => Some(one.as_slice()),
                "same" => Some(same.as_slice()),
                "bare" => Some(bare.as_slice()),
                "other" => Some(other.as_slice()),
                _ => None,
            };
            Containers {
                docker: find(docker),
                podman: find(podman),
            }
        };
        let error = |containers: Containers<'_>| containers.check(path).unwrap_err().to_string();
        assert!(error(of("one", "other")).contains("different containers provided"));
        assert!(
            error(of("one", "")).contains("'docker' command was not found"),
            "it can't be run"
        );
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        for (docker, podman) in [
            ("one", "same"),
            ("one", "bare"),
            ("", "other"),
            ("bare", ""),
            ("", ""),
        ] {
            let containers = of(docker, podman);
            containers.check(path).unwrap();
            assert_eq!(containers.refuse().is_err(), containers.wanted());
        }
        assert!(of("bare", "").check(None).is_err());
        assert!(
            of("", "one")
                .refuse()
                .unwrap_err()
                .to_string()
                .contains("--podman")
        );
    }
}
