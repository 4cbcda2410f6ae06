//! The order of a build: environment, code, packages, command.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clearml_support::fs::{create_private_dir, remove_tree};
use clearml_task_model::Task;

use crate::caches::{self, Cached, Made, Outcome, Wanted};
use crate::code::acquire::acquire;
use crate::code::custom::{self, Custom};
use crate::code::info::{ExecutionInfo, Interpreter, class_of};
use crate::code::repo_url::without_password;
use crate::code::{existing, notebook, source};
use crate::error::{BuildError, FileError, at};
use crate::host::{Host, Phase};
use crate::launch::{self, Code, LaunchError, Runtime};
use crate::packages::conda::CondaLists;
use crate::packages::requirements::Requested;
use crate::packages::requirements::source::TaskLists;
use crate::packages::select::{Environment, Select};
use crate::packages::{self, PackageError, RequirementSet, freeze};
use crate::python::find;
use crate::relay::Relay;
use crate::request::{BuildRequest, Layout, PreparedEnvironment};
use crate::side_by_side;
use crate::tools::Context;

/// Makes everything that a task needs to run, below `request.run_dir_env`.
///
/// Blocks; on cancellation of `host.cancel()` it ends within a fraction of a second, or after the few
/// seconds that a running tool takes to stop.
///
/// # Errors
///
/// [`BuildError`] says why, and [`BuildError::stage`] in which stage. What was made so far stays below
/// `request.run_dir_env`, which the next build, or whoever removes the run, clears.
pub fn build(request: &BuildRequest<'_>, host: &dyn Host) -> Result<PreparedEnvironment, BuildError> {
    let limit = request.settings.time_limit;
    let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
    let limited = Relay::new(host, host.cancel().child(deadline));
    let context = Context {
        settings: request.settings,
        host: &limited,
        redactor: request.redactor,
    };
    let result = Build {
        context: &context,
        request,
        started: Instant::now(),
    }
    .run();
    match (result, limit) {
        (Err(_), _) if host.cancel().is_cancelled() => Err(BuildError::Cancelled),
        (Err(_), Some(limit)) if limited.cancel().is_cancelled() => Err(BuildError::TimedOut { limit }),
        (result, _) => result,
    }
}

struct Build<'a> {
    context: &'a Context<'a>,
    request: &'a BuildRequest<'a>,
    started: Instant,
}

impl Build<'_> {
    fn run(&self) -> Result<PreparedEnvironment, BuildError> {
        let context = self.context;
        let script = self.request.task.script.as_ref().ok_or(BuildError::NoScript)?;
        let (info, warnings) = ExecutionInfo::new(script, &self.request.settings.env);
        warnings.iter().for_each(|warning| context.warn(warning));
        self.clear()?;

        let script_may_run = context.settings.standalone.is_none();
        let early = match custom::configured(context).filter(|_| script_may_run) {
            None => None,
            Some(_) => match self.custom(&info)? {
                Early::Prepared(prepared) => return Ok(*prepared),
                Early::Code(code, commit) => Some((*code, commit)),
            },
        };
        let lists = packages::of_task(script.requirements.as_ref(), &context.settings.package_manager);
        let has_pip_list = lists.as_ref().is_some_and(|lists| !lists.pip.trim().is_empty());
        let skip = launch::skips_python(context, &info, has_pip_list);
        let image = image_of(self.request.task);
        let select = Select {
            context,
            info: &info,
            requirements: script.requirements.as_ref(),
            image: image.as_deref(),
            root: self.root(),
            run: self.request.run_dir_env.clone(),
        };
        let early = match early {
            None if !skip && select.may_be_project() => Some(acquire(context, self.request, &info)?),
            early => early,
        };
        let project = match &early {
            Some((code, _)) if !skip && select.may_be_project() => {
                context.phase(Phase::Packages, || select.project(code))?
            }
            _ => None,
        };
        let (environment, (code, commit)) = match early {
            None if !skip && context.settings.parallel_setup && self.is_run() => {
                let (environment, acquired) = side_by_side::prepare(self.request, &select)?;
                (Some(environment), acquired)
            }
            early => {
                let environment = match project {
                    None if !skip => Some(context.phase(Phase::Python, || select.environment())?),
                    project => project,
                };
                let acquired = early.map_or_else(|| acquire(context, self.request, &info), Ok)?;
                (environment, acquired)
            }
        };
        let environment = match environment {
            Some(environment) => Some(self.packages(environment, &info, &code, commit.as_deref(), lists)?),
            None => None,
        };
        self.report_commit(&info, commit.as_deref());
        let made = environment.as_ref().map(|(_, made)| *made);
        let environment = environment.map(|(environment, _)| environment);
        let prepared = self.prepare(info, code, commit, environment.as_ref())?;
        if let Some(made) = made {
            context.info(&caches::summary(made, self.started.elapsed()));
        }
        Ok(prepared)
    }

    fn is_run(&self) -> bool {
        self.context.settings.layout == Layout::Run
    }

    /// Where the environment goes.
    fn root(&self) -> PathBuf {
        let folder = &self.request.run_dir_env;
        if self.is_run() {
            folder.join("venv")
        } else {
            folder.clone()
        }
    }

    /// The code, and what a custom build script makes of it.
    fn custom(&self, info: &ExecutionInfo) -> Result<Early, BuildError> {
        let context = self.context;
        let (code, commit) = acquire(context, self.request, info)?;
        let run_dir = &self.request.run_dir_env;
        let Some(custom) = custom::run(context, self.request.task, info, &code, run_dir)? else {
            return Ok(Early::Code(Box::new(code), commit));
        };
        self.report_commit(info, commit.as_deref());
        let prepared = self.prepare_custom(info.clone(), &code, commit, custom)?;
        Ok(Early::Prepared(Box::new(prepared)))
    }

    fn report_commit(&self, info: &ExecutionInfo, commit: Option<&str>) {
        if let Some(commit) = commit.filter(|_| info.version.is_empty()) {
            self.context.host.report_commit(commit);
        }
    }

    /// Starts from an empty folder: what an interrupted build has left is of no use.
    fn clear(&self) -> Result<(), FileError> {
        let folder = &self.request.run_dir_env;
        create_private_dir(folder).map_err(at("creating", folder))?;
        for name in ["venv", "code", "task_repository", "tmp"] {
            let path = folder.join(name);
            remove_tree(&path).map_err(at("removing", &path))?;
        }
        let temp = folder.join("tmp");
        create_private_dir(&temp).map_err(at("creating", &temp))
    }

    /// Puts the packages into the environment, from the cache or by installing them.
    fn packages(
        &self,
        mut environment: Environment,
        info: &ExecutionInfo,
        code: &Code,
        commit: Option<&str>,
        task: Option<TaskLists>,
    ) -> Result<(Environment, Made), BuildError> {
        let mut sets = match &task {
            _ if !environment.takes_lists() => Vec::new(),
            Some(lists) => vec![RequirementSet::new("task requirements", &lists.pip, &code.root)],
            None if code.is_repository => {
                packages::of_repository(&code.root, &code.working_dir, &info.entry_point)
            }
            None => Vec::new(),
        };
        if sets.is_empty() && code.is_repository && environment.takes_lists() {
            self.context
                .warn("neither the task nor the repository lists requirements: nothing is installed");
        }
        if environment.takes_lists() {
            self.add_own_requirements(&mut sets, info, code);
        }
        let context = self.context;
        let mut cached = self.cached(&environment, &sets);
        let requested = context.phase(Phase::Packages, || {
            if cached.restore()? {
                environment.was_replaced();
                sets.iter_mut().for_each(|set| set.restored = true);
            }
            let requested = self.install(&environment, &sets, task.as_ref())?;
            Ok::<_, BuildError>(requested)
        })?;
        let mut made = Made::default();
        let mut lines = None;
        if (task.is_some() || code.is_repository) && environment.is_reported(context) {
            let origin = commit.map(|commit| freeze::Origin {
                root: code.root.clone(),
                url: without_password(&info.repository),
                commit: commit.to_owned(),
            });
            let frozen = environment.freeze(context, &requested, origin.as_ref())?;
            let redacted = |line: &String| context.redactor.redact(line).into_owned();
            let redacted: Vec<String> = frozen.lines.iter().map(redacted).collect();
            let all = if redacted.is_empty() {
                "none".to_owned()
            } else {
                redacted.join(", ")
            };
            context.info(&format!("installed packages: {all}"));
            context.host.report_packages(&redacted);
            made.packages = caches::count(&redacted);
            lines = Some(redacted);
            if let Some(conda) = &frozen.conda {
                context
                    .host
                    .report_conda(&conda.conda, conda.environment.as_ref());
            }
        }
        cached.keep(&environment.venv.site_packages, lines.as_deref(), &code.root);
        made.outcome = match cached.outcome {
            Outcome::Unused => environment.outcome(),
            outcome => outcome,
        };
        drop(cached);
        Ok((environment, made))
    }

    /// The cache of environments, if this one is of a kind that it keeps.
    fn cached(&self, environment: &Environment, sets: &[RequirementSet]) -> Cached<'_> {
        // What restoring replaces must be ours.
        let is_own = self.is_run() && environment.venv.root == self.root();
        if !is_own || !environment.is_of_lists() {
            return Cached::none(self.context);
        }
        let image = image_of(self.request.task);
        let wanted = Wanted {
            manager: "pip",
            interpreter: &environment.venv.interpreter,
            sets,
            image: image.as_deref(),
            lock: None,
        };
        Cached::new(
            self.context,
            &wanted,
            &environment.venv.root,
            &self.request.run_dir_env,
        )
    }

    /// What the way in which the task is started needs, unless it is listed anyway.
    fn add_own_requirements(&self, sets: &mut Vec<RequirementSet>, info: &ExecutionInfo, code: &Code) {
        let mut names = Vec::new();
        if source::forces_task_init(self.context) {
            names.push("clearml");
        }
        if notebook::is_entry(info) && code.literal.is_none() {
            names.extend(notebook::REQUIREMENTS);
        }
        names.retain(|name| !sets.iter().any(|set| lists(&set.text, name)));
        if names.is_empty() {
            return;
        }
        let names = names.join("\n");
        match sets.first_mut() {
            Some(set) => set.text = format!("{names}\n{}", set.text),
            None => sets.push(RequirementSet::new(
                "requirements of the agent",
                &names,
                &code.root,
            )),
        }
    }

    fn install(
        &self,
        environment: &Environment,
        sets: &[RequirementSet],
        task: Option<&TaskLists>,
    ) -> Result<Vec<Requested>, PackageError> {
        let temp = self.request.run_dir_env.join("tmp");
        let script = self.request.task.script.as_ref();
        let requirements = script.and_then(|script| script.requirements.as_ref());
        let recorded = requirements.and_then(|lists| lists.extra.get("conda_env_json")?.as_str());
        let for_conda = task.map(|lists| CondaLists {
            conda: lists.conda.as_deref(),
            pip: &lists.pip,
            environment: recorded,
        });
        sets.iter()
            .map(|set| environment.install(self.context, set, for_conda.as_ref(), &temp))
            .collect()
    }

    fn prepare(
        &self,
        mut info: ExecutionInfo,
        mut code: Code,
        commit: Option<String>,
        environment: Option<&Environment>,
    ) -> Result<PreparedEnvironment, BuildError> {
        let context = self.context;
        if info.entry_point.is_empty() && code.literal.is_none() {
            return Err(LaunchError::NothingToRun.into());
        }
        let runtime = match environment {
            Some(environment) => Runtime::Environment(environment),
            None if info.interpreter == Interpreter::Python => {
                Runtime::System(match self.standing_interpreter(&code) {
                    Some(python) => python,
                    None => find::find(context, &info)?.found_at,
                })
            }
            None => Runtime::None,
        };
        if let Some(python) = runtime.python()
            && let Some(script) = notebook::convert(context, &info, &code, python, &self.request.run_dir_env)?
        {
            info.entry_point = script.entry;
            code.beside = script.beside;
        }
        let what = commit.as_ref().map_or_else(
            || "a literal script".to_owned(),
            |commit| format!("commit {commit}"),
        );
        let with = match environment {
            Some(environment) => format!("Python {}", environment.venv.interpreter.full_version()),
            None => "no environment of its own".to_owned(),
        };
        let root = code.is_repository.then(|| code.root.clone());
        Ok(PreparedEnvironment {
            commit,
            repository_root: root,
            summary: format!("{what} with {with}"),
            ..self.launch(&info, &code, &runtime)?
        })
    }

    /// Where nothing may be installed: the interpreter that was named, or that of the build that left the code.
    fn standing_interpreter(&self, code: &Code) -> Option<PathBuf> {
        let builds = self.context.settings.standalone.as_deref()?;
        let named = self
            .context
            .var("CLEARML_AGENT_SKIP_PIP_VENV_INSTALL")
            .map(PathBuf::from);
        named
            .filter(|python| python.is_absolute() && python.is_file())
            .or_else(|| existing::interpreter(builds, &code.root))
    }

    /// What a custom build script wants to be started, in the repository that the builder has fetched.
    fn prepare_custom(
        &self,
        mut info: ExecutionInfo,
        code: &Code,
        commit: Option<String>,
        custom: Custom,
    ) -> Result<PreparedEnvironment, BuildError> {
        info.binary = custom.binary.to_string_lossy().into_owned();
        info.interpreter = class_of(&info.binary).unwrap_or(Interpreter::Python);
        info.entry_point = custom.entry_point.to_string_lossy().into_owned();
        let started = Code {
            root: custom.working_dir,
            working_dir: ".".to_owned(),
            literal: None,
            is_repository: false,
            own: code.own.clone(),
            beside: None,
        };
        let runtime = match info.interpreter {
            Interpreter::Python => Runtime::System(custom.binary),
            Interpreter::Shell => Runtime::None,
        };
        Ok(PreparedEnvironment {
            commit,
            repository_root: code.is_repository.then(|| code.root.clone()),
            summary: format!("what the custom build script has prepared, with {}", info.binary),
            ..self.launch(&info, &started, &runtime)?
        })
    }

    /// Command, folder and variables.
    fn launch(
        &self,
        info: &ExecutionInfo,
        code: &Code,
        runtime: &Runtime<'_>,
    ) -> Result<PreparedEnvironment, BuildError> {
        let context = self.context;
        let task_id = self
            .request
            .task
            .id
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default();
        let launch = launch::launch(context, info, code, runtime, &task_id)?;
        if let (Interpreter::Python, Some(script)) = (info.interpreter, &launch.script) {
            source::prepare(context, &code.root, script);
        }
        let env = launch::variables(context, &launch, code, runtime);
        remove_temporary(&self.request.run_dir_env)?;
        Ok(PreparedEnvironment {
            argv: launch.argv,
            cwd: launch.cwd,
            env,
            python: runtime.python().map(Path::to_owned),
            commit: None,
            repository_root: None,
            summary: String::new(),
        })
    }
}

/// What a custom build script leads to.
enum Early {
    Prepared(Box<PreparedEnvironment>),
    /// It left the work to the builder, and the code is there.
    Code(Box<Code>, Option<String>),
}

/// Whether a list of requirements has a line for this package.
fn lists(text: &str, name: &str) -> bool {
    text.lines().any(|line| {
        let end = line
            .trim()
            .find(|c: char| !c.is_ascii_alphanumeric() && !"-_.".contains(c));
        line.trim()[..end.unwrap_or(line.trim().len())].eq_ignore_ascii_case(name)
    })
}

fn remove_temporary(folder: &Path) -> Result<(), FileError> {
    let temp = folder.join("tmp");
    remove_tree(&temp).map_err(at("removing", &temp))
}

/// The image that a task is meant to run in.
fn image_of(task: &Task) -> Option<String> {
    let container = task.container.as_ref()?;
    let image = container.get("image")?.as_str()?.trim();
    image.split_whitespace().next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn of_an_image_the_arguments_do_not_count() {
        let image = |container| image_of(&serde_json::from_value(json!({"container": container})).unwrap());
        let plain = image(json!({"image": "img:1"}));
        assert_eq!(plain.as_deref(), Some("img:1"));
        assert_eq!(
            image(json!({"image": "img:1 -e A=B", "arguments": "--gpus all"})),
            plain
        );
        assert_eq!(image(json!({"image": null})), None);
    }
}
