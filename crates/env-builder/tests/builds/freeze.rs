//! What is reported, against what pip itself says.

use std::process::Command;

use serde_json::json;

use crate::common::Bench;
use crate::fixtures::{commit, self_building};

#[test]
fn packages_of_every_origin_are_reported_as_pip_does() {
    let mut bench = Bench::new();
    bench.wheel("Jinja2_like", "1.0");
    bench.wheel("huggingface_hub", "2.0");
    bench.wheel("zlocal", "3.0");
    bench.module("pkg", &[]);
    let origin = bench.path("origin/pkg");
    let [project, backend] = self_building("my-vcs");
    let [more, other] = self_building("my-editable");
    let commit = commit(
        &origin,
        &[
            (&format!("sub/{}", project.0), &project.1),
            (&format!("sub/{}", backend.0), &backend.1),
            (&more.0, &more.1),
            (&other.0, &other.1),
        ],
    );
    let list = format!(
        "Jinja2_like\nhuggingface-hub==2.0\n{}\ngit+file://{origin}@{commit}#egg=my-vcs&subdirectory=sub\n\
         -e git+file://{origin}@{commit}#egg=my-editable",
        bench.path("wheels/zlocal-3.0-py3-none-any.whl").display(),
        origin = origin.display(),
    );
    let (prepared, host, _) = bench.build_and_run(
        json!({"binary": "python3", "entry_point": "a.py", "diff": "1", "requirements": {"pip": list}}),
    );
    let freeze = Command::new(prepared.python.unwrap())
        .args(["-m", "pip", "freeze"])
        .output()
        .unwrap();
    let expected = String::from_utf8(freeze.stdout).unwrap();
    assert_eq!(host.reported().join("\n"), expected.trim(), "{}", host.console());
    assert_eq!(expected.lines().count(), 5, "{expected}");
}
