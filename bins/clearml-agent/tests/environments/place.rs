//! What the cases work with: an embedded server, repositories, packages, and servers that want logins.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use xtask::workbench::{AgentOptions, TaskSpec};

use crate::case::configured;
use crate::fixtures::{commit, git, make_wheel};
use crate::package_index::package_index;
use crate::scene::{Scene, environment_or_skip};
use crate::web::{Site, Web};

/// A password that a shell, an address or a configuration would take for something else.
pub(crate) const PASS: &str = r#"ge$heim`4"2\ :@/%41'x"#;
/// The password of the package index, and how it looks in an address.
pub(crate) const INDEX_PASS: &str = "ge%heim@77";
pub(crate) const INDEX_PASS_IN_URL: &str = "ge%25heim%4077";

pub(crate) struct Place {
    pub(crate) scene: Scene,
    /// Repositories for those with the login `robot`.
    pub(crate) closed: Web,
    /// The same repositories, for everybody.
    pub(crate) open: Web,
    /// Packages for those with a login of their own.
    pub(crate) index: Web,
    uv: Option<PathBuf>,
    poetry: Option<PathBuf>,
}

impl Place {
    pub(crate) fn new(test: &str) -> Self {
        let scene = Scene::new();
        let origin = scene.folder.path().join("origin");
        fs::create_dir_all(&origin).unwrap();
        let wheels = scene.folder.path().join("wheels");
        for (name, version) in [("alpha", "1.0"), ("alpha", "2.0"), ("beta", "1.0")] {
            make_wheel(&wheels, name, version);
        }
        let private = scene.folder.path().join("private");
        make_wheel(&private, "gamma", "3.0");
        let tool = |name| Some(environment_or_skip(test, name, &[name])?.program(name));
        Self {
            closed: Web::start(Site::git(&origin).login("robot", PASS)),
            open: Web::start(Site::git(&origin)),
            index: Web::start(package_index(&private).login("robot", INDEX_PASS)),
            uv: tool("uv"),
            poetry: tool("poetry"),
            scene,
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.scene.folder.path().join(name)
    }

    /// An agent that finds the wheels, and packages nowhere else.
    pub(crate) fn options(&self) -> AgentOptions {
        // The pip that the interpreter brings will do.
        configured(
            &self.scene,
            &self.scene.options(),
            "agent.package_manager.pip_version: \">=20\"",
            "base",
        )
        .variable("PIP_NO_INDEX", "1")
        .variable("PIP_FIND_LINKS", self.path("wheels").display().to_string())
    }

    /// `PATH` with uv, or with uv and Poetry, in front.
    pub(crate) fn path_with(&self, poetry: bool) -> Option<String> {
        let poetry = if poetry { Some(self.poetry.as_ref()?) } else { None };
        let folder = self.path(if poetry.is_some() { "tools" } else { "uv" });
        fs::create_dir_all(&folder).unwrap();
        for program in [self.uv.as_ref(), poetry].into_iter().flatten() {
            let link = folder.join(program.file_name().unwrap());
            if !link.exists() {
                std::os::unix::fs::symlink(program, link).unwrap();
            }
        }
        self.uv.as_ref()?;
        Some(format!("{}:{}", folder.display(), std::env::var("PATH").unwrap()))
    }

    pub(crate) fn uv(&self) -> Option<&Path> {
        self.uv.as_deref()
    }

    pub(crate) fn poetry(&self) -> Option<&Path> {
        self.poetry.as_deref()
    }

    /// A new repository without anything in it.
    pub(crate) fn empty_repository(&self, name: &str) -> PathBuf {
        let root = self.path("origin").join(name);
        fs::create_dir_all(&root).unwrap();
        git(&root, &["init", "-q", "-b", "main"]);
        for (key, value) in [
            ("user.email", "someone@example.com"),
            ("user.name", "Someone"),
            ("core.autocrlf", "false"),
            ("uploadpack.allowAnySHA1InWant", "true"),
        ] {
            git(&root, &["config", key, value]);
        }
        root
    }

    /// A repository with these files in one commit; its folder and the commit.
    pub(crate) fn repository(&self, name: &str, files: &[(&str, &str)]) -> (PathBuf, String) {
        let root = self.empty_repository(name);
        let commit = commit(&root, files);
        (root, commit)
    }
}

/// The program `main.py` in a repository of this machine.
pub(crate) fn local(root: &Path, commit: &str) -> TaskSpec {
    TaskSpec::repository(&format!("file://{}", root.display()), commit, "main.py")
}

/// What git shows after `change`, which is then taken back.
pub(crate) fn diff_of(root: &Path, options: &[&str], change: impl FnOnce()) -> String {
    change();
    let args: Vec<&str> = ["diff"]
        .into_iter()
        .chain(options.iter().copied())
        .chain(["HEAD"])
        .collect();
    let output = Command::new("git").current_dir(root).args(args).output().unwrap();
    assert!(output.status.success());
    git(root, &["reset", "-q", "--hard"]);
    String::from_utf8(output.stdout).unwrap()
}
