//! Whether there is a configuration, whether it is understood, and who can read it.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use clearml_agent_config::{ConfigError, Settings, Sources};

use super::report::Section;

/// Everybody but the owner.
const OTHERS: u32 = 0o077;

pub(super) fn check(section: &Section, sources: &Sources, loaded: &Result<Settings, ConfigError>) {
    let settings = match loaded {
        Ok(settings) => settings,
        Err(error) => {
            section.problem(
                "configuration",
                error.to_string(),
                "correct it; until then the server can't be asked, and defaults are examined below",
            );
            return;
        }
    };
    match settings.location() {
        Some(path) if path.exists() => {
            section.ok("file", path.display().to_string());
            permissions(section, path);
        }
        Some(path) => section.problem(
            "file",
            format!(
                "{} does not exist, although CLEARML_CONFIG_FILE names it",
                path.display()
            ),
            "correct or unset the variable",
        ),
        None if settings.api.require_server().is_ok() => {
            section.ok("file", "none; the server comes from environment variables");
        }
        None => section.warning(
            "file",
            match &sources.home {
                Some(home) => format!("none; {} does not exist", home.join("clearml.conf").display()),
                None => "none, and there is no home folder to look in".to_owned(),
            },
            "run `clearml-agent init`",
        ),
    }
    for warning in settings.warnings() {
        section.warning("content", warning.to_string(), "correct the file or the variable");
    }
    match (settings.api.require_server(), settings.api.require_credentials()) {
        (Err(error), _) | (_, Err(error)) => {
            section.problem("server", error.to_string(), "run `clearml-agent init`");
        }
        (Ok(server), Ok(_)) => {
            let origin = settings
                .origin("api.api_server")
                .map_or_else(String::new, |origin| format!(" ({origin})"));
            section.ok("server", format!("{server}{origin}"));
        }
    }
    login_of_git(section, settings);
}

/// A half of a login is never used.
fn login_of_git(section: &Section, settings: &Settings) {
    let git = &settings.agent.git;
    match (&git.user, &git.pass) {
        (Some(_), None) => section.warning(
            "agent.git_user",
            "set without agent.git_pass, so git asks without a login",
            "set agent.git_pass to a token, or empty both to use ssh keys",
        ),
        (None, Some(_)) => section.warning(
            "agent.git_pass",
            "set without agent.git_user, so git asks without a login",
            "set agent.git_user as well",
        ),
        _ => {}
    }
}

fn permissions(section: &Section, path: &Path) {
    // What is not a file, such as /dev/null, holds no secrets.
    let Some(meta) = path.metadata().ok().filter(std::fs::Metadata::is_file) else {
        return;
    };
    let mode = meta.mode() & 0o7777;
    if mode & OTHERS != 0 {
        let whom = if mode & 0o007 != 0 {
            "every user of this machine"
        } else {
            "its group"
        };
        section.warning(
            "permissions",
            format!("the file holds secrets and is open to {whom} (mode {mode:04o})"),
            format!("chmod 600 '{}'", path.display()),
        );
    } else {
        section.ok("permissions", format!("only for its owner (mode {mode:04o})"));
    }
    let me = rustix::process::getuid().as_raw();
    if meta.uid() != me && meta.uid() != 0 {
        section.warning(
            "owner",
            format!("the file belongs to another user (id {})", meta.uid()),
            "whoever owns it decides what the agent runs: make it yours",
        );
    }
}
