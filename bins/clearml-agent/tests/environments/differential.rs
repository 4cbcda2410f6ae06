//! The same tasks with the official agent and with this one, in the same homes, with the same folders for what
//! is kept: what is installed, and what the server is told about it.

use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

use serde_json::Value;
use xtask::workbench::{AgentOptions, PythonEnvironment, TaskSpec};

use crate::case::{configured, reported};
use crate::fixtures::{commit, git, has, self_building};
use crate::scene::{AGENT, Ended, Scene, environment_or_skip, finish};
use crate::sshd::{self, SSHD};

const OFFICIAL: &[&str] = &["clearml-agent==3.0.3"];

/// Prints what is installed. The tools that environments may begin with are the agents' own business.
const SHOW: &str = "import importlib.metadata as m\n\
    names = {(d.metadata['Name'], d.version) for d in m.distributions()}\n\
    for name, version in sorted(names):\n\
    \x20   if name.lower() not in ('pip', 'setuptools', 'wheel'):\n\
    \x20       print('out:', name, version)\n";

/// One task, and what the agents are meant to do differently with it.
struct Row {
    name: &'static str,
    spec: TaskSpec,
    deviation: Deviation,
}

enum Deviation {
    None,
    /// The official agent fails.
    Fails(&'static str),
    /// Both complete, with other requirements.
    Reports(&'static str),
}

/// A repository whose `main.py` shows what is installed; its address and the commit.
fn repository(scene: &Scene, name: &str, files: &[(&str, &str)]) -> (String, String) {
    let root = scene.folder.path().join("origin").join(name);
    fs::create_dir_all(&root).unwrap();
    git(&root, &["init", "-q", "-b", "main"]);
    git(&root, &["config", "user.email", "someone@example.com"]);
    git(&root, &["config", "user.name", "Someone"]);
    let mut all = vec![("main.py", SHOW)];
    all.extend(files);
    let commit = commit(&root, &all);
    (format!("file://{}", root.display()), commit)
}

/// The interpreter as the SDK writes it into tasks; where the version is missing, the official agent takes it
/// for an old one and installs Cython.
fn python() -> String {
    let program = "import sys; print('python%d.%d' % sys.version_info[:2], end='')";
    let output = Command::new("python3").args(["-c", program]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn rows(scene: &Scene, ssh: Option<&sshd::Server>) -> Vec<Row> {
    let binary = python();
    let row = |name, spec: TaskSpec, deviation| Row {
        name,
        spec: spec.with("binary", &*binary),
        deviation,
    };
    let literal = |list: &str| TaskSpec::script(SHOW).requirements(list);
    let package = self_building("tiny-pkg");
    let [project, backend] = package
        .each_ref()
        .map(|(name, text)| (format!("pkg/{name}"), text.as_str()));
    let (url, first) = repository(
        scene,
        "project.git",
        &[
            ("requirements.txt", "six==1.17.0\n-r more.txt\n"),
            ("more.txt", "idna==3.10\n"),
            ("limits.txt", "idna<3.10\n"),
            (&project.0, project.1),
            (&backend.0, backend.1),
            ("pkg/tiny_pkg.py", "VALUE = 1\n"),
        ],
    );
    let in_repository = |list: &str| TaskSpec::repository(&url, &first, "main.py").requirements(list);
    let files = package
        .each_ref()
        .map(|(name, text)| (name.as_str(), text.as_str()));
    let (package_url, package_commit) = repository(scene, "tiny-pkg.git", &files);
    // The official agent knows neither git+file nor git+http.
    let from_git = ssh.map(|server| {
        let path = package_url.replacen(
            "file://",
            &format!("ssh://{}@127.0.0.1:{}", sshd::user(), server.port),
            1,
        );
        let list = format!("tiny-pkg @ git+{path}@{package_commit}\n");
        row(
            "a package from git",
            literal(&list),
            Deviation::Reports("4.11: the commit is listed; the official agent loses the package"),
        )
    });
    let others = [
        row(
            "exact versions",
            literal("# Python 3.11\n\nidna == 3.10  # why\nsix==1.17.0\n"),
            Deviation::None,
        ),
        row("ranges", literal("six\nidna>=3,<3.9\n"), Deviation::None),
        row(
            "requirements.txt only",
            in_repository("").with("requirements", Value::Null),
            Deviation::None,
        ),
        row(
            "markers",
            literal("six ; python_version >= '3'\nidna ; python_version < '3'\n"),
            Deviation::None,
        ),
        row(
            "names as their authors spell them",
            literal("markupsafe==2.1.5\njinja2==3.1.4\n"),
            Deviation::None,
        ),
        row(
            "a local package",
            in_repository("./pkg\nsix==1.17.0\n"),
            Deviation::Reports(
                "4.11: folders are listed as they were asked for; the official agent loses them",
            ),
        ),
        row(
            "an editable package",
            in_repository("-e ./pkg\nsix==1.17.0\n"),
            Deviation::Reports("D-15: the official agent takes the -e away"),
        ),
        row(
            "constraints",
            in_repository("-c limits.txt\nidna\nsix==1.17.0\n"),
            Deviation::Fails("D-13: the official agent takes the option for a local package"),
        ),
        row(
            "tools that were asked for",
            literal("pip==23.0.1\nsetuptools==65.5.1\nsix==1.17.0\n"),
            Deviation::Reports(
                "4.11: a pip that was asked for is listed; the official agent looks for it where pip leaves itself out",
            ),
        ),
    ];
    from_git.into_iter().chain(others).collect()
}

/// How one agent did with one task.
struct Result {
    status: String,
    /// What the script has seen.
    installed: BTreeSet<String>,
    reported: Vec<String>,
    /// What was asked for, as it is kept beside.
    original: Value,
    console: String,
}

impl Result {
    fn of(ended: &Ended) -> Self {
        Self {
            status: ended.status().to_owned(),
            installed: ended.output().into_iter().map(str::to_owned).collect(),
            reported: reported(ended),
            original: ended.task["script"]["requirements"]["org_pip"].clone(),
            console: ended.console.clone(),
        }
    }
}

fn execute(scene: &Scene, options: &AgentOptions, spec: &TaskSpec, name: &str) -> Result {
    let task = scene.api.create_task(name, spec).unwrap();
    let (_, output, errors) = finish(options.command(&["execute", "--id", &task]));
    // Where it fails, the official agent leaves the task as it is, and says why to whoever has called it.
    let ended = Ended {
        task: scene.api.task(&task).unwrap(),
        console: format!("{}{output}{errors}", scene.api.console(&task).unwrap()),
    };
    Result::of(&ended)
}

/// The official agent and this one, in one home of their own.
fn agents(scene: &Scene, official: &PythonEnvironment, number: usize) -> [AgentOptions; 2] {
    let more =
        "agent.venvs_cache { path: \"~/.clearml/venvs-cache\", max_entries: 10, free_space_threshold_gb: 0 }";
    let own = scene.options();
    let options = AgentOptions {
        home: scene.folder.path().join(format!("home{number}")),
        ..own
    }
    .variable("CLEARML_WORKER_NAME", format!("differential{number}"));
    let options = configured(scene, &options, more, &format!("home{number}"));
    fs::create_dir_all(&options.home).unwrap();
    let of = |executable: &Path| AgentOptions {
        executable: executable.to_owned(),
        ..options.clone()
    };
    [of(&official.program("clearml-agent")), of(Path::new(AGENT))]
}

/// What is not as it should be.
fn compare(row: &Row, official: &Result, own: &Result) -> Vec<String> {
    let mut problems = Vec::new();
    let mut check = |holds: bool, what: String| {
        if !holds {
            problems.push(format!("{}: {what}", row.name));
        }
    };
    let installed = official.installed == own.installed;
    let reports = official.reported == own.reported;
    let both = format!(
        "installed {:?} and {:?}, reported {:?} and {:?}, asked {:?} and {:?}\n{}\n{}",
        official.installed,
        own.installed,
        official.reported,
        own.reported,
        official.original,
        own.original,
        official.console,
        own.console
    );
    check(
        own.status == "completed",
        format!("this agent {}: {both}", own.status),
    );
    let (completes, same) = match row.deviation {
        Deviation::None => (true, true),
        Deviation::Fails(_) => (false, false),
        Deviation::Reports(_) => (true, false),
    };
    if completes == (official.status == "completed") {
        if completes {
            check(installed, format!("other packages: {both}"));
            check(
                official.original == own.original,
                format!("another original: {both}"),
            );
            check(
                reports == same,
                format!("the reports are the same: {reports}; {both}"),
            );
        }
    } else {
        check(false, format!("the official agent {}: {both}", official.status));
    }
    if let Deviation::Fails(why) | Deviation::Reports(why) = row.deviation {
        eprintln!("{}: differs as it should: {why}", row.name);
    }
    problems
}

#[test]
fn both_agents_install_and_report_the_same() {
    let test = "both_agents_install_and_report_the_same";
    let Some(official) = environment_or_skip(test, "agent", OFFICIAL) else {
        return;
    };
    let scene = Scene::new();
    let ssh = (has(SSHD, test) && has("ssh", test))
        .then(|| sshd::start(&scene.folder.path().join("ssh"), test))
        .flatten();
    let rows = Mutex::new(VecDeque::from(rows(&scene, ssh.as_ref())));
    let problems = Mutex::new(Vec::new());
    let work = |number: usize| {
        let git = ssh.as_ref().map_or("ssh", |server| &server.command);
        let [python, rust] =
            agents(&scene, &official, number).map(|agent| agent.variable("GIT_SSH_COMMAND", git));
        let mut last = None;
        loop {
            let Some(row) = rows.lock().unwrap().pop_front() else {
                break;
            };
            let own = execute(&scene, &rust, &row.spec, row.name);
            // D-12: the official agent goes on with the packages of the task before.
            let built = python.home.join(".clearml/venvs-builds");
            if built.exists() {
                fs::remove_dir_all(built).unwrap();
            }
            let theirs = execute(&scene, &python, &row.spec, row.name);
            problems.lock().unwrap().extend(compare(&row, &theirs, &own));
            if own.console.contains("built and cached") {
                last = Some(row);
            }
        }
        // The official agent has left alone what this one keeps beside its own.
        let row = last.unwrap();
        let again = execute(&scene, &rust, &row.spec, row.name);
        if !again.console.contains("cache hit") {
            let problem = format!("{}: it is not kept any more: {}", row.name, again.console);
            problems.lock().unwrap().push(problem);
        }
    };
    std::thread::scope(|scope| {
        for number in 0..2 {
            let work = &work;
            scope.spawn(move || work(number));
        }
    });
    let problems = problems.into_inner().unwrap();
    assert!(problems.is_empty(), "{}", problems.join("\n\n"));
}
