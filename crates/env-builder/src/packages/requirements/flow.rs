//! Installing a list: what is there is left out, torch gets its index, and one step comes after the other.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::code::credentials::Access;
use crate::code::hg;
use crate::code::repo_url::refusal;
use crate::packages::PackageError;
use crate::packages::freeze::{Installed, installed_in};
use crate::packages::requirements::external::{
    FromRepository, Repository, is_installed, of_mercurial, secrets, way,
};
use crate::packages::requirements::line::{Requirement, Target, file_address};
use crate::packages::requirements::list::{self, Entry, List, file_paths};
use crate::packages::requirements::pep::{Surroundings, normal_name, same_version};
use crate::packages::requirements::plan::{self, Plan, Rules, Single};
use crate::packages::requirements::step::{Action, Step};
use crate::packages::requirements::torch::{self, resolve::Choice};
use crate::packages::requirements::{Requested, RequirementSet, download};
use crate::python::venv::Venv;
use crate::tools::Context;

/// How many lines of a list are shown at most.
const MAX_SHOWN: usize = 400;

/// What carries the steps out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    /// pip, one package after the other where the order matters.
    Pip,
    /// uv, which builds each package on its own and has a cache of what it downloads.
    Uv,
}

/// Carries out one step.
pub(crate) type Run<'a> = dyn FnMut(&Step) -> Result<(), PackageError> + 'a;

/// Installs one list by calls of `run`. Returns what it contained.
pub(crate) fn install(
    context: &Context<'_>,
    venv: &Venv,
    set: &RequirementSet,
    backend: Backend,
    run: &mut Run<'_>,
) -> Result<Requested, PackageError> {
    let mut list = list::read(set, &context.settings.env);
    hide(context, &list);
    for warning in list.warnings.iter().take(MAX_SHOWN) {
        context.warn(warning);
    }
    if list.warnings.len() > MAX_SHOWN {
        let more = list.warnings.len() - MAX_SHOWN;
        context.warn(&format!("{}: {more} more lines like these", set.what));
    }
    let mut flow = Flow {
        context,
        venv,
        set,
        backend,
        list: List::default(),
        requested: requested(&list),
        here: Surroundings::new(&venv.interpreter),
    };
    if set.restored {
        flow.list.entries.clone_from(&list.entries);
        flow.note_archives();
        list.entries = plan::after_restoring(list.entries);
    }
    flow.without_installed(&mut list);
    flow.without_missing_files(&mut list);
    flow.list = list;
    if flow.list.entries.is_empty() && !flow.includes_remote_lists() {
        let what = if set.restored {
            "all of it is there"
        } else {
            "nothing to install"
        };
        context.info(&format!("{}: {what}", set.what));
        return Ok(flow.requested);
    }
    flow.all(run)?;
    Ok(flow.requested)
}

/// Lets nobody show the passwords in a list.
fn hide(context: &Context<'_>, list: &List) {
    let targets = list
        .entries
        .iter()
        .filter_map(|entry| match &entry.requirement.target {
            Target::Url(text) | Target::Vcs(text) => Some(text.as_str()),
            _ => None,
        });
    let options = list.options.iter().filter_map(|option| option.value.as_deref());
    let urls = list
        .indexes
        .iter()
        .map(String::as_str)
        .chain(targets)
        .chain(options);
    for secret in urls.flat_map(secrets) {
        context.redactor.add(&secret);
    }
}

fn requested(list: &List) -> Requested {
    let names = list.entries.iter().filter_map(|entry| {
        let name = normal_name(entry.requirement.name.as_deref()?);
        Some((name, entry.requirement.to_string()))
    });
    Requested {
        names: names.collect(),
        ..Requested::default()
    }
}

struct Flow<'a> {
    context: &'a Context<'a>,
    venv: &'a Venv,
    set: &'a RequirementSet,
    backend: Backend,
    list: List,
    requested: Requested,
    here: Surroundings,
}

impl Flow<'_> {
    /// Whether the list has others that only the installer can read.
    fn includes_remote_lists(&self) -> bool {
        self.list
            .options
            .iter()
            .any(|option| option.name == "--requirement")
    }

    /// Takes out what the environment has already: exactly these versions, and these commits.
    fn without_installed(&self, list: &mut List) {
        let installed = installed_in(self.venv);
        let repositories: Vec<FromRepository> = installed.iter().filter_map(Installed::repository).collect();
        let mut names = Vec::new();
        list.entries.retain(|entry| {
            let there =
                is_there(&entry.requirement, &installed) || is_installed(&entry.requirement, &repositories);
            if there {
                names.push(entry.requirement.to_string());
            }
            !there
        });
        if !names.is_empty() {
            self.context.info(&format!(
                "already installed: {}; {} left to install",
                names.join(", "),
                list.entries.len()
            ));
        }
    }

    /// A file that does not exist on this machine is replaced by the name that stands beside it.
    fn without_missing_files(&self, list: &mut List) {
        for Entry { requirement, .. } in &mut list.entries {
            let (Target::File(address), Some(name)) = (&requirement.target, &requirement.name) else {
                continue;
            };
            let missing = file_paths(address).is_some_and(|paths| !paths.iter().any(|path| path.exists()));
            if missing {
                let warning = format!("{address} does not exist; {name} is taken from an index");
                self.context.warn(&warning);
                requirement.target = Target::Index(String::new());
            }
        }
    }

    fn all(&mut self, run: &mut Run<'_>) -> Result<(), PackageError> {
        let choice = self.torch()?;
        let mut plan = self.plan(&choice);
        for skipped in &plan.skipped {
            let info = format!("{skipped} is left out: its condition does not hold here");
            self.context.info(&info);
        }
        self.requested.local = std::mem::take(&mut plan.local);
        let failed = self.early(&plan, &choice, run)?;
        match self.main(&plan, &choice, &failed, run) {
            Err(error) if choice.index.is_some() && self.is_about_torch(&error) => {
                self.context.warn(&format!(
                    "{error}; it is tried once more without the index of torch"
                ));
                let choice = Choice::default();
                let plain = self.plan(&choice);
                self.main(&plain, &choice, &failed, run)?;
                self.external(&plain.external, run)?;
                return self.late(&plain.late, &choice, run);
            }
            result => result?,
        }
        self.external(&plan.external, run)?;
        self.late(&plan.late, &choice, run)
    }

    fn is_about_torch(&self, error: &PackageError) -> bool {
        let failed = matches!(error, PackageError::Install { .. });
        failed
            && !self.context.host.cancel().is_cancelled()
            && error.to_string().to_lowercase().contains("torch")
    }

    fn torch(&self) -> Result<Choice, PackageError> {
        // Without indexes there is nothing to choose from.
        if self.list.options.iter().any(|option| option.name == "--no-index") {
            return Ok(Choice::default());
        }
        let positions = torch::positions(&self.list.entries, &self.here);
        torch::resolve::resolve(
            self.context,
            &self.venv.interpreter,
            &self.venv.python,
            &self.list.entries,
            &positions,
        )
    }

    fn plan(&self, choice: &Choice) -> Plan {
        let mut lines: Vec<String> = self
            .list
            .entries
            .iter()
            .map(|entry| entry.requirement.for_installer().to_string())
            .collect();
        for (position, line) in &choice.lines {
            lines[*position].clone_from(line);
        }
        let more: Vec<String> = torch::companion(&self.list.entries).into_iter().collect();
        let rules = Rules::from(&self.context.settings.package_manager);
        plan::plan(&self.list.entries, &lines, &more, &rules, &self.here)
    }

    fn step(&self, what: String, requirements: Vec<String>, choice: &Choice) -> Step {
        let mut indexes: Vec<String> = Vec::new();
        let configured = &self.context.settings.package_manager.extra_index_url;
        for url in configured.iter().chain(&self.list.indexes).chain(&choice.index) {
            if !indexes.contains(url) {
                indexes.push(url.clone());
            }
        }
        Step {
            what,
            action: Action::Install,
            requirements,
            options: self.list.options.clone(),
            indexes,
            access: None,
            hg: None,
            torch_backend: choice.uv_backend.clone(),
            name: None,
        }
    }

    fn one(&self, what: String, single: &Single, choice: &Choice) -> Step {
        Step {
            name: Some(normal_name(&single.name)),
            ..self.step(what, vec![single.line.clone()], choice)
        }
    }

    /// Installs what others may need while they are built. Returns the numbers of those that can't be.
    fn early(
        &self,
        plan: &Plan,
        choice: &Choice,
        run: &mut Run<'_>,
    ) -> Result<BTreeSet<usize>, PackageError> {
        let mut failed = BTreeSet::new();
        let (together, alone): (Vec<_>, Vec<_>) = plan
            .early
            .iter()
            .enumerate()
            .partition(|(_, single)| self.backend == Backend::Uv && !single.optional);
        if !together.is_empty() {
            let lines = together.iter().map(|(_, single)| single.line.clone()).collect();
            let names: Vec<&str> = together.iter().map(|(_, single)| single.name.as_str()).collect();
            let what = format!("{}, before the others", names.join(", "));
            self.try_step(&self.step(what, lines, choice), run)?;
        }
        for (number, single) in alone {
            let what = format!("{}, before the others", single.name);
            if !self.try_step(&self.one(what, single, choice), run)? {
                failed.insert(number);
            }
        }
        Ok(failed)
    }

    /// Whether a step that may fail has succeeded.
    fn try_step(&self, step: &Step, run: &mut Run<'_>) -> Result<bool, PackageError> {
        self.context.info(&format!("installing {}", step.what));
        match run(step) {
            Ok(()) => Ok(true),
            Err(error) if self.context.host.cancel().is_cancelled() => Err(error),
            Err(error) => {
                self.context.warn(&format!("{error}; the build goes on"));
                Ok(false)
            }
        }
    }

    fn main(
        &mut self,
        plan: &Plan,
        choice: &Choice,
        failed: &BTreeSet<usize>,
        run: &mut Run<'_>,
    ) -> Result<(), PackageError> {
        let kept = plan
            .main
            .iter()
            .filter(|main| main.needs.is_none_or(|number| !failed.contains(&number)));
        let mut lines: Vec<String> = kept.map(|main| main.line.clone()).collect();
        if lines.is_empty() && !self.includes_remote_lists() {
            return Ok(());
        }
        self.download(&mut lines, choice, run)?;
        self.context.info(&format!("installing {}", self.set.what));
        let step = self.step(self.set.what.clone(), lines, choice);
        run(&step).inspect_err(|_| {
            self.context.error("these requirements could not be installed:");
            let lines = step.requirements.iter();
            lines.take(MAX_SHOWN).for_each(|line| self.context.error(line));
            if step.requirements.len() > MAX_SHOWN {
                let more = step.requirements.len() - MAX_SHOWN;
                self.context.error(&format!("… and {more} more"));
            }
        })
    }

    /// Replaces addresses of archives by files in the download cache.
    fn download(
        &mut self,
        lines: &mut [String],
        choice: &Choice,
        run: &mut Run<'_>,
    ) -> Result<(), PackageError> {
        let Some(cache) = self.download_cache() else {
            return Ok(());
        };
        for (requirement, url) in self.archives() {
            let Some(line) = lines.iter_mut().find(|line| **line == requirement.to_string()) else {
                continue;
            };
            let step = self.step(format!("{url}, for the download cache"), Vec::new(), choice);
            let Some(file) = download::fetch(self.context, &cache, &url, step, run)? else {
                continue;
            };
            let address = file_address(&file.to_string_lossy());
            let (plain, fragment) = url.split_once('#').unwrap_or((&url, ""));
            // The hash still holds for the file in the cache.
            let hash = if fragment.is_empty() { "" } else { "#" };
            let cached = Requirement {
                target: Target::File(format!("{address}{hash}{fragment}")),
                ..requirement
            };
            *line = cached.to_string();
            self.requested.archives.push((address, plain.to_owned()));
        }
        Ok(())
    }

    /// The archives of the list that are kept in the download cache, with their addresses.
    fn archives(&self) -> Vec<(Requirement, String)> {
        let requirements = self.list.entries.iter().map(|entry| &entry.requirement);
        requirements
            .filter_map(|requirement| Some((requirement.clone(), download::address(requirement)?.to_owned())))
            .collect()
    }

    /// Where archives are kept, if any are wanted: apart by what the machine computes with.
    fn download_cache(&self) -> Option<PathBuf> {
        let cache = self
            .context
            .settings
            .package_manager
            .pip_download_cache
            .as_ref()?;
        if self.backend == Backend::Uv || self.archives().is_empty() {
            return None;
        }
        let folder = match torch::cuda::detect(self.context) {
            torch::cuda::Accelerator::Cpu => "cpu".to_owned(),
            torch::cuda::Accelerator::Cuda(version) => format!("cu{version}"),
            torch::cuda::Accelerator::Rocm(major, minor) => format!("rocm{major}.{minor}"),
        };
        Some(cache.join(folder))
    }

    /// Where the archives of a restored environment came from, when it was made.
    fn note_archives(&mut self) {
        let Some(cache) = self.download_cache() else {
            return;
        };
        for (_, url) in self.archives() {
            let plain = url.split('#').next().unwrap_or_default();
            let file = download::place(&cache, plain);
            let address = file_address(&file.to_string_lossy());
            self.requested.archives.push((address, plain.to_owned()));
        }
    }

    fn external(&self, list: &[Single], run: &mut Run<'_>) -> Result<(), PackageError> {
        for single in list {
            let git = &self.context.settings.git;
            let mut step = self.one(single.name.clone(), single, &Choice::default());
            if let Some(way) = way(&single.requirement, git) {
                if let Some(why) = refusal(&way.url) {
                    return Err(PackageError::Install {
                        what: single.name.clone(),
                        last_line: format!("the address is refused: {why}"),
                    });
                }
                if let Some(changed) = &way.changed {
                    self.context.info(changed);
                }
                step.access = Some(Access::new(&way.url, git, self.context.redactor)?);
                step.requirements = vec![way.requirement.without_marker()];
            } else if let Some(repository) = of_mercurial(&single.requirement) {
                let (plain, config) =
                    hg::access(self.context, &repository.url).map_err(|error| PackageError::Install {
                        what: single.name.clone(),
                        last_line: error.to_string(),
                    })?;
                let target = Target::Vcs(
                    Repository {
                        url: plain,
                        ..repository
                    }
                    .text(),
                );
                let requirement = Requirement {
                    target,
                    ..single.requirement.clone()
                };
                step.hg = Some(config);
                step.requirements = vec![requirement.without_marker()];
            }
            if self.context.settings.package_manager.strip_editable {
                let line = &mut step.requirements[0];
                *line = line.strip_prefix("-e ").unwrap_or(line).to_owned();
            }
            self.context.info(&format!("installing {}", step.what));
            run(&step)?;
        }
        Ok(())
    }

    fn late(&self, list: &[Single], choice: &Choice, run: &mut Run<'_>) -> Result<(), PackageError> {
        for single in list {
            let step = self.one(format!("{}, after the others", single.name), single, choice);
            if single.optional {
                self.try_step(&step, run)?;
            } else {
                self.context.info(&format!("installing {}", step.what));
                run(&step)?;
            }
        }
        Ok(())
    }
}

/// Whether exactly the version that is asked for is there. Extras and conditions may need more than that.
fn is_there(requirement: &Requirement, installed: &[Installed]) -> bool {
    let (Target::Index(conditions), Some(name)) = (&requirement.target, &requirement.name) else {
        return false;
    };
    let plain =
        requirement.extras.is_empty() && requirement.marker.is_none() && requirement.options.is_empty();
    let Some(version) = conditions.strip_prefix("==").filter(|_| plain) else {
        return false;
    };
    let name = normal_name(name);
    installed
        .iter()
        .any(|one| normal_name(&one.name) == name && same_version(&one.version, version))
}
