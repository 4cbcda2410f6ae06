//! The code of a task: a working copy with its uncommitted changes, a literal script, or a folder that
//! somebody else has prepared.

use std::path::Path;

use clearml_support::fs::create_private_dir;

use crate::code::cache::{self, Vcs};
use crate::code::diff::{DiffKind, classify, without_colours};
use crate::code::existing;
use crate::code::info::{ExecutionInfo, expand};
use crate::code::literal::{self, LiteralError};
use crate::code::patch::{Patch, PatchError};
use crate::error::{BuildError, at};
use crate::host::Phase;
use crate::launch::{Code, LaunchError};
use crate::request::BuildRequest;
use crate::tools::Context;

/// Where the SDK puts changes that are too large for `script.diff`.
const AUXILIARY_DIFF: &str = "auxiliary_git_diff";

/// Brings the code to its place and applies or writes what the task carries itself. The second value is
/// the commit.
pub(crate) fn acquire(
    context: &Context<'_>,
    request: &BuildRequest<'_>,
    info: &ExecutionInfo,
) -> Result<(Code, Option<String>), BuildError> {
    let task = Acquire {
        context,
        request,
        info,
    };
    if let Some(folder) = context.var("CLEARML_AGENT_FORCE_CODE_DIR") {
        return Ok((task.forced(folder)?, None));
    }
    if let Some(builds) = context.settings.standalone.as_deref()
        && !info.repository.is_empty()
    {
        return Ok((task.existing(builds)?, None));
    }
    if info.repository.is_empty() {
        return Ok((task.standalone()?, None));
    }
    let (code, commit) = task.repository()?;
    Ok((code, Some(commit)))
}

struct Acquire<'a> {
    context: &'a Context<'a>,
    request: &'a BuildRequest<'a>,
    info: &'a ExecutionInfo,
}

impl Acquire<'_> {
    fn forced(&self, folder: &str) -> Result<Code, LaunchError> {
        let folder = expand(folder, &self.context.settings.env);
        self.context.warn(&format!(
            "CLEARML_AGENT_FORCE_CODE_DIR: the code in {folder} is used as it is"
        ));
        let root = Path::new(&folder)
            .canonicalize()
            .map_err(|_| LaunchError::NoFolder {
                folder: folder.clone(),
                root: "/".into(),
            })?;
        Ok(Code {
            root,
            working_dir: self.info.working_dir.clone(),
            literal: None,
            is_repository: false,
            own: None,
            beside: None,
        })
    }

    fn existing(&self, builds: &Path) -> Result<Code, BuildError> {
        let Some(root) = existing::copy(self.context, builds, self.request.task, &self.info.repository)
        else {
            let repository = crate::code::repo_url::without_password(&self.info.repository);
            let builds = builds.to_owned();
            return Err(LaunchError::NoCopy { repository, builds }.into());
        };
        self.context
            .info(&format!("the code in {} is used as it is", root.display()));
        let is_own = existing::is_own(self.context, builds, self.request.task, &root);
        let code = Code {
            own: Some(root.clone()),
            beside: None,
            root,
            working_dir: self.info.working_dir.clone(),
            literal: None,
            is_repository: true,
        };
        let diff = without_colours(&self.info.diff);
        let has_commit = !self.info.version.is_empty();
        if !is_own && classify(&diff, has_commit) == DiffKind::Patch {
            let patch = self.patch_of(&code);
            if !patch.is_applied(&diff)? {
                patch.apply(&diff)?;
            }
        }
        Ok(code)
    }

    fn repository(&self) -> Result<(Code, String), BuildError> {
        let (context, info) = (self.context, self.info);
        let diff = without_colours(&info.diff);
        let mut kind = classify(&diff, !info.version.is_empty());
        let mut diff = diff.into_owned();
        if kind == DiffKind::Placeholder {
            diff = self.auxiliary_diff()?;
            kind = DiffKind::Patch;
        }
        let parent = self.request.run_dir_env.join("task_repository");
        let copy = cache::retrieve(context, info, &parent)?;
        let mut code = Code {
            own: Some(copy.root.clone()),
            beside: None,
            root: copy.root,
            working_dir: info.working_dir.clone(),
            literal: None,
            is_repository: true,
        };
        match kind {
            DiffKind::Patch => context.phase(Phase::Patch, || self.patch_of(&code).apply(&diff))?,
            DiffKind::PointersOnly => context.warn(
                "the uncommitted changes only move submodules to other commits, which can't be reproduced; \
                 the task runs without them",
            ),
            DiffKind::Literal => context.phase(Phase::Script, || self.literal(&mut code, &diff))?,
            DiffKind::Empty | DiffKind::Placeholder => {}
        }
        Ok((code, copy.commit))
    }

    fn patch_of<'a>(&'a self, code: &'a Code) -> Patch<'a> {
        Patch {
            context: self.context,
            vcs: Vcs::of(self.context, &self.info.repository),
            root: &code.root,
            folders: folders(self.info),
        }
    }

    /// The changes that were too large for the task itself.
    fn auxiliary_diff(&self) -> Result<String, BuildError> {
        let artifacts = self
            .request
            .task
            .execution
            .as_ref()
            .and_then(|execution| execution.get("artifacts")?.as_array());
        let named = artifacts
            .into_iter()
            .flatten()
            .find(|artifact| artifact["key"] == AUXILIARY_DIFF);
        let Some(url) = named.and_then(|artifact| artifact["uri"].as_str()) else {
            return Err(PatchError::LeftOut { why: None }.into());
        };
        let shown = crate::code::repo_url::without_password(url);
        self.context
            .info(&format!("reading the uncommitted changes from {shown}"));
        let fetched = self
            .context
            .host
            .fetch(url)
            .and_then(|bytes| String::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".to_owned()));
        fetched.map_err(|why| PatchError::LeftOut { why: Some(why) }.into())
    }

    fn standalone(&self) -> Result<Code, BuildError> {
        let builds = self.context.settings.standalone.as_deref();
        let built = builds.and_then(|builds| existing::script(self.context, builds, self.request.task));
        let root = built.unwrap_or_else(|| self.request.run_dir_env.join("code"));
        create_private_dir(&root).map_err(at("creating", &root))?;
        let folder = self.info.working_dir.split(':').next().unwrap_or_default();
        if !matches!(folder, "" | ".") {
            self.context.warn(&format!(
                "without a repository, the working folder {folder:?} is ignored"
            ));
        }
        let mut code = Code {
            own: Some(root.clone()),
            beside: None,
            root,
            working_dir: ".".to_owned(),
            literal: None,
            is_repository: false,
        };
        match classify(&self.info.diff, false) {
            DiffKind::Literal => self
                .context
                .phase(Phase::Script, || self.literal(&mut code, &self.info.diff))?,
            _ => self
                .context
                .warn("the task has neither a repository nor a script of its own"),
        }
        Ok(code)
    }

    fn literal(&self, code: &mut Code, text: &str) -> Result<(), LiteralError> {
        let plan = literal::plan(self.info);
        if code.is_repository {
            code.working_dir = plan.working_dir;
        }
        let (path, written) = literal::write(&code.root, &code.folder(), &plan.file, text)?;
        if !written {
            self.context
                .warn(&format!("{} exists already and is used as it is", path.display()));
        }
        code.literal = Some((path, plan.entry));
        Ok(())
    }
}

/// Folders that git may have been started in when it showed the changes (`diff.relative`): that of the
/// script, and the working folder.
fn folders(info: &ExecutionInfo) -> Vec<String> {
    let working_dir = info.working_dir.split(':').next().unwrap_or_default();
    let script = info
        .entry_point
        .split_whitespace()
        .next()
        .filter(|word| !word.starts_with('-'))
        .and_then(|word| word.rsplit_once('/'))
        .map(|(folder, _)| format!("{working_dir}/{folder}"));
    let mut found = Vec::new();
    for folder in script.iter().map(String::as_str).chain([working_dir]) {
        let folder = crate::code::info::normal_path(folder);
        let inside = !matches!(folder.as_str(), "" | ".") && !folder.starts_with(['/', '.']);
        if inside && !found.contains(&folder) {
            found.push(folder);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use clearml_task_model::Script;

    use super::*;

    #[test]
    fn folders_that_paths_may_be_relative_to() {
        for (entry, working_dir, expected) in [
            ("a/b.py", "src", vec!["src/a", "src"]),
            ("b.py --x y/z", "src", vec!["src"]),
            ("b.py", ".", vec![]),
            ("-m a/b", "src:x", vec!["src"]),
            ("../up/b.py", "src", vec!["up", "src"]),
            ("../../b.py", "src", vec!["src"]),
        ] {
            let script = Script {
                entry_point: Some(entry.into()),
                working_dir: Some(working_dir.into()),
                ..Script::default()
            };
            let info = ExecutionInfo::new(&script, &BTreeMap::new()).0;
            assert_eq!(folders(&info), expected, "{entry} in {working_dir}");
        }
    }
}
