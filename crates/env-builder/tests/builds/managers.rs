//! pip, and uv in its place: versions, order, and the same packages from both.

use std::fs;

use clearml_env_builder::{PackageManagerKind, PipBackend, Stage};

use crate::common::Bench;
use crate::fixtures::make_wheel;
use crate::packages::{index, script, uv};

/// A wheel that needs others.
fn wheel_with_needs(bench: &Bench, name: &str, version: &str, needs: &[&str]) {
    let folder = bench.path("wheels");
    make_wheel(&folder, name, version);
    let file = folder.join(format!("{name}-{version}-py3-none-any.whl"));
    let program = r"
import sys, zipfile
file, *needs = sys.argv[1:]
with zipfile.ZipFile(file) as z: parts = {n: z.read(n).decode() for n in z.namelist()}
for name, text in parts.items():
    if name.endswith('METADATA'):
        head, rest = text.split('\n\n', 1)
        parts[name] = head + ''.join('\nRequires-Dist: ' + n for n in needs) + '\n\n' + rest
with zipfile.ZipFile(file, 'w') as z:
    for name, text in parts.items(): z.writestr(name, text)
";
    let made = std::process::Command::new("python3")
        .args(["-I", "-c", program])
        .arg(&file)
        .args(needs)
        .status()
        .unwrap();
    assert!(made.success());
}

#[test]
fn pip_and_uv_install_the_same_packages() {
    let Some(uv) = uv("pip_and_uv_install_the_same_packages") else {
        return;
    };
    let mut bench = Bench::new();
    bench.wheel("alpha", "1.0");
    bench.wheel("alpha", "2.0");
    bench.wheel("Beta_x", "1.0");
    bench.wheel("gamma", "1.0");
    // Only who asks for a preview gets one.
    bench.wheel("gamma", "2.0rc1");
    bench.wheel("delta", "3.0");
    wheel_with_needs(
        &bench,
        "delta",
        "3.0",
        &[
            "alpha<2",
            "beta-x; python_version > '3'",
            "absent; python_version < '3'",
        ],
    );
    bench.settings.package_manager.uv_binary = Some(uv);
    for list in [
        "delta\ngamma",
        "delta[none]==3.0\ngamma==2.0rc1\n",
        "gamma>=2.0rc1 ; python_version >= '3'\nalpha ; python_version < '3'",
        "--pre\ngamma\nalpha",
    ] {
        let mut reported = Vec::new();
        for backend in [PipBackend::Pip, PipBackend::Auto] {
            bench.settings.package_manager.pip_backend = backend;
            let (_, host, output) =
                bench.build_and_run(script(list, "import pip, gamma; print(gamma.VERSION)"));
            let by_uv = host.console().contains("Resolved ");
            assert_eq!(by_uv, backend == PipBackend::Auto, "{}", host.console());
            reported.push((host.reported(), output));
        }
        assert_eq!(reported[0], reported[1], "{list}");
    }
}

#[test]
fn pip_has_the_last_word_where_uv_only_stands_in() {
    let Some(uv) = uv("pip_has_the_last_word_where_uv_only_stands_in") else {
        return;
    };
    let mut bench = Bench::new();
    bench.wheel("alpha", "1.0");
    bench.wheel("delta", "1.0");
    wheel_with_needs(&bench, "delta", "1.0", &["alpha<1"]);
    bench.settings.package_manager.pip_backend = PipBackend::Auto;
    bench.settings.package_manager.uv_binary = Some(uv);
    // A frozen list that contradicts itself: the old resolver of pip takes it as it is.
    bench.settings.package_manager.pip_legacy_resolver = vec![">=20".into()];
    let (_, host, _) = bench.build_and_run(script("alpha==1.0\ndelta==1.0", "import alpha, delta"));
    assert_eq!(host.reported(), ["alpha==1.0", "delta==1.0"]);
    assert!(host.console().contains("; pip is tried"), "{}", host.console());

    // What uv can't be told is not given to it.
    bench.env("PIP_PREFER_BINARY", "1");
    let (_, host, _) = bench.build_and_run(script("alpha", "import alpha"));
    assert!(!host.console().contains("Resolved"), "{}", host.console());
    assert!(
        host.console()
            .contains("by pip, not by uv, because pip is configured with prefer-binary"),
        "{}",
        host.console()
    );
}

#[test]
fn uv_reads_what_pip_is_configured_with() {
    let Some(uv) = uv("uv_reads_what_pip_is_configured_with") else {
        return;
    };
    let mut bench = Bench::new();
    bench.wheel("alpha", "1.0");
    bench.settings.env.remove("PIP_NO_INDEX");
    bench.settings.env.remove("PIP_FIND_LINKS");
    let config = bench.path("pip.conf");
    let text = format!(
        "[global]\nno-index = true\n[install]\nfind-links =\n    {}\n    /there/is/none\n",
        bench.path("wheels").display()
    );
    fs::write(&config, text).unwrap();
    bench.env("PIP_CONFIG_FILE", config.display().to_string());
    bench.settings.package_manager.pip_backend = PipBackend::Auto;
    bench.settings.package_manager.uv_binary = Some(uv);
    bench.settings.package_manager.uv_cache_dir = Some(bench.path("uv-cache"));
    let (_, host, _) = bench.build_and_run(script("alpha", "import alpha"));
    assert_eq!(host.reported(), ["alpha==1.0"]);
    assert!(host.console().contains("Resolved"), "{}", host.console());
    assert!(bench.path("uv-cache").is_dir());
}

#[test]
fn a_uv_without_a_project_leaves_a_pip_for_the_task() {
    let Some(uv) = uv("a_uv_without_a_project_leaves_a_pip_for_the_task") else {
        return;
    };
    let mut bench = Bench::new();
    bench.wheel("alpha", "1.0");
    bench.settings.package_manager.kind = PackageManagerKind::Uv;
    bench.settings.package_manager.uv_binary = Some(uv);
    let code = "import alpha, subprocess, sys; print(subprocess.check_output([sys.executable, '-m', 'pip', '--version'])[:4])";
    for _ in 0..2 {
        let (_, _, output) = bench.build_and_run(script("alpha", code));
        assert_eq!(output, "b'pip '\n");
    }
}

#[test]
fn a_configured_pip_is_fetched_once() {
    if !index("a_configured_pip_is_fetched_once") {
        return;
    }
    let mut bench = Bench::new();
    bench.settings.caches_dir = bench.path("caches");
    let versions = [
        "<20 ; python_version < '3'",
        ">=24.0,<24.1 ; python_version >= '3'",
    ];
    bench.settings.package_manager.pip_version = versions.map(str::to_owned).to_vec();
    let code = "import pip, six; print(pip.__version__)";
    let (_, host, output) = bench.build_and_run(script("six==1.16.0", code));
    assert_eq!(output, "24.0\n");
    assert!(
        host.console()
            .contains("fetching pip<20 ; python_version < '3', pip>=24.0"),
        "{}",
        host.console()
    );
    assert_eq!(host.reported(), ["six==1.16.0"]);

    make_wheel(&bench.path("wheels"), "alpha", "1.0");
    bench.env("PIP_NO_INDEX", "1");
    bench.env("PIP_FIND_LINKS", bench.path("wheels").display().to_string());
    let (_, host, output) = bench.build_and_run(script("alpha", "import pip; print(pip.__version__)"));
    assert_eq!(output, "24.0\n");
    assert!(!host.console().contains("fetching"), "{}", host.console());
}

#[test]
fn a_pip_that_is_not_to_be_had_ends_the_build() {
    let mut bench = Bench::new();
    bench.wheel("alpha", "1.0");
    let (result, _) = bench.build(script("pip==0.0.1\nalpha", "1"));
    let error = result.unwrap_err();
    assert_eq!(error.stage(), Stage::Environment);
    assert!(
        error.to_string().starts_with("Could not install pip==0.0.1: "),
        "{error}"
    );
}

#[test]
fn indexes_are_asked_in_their_order() {
    let mut bench = Bench::new();
    bench.wheel("alpha", "1.0");
    bench.settings.env.remove("PIP_NO_INDEX");
    bench.env("PIP_RETRIES", "0");
    bench.env("PIP_INDEX_URL", "http://127.0.0.1:1/i");
    let at = |name: &str| format!("http://127.0.0.1:1/{name}");
    bench.settings.package_manager.extra_index_url = vec![at("a"), at("b")];
    bench.settings.package_manager.extra_pip_install_flags = vec!["--extra-index-url".into(), at("flag")];
    let list = format!("--extra-index-url {} # why\nalpha", at("c"));
    let (_, host, _) = bench.build_and_run(script(&list, "import alpha"));
    let asked = ["i", "flag", "a", "b", "c"].map(at).join(", ");
    assert!(
        host.console().contains(&format!("Looking in indexes: {asked}")),
        "{}",
        host.console()
    );
}

#[test]
fn an_old_python_gets_cython_before_its_packages() {
    let test = "an_old_python_gets_cython_before_its_packages";
    let mut bench = Bench::new();
    bench.wheel("Cython", "0.29");
    bench.wheel("alpha", "1.0");
    let mut task = script("alpha", "import alpha");
    let (_, host, _) = bench.build_and_run(task.clone());
    assert_eq!(host.reported(), ["alpha==1.0"]);

    let old = ["3.6", "3.7", "3.8"].map(|version| format!("python{version}"));
    let runs = |name: &&String| {
        let output = std::process::Command::new(name).arg("--version").output();
        output.is_ok_and(|output| output.status.success())
    };
    let Some(python) = old.iter().rev().find(runs) else {
        eprintln!("SKIPPED {test}: there is no Python before 3.9");
        return;
    };
    task["binary"] = python.as_str().into();
    let (_, host, _) = bench.build_and_run(task.clone());
    assert_eq!(host.reported(), ["alpha==1.0", "Cython==0.29"]);

    // Whether it was needed shows when the list is installed.
    fs::remove_file(bench.path("wheels/Cython-0.29-py3-none-any.whl")).unwrap();
    let (_, host, _) = bench.build_and_run(task);
    assert_eq!(host.reported(), ["alpha==1.0"]);
}
