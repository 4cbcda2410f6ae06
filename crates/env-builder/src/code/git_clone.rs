//! One repository of git: the clone in the cache brought up to date, and the working copy made from it.

use std::fs;
use std::io;
use std::path::Path;

use clearml_support::fs::remove_tree;

use crate::code::git::{Git, GitError, is_full_id};
use crate::code::info::ExecutionInfo;
use crate::code::place::Place;
use crate::code::{submodules, transfer};
use crate::error::{FileError, at};
use crate::request::{Lfs, Submodules};
use crate::tools::{Context, is_true};

/// A locked clone, and what a task wants from it.
pub(crate) struct GitClone<'a> {
    context: &'a Context<'a>,
    git: &'a Git<'a>,
    url: &'a str,
    info: &'a ExecutionInfo,
    place: &'a Place,
    grown: bool,
}

impl<'a> GitClone<'a> {
    pub(crate) fn new(
        context: &'a Context<'a>,
        git: &'a Git<'a>,
        url: &'a str,
        info: &'a ExecutionInfo,
        place: &'a Place,
    ) -> Self {
        Self {
            context,
            git,
            url,
            info,
            place,
            grown: false,
        }
    }

    /// Whether something was fetched.
    pub(crate) fn has_grown(&self) -> bool {
        self.grown
    }

    /// Makes sure that the wanted commit, with its submodules and large files, is in the clone, with as
    /// little network as possible.
    pub(crate) fn update(&mut self) -> Result<String, GitError> {
        let commit = self.update_history()?;
        let clone = &self.place.clone;
        if self.lfs_is_needed(&commit)? {
            let fetch = self.git.command(clone).args(["lfs", "fetch", "origin", &commit]);
            self.git
                .run_patiently("fetching large files", &fetch, || Ok(()))?;
        }
        if !self.is_legacy() {
            self.grown |= submodules::complete(self.context, self.git, self.place, &commit)?;
        }
        Ok(commit)
    }

    fn update_history(&mut self) -> Result<String, GitError> {
        let settings = &self.context.settings.vcs_cache;
        let clone = &self.place.clone;
        let usable = settings.enabled && clone.join(".git/HEAD").is_file();
        if !usable {
            self.clone_anew()?;
            return self.find_or_ask();
        }
        clear_leftovers(&clone.join(".git"))?;
        self.context
            .info(&format!("using the cached repository in {}", clone.display()));
        if is_full_id(&self.info.version)
            && !settings.always_fetch
            && let Some(commit) = self.git.resolve(clone, &self.info.version)?
        {
            return Ok(commit);
        }
        match self.set_address() {
            // Nothing was asked of the server yet: the clone itself is damaged, by a power failure perhaps.
            Err(GitError::Failed { .. }) => {
                self.context
                    .warn("the cached clone is damaged: the repository is cloned anew");
                self.clone_anew()?;
                return self.find_or_ask();
            }
            result => result?,
        }
        match self.fetch() {
            Err(GitError::Failed { .. }) if settings.clone_on_pull_fail => {
                self.context
                    .warn("fetching failed: the repository is cloned anew");
                self.clone_anew()?;
            }
            result => result?,
        }
        self.find_or_ask()
    }

    fn clone_anew(&mut self) -> Result<(), GitError> {
        self.grown = true;
        self.place.clear()?;
        let (outer, staging) = (&self.place.outer, self.place.staging());
        self.context.info(&format!("cloning {}", self.url));
        let verbose = self
            .context
            .var("CLEARML_AGENT_GIT_CLONE_VERBOSE")
            .is_some_and(is_true);
        let command = self
            .git
            .command(outer)
            .arg("clone")
            // A clone that checks nothing out leaves its submodules where they are as well.
            .args((!self.is_legacy()).then_some("--no-checkout"))
            .arg(if verbose { "--verbose" } else { "--quiet" })
            .args(if self.is_legacy() {
                ["--recurse-submodules"].as_slice()
            } else {
                // Keeps the clone usable for the Python agent, which wants all submodules.
                &["--config", "submodule.active=."]
            })
            .args(&self.context.settings.git.clone_args)
            .arg("--")
            .arg(self.url)
            .arg(&staging);
        self.git.run_patiently("cloning", &command, || {
            remove_tree(&staging).map_err(at("removing", &staging))
        })?;
        fs::rename(&staging, &self.place.clone).map_err(at("renaming", &staging))?;
        Ok(())
    }

    /// Credentials or protocol may have changed since the clone was made.
    fn set_address(&self) -> Result<(), GitError> {
        let set_url = self
            .git
            .command(&self.place.clone)
            .args(["remote", "set-url", "--", "origin"])
            .arg(self.url);
        self.git.run("setting the address of the cached clone", &set_url)
    }

    fn fetch(&mut self) -> Result<(), GitError> {
        self.grown = true;
        // `--force`: a tag that was moved on the server must not end the task. Submodules are brought to
        // the commits that are needed later; one that is out of reach and not needed must not end it either.
        let configured = &self.context.settings.git.fetch_args;
        let legacy = self.is_legacy();
        let fetch = self
            .git
            .command(&self.place.clone)
            .args(["fetch", "--quiet", "--force"])
            .args(
                configured
                    .iter()
                    .filter(|arg| legacy || !arg.contains("recurse-submodules")),
            )
            .args((!legacy).then_some("--no-recurse-submodules"));
        self.git.run_patiently("fetching", &fetch, || Ok(()))
    }

    /// Finds the wanted revision; a commit that no branch or tag leads to is asked for by its id.
    fn find_or_ask(&self) -> Result<String, GitError> {
        if let Some(commit) = self.find()? {
            return Ok(commit);
        }
        if is_full_id(&self.info.version) {
            let fetch = self
                .git
                .command(&self.place.clone)
                .args(["fetch", "--quiet", "origin"])
                .arg(&self.info.version);
            match self.git.run("fetching the commit", &fetch) {
                Ok(()) | Err(GitError::Failed { .. }) => {}
                Err(e) => return Err(e),
            }
            if let Some(commit) = self.find()? {
                return Ok(commit);
            }
        }
        Err(GitError::NoRevision {
            wanted: wanted(self.info),
        })
    }

    fn find(&self) -> Result<Option<String>, GitError> {
        for revision in revisions(self.info) {
            if let Some(commit) = self.git.resolve(&self.place.clone, &revision)? {
                return Ok(Some(commit));
            }
        }
        Ok(None)
    }

    /// Whether the commit keeps files in LFS and they are wanted.
    fn lfs_is_needed(&self, commit: &str) -> Result<bool, GitError> {
        let mode = self.context.settings.git.lfs;
        if mode == Lfs::Skip {
            return Ok(false);
        }
        let search = self
            .git
            .command(&self.place.clone)
            .args(["grep", "--quiet", "-e", "filter=lfs", commit, "--"])
            .args([".gitattributes", "*/.gitattributes"]);
        let used = self.git.succeeds(&search)?;
        if used && !self.git.lfs {
            if mode == Lfs::Pull {
                return Err(GitError::NoLfs);
            }
            self.context.warn(
                "the repository keeps files in Git LFS, but git-lfs is not installed: they are missing",
            );
        }
        Ok(used && self.git.lfs)
    }

    /// Makes the working copy.
    pub(crate) fn check_out(&self, root: &Path, commit: &str) -> Result<(), GitError> {
        let share = !self.context.settings.vcs_cache.copy_objects;
        transfer::git_folder(&self.place.clone.join(".git"), &root.join(".git"), share)?;
        let command = self
            .git
            .command(root)
            .args(["checkout", "--quiet", "--force", "--detach"])
            .arg(commit);
        self.git.run("checking out", &command)?;
        if self.is_legacy() {
            return submodules::check_out_legacy(self.context, self.git, root);
        }
        submodules::check_out(self.context, self.git, root)
    }

    fn is_legacy(&self) -> bool {
        self.context.settings.git.submodules == Submodules::Legacy
    }
}

/// Removes what a git that was killed has left in a clone that we alone hold: lock files, which would
/// make every later git refuse to work, and half-received packs.
fn clear_leftovers(git_folder: &Path) -> Result<(), FileError> {
    for folder in transfer::with_modules(git_folder)? {
        for (name, deep) in [
            ("", false),
            ("refs", true),
            ("objects/info", false),
            ("objects/pack", false),
        ] {
            clear_folder(&folder.join(name), deep)?;
        }
    }
    Ok(())
}

fn clear_folder(folder: &Path, deep: bool) -> Result<(), FileError> {
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(at("reading", folder))?,
    };
    for entry in entries {
        let entry = entry.map_err(at("reading", folder))?;
        let (path, name) = (entry.path(), entry.file_name());
        if entry.file_type().map_err(at("reading", &path))?.is_dir() {
            if deep {
                clear_folder(&path, true)?;
            }
            continue;
        }
        // No name of a branch or tag ends like this.
        let lock = path.extension().is_some_and(|extension| extension == "lock");
        if lock || name.to_string_lossy().starts_with("tmp_") {
            remove_tree(&path).map_err(at("removing", &path))?;
        }
    }
    Ok(())
}

/// What to look for, in order: the commit, else the tag, else the branch, else the usual main branches.
fn revisions(info: &ExecutionInfo) -> Vec<String> {
    let branch = info.branch.strip_prefix("origin/").unwrap_or(&info.branch);
    let names = if !info.version.is_empty() {
        vec![info.version.clone()]
    } else if !info.tag.is_empty() {
        vec![format!("refs/tags/{}", info.tag), info.tag.clone()]
    } else if !branch.is_empty() {
        vec![format!("refs/remotes/origin/{branch}")]
    } else {
        ["master", "main", "HEAD"]
            .map(|name| format!("refs/remotes/origin/{name}"))
            .to_vec()
    };
    // A name that begins with a dash can't be a revision, but could be an option.
    names.into_iter().filter(|name| !name.starts_with('-')).collect()
}

/// The wanted revision, for people.
pub(crate) fn wanted(info: &ExecutionInfo) -> String {
    if !info.version.is_empty() {
        format!("commit {}", info.version)
    } else if !info.tag.is_empty() {
        format!("tag {}", info.tag)
    } else if !info.branch.is_empty() {
        format!("branch {}", info.branch)
    } else {
        "a branch named master or main".to_owned()
    }
}
