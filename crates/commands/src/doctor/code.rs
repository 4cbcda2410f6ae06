//! Version control, and whether a repository can be reached without asking anybody.

use clearml_env_builder::code::repo_url::without_password;
use clearml_env_builder::trial::try_repository;

use super::report::Section;
use super::{Answer, Scene};

/// The oldest git that works at all, and the oldest that can be given a login.
const OLDEST_GIT: (u32, u32) = (2, 17);
const OLDEST_GIT_WITH_LOGIN: (u32, u32) = (2, 31);

pub(super) fn check(scene: &Scene, section: &Section) {
    let has_git = git(scene, section);
    match scene.ask("hg", &["--version", "--quiet"]) {
        Answer::Said(version) => section.ok("hg", version),
        Answer::Missing => section.ok("hg", "not installed; only Mercurial repositories need it"),
        Answer::Failed(reason) => section.warning("hg", reason, "repair or remove Mercurial"),
    }
    if let Some(url) = scene.options.repository.as_ref().filter(|_| has_git) {
        repository(scene, section, url);
    }
}

fn git(scene: &Scene, section: &Section) -> bool {
    let said = match scene.ask("git", &["--version"]) {
        Answer::Said(said) => said,
        Answer::Missing => {
            section.problem(
                "git",
                "not on PATH, so tasks with a repository fail",
                "install git, for example with apt-get install git",
            );
            return false;
        }
        Answer::Failed(reason) => {
            section.problem("git", reason, "repair the installation of git");
            return false;
        }
    };
    match version(&said) {
        Some(version) if version < OLDEST_GIT => {
            section.problem("git", format!("{said} is too old"), "install git 2.31 or newer");
            false
        }
        Some(version) if version < OLDEST_GIT_WITH_LOGIN => {
            section.warning(
                "git",
                format!("{said} can't be given a login"),
                "install git 2.31 or newer, or use ssh keys",
            );
            true
        }
        _ => {
            section.ok("git", said);
            true
        }
    }
}

/// Major and minor version in what git says of itself. Pure.
fn version(said: &str) -> Option<(u32, u32)> {
    let mut numbers = said
        .split_whitespace()
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?
        .split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn repository(scene: &Scene, section: &Section, url: &str) {
    let shown = without_password(url);
    let Ok(scratch) = tempfile::tempdir() else {
        section.problem(
            "repository",
            "no scratch folder can be made",
            "make the temporary folder writable",
        );
        return;
    };
    let settings = scene.env_settings(scratch.path());
    match try_repository(&settings, &scene.host(), &scene.redactor, url, scratch.path()) {
        Ok(()) => section.ok("repository", format!("{shown} can be read")),
        Err(error) => section.problem(
            "repository",
            format!("{shown}: {error}"),
            "set agent.git_user and agent.git_pass to a token that may read it, or give the user of the agent an \
             ssh key without passphrase and the host's key in known_hosts",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_git() {
        for (said, expected) in [
            ("git version 2.39.2", Some((2, 39))),
            ("git version 2.9.5 (Apple Git-154)", Some((2, 9))),
            ("git version 2.45.1.windows.1", Some((2, 45))),
            ("something else", None),
        ] {
            assert_eq!(version(said), expected, "{said}");
        }
    }
}
