//! What an earlier build has left, for tasks that must not fetch or install anything: in a folder for each version
//! of Python, as the Python agent lays them out, a virtual environment with the code below `task_repository`.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::code::repo_url::folder_name;

/// The newest copy of a repository in a folder of builds.
pub(crate) fn copy(builds: &Path, repository: &str) -> Option<PathBuf> {
    let name = folder_name(repository);
    let changed = |path: &Path| {
        let meta = path.metadata().ok()?;
        Some(meta.modified().unwrap_or(SystemTime::UNIX_EPOCH))
    };
    std::fs::read_dir(builds)
        .ok()?
        .filter_map(|build| Some(build.ok()?.path().join("task_repository").join(&name)))
        .filter(|copy| copy.is_dir())
        .filter_map(|copy| Some((changed(&copy)?, copy)))
        .max()
        .map(|(_, copy)| copy)
}

/// The interpreter of the environment to which a copy belongs, if there is one.
pub(crate) fn interpreter(builds: &Path, copy: &Path) -> Option<PathBuf> {
    let environment = copy.parent()?.parent()?;
    let python = environment.join("bin/python");
    (environment.starts_with(builds) && python.is_file()).then_some(python)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_copy_is_taken_with_its_interpreter() {
        let folder = tempfile::tempdir().unwrap();
        let builds = folder.path();
        let url = "https://example.com/team/tool.git";
        assert_eq!(copy(builds, url), None);
        assert_eq!(copy(&builds.join("none"), url), None);
        let older = builds.join("3.10/task_repository/tool.git");
        std::fs::create_dir_all(&older).unwrap();
        std::fs::create_dir_all(builds.join("3.12/task_repository/other.git")).unwrap();
        assert_eq!(copy(builds, url), Some(older.clone()));
        let newer = builds.join("3.11/task_repository/tool.git");
        std::fs::create_dir_all(&newer).unwrap();
        let long_ago = SystemTime::UNIX_EPOCH;
        std::fs::File::open(&older)
            .unwrap()
            .set_modified(long_ago)
            .unwrap();
        assert_eq!(copy(builds, url), Some(newer.clone()));
        assert_eq!(interpreter(builds, &newer), None);
        let python = builds.join("3.11/bin/python");
        std::fs::create_dir_all(builds.join("3.11/bin")).unwrap();
        std::fs::write(&python, "").unwrap();
        assert_eq!(interpreter(builds, &newer), Some(python));
        assert_eq!(interpreter(&builds.join("3.10"), &newer), None);
    }
}
