//! Packages that are not in an entry: those that may be others tomorrow, and those of the working copy.

use std::fs;

use serde_json::json;

use super::{bench, build_in, ready, task};
use crate::common::run;

#[test]
fn what_may_be_another_package_tomorrow_is_installed_each_time() {
    let bench = bench(&["alpha"]);
    let origin = bench.path("origin/pkg");
    let write = |version: &str| {
        let [project, backend] = crate::fixtures::self_building("moving-pkg");
        let backend = (backend.0, backend.1.replace("'0.1'", &format!("'{version}'")));
        let files: Vec<(&str, &str)> = [&project, &backend]
            .map(|(name, text)| (&**name, &**text))
            .to_vec();
        crate::fixtures::commit(&origin, &files)
    };
    bench.module("pkg", &[]);
    let first_commit = write("1");
    let list = format!("alpha\ngit+file://{}@main#egg=moving-pkg", origin.display());
    let (_, host) = build_in(&bench, task(&list, "1"), "first");
    assert_eq!(ready(&host), "built and cached, 2 packages");
    assert!(
        host.reported()[1].ends_with(&first_commit),
        "{:?}",
        host.reported()
    );
    let second_commit = write("2");
    let program =
        "import moving_pkg, alpha, importlib.metadata as m; print(m.version('moving-pkg'), alpha.VERSION)";
    let (next, host) = build_in(&bench, task(&list, program), "second");
    assert_eq!(ready(&host), "cache hit, 2 packages");
    assert!(
        host.reported()[1].ends_with(&second_commit),
        "{:?}",
        host.reported()
    );
    assert_eq!(run(&next, &bench.settings).lines().last(), Some("2 1.0"));

    // The same commit, by its full name, is the same package, and needs no repository.
    let list = format!(
        "alpha\ngit+file://{}@{second_commit}#egg=moving-pkg",
        origin.display()
    );
    build_in(&bench, task(&list, "1"), "third");
    fs::remove_dir_all(&origin).unwrap();
    let (next, host) = build_in(&bench, task(&list, program), "fourth");
    assert_eq!(ready(&host), "cache hit, 2 packages", "{}", host.console());
    assert_eq!(run(&next, &bench.settings).lines().last(), Some("2 1.0"));
}

#[test]
fn packages_of_the_working_copy_are_those_of_the_task() {
    let bench = bench(&["alpha"]);
    let [project, backend] = crate::fixtures::self_building("local-pkg");
    let (repository, commit) = bench.repository(&[
        (&format!("pkg/{}", project.0), &project.1),
        (&format!("pkg/{}", backend.0), &backend.1),
        ("pkg/local_pkg.py", "VALUE = 1\n"),
        (
            "main.py",
            "import local_pkg, alpha; print(local_pkg.VALUE, local_pkg.__file__)",
        ),
    ]);
    let task = |commit: &str| {
        json!({"repository": repository.display().to_string(), "version_num": commit, "entry_point": "main.py",
            "requirements": {"pip": "alpha\n-e ./pkg"}})
    };
    let (first, host) = build_in(&bench, task(&commit), "first");
    assert_eq!(ready(&host), "built and cached, 2 packages", "{}", host.console());
    let file = |place: &str| {
        bench
            .path(place)
            .join("task_repository/project.git/pkg/local_pkg.py")
    };
    assert_eq!(
        run(&first, &bench.settings),
        format!("1 {}\n", file("first").display())
    );
    let commit = crate::fixtures::commit(&repository, &[("pkg/local_pkg.py", "VALUE = 2\n")]);
    let (second, host) = build_in(&bench, task(&commit), "second");
    assert_eq!(ready(&host), "cache hit, 2 packages", "{}", host.console());
    assert_eq!(
        run(&second, &bench.settings),
        format!("2 {}\n", file("second").display())
    );
    assert_eq!(host.reported(), ["alpha==1.0", "-e ./pkg"]);
}
