//! Lists of all kinds, installed by real pip and real uv.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use clearml_env_builder::{PackageManagerKind, Stage, TorchTemplates};
use clearml_support::secret::Secret;
use serde_json::{Value, json};

use crate::canary::{assert_no_file_has, watched};
use crate::common::Bench;
use crate::fixtures::{commit, git, make_wheel, self_building};
use crate::package_index::package_index;
use crate::packages::uv;
use crate::web::{Site, Web};

/// Characters that mean something in addresses.
const PASS: &str = "ge%heim@77";
const PASS_IN_URL: &str = "ge%25heim%4077";

fn script(requirements: &str, diff: &str) -> Value {
    json!({"binary": "python3", "entry_point": "a.py", "diff": diff, "requirements": {"pip": requirements}})
}

/// Does something with pip and, where there is one, with uv.
fn with_both(test: &str, work: impl Fn(&mut Bench)) {
    let mut bench = Bench::new();
    work(&mut bench);
    if let Some(uv) = uv(test) {
        let mut bench = Bench::new();
        bench.settings.package_manager.kind = PackageManagerKind::Uv;
        bench.settings.package_manager.uv_replace_pip = true;
        bench.settings.package_manager.uv_binary = Some(uv);
        work(&mut bench);
    }
}

/// The lines that make installers look into the bench's folder of wheels only.
fn wheels(bench: &Bench) -> String {
    format!("--no-index\n--find-links {}\n", bench.path("wheels").display())
}

fn sha256(file: &Path) -> String {
    let output = Command::new("sha256sum").arg(file).output().unwrap();
    String::from_utf8(output.stdout).unwrap()[..64].to_owned()
}

#[test]
fn hashes_are_checked() {
    with_both("hashes_are_checked", |bench| {
        make_wheel(&bench.path("wheels"), "alpha", "1.0");
        let right = sha256(&bench.path("wheels/alpha-1.0-py3-none-any.whl"));
        let list = |hash: &str| format!("{}alpha==1.0 \\\n    --hash=sha256:{hash}\n", wheels(bench));
        let (_, host, _) = bench.build_and_run(script(&list(&right), "import alpha"));
        assert_eq!(host.reported(), ["alpha==1.0"]);
        let (result, host) = bench.build(script(&list(&"0".repeat(64)), "1"));
        let error = result.unwrap_err();
        assert_eq!(error.stage(), Stage::Environment, "{error}");
        assert!(
            host.console().to_lowercase().contains("hash"),
            "{}",
            host.console()
        );
    });
}

#[test]
fn constraints_and_options_of_a_list_hold() {
    with_both("constraints_and_options_of_a_list_hold", |bench| {
        for (name, version) in [
            ("alpha", "1.0"),
            ("alpha", "2.0"),
            ("beta", "1.0"),
            ("beta", "2.0rc1"),
        ] {
            make_wheel(&bench.path("wheels"), name, version);
        }
        let (repository, commit) = bench.repository(&[
            (
                "main.py",
                "import alpha, beta; print(alpha.VERSION, beta.VERSION)",
            ),
            ("limits/c.txt", "alpha<2\n"),
            ("lists/more.txt", "-c ../limits/c.txt\nbeta\n"),
        ]);
        let task = |list: &str| {
            let list = format!("{}{list}", wheels(bench));
            json!({"repository": repository.display().to_string(), "version_num": commit, "entry_point": "main.py",
                "requirements": {"pip": list}})
        };
        let output = |list: &str| bench.build_and_run(task(list)).2;
        assert_eq!(output("alpha\nbeta"), "2.0 1.0\n");
        assert_eq!(
            output("-c limits/c.txt\nalpha\nbeta ; python_version >= '3'"),
            "1.0 1.0\n"
        );
        assert_eq!(output("--pre\nalpha\n-r lists/more.txt"), "1.0 2.0rc1\n");
    });
}

#[test]
fn markers_and_lines_that_nobody_understands() {
    let mut bench = Bench::new();
    bench.wheel("alpha", "1.0");
    let list =
        "alpha ; sys_platform == 'linux'\nabsent ; python_version < '3'\n-e ./absent ; os_name == 'nt'\n-Z\n";
    let (_, host, _) = bench.build_and_run(script(list, "import alpha"));
    assert_eq!(host.reported(), ["alpha==1.0"]);
    let console = host.console();
    for part in [
        "Info: -e ./absent ; os_name == 'nt' is left out: its condition does not hold here",
        "Warning: task requirements, line 4: the option --always-unzip does nothing",
    ] {
        assert!(console.contains(part), "{console}");
    }
    let (result, host) = bench.build(script("alpha\n\ntwo words\n", "1"));
    let error = result.unwrap_err().to_string();
    assert!(error.contains("two words"), "{error}");
    let part = "Warning: task requirements, line 3: \"two words\" is not understood";
    assert!(host.console().contains(part), "{}", host.console());
}

#[test]
fn packages_that_others_need_come_first_and_some_come_last() {
    let mut bench = Bench::new();
    for name in ["numpy", "foo", "horovod", "setuptools_x"] {
        bench.wheel(name, "1.0");
    }
    bench.settings.package_manager.priority_packages = vec!["NumPy".into(), "setuptools-x".into()];
    let list = "horovod==1.0\nsetuptools_x\nfoo\nnumpy\npygobject\n";
    let (_, host, _) = bench.build_and_run(script(list, "import foo"));
    let console = host.console();
    let order = [
        "installing setuptools_x, before the others",
        "installing numpy, before the others",
        "installing pygobject, before the others",
        "installing task requirements",
        "installing horovod, after the others",
    ];
    let positions: Vec<usize> = order
        .iter()
        .map(|line| console.find(line).unwrap_or_else(|| panic!("{line}\n{console}")))
        .collect();
    assert!(positions.is_sorted(), "{console}");
    assert_eq!(
        host.reported(),
        ["foo==1.0", "horovod==1.0", "numpy==1.0", "setuptools_x==1.0"]
    );
    let error = bench.build(script("horovod==2.0", "1")).0.unwrap_err();
    assert!(error.to_string().contains("horovod, after the others"), "{error}");
}

#[test]
fn what_is_there_is_not_installed_again() {
    let mut bench = Bench::new();
    bench.wheel("alpha", "1.0");
    let (_, host, version) = bench.build_and_run(script("# none", "import pip; print(pip.__version__)"));
    assert!(
        host.console().contains("nothing to install"),
        "{}",
        host.console()
    );
    let list = format!("PIP == {}\nalpha", version.trim());
    let (_, host, _) = bench.build_and_run(script(&list, "import alpha"));
    let expected = format!(
        "Info: already installed: PIP=={}; 1 left to install",
        version.trim()
    );
    assert!(host.console().contains(&expected), "{}", host.console());
    assert_eq!(host.reported()[1..], ["alpha==1.0"]);
}

#[test]
fn tools_that_a_list_names_stand_first() {
    let mut bench = Bench::new();
    bench.wheel("alpha", "1.0");
    bench.wheel("setuptools", "99.0");
    let task = script(
        "alpha\nsetuptools==99.0",
        "import sys; print(sys.version_info >= (3, 12))",
    );
    let (_, host, output) = bench.build_and_run(task);
    let mut expected = ["setuptools==99.0", "alpha==1.0"];
    if output == "True\n" {
        // There it is a package like any other.
        expected.sort_unstable();
    }
    assert_eq!(host.reported(), expected);
}

#[test]
fn a_file_that_is_elsewhere_is_replaced_by_its_name() {
    let mut bench = Bench::new();
    bench.wheel("baz", "1.0");
    let list = "baz @ file:///nonexistent/baz-9-py3-none-any.whl";
    let (_, host, _) = bench.build_and_run(script(list, "import baz"));
    assert_eq!(host.reported(), ["baz==1.0"]);
    assert!(
        host.console().contains("Warning: file:///nonexistent/baz-9"),
        "{}",
        host.console()
    );
}

#[test]
fn editable_folders_and_their_conditions() {
    with_both("editable_folders_and_their_conditions", |bench| {
        let [project, backend] = self_building("local-pkg");
        let (repository, commit) = bench.repository(&[
            (&format!("a dir/{}", project.0), &project.1),
            (&format!("a dir/{}", backend.0), &backend.1),
            ("a dir/local_pkg.py", "print(__file__)\n"),
            ("main.py", "import local_pkg"),
        ]);
        let task = |list: &str| {
            json!({"repository": repository.display().to_string(), "version_num": commit, "entry_point": "main.py",
                "requirements": {"pip": list}})
        };
        let list = "--no-index\n-e \"./a dir\" ; python_version >= '3'\n";
        let (_, host, output) = bench.build_and_run(task(list));
        assert!(output.contains("project.git/a dir/local_pkg.py"), "{output}");
        assert_eq!(host.reported(), ["-e \"./a dir\" ; python_version >= '3'"]);
        bench.settings.package_manager.strip_editable = true;
        for list in ["--no-index\n-e './a dir'", "--no-index\n./a dir"] {
            let (_, _, output) = bench.build_and_run(task(list));
            assert!(output.contains("site-packages"), "{output}");
        }
    });
}

#[test]
fn a_package_from_a_repository_with_a_login() {
    with_both("a_package_from_a_repository_with_a_login", |bench| {
        let [project, backend] = self_building("vcs-pkg");
        let (_, first) = bench.repository(&[(&project.0, &project.1), (&backend.0, &backend.1)]);
        let origin = bench.path("origin/project.git");
        git(&origin, &["tag", "v1"]);
        commit(&origin, &[("later.txt", "x")]);
        let web = Web::start(Site::git(&bench.path("origin")).login("robot", PASS));
        bench.settings.git.user = Some("robot".into());
        bench.settings.git.pass = Some(Secret::new(PASS));
        let secrets = [PASS, PASS_IN_URL];
        let url = web.url("project.git");
        let with_login = url.replace("://", &format!("://robot:{PASS_IN_URL}@"));
        for line in [
            format!("vcs-pkg @ git+{url}@v1"),
            format!("git+{with_login}@v1#egg=vcs-pkg"),
        ] {
            let (_, host, _) = watched(&secrets, || {
                bench.build_and_run(script(&format!("--no-index\n{line}"), "import vcs_pkg"))
            });
            assert_eq!(host.reported(), [format!("vcs-pkg @ git+{url}@{first}")]);
            for secret in secrets {
                assert!(!host.console().contains(secret), "{}", host.console());
            }
        }
        assert_no_file_has(&secrets, bench.temp.path());
    });
}

#[test]
fn a_private_index_gets_its_login_and_nobody_sees_it() {
    with_both("a_private_index_gets_its_login_and_nobody_sees_it", |bench| {
        for name in ["alpha", "helper"] {
            make_wheel(&bench.path("index"), name, "1.0");
        }
        // Its build needs a package from the same index: pip starts another pip for that.
        let [mut project, backend] = self_building("needy");
        project.1 = project.1.replace("requires = []", "requires = [\"helper\"]");
        let (repository, commit) = bench.repository(&[
            (&format!("needy/{}", project.0), &project.1),
            (&format!("needy/{}", backend.0), &backend.1),
            ("main.py", "import alpha, needy"),
        ]);
        let web = Web::start(package_index(&bench.path("index")).login("robot", PASS));
        let login = web
            .url("simple")
            .replace("://", &format!("://robot:{PASS_IN_URL}@"));
        // Nothing but this index, whatever this machine has.
        for name in ["PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"] {
            bench.settings.env.remove(name);
        }
        let list = format!("--index-url {login}\nalpha==1.0\n./needy\n");
        let task = json!({"repository": repository.display().to_string(), "version_num": commit,
            "entry_point": "main.py", "requirements": {"pip": list}});
        let secrets = [PASS, PASS_IN_URL];
        let (_, host, _) = watched(&secrets, || bench.build_and_run(task));
        assert_eq!(host.reported(), ["alpha==1.0", "./needy"]);
        for secret in secrets {
            assert!(!host.console().contains(secret), "{}", host.console());
        }
        assert!(web.logins().len() > 2, "the build has asked the index too");
        assert_no_file_has(&secrets, &bench.path("run"));
        // Without the login there is nothing, and what is said about it has no password either.
        let wrong = login.replace(PASS_IN_URL, "falsch-99");
        let (result, host) = bench.build(script(&format!("--index-url {wrong}\nalpha==1.0\n"), "1"));
        let text = format!("{}\n{}", result.unwrap_err(), host.console());
        assert!(!text.contains("falsch"), "{text}");
    });
}

#[test]
fn an_archive_is_downloaded_once_and_named_by_its_address() {
    let mut bench = Bench::new();
    make_wheel(&bench.path("index"), "alpha", "1.0");
    let web = Web::start(package_index(&bench.path("index")));
    let hash = sha256(&bench.path("index/alpha-1.0-py3-none-any.whl"));
    let url = web.url("files/alpha-1.0-py3-none-any.whl");
    bench.settings.package_manager.pip_download_cache = Some(bench.path("downloads"));
    bench.settings.venvs_cache.path = Some(bench.path("environments"));
    let mut requests = Vec::new();
    for (round, program) in ["import alpha", "import alpha  # from the cache", "1"]
        .into_iter()
        .enumerate()
    {
        if round == 2 {
            // This time the environment is made, from what is in the download cache.
            bench.settings.venvs_cache.path = None;
        }
        let task = script(&format!("{url}#sha256={hash}"), program);
        let (_, host, _) = bench.build_and_run(task);
        assert_eq!(
            host.reported(),
            [format!("alpha @ {url}#sha256={hash}")],
            "round {round}: {}",
            host.console()
        );
        requests.push(web.requests());
    }
    assert_eq!(requests, [requests[0]; 3], "only the first build asks");
    // What was changed on disk is noticed.
    let folder = fs::read_dir(bench.path("downloads/cpu"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    make_wheel(&folder.path(), "alpha", "1.0");
    fs::write(folder.path().join("alpha-1.0-py3-none-any.whl"), "broken").unwrap();
    let error = bench
        .build(script(&format!("{url}#sha256={hash}"), "1"))
        .0
        .unwrap_err();
    assert_eq!(error.stage(), Stage::Environment);
}

#[test]
fn torch_comes_from_the_index_for_the_machine() {
    with_both("torch_comes_from_the_index_for_the_machine", |bench| {
        make_wheel(&bench.path("index"), "torch", "2.1.0+cu121");
        let mut site = package_index(&bench.path("index"));
        site.env.push(("THERE".to_owned(), "cu121".to_owned()));
        let web = Web::start(site);
        bench.settings.caches_dir = bench.path("caches");
        bench.settings.env.remove("PIP_FIND_LINKS");
        bench.env("PIP_INDEX_URL", web.url("none"));
        bench.env("UV_DEFAULT_INDEX", web.url("none"));
        bench.settings.torch.cuda_version = Some("12.4".into());
        bench.settings.torch.templates = TorchTemplates {
            cuda: web.url("whl/cu{}/"),
            ..TorchTemplates::default()
        };
        let task = script("torch==2.1.0", "import torch; print(torch.VERSION)");
        let (_, host, output) = bench.build_and_run(task.clone());
        assert_eq!(output, "2.1.0+cu121\n");
        assert_eq!(host.reported(), ["torch==2.1.0+cu121"]);
        let from = format!("torch==2.1.0: from {}", web.url("whl/cu121/"));
        assert!(host.console().contains(&from), "{}", host.console());
        // What exists is remembered: of the indexes only the chosen one is asked again, by the installer.
        let before = web.requests();
        bench.build_and_run(task);
        assert!(web.requests() - before < 8, "{}", web.requests() - before);
        bench.env("CLEARML_AGENT_PACKAGE_PYTORCH_RESOLVE", "none");
        let (result, _) = bench.build(script("torch==2.1.0", "1"));
        assert!(result.is_err(), "only that index has it");
    });
}

#[test]
fn without_an_answer_torch_is_a_package_like_any_other() {
    let mut bench = Bench::new();
    bench.wheel("torch", "2.1.0");
    bench.settings.caches_dir = bench.path("caches");
    bench.settings.torch.cuda_version = Some("118".into());
    bench.settings.torch.templates.cuda = "http://127.0.0.1:1/cu{}/".into();
    for resolve in ["pip", "direct", "bogus"] {
        bench.settings.torch.resolve = resolve.into();
        bench.settings.torch.templates.page = "http://127.0.0.1:1/cu{}/torch_stable.html".into();
        let started = Instant::now();
        let (_, host, _) = bench.build_and_run(script("torch==2.1.0", "import torch"));
        let console = host.console();
        assert_eq!(host.reported(), ["torch==2.1.0"]);
        assert!(
            console.contains("Warning: no index of torch answers"),
            "{console}"
        );
        assert_eq!(
            console.contains("\"bogus\" is not known"),
            resolve == "bogus",
            "{console}"
        );
        assert!(
            started.elapsed() < Duration::from_secs(30),
            "{:?}",
            started.elapsed()
        );
    }
}

#[test]
fn a_wheel_of_torch_is_chosen_from_a_page() {
    let mut bench = Bench::new();
    let wheels = bench.path("index");
    make_wheel(&wheels, "torch", "2.1.0+cpu");
    make_wheel(&wheels, "torch", "2.2.0+cpu");
    let web = Web::start(package_index(&wheels));
    bench.settings.caches_dir = bench.path("caches");
    bench.settings.torch.cpu_only = true;
    bench.settings.torch.resolve = "direct".into();
    // The index page of a package is a page with links as well.
    bench.settings.torch.templates.page = web.url("simple/torch?cu{}");
    let (_, host, output) = bench.build_and_run(script("torch<2.2", "import torch; print(torch.VERSION)"));
    assert_eq!(output, "2.1.0+cpu\n", "{}", host.console());
    let url = web.url("files/torch-2.1.0%2Bcpu-py3-none-any.whl");
    assert_eq!(host.reported(), [format!("torch == 2.1.0+cpu # {url}")]);
}
