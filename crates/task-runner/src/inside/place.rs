//! Where environments are made. The user of a container need not have a home, and its files may be read-only.

use std::io;
use std::path::{Path, PathBuf};

use clearml_support::fs::create_private_dir;
use rustix::fs::Access;

/// The folder of the configuration, or, where this user can't write there, one among the temporary files.
pub(super) fn for_environments(wanted: &Path, tell: &mut dyn FnMut(&str)) -> PathBuf {
    let Err(e) = writable(wanted) else {
        return wanted.to_owned();
    };
    let user = rustix::process::geteuid().as_raw();
    let other = std::env::temp_dir()
        .join(format!("clearml-agent-{user}"))
        .join("venvs-builds");
    // Without any place the builder says what is wrong with the first one.
    if create_private_dir(&other).is_err() || writable(&other).is_err() {
        return wanted.to_owned();
    }
    tell(&format!(
        "Warning: user {user} of the container can't write to {}: {e}. The environment is made in {}; another place may \
         be set by agent.docker_internal_mounts.venv_build",
        wanted.display(),
        other.display()
    ));
    other
}

fn writable(folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    Ok(rustix::fs::access(folder, Access::WRITE_OK | Access::EXEC_OK)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_not_be_written_is_left_for_temporary_files() {
        let scratch = tempfile::tempdir().unwrap();
        let good = scratch.path().join("a/b");
        let mut told = Vec::new();
        let mut place = |wanted: &Path| for_environments(wanted, &mut |line| told.push(line.to_owned()));
        assert_eq!(place(&good), good);
        std::fs::write(scratch.path().join("file"), "").unwrap();
        let other = place(&scratch.path().join("file/b"));
        assert!(
            other.starts_with(std::env::temp_dir()) && other.is_dir(),
            "{}",
            other.display()
        );
        assert!(
            told.len() == 1 && told[0].contains("agent.docker_internal_mounts.venv_build"),
            "{told:?}"
        );
    }
}
