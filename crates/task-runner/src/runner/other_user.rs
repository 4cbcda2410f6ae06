//! A program that runs as another user than the agent (`CLEARML_AGENT_EXEC_USER`).
//!
//! Each run has a home of its own below [`HOMES`], mode 0700. Environment and code are built there by the agent, and
//! then given to the user as a whole; nothing becomes readable for others. The program is started by `setpriv`, which
//! takes all groups of the agent away.

use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::record::{AbortCommand, OsText, RunInputs};

/// Where the homes of runs are.
pub(crate) const HOMES: &str = "/clearml_agent_home";
const VARIABLES: [&str; 2] = ["CLEARML_AGENT_EXEC_USER", "TRAINS_AGENT_EXEC_USER"];
const CONFIG: &str = "clearml.conf";

/// The user, and where that one is at home for a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OtherUser {
    name: String,
    uid: u32,
    gid: u32,
    home: PathBuf,
}

impl OtherUser {
    /// The user that the variables name, if they do. `run` names the home.
    pub(crate) fn wanted(inputs: &RunInputs, run: &str) -> Result<Option<Self>, String> {
        let named = |wanted: &&str| {
            let found = inputs.environment.iter().find(|(name, _)| name.0 == **wanted);
            found.and_then(|(_, value)| value.0.to_str().map(str::trim).filter(|name| !name.is_empty()))
        };
        let Some(name) = VARIABLES.iter().find_map(named) else {
            return Ok(None);
        };
        let refused = |why: &str| {
            format!(
                "running as user {name:?}, as {} says: {why}; choose another user, or none",
                VARIABLES[0]
            )
        };
        if !rustix::process::geteuid().is_root() {
            return Err(refused("only root can start programs as somebody else"));
        }
        let passwd = database("passwd", name).ok_or_else(|| refused("there is no such user"))?;
        let (uid, primary) = ids(&passwd).ok_or_else(|| refused("the entry of the user makes no sense"))?;
        // The group of the same name, as a rule.
        let group = database("group", name).and_then(|entry| entry.split(':').nth(2)?.parse().ok());
        Ok(Some(Self {
            name: name.to_owned(),
            uid,
            gid: group.unwrap_or(primary),
            home: Path::new(HOMES).join(run),
        }))
    }

    /// Where environment and code are built.
    pub(crate) fn environment_dir(&self) -> PathBuf {
        self.home.join("env")
    }

    /// An empty home, which is the agent's until it is handed over.
    pub(crate) fn make_home(&self) -> io::Result<()> {
        match DirBuilder::new().mode(0o711).create(HOMES) {
            // Below a folder of somebody else, homes could be exchanged.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                let found = fs::symlink_metadata(HOMES)?;
                if !found.is_dir() || found.uid() != 0 || found.mode() & 0o022 != 0 {
                    let why = format!("{HOMES} is not a folder that only root can write to");
                    return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
                }
            }
            made => made?,
        }
        // Whatever our umask is; others may pass through, because the homes are closed.
        fs::set_permissions(HOMES, fs::Permissions::from_mode(0o711))?;
        remove(&self.home)?;
        DirBuilder::new().mode(0o700).create(&self.home)?;
        DirBuilder::new().mode(0o700).create(self.environment_dir())
    }

    /// Gives the home, with a copy of the configuration, to the user.
    pub(crate) fn hand_over(&self, config: Option<&Path>) -> io::Result<()> {
        if let Some(config) = config {
            let copy = self.home.join(CONFIG);
            fs::copy(config, &copy)?;
            fs::set_permissions(&copy, fs::Permissions::from_mode(0o600))?;
        }
        self.give(&self.home)
    }

    /// From the leaves on, so that nobody can meddle with what is still to be given.
    fn give(&self, path: &Path) -> io::Result<()> {
        let found = fs::symlink_metadata(path)?;
        if found.is_dir() {
            for entry in fs::read_dir(path)? {
                self.give(&entry?.path())?;
            }
        } else if found.is_file() && found.nlink() > 1 {
            // It is in a cache as well, which stays ours.
            let own = path.with_extension("own-copy");
            fs::copy(path, &own)?;
            fs::rename(&own, path)?;
        }
        lchown(path, Some(self.uid), Some(self.gid))
    }

    /// Lets the program, and the command that saves its work, start as the user.
    pub(crate) fn lead(
        &self,
        argv: &mut Vec<OsString>,
        abort_command: Option<&mut AbortCommand>,
        environment: &mut Vec<(OsText, OsText)>,
    ) {
        let prefix = [
            "setpriv".to_owned(),
            format!("--reuid={}", self.uid),
            format!("--regid={}", self.gid),
            "--clear-groups".to_owned(),
            "--".to_owned(),
        ];
        argv.splice(0..0, prefix.clone().map(OsString::from));
        if let Some(command) = abort_command {
            command.argv.splice(0..0, prefix);
        }
        self.settle(environment);
    }

    /// Tells the program where it is at home.
    fn settle(&self, environment: &mut Vec<(OsText, OsText)>) {
        let config = self.home.join(CONFIG).into_os_string();
        let mut set = |name: &str, value: OsString, always: bool| match environment
            .iter_mut()
            .find(|(known, _)| known.0 == *name)
        {
            Some((_, known)) if always => known.0 = value,
            Some(_) => {}
            None => environment.push((OsText(name.into()), OsText(value))),
        };
        set("HOME", self.home.clone().into(), true);
        set("USER", self.name.clone().into(), true);
        set("LOGNAME", self.name.clone().into(), true);
        set("CLEARML_CONFIG_FILE", config.clone(), true);
        set("TRAINS_CONFIG_FILE", config, true);
        set(
            "CLEARML_CACHE_DIR",
            self.home.join(".clearml/cache").into(),
            false,
        );
    }
}

/// Removes the home of a run.
pub(crate) fn remove_home(run: &str) -> io::Result<()> {
    remove(&Path::new(HOMES).join(run))
}

fn remove(home: &Path) -> io::Result<()> {
    match fs::remove_dir_all(home) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// One entry of the users or groups of this machine, wherever they are kept.
fn database(which: &str, name: &str) -> Option<String> {
    let output = Command::new("getent").args([which, "--", name]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let entry = text.lines().next().filter(|_| output.status.success())?;
    Some(entry.to_owned())
}

fn ids(passwd: &str) -> Option<(u32, u32)> {
    let mut fields = passwd.split(':').skip(2);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_told_where_it_is_at_home() {
        assert_eq!(
            ids("nobody:x:65534:65533:nobody:/:/bin/false"),
            Some((65534, 65533))
        );
        let user = OtherUser {
            name: "nobody".into(),
            uid: 65534,
            gid: 65533,
            home: "/clearml_agent_home/r".into(),
        };
        let text = |name: &str, value: &str| (OsText(name.into()), OsText(value.into()));
        let mut environment = vec![text("HOME", "/root"), text("CLEARML_CACHE_DIR", "/shared")];
        user.settle(&mut environment);
        assert!(environment.contains(&text("HOME", "/clearml_agent_home/r")));
        assert!(
            environment.contains(&text("CLEARML_CACHE_DIR", "/shared")),
            "theirs"
        );
        assert!(environment.contains(&text("CLEARML_CONFIG_FILE", "/clearml_agent_home/r/clearml.conf")));
    }
}
