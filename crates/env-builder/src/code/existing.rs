//! What an earlier build has left, for tasks that must not fetch or install anything: in a folder for each version
//! of Python, as the Python agent lays them out, a virtual environment with the code in it. Builds of this agent
//! say whose they are ([`kept`]).

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clearml_task_model::Task;

use crate::code::repo_url::folder_name;
use crate::kept;
use crate::tools::Context;

/// The copy of a repository that was made for this task, else the newest one in a folder of builds.
pub(crate) fn copy(context: &Context<'_>, builds: &Path, task: &Task, repository: &str) -> Option<PathBuf> {
    let name = folder_name(repository);
    let of_task = kept::of_task(context, builds, task).map(|build| build.join("task_repository").join(&name));
    if let Some(copy) = of_task.filter(|copy| copy.is_dir()) {
        return Some(copy);
    }
    let changed = |path: &Path| {
        let meta = path.metadata().ok()?;
        Some(meta.modified().unwrap_or(SystemTime::UNIX_EPOCH))
    };
    std::fs::read_dir(builds)
        .ok()?
        .filter_map(|build| Some(build.ok()?.path()))
        .filter(|build| !kept::is_building(&context.settings.caches_dir, build))
        .map(|build| build.join("task_repository").join(&name))
        .filter(|copy| copy.is_dir())
        .filter_map(|copy| Some((changed(&copy)?, copy)))
        .max()
        .map(|(_, copy)| copy)
}

/// Whether a copy was made for this very task, so that its uncommitted changes are in it.
pub(crate) fn is_own(context: &Context<'_>, builds: &Path, task: &Task, copy: &Path) -> bool {
    kept::of_task(context, builds, task).is_some_and(|build| copy.starts_with(build))
}

/// The folder in which a build has written the script of this task.
pub(crate) fn script(context: &Context<'_>, builds: &Path, task: &Task) -> Option<PathBuf> {
    let folder = kept::of_task(context, builds, task)?.join("code");
    folder.is_dir().then_some(folder)
}

/// The interpreter of the environment to which a copy belongs, if there is one.
pub(crate) fn interpreter(builds: &Path, copy: &Path) -> Option<PathBuf> {
    let above = || copy.ancestors().skip(1).take(2);
    if let Some(record) = above().find_map(kept::record) {
        return record.python.filter(|python| python.is_file());
    }
    let environment = copy.parent()?.parent()?;
    let python = environment.join("bin/python");
    (environment.starts_with(builds) && python.is_file()).then_some(python)
}

#[cfg(test)]
mod tests {
    use clearml_support::redact::Redactor;

    use super::*;
    use crate::request::EnvSettings;
    use crate::tools::tests::Silent;

    #[test]
    fn the_newest_copy_is_taken_with_its_interpreter() {
        let folder = tempfile::tempdir().unwrap();
        let builds = folder.path();
        let url = "https://example.com/team/tool.git";
        let settings = EnvSettings {
            caches_dir: builds.join("caches"),
            ..EnvSettings::default()
        };
        let (host, redactor) = (Silent::default(), Redactor::new());
        let context = Context {
            settings: &settings,
            host: &host,
            redactor: &redactor,
        };
        let copy = |builds: &Path, url| copy(&context, builds, &Task::default(), url);
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
