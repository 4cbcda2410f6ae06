//! Packages from repositories: which address git gets, and whether the package is there already. Pure.

use clearml_support::secret::Secret;

use crate::code::convert::convert;
use crate::code::credentials::split_login;
use crate::code::repo_url::parse_scp;
use crate::packages::requirements::line::{Requirement, Target};
use crate::packages::requirements::pep::normal_name;
use crate::request::GitSettings;

/// A repository as a requirement names it: `git+<url>[@<revision>][#<fragment>]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// `git`, `hg`, `svn` or `bzr`.
    pub vcs: String,
    /// Its address.
    pub url: String,
    /// Commit, tag or branch.
    pub revision: Option<String>,
    /// What stands behind `#`.
    pub fragment: Option<String>,
}

impl Repository {
    /// Takes the target of a requirement apart.
    #[must_use]
    pub fn parse(target: &str) -> Option<Self> {
        let (vcs, rest) = match target.split_once('+') {
            Some((vcs, rest)) if vcs.len() < 4 => (vcs.to_ascii_lowercase(), rest),
            _ if target.starts_with("git://") => ("git".to_owned(), target),
            _ => return None,
        };
        let (rest, fragment) = match rest.split_once('#') {
            Some((rest, fragment)) => (rest, Some(fragment.to_owned())),
            None => (rest, None),
        };
        // An `@` in front of the path belongs to the user.
        let path_at = match rest.find("://") {
            Some(at) => rest[at + 3..]
                .find('/')
                .map_or(rest.len(), |slash| at + 3 + slash),
            None => rest.find(':').unwrap_or(0),
        };
        let (url, revision) = match rest[path_at..].rfind('@').map(|at| at + path_at) {
            Some(at) => (&rest[..at], Some(rest[at + 1..].to_owned())),
            None => (rest, None),
        };
        Some(Self {
            vcs,
            url: url.to_owned(),
            revision: revision.filter(|revision| !revision.is_empty()),
            fragment,
        })
    }

    /// The target of a requirement.
    #[must_use]
    pub fn text(&self) -> String {
        let revision = self.revision.as_ref().map_or(String::new(), |r| format!("@{r}"));
        let fragment = self.fragment.as_ref().map_or(String::new(), |f| format!("#{f}"));
        format!("{}+{}{revision}{fragment}", self.vcs, self.url)
    }
}

/// The way to a repository of git: the requirement for the installer without any login, and the address with
/// the login that belongs to it, if there is one.
#[derive(Debug)]
pub struct Way {
    /// What is handed to the installer.
    pub requirement: Requirement,
    /// The address that git is going to use; a login in it is for us only.
    pub url: String,
    /// What to say about a change of the address.
    pub changed: Option<String>,
}

/// How git gets to a repository: by the protocol that the configuration wants. `None` when the requirement
/// is none of git.
#[must_use]
pub fn way(requirement: &Requirement, git: &GitSettings) -> Option<Way> {
    let Target::Vcs(target) = &requirement.target else {
        return None;
    };
    let mut repository = Repository::parse(target).filter(|repository| repository.vcs == "git")?;
    // git's own protocol knows no login and no encryption; servers that have it have ssh as well.
    let url = match repository.url.strip_prefix("git://") {
        Some(rest) => format!("ssh://{rest}"),
        None => repository.url.clone(),
    };
    let converted = convert(&url, git);
    let mut changed = None;
    if let Some(converted) = converted {
        changed = Some(format!("{} is fetched as {}", repository.url, converted.url));
        repository.url = converted.url;
    } else if let Some((user, host, path)) = parse_scp(&url) {
        // Installers want an address with a scheme.
        let user = user.map_or(String::new(), |user| format!("{user}@"));
        repository.url = format!("ssh://{user}{host}/{path}");
    }
    let url = repository.url.clone();
    repository.url = split_login(&url, git).0;
    Some(Way {
        requirement: Requirement {
            target: Target::Vcs(repository.text()),
            ..requirement.clone()
        },
        url,
        changed,
    })
}

/// The repository of Mercurial that a requirement names.
#[must_use]
pub fn of_mercurial(requirement: &Requirement) -> Option<Repository> {
    let Target::Vcs(target) = &requirement.target else {
        return None;
    };
    Repository::parse(target).filter(|repository| repository.vcs == "hg")
}

/// A package that is installed from a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FromRepository {
    /// Its name.
    pub name: String,
    /// `git` or the like.
    pub vcs: String,
    /// The commit it was made of.
    pub commit: String,
}

/// Whether exactly what is asked for is there: the same commit, by its full name. Whatever moves is fetched
/// again.
#[must_use]
pub fn is_installed(requirement: &Requirement, installed: &[FromRepository]) -> bool {
    let (Target::Vcs(target), Some(name)) = (&requirement.target, requirement.known_name()) else {
        return false;
    };
    let Some(Repository {
        vcs,
        revision: Some(revision),
        ..
    }) = Repository::parse(target)
    else {
        return false;
    };
    let name = normal_name(name);
    installed.iter().any(|one| {
        normal_name(&one.name) == name && one.vcs == vcs && one.commit.eq_ignore_ascii_case(&revision)
    })
}

/// The passwords in an address, as written and decoded, so that nobody shows them.
#[must_use]
pub fn secrets(url: &str) -> Vec<Secret> {
    let Some(parts) = crate::code::repo_url::Parts::parse(url) else {
        return Vec::new();
    };
    let raw = parts.pass.filter(|pass| !pass.is_empty());
    let raw = raw.or(parts
        .user
        .filter(|user| clearml_support::redact::looks_like_token(user)));
    let decoded = |text: &str| {
        percent_encoding::percent_decode_str(text)
            .decode_utf8_lossy()
            .into_owned()
    };
    raw.map(|raw| vec![Secret::new(raw), Secret::new(decoded(raw))])
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::packages::requirements::line::{Line, parse};

    fn requirement(line: &str) -> Requirement {
        match parse(line).unwrap().remove(0) {
            Line::Requirement(requirement) => requirement,
            other => panic!("{other:?}"),
        }
    }

    fn with_login() -> GitSettings {
        GitSettings {
            user: Some("U".into()),
            pass: Some(Secret::new("P@ss")),
            ..GitSettings::default()
        }
    }

    #[test]
    fn the_protocol_is_that_of_the_configuration_and_no_login_is_shown() {
        let plain = GitSettings::default();
        let forced = GitSettings {
            force_ssh_protocol: true,
            ..GitSettings::default()
        };
        for (line, git, expected) in [
            (
                "pkg @ git+https://github.com/o/r.git@abc",
                with_login(),
                "pkg @ git+https://github.com/o/r.git@abc",
            ),
            (
                "git+ssh://git@github.com/o/p.git@v1#egg=p",
                with_login(),
                "git+https://github.com/o/p.git@v1#egg=p",
            ),
            (
                "git+git://github.com/o/p.git@v1",
                with_login(),
                "git+https://github.com/o/p.git@v1",
            ),
            (
                "git+git@github.com:o/p.git@v1",
                with_login(),
                "git+https://github.com/o/p.git@v1",
            ),
            (
                "git+https://github.com/o/p.git@v1",
                forced.clone(),
                "git+ssh://git@github.com/o/p.git@v1",
            ),
            (
                "git+git://github.com/o/p.git",
                plain.clone(),
                "git+git://github.com/o/p.git",
            ),
            (
                "git+git@h:o/p.git@v1",
                plain.clone(),
                "git+ssh://git@h/o/p.git@v1",
            ),
            (
                "git+https://u:secret@h/r.git@v#subdirectory=a",
                plain.clone(),
                "git+https://h/r.git@v#subdirectory=a",
            ),
            (
                "-e git+https://h/r.git#egg=e",
                plain.clone(),
                "-e git+https://h/r.git#egg=e",
            ),
            ("git+file:///srv/r@v", with_login(), "git+file:///srv/r@v"),
        ] {
            let way = way(&requirement(line), &git).unwrap();
            assert_eq!(way.requirement.to_string(), expected, "{line}");
        }
        for line in ["hg+https://h/r", "six", "https://h/x.zip"] {
            assert!(way(&requirement(line), &plain).is_none(), "{line}");
        }
    }

    #[test]
    fn only_the_very_commit_is_there_already() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let installed = [FromRepository {
            name: "My_Pkg".into(),
            vcs: "git".into(),
            commit: commit.into(),
        }];
        for (line, expected) in [
            (format!("my-pkg @ git+https://h/r@{commit}"), true),
            (format!("git+https://h/r@{commit}#egg=my.pkg"), true),
            ("my-pkg @ git+https://h/r@main".to_owned(), false),
            ("my-pkg @ git+https://h/r".to_owned(), false),
            (format!("my-pkg @ git+https://h/r@{}", &commit[..12]), false),
            (format!("git+https://h/r@{commit}"), false),
            (format!("my-pkg @ hg+https://h/r@{commit}"), false),
            ("./my-pkg".to_owned(), false),
        ] {
            assert_eq!(is_installed(&requirement(&line), &installed), expected, "{line}");
        }
    }

    proptest! {
        #[test]
        fn a_repository_is_put_together_again(
            target in "(git|hg|svn)\\+((ssh|https|file)://([a-z]{1,3}(:[a-z]{1,3})?@)?[a-z.]{1,8}(:[0-9]{1,4})?/[a-z/.]{0,8}|git@[a-z]{1,5}:[a-z/]{1,5})(@[a-z0-9./]{1,6})?(#[a-z=&]{1,6})?"
        ) {
            let repository = Repository::parse(&target).unwrap();
            prop_assert_eq!(repository.text(), target);
        }

        #[test]
        fn no_text_is_too_odd(text in "\\PC{0,40}") {
            let _ = (Repository::parse(&text), secrets(&text));
        }
    }
}
