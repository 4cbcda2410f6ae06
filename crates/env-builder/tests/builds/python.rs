//! Which interpreter a task gets, by what is on `PATH`.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use clearml_env_builder::{PackageManagerKind, Stage};
use serde_json::{Value, json};

use crate::common::Bench;
use crate::packages::uv;

fn script(binary: &str) -> Value {
    json!({"binary": binary, "entry_point": "a.py", "diff": "import sys; print('%d.%d' % sys.version_info[:2])"})
}

/// The interpreter that `python3` is, and its version, `3.11`.
fn here() -> (PathBuf, String) {
    let program = "import sys; print(sys.executable); print('%d.%d' % sys.version_info[:2])";
    let output = Command::new("python3").args(["-c", program]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (path, version) = text.trim().split_once('\n').unwrap();
    (PathBuf::from(path).canonicalize().unwrap(), version.to_owned())
}

/// Another place for an interpreter; a link would look for its library beside itself.
fn wrapper(python: &Path, at: &Path) {
    fs::create_dir_all(at.parent().unwrap()).unwrap();
    fs::write(at, format!("#!/bin/sh\nexec {} \"$@\"\n", python.display())).unwrap();
    fs::set_permissions(at, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Leaves nothing on `PATH` but these names of the interpreter, and git.
fn only(bench: &mut Bench, names: &[&str]) -> PathBuf {
    let folder = bench.path("bin");
    fs::create_dir_all(&folder).unwrap();
    let python = here().0;
    names.iter().for_each(|name| wrapper(&python, &folder.join(name)));
    bench.env("PATH", folder.display().to_string());
    folder
}

#[test]
fn a_version_is_looked_for_under_shorter_names_as_well() {
    let version = here().1;
    let mut bench = Bench::new();
    only(&mut bench, &["python3"]);
    let (_, host, output) = bench.build_and_run(script(&format!("python{version}")));
    assert_eq!(output, format!("{version}\n"));
    assert!(!host.console().contains("Warning"), "{}", host.console());
}

#[test]
fn another_version_serves_with_a_warning() {
    let version = here().1;
    let mut bench = Bench::new();
    only(&mut bench, &["python3"]);
    for request in ["python3.1", "python3.99"] {
        let (_, host, output) = bench.build_and_run(script(request));
        assert_eq!(output, format!("{version}\n"), "{request}");
        let warning = format!("Warning: Python {} was requested but not found; ", &request[6..]);
        assert!(host.console().contains(&warning), "{}", host.console());
        assert!(
            host.console().contains(&format!("(version {version}.")),
            "{}",
            host.console()
        );
    }
}

#[test]
fn without_any_interpreter_the_names_are_listed() {
    let mut bench = Bench::new();
    only(&mut bench, &[]);
    let (result, _) = bench.build(script("python3.10"));
    let error = result.unwrap_err();
    assert_eq!(error.stage(), Stage::Environment);
    assert!(
        error.to_string().contains("python3.10, python3, python"),
        "{error}"
    );
}

#[test]
fn the_task_beats_the_configuration_unless_it_shall_not() {
    let version = here().1;
    let mut bench = Bench::new();
    only(&mut bench, &["python3"]);
    bench.settings.python_binary = Some("/nowhere/python3.9".into());
    let asked = "no interpreter for Python /nowhere/python3.9 was found";
    let task = script(&format!("python{version}"));
    let (_, host, _) = bench.build_and_run(task.clone());
    assert!(!host.console().contains(asked), "{}", host.console());

    bench.settings.ignore_requested_python_version = true;
    let (_, host, _) = bench.build_and_run(task.clone());
    assert!(host.console().contains(asked), "{}", host.console());

    let own = bench.path("own-python");
    fs::copy(bench.path("bin/python3"), &own).unwrap();
    bench.settings.python_binary = Some(own);
    let (_, host, output) = bench.build_and_run(task);
    assert_eq!(output, format!("{version}\n"), "{}", host.console());
    assert!(!host.console().contains("Warning"), "{}", host.console());
}

#[test]
fn an_interpreter_that_uv_has_downloaded_is_found() {
    let Some(uv) = uv("an_interpreter_that_uv_has_downloaded_is_found") else {
        return;
    };
    let mut bench = Bench::new();
    // Installations of uv lie side by side, named by version and platform.
    let (python, version) = here();
    let full = Command::new(&python)
        .args([
            "-c",
            "import platform; print(platform.python_version(), platform.machine())",
        ])
        .output()
        .unwrap();
    let full = String::from_utf8(full.stdout).unwrap();
    let (full, machine) = full.trim().split_once(' ').unwrap();
    let managed = bench.path("managed");
    let installed = managed.join(format!("cpython-{full}-linux-{machine}-gnu/bin"));
    wrapper(&python, &installed.join(format!("python{version}")));
    let folder = only(&mut bench, &[]);
    symlink(&uv, folder.join("uv")).unwrap();
    bench.env("UV_PYTHON_INSTALL_DIR", managed.display().to_string());
    let (_, host, output) = bench.build_and_run(script(&format!("python{version}")));
    assert_eq!(output, format!("{version}\n"), "{}", host.console());
    assert!(!host.console().contains("Warning"), "{}", host.console());
}

#[test]
fn uv_brings_the_version_that_is_not_there() {
    let Some(uv) = uv("uv_brings_the_version_that_is_not_there") else {
        return;
    };
    let mut bench = Bench::new();
    let (python, version) = here();
    let machine = std::env::consts::ARCH;
    // What uv would fetch from elsewhere: an archive with an interpreter.
    wrapper(&python, &bench.path(&format!("dist/python/bin/python{version}")));
    // uv changes paths in a file that its archives have.
    let library = bench.path(&format!("dist/python/lib/python{version}"));
    fs::create_dir_all(&library).unwrap();
    let data = format!("_sysconfigdata__linux_{machine}-linux-gnu.py");
    fs::write(
        library.join(data),
        "# system configuration generated and used by the sysconfig module\nbuild_time_vars = {}\n",
    )
    .unwrap();
    let archive = bench.path("python.tar.gz");
    let packed = Command::new("tar")
        .args([
            "-czf".as_ref(),
            archive.as_os_str(),
            "-C".as_ref(),
            bench.path("dist").as_os_str(),
            "python".as_ref(),
        ])
        .status()
        .unwrap();
    assert!(packed.success());
    let full = Command::new(&python)
        .args(["-c", "import platform; print(platform.python_version())"])
        .output()
        .unwrap();
    let full = String::from_utf8(full.stdout).unwrap().trim().to_owned();
    let numbers: Vec<u32> = full.split('.').map(|part| part.parse().unwrap()).collect();
    let downloads = json!({format!("cpython-{full}-linux-{machine}-gnu"): {
        "name": "cpython", "arch": {"family": machine, "variant": null}, "os": "linux", "libc": "gnu",
        "major": numbers[0], "minor": numbers[1], "patch": numbers[2], "prerelease": "",
        "url": format!("file://{}", archive.display()), "sha256": null, "variant": null, "build": "20240101"
    }});
    let list = bench.path("downloads.json");
    fs::write(&list, downloads.to_string()).unwrap();
    only(&mut bench, &[]);
    bench.settings.package_manager.kind = PackageManagerKind::Uv;
    bench.settings.package_manager.uv_binary = Some(uv);
    bench.env("UV_PYTHON_DOWNLOADS_JSON_URL", list.display().to_string());
    bench.env(
        "UV_PYTHON_INSTALL_DIR",
        bench.path("managed").display().to_string(),
    );
    let (_, host, output) = bench.build_and_run(script(&format!("python{version}")));
    assert_eq!(output, format!("{version}\n"), "{}", host.console());
    assert!(bench.path("managed").read_dir().unwrap().count() > 0);
}

#[test]
fn a_version_that_uv_can_not_provide_leaves_the_one_that_is_there() {
    let Some(uv) = uv("a_version_that_uv_can_not_provide_leaves_the_one_that_is_there") else {
        return;
    };
    let version = here().1;
    let mut bench = Bench::new();
    only(&mut bench, &["python3"]);
    bench.settings.package_manager.kind = PackageManagerKind::Uv;
    bench.settings.package_manager.uv_binary = Some(uv);
    bench.env("UV_PYTHON_DOWNLOADS", "never");
    let (_, host, output) = bench.build_and_run(script("python3.99"));
    assert_eq!(output, format!("{version}\n"));
    assert!(
        host.console().contains("uv made no environment"),
        "{}",
        host.console()
    );
}

#[test]
fn a_named_interpreter_is_used_as_it_is() {
    let mut bench = Bench::new();
    let outer = bench.path("outer");
    let made = Command::new("python3")
        .args(["-m", "venv"])
        .arg(&outer)
        .output()
        .unwrap();
    assert!(made.status.success());
    bench.wheel("alpha", "1.0");
    bench.env(
        "CLEARML_AGENT_SKIP_PIP_VENV_INSTALL",
        outer.join("bin/python").display().to_string(),
    );
    let mut task = script("python3");
    task["diff"] = "import alpha, sys; print(sys.prefix)".into();
    task["requirements"] = json!({"pip": "alpha"});
    let (_, host, output) = bench.build_and_run(task.clone());
    assert_eq!(output.trim(), outer.display().to_string());
    assert!(!bench.path("run/venv").exists());
    assert_eq!(host.reported(), ["alpha==1.0"]);

    // In a container, an environment that is active there counts in the same way.
    bench.settings.env.remove("CLEARML_AGENT_SKIP_PIP_VENV_INSTALL");
    bench.env("VIRTUAL_ENV", outer.display().to_string());
    bench.env("CLEARML_DOCKER_IMAGE", "some/image");
    bench.settings.package_manager.system_site_packages = true;
    bench.settings.docker_use_activated_venv = true;
    let (_, host, output) = bench.build_and_run(task.clone());
    assert_eq!(output.trim(), outer.display().to_string());
    assert!(
        host.console()
            .contains("Warning: packages are installed into the virtual environment")
    );

    bench.settings.docker_use_activated_venv = false;
    let (_, _, output) = bench.build_and_run(task);
    assert_eq!(output.trim(), bench.path("run/venv").display().to_string());
}

#[test]
fn an_interpreter_without_pip_gets_one_through_uv() {
    let Some(uv) = uv("an_interpreter_without_pip_gets_one_through_uv") else {
        return;
    };
    let question =
        "import ensurepip, os; print(os.path.join(os.path.dirname(ensurepip.__file__), '_bundled'))";
    let output = Command::new(here().0).args(["-c", question]).output().unwrap();
    let wheels = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim());
    if !wheels.is_dir() {
        eprintln!("SKIPPED an_interpreter_without_pip_gets_one_through_uv: python3 has no wheel of pip");
        return;
    }
    let mut bench = Bench::new();
    bench.settings.caches_dir = bench.path("caches");
    let folder = only(&mut bench, &["python3"]);
    // An interpreter as Debian has it without python3-venv.
    let text = format!(
        "#!/bin/sh\n{} \"$@\" | /bin/sed 's/\"pip_wheel\": \"[^\"]*\"/\"pip_wheel\": null/'\n",
        here().0.display()
    );
    fs::write(folder.join("python3"), text).unwrap();
    let mut task = script("python3");
    task["diff"] = "import pip; print('pip')".into();
    let (_, host, _) =
        bench.build_and_run(json!({"binary": "python3", "entry_point": "a.py", "diff": "print(1)"}));
    assert!(!bench.path("run/venv/bin/pip").exists(), "{}", host.console());

    symlink(&uv, folder.join("uv")).unwrap();
    bench.env("UV_NO_INDEX", "1");
    bench.env("UV_FIND_LINKS", wheels.display().to_string());
    let (_, _, output) = bench.build_and_run(task.clone());
    assert_eq!(output, "pip\n");
    // It is kept for the next one.
    fs::remove_file(folder.join("uv")).unwrap();
    symlink("/bin/false", folder.join("uv")).unwrap();
    let (_, _, output) = bench.build_and_run(task);
    assert_eq!(output, "pip\n");
}
