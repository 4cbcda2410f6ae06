//! Where packages come from.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use xtask::workbench::TaskSpec;

use crate::case::Case;
use crate::fixtures::{commit, git, make_wheel, self_building};
use crate::place::{INDEX_PASS_IN_URL, PASS, Place, local};

const BOTH: &str = "import alpha, beta\nprint('out:', alpha.VERSION, beta.VERSION)\n";

/// Cases with pip first, then those with uv and Poetry, where they are.
pub(crate) fn cases(place: &Place) -> Vec<Case> {
    let mut cases = vec![requirements_file(place), constraints(place), hashes(place)];
    cases.extend([from_git(place), of_the_working_copy(place), private_index(place)]);
    if let Some(path) = place.path_with(false) {
        // The same once more: this time, uv installs what pip has installed.
        let again = [hashes(place), from_git(place), private_index(place)];
        let names = ["hashes, uv", "a package from git, uv", "a private index, uv"];
        for (case, name) in again.into_iter().zip(names) {
            cases.push(Case { name, ..case }.variable("PATH", &*path));
        }
        cases.push(uv_project(place, &path));
    }
    if let Some(path) = place.path_with(true) {
        cases.push(poetry_project(place, &path));
    }
    cases
}

fn requirements_file(place: &Place) -> Case {
    let files = [
        ("main.py", BOTH),
        ("requirements.txt", "alpha<2\n-r more/list.txt\n"),
        ("more/list.txt", "beta\n"),
    ];
    let (root, commit) = place.repository("requirements.git", &files);
    let spec = local(&root, &commit).with("requirements", Value::Null);
    Case::new("requirements.txt only", spec, &["1.0 1.0"]).packages(&["alpha==1.0", "beta==1.0"])
}

fn constraints(place: &Place) -> Case {
    let files = [("main.py", BOTH), ("limits/c.txt", "alpha<2\n")];
    let (root, commit) = place.repository("constraints.git", &files);
    let spec = local(&root, &commit).requirements("-c limits/c.txt\nalpha\nbeta\n");
    Case::new("constraints", spec, &["1.0 1.0"]).packages(&["alpha==1.0", "beta==1.0"])
}

fn hashes(place: &Place) -> Case {
    let file = place.path("wheels/alpha-2.0-py3-none-any.whl");
    let output = Command::new("sha256sum").arg(file).output().unwrap();
    let hash = &String::from_utf8(output.stdout).unwrap()[..64];
    let spec = TaskSpec::script("import alpha\nprint('out:', alpha.VERSION)\n")
        .requirements(&format!("alpha==2.0 \\\n    --hash=sha256:{hash}\n"));
    Case::new("hashes", spec, &["2.0"]).packages(&["alpha==2.0"])
}

/// The repository of the package wants the same login as those of tasks.
fn from_git(place: &Place) -> Case {
    let root = place.path("origin/vcs-pkg.git");
    let commit = if root.exists() {
        git(&root, &["rev-parse", "HEAD"])
    } else {
        let files = self_building("vcs-pkg");
        place
            .repository(
                "vcs-pkg.git",
                &files.each_ref().map(|(name, text)| (&**name, &**text)),
            )
            .1
    };
    let url = place.closed.url("vcs-pkg.git");
    let program = "import importlib.metadata as m\nprint('out:', m.version('vcs-pkg'))\n";
    let spec = TaskSpec::script(program).requirements(&format!("vcs-pkg @ git+{url}@{commit}\n"));
    Case::new("a package from git", spec, &["0.1"])
        .config(format!("agent {{ git_user: robot, git_pass: {} }}", json!(PASS)))
        .packages(&[&format!("vcs-pkg @ git+{url}@{commit}")])
}

fn of_the_working_copy(place: &Place) -> Case {
    let main = "import importlib.metadata as m, mine_pkg\n\
                print('out:', m.version('yours-pkg'), mine_pkg.VALUE, 'task_repository' in mine_pkg.__file__)\n";
    let [project, backend] = self_building("mine-pkg");
    let [other, other_backend] = self_building("yours-pkg");
    let files = [
        ("main.py", main),
        ("mine/mine_pkg.py", "VALUE = 7\n"),
        (&format!("mine/{}", project.0), &project.1),
        (&format!("mine/{}", backend.0), &backend.1),
        (&format!("yours/{}", other.0), &other.1),
        (&format!("yours/{}", other_backend.0), &other_backend.1),
    ];
    let (root, commit) = place.repository("working-copy.git", &files);
    let spec = local(&root, &commit).requirements("-e ./mine\n./yours\nalpha==1.0\n");
    Case::new("local and editable packages", spec, &["0.1 7 True"]).packages(&[
        "alpha==1.0",
        "-e ./mine",
        "./yours",
    ])
}

fn private_index(place: &Place) -> Case {
    let login = place
        .index
        .url("simple")
        .replace("://", &format!("://robot:{INDEX_PASS_IN_URL}@"));
    let spec = TaskSpec::script("import gamma\nprint('out:', gamma.VERSION)\n").requirements("gamma==3.0\n");
    Case::new("a private index", spec, &["3.0"])
        .config(format!("agent.package_manager.extra_index_url: [{}]", json!(login)))
        // The index of this machine has no part in it.
        .variable("PIP_NO_INDEX", "0")
        .variable("PIP_INDEX_URL", place.index.url("none/simple"))
        .packages(&["gamma==3.0"])
}

/// A repository with a wheel in it and a project file, and what its tool makes of that.
fn project(
    place: &Place,
    name: &str,
    text: &str,
    tool: &Path,
    lock: &[&str],
) -> (std::path::PathBuf, String) {
    let root = place.empty_repository(name);
    make_wheel(&root.join("wheels"), "delta", "1.5");
    fs::write(root.join("pyproject.toml"), text).unwrap();
    fs::write(
        root.join("main.py"),
        "import delta\nprint('out:', delta.VERSION)\n",
    )
    .unwrap();
    let output = Command::new(tool)
        .args(lock)
        .current_dir(&root)
        .env_remove("VIRTUAL_ENV")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    git(&root, &["add", "--all"]);
    let commit = commit(&root, &[]);
    (root, commit)
}

fn uv_project(place: &Place, path: &str) -> Case {
    let text = "[project]\nname = \"project\"\nversion = \"0.1\"\nrequires-python = \">=3.8\"\n\
                dependencies = [\"delta\"]\n\
                [tool.uv.sources]\ndelta = { path = \"wheels/delta-1.5-py3-none-any.whl\" }\n";
    let (root, commit) = project(place, "uv.git", text, place.uv().unwrap(), &["lock", "--offline"]);
    let spec = local(&root, &commit).requirements("none-of-this-exists==9\n");
    Case::new("uv.lock", spec, &["1.5"])
        .config("agent.package_manager.type: uv")
        .variable("PATH", path)
}

fn poetry_project(place: &Place, path: &str) -> Case {
    let text = "[tool.poetry]\nname = \"project\"\nversion = \"0.1\"\ndescription = \"\"\nauthors = []\n\
                package-mode = false\n[tool.poetry.dependencies]\npython = \">=3.8\"\n\
                delta = { path = \"wheels/delta-1.5-py3-none-any.whl\" }\n";
    let (root, commit) = project(
        place,
        "poetry.git",
        text,
        place.poetry().unwrap(),
        &["lock", "-n"],
    );
    let spec = local(&root, &commit).requirements("none-of-this-exists==9\n");
    Case::new("a project of Poetry", spec, &["1.5"])
        .config("agent.package_manager.type: poetry")
        .variable("PATH", path)
}
