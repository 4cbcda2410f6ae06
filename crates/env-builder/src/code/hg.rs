//! Repositories of Mercurial, through the same cache of clones.
//!
//! hg reads logins from a configuration file in memory, which binds them to the server of the repository.

use std::fs;
use std::path::{Path, PathBuf};

use clearml_support::command::{Command, Output};
use clearml_support::secret::Secret;

use crate::code::credentials::split_login;
use crate::code::evict;
use crate::code::git::{GitError, SSH, is_full_id};
use crate::code::git_clone::wanted;
use crate::code::info::ExecutionInfo;
use crate::code::place::{LOCK_PATIENCE, Place};
use crate::code::repo_url::{Parts, refusal, without_password};
use crate::code::secret_file::SecretFile;
use crate::error::{BuildError, at};
use crate::host::Phase;
use crate::request::GitSettings;
use crate::tools::Context;

/// Brings the wanted revision to `root`; its id.
pub(crate) fn retrieve(
    context: &Context<'_>,
    info: &ExecutionInfo,
    root: &Path,
    failed: &dyn Fn(GitError) -> BuildError,
) -> Result<String, BuildError> {
    let address = info.repository.strip_prefix("hg+").unwrap_or(&info.repository);
    let hg = Hg::new(context, address).map_err(failed)?;
    let place = Place::lock(context, &info.repository, LOCK_PATIENCE).map_err(failed)?;
    let mut grown = false;
    let commit = context.phase(Phase::Clone, || {
        hg.update(&place, info, &mut grown).map_err(failed)
    })?;
    context.phase(Phase::Checkout, || {
        hg.check_out(&place.clone, root, &commit).map_err(failed)
    })?;
    drop(place);
    if grown {
        evict::sweep(context);
    }
    Ok(commit)
}

/// Applies a patch to a working copy without committing it.
pub(crate) fn import(context: &Context<'_>, root: &Path, diff: &str) -> Result<Output, GitError> {
    let hg = Hg::new(context, "")?;
    let command = hg
        .command(root)
        .args(["import", "--no-commit", "-"])
        .stdin_bytes(format!("{diff}\n"));
    Ok(command.output()?)
}

/// An address without its login, and a piece of configuration with what reaches it.
pub(crate) fn access(context: &Context<'_>, address: &str) -> Result<(String, SecretFile), GitError> {
    let settings = &context.settings.hg;
    let git = GitSettings {
        user: settings.user.clone(),
        pass: settings.pass.clone(),
        host: settings.host.clone(),
        extra_credentials: settings.extra_credentials.clone(),
        ..GitSettings::default()
    };
    let (address, login) = split_login(address, &git);
    let mut config = format!("[ui]\nssh = {SSH}\n");
    if let (Some((user, pass)), Some(parts)) = (login, Parts::parse(&address)) {
        let lines = |text: &str| text.contains(['\n', '\r']);
        if lines(&user) || lines(pass.expose()) {
            return Err(GitError::Refused("its login contains a line end"));
        }
        context.redactor.add(&pass);
        if pass.is_empty() {
            context.redactor.add(&Secret::new(user.clone()));
        }
        let port = parts.port.map_or(String::new(), |port| format!(":{port}"));
        config.push_str(&format!(
            "[auth]\ntask.prefix = {}://{}{port}/\ntask.username = {user}\ntask.password = {}\n",
            parts.scheme,
            parts.host,
            pass.expose()
        ));
    }
    Ok((address, SecretFile::new(config.as_bytes())?))
}

/// Lets hg, also as a child of the command, read the configuration before the user's own.
pub(crate) fn with_config(context: &Context<'_>, command: Command, config: &SecretFile) -> Command {
    let home = context.var("HOME").unwrap_or("/");
    let usual = format!("/etc/mercurial/hgrc:/etc/mercurial/hgrc.d:{home}/.hgrc:{home}/.config/hg/hgrc");
    let users = context.var("HGRCPATH").unwrap_or(&usual);
    command.env("HGRCPATH", format!("{}:{users}", config.path().display()))
}

struct Hg<'a> {
    context: &'a Context<'a>,
    program: PathBuf,
    address: String,
    config: SecretFile,
}

impl<'a> Hg<'a> {
    fn new(context: &'a Context<'a>, address: &str) -> Result<Self, GitError> {
        if let Some(reason) = refusal(address) {
            return Err(GitError::Refused(reason));
        }
        let program = context.find_program("hg").ok_or(GitError::NoMercurial)?;
        let (address, config) = access(context, address)?;
        Ok(Self {
            context,
            program,
            address,
            config,
        })
    }

    fn command(&self, folder: &Path) -> Command {
        with_config(self.context, self.context.command(&self.program), &self.config)
            .cwd(folder)
            .env("HGPLAIN", "1")
            .env("LC_ALL", "C.UTF-8")
            .arg("--noninteractive")
    }

    fn run(&self, doing: &'static str, command: &Command) -> Result<(), GitError> {
        let ended = self.context.stream(command)?;
        if ended.status.success() {
            return Ok(());
        }
        let abort = ended.tail.iter().rfind(|line| line.starts_with("abort:"));
        Err(GitError::Failed {
            doing,
            status: ended.status.to_string(),
            last_line: abort.cloned().unwrap_or_else(|| ended.last_line()),
            transient: false,
        })
    }

    fn update(&self, place: &Place, info: &ExecutionInfo, grown: &mut bool) -> Result<String, GitError> {
        let settings = &self.context.settings.vcs_cache;
        let known = settings.enabled && place.clone.join(".hg/requires").is_file();
        if known {
            let clone = place.clone.display();
            self.context
                .info(&format!("using the cached repository in {clone}"));
            if place.clone.join(".hg/store/journal").exists() {
                self.run(
                    "repairing the cached clone",
                    &self.command(&place.clone).arg("recover"),
                )?;
            }
            if is_full_id(&info.version)
                && !settings.always_fetch
                && let Some(commit) = self.resolve(&place.clone, &info.version)?
            {
                return Ok(commit);
            }
        }
        *grown = true;
        let pulled = if known {
            let pull = self
                .command(&place.clone)
                .args(["pull", "--quiet", "--"])
                .arg(&self.address);
            self.run("pulling", &pull)
        } else {
            self.clone_anew(place)
        };
        match pulled {
            Err(GitError::Failed { .. }) if known && settings.clone_on_pull_fail => {
                self.context.warn("pulling failed: the repository is cloned anew");
                self.clone_anew(place)?;
            }
            result => result?,
        }
        let missing = || GitError::NoRevision { wanted: wanted(info) };
        self.resolve(&place.clone, revision(info))?.ok_or_else(missing)
    }

    fn clone_anew(&self, place: &Place) -> Result<(), GitError> {
        place.clear()?;
        let staging = place.staging();
        let shown = without_password(&self.address);
        self.context.info(&format!("cloning {shown}"));
        let clone = self
            .command(&place.outer)
            .args(["clone", "--noupdate", "--quiet", "--"])
            .arg(&self.address)
            .arg(&staging);
        self.run("cloning", &clone)?;
        fs::rename(&staging, &place.clone).map_err(at("renaming", &staging))?;
        Ok(())
    }

    fn resolve(&self, repository: &Path, revision: &str) -> Result<Option<String>, GitError> {
        if revision.starts_with('-') {
            return Ok(None);
        }
        let command = self
            .command(repository)
            .args(["--debug", "identify", "--id", "--rev", revision]);
        let output = command.output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let id = text.lines().last().unwrap_or_default().trim().to_owned();
        let null = id.bytes().all(|b| b == b'0');
        Ok(Some(id).filter(|id| output.status.success() && is_full_id(id) && !null))
    }

    fn check_out(&self, clone: &Path, root: &Path, commit: &str) -> Result<(), GitError> {
        let parent = root.parent().unwrap_or(root);
        fs::create_dir_all(parent).map_err(at("creating", parent))?;
        let copy = self
            .command(parent)
            .args(["clone", "--noupdate", "--quiet", "--"])
            .arg(clone)
            .arg(root);
        self.run("making the working copy", &copy)?;
        let hgrc = root.join(".hg/hgrc");
        let paths = format!("[paths]\ndefault = {}\n", without_password(&self.address));
        fs::write(&hgrc, paths).map_err(at("writing", &hgrc))?;
        let update = self
            .command(root)
            .args(["update", "--quiet", "--clean", "--rev", commit]);
        self.run("checking out", &update)
    }
}

fn revision(info: &ExecutionInfo) -> &str {
    [&info.version, &info.tag, &info.branch]
        .into_iter()
        .find(|name| !name.is_empty())
        .map_or("default", String::as_str)
}
