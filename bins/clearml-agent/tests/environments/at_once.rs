//! Tasks that want the same new environment at the same time.

use crate::case::configured;
use crate::fixtures::make_wheel;
use crate::scene::{LONG_LIMIT, Scene, finish};
use xtask::workbench::TaskSpec;

const TASKS: usize = 4;

#[test]
fn of_four_tasks_with_the_same_new_environment_one_builds_it() {
    let scene = Scene::new();
    let wheels = scene.folder.path().join("wheels");
    for name in ["alpha", "beta"] {
        make_wheel(&wheels, name, "1.0");
    }
    let spec = TaskSpec::script("import alpha, beta\nprint('out:', alpha.VERSION, beta.VERSION)\n")
        .requirements("alpha\nbeta==1.0\n");
    // The pip that the interpreter brings will do.
    let more = "agent.package_manager.pip_version: \">=20\"";
    let base = configured(&scene, &scene.options(), more, "at-once");
    let tasks: Vec<String> = (0..TASKS)
        .map(|number| {
            scene
                .api
                .create_task(&format!("at once {number}"), &spec)
                .unwrap()
        })
        .collect();
    std::thread::scope(|scope| {
        for (number, task) in tasks.iter().enumerate() {
            let options = base
                .clone()
                .variable("CLEARML_WORKER_NAME", format!("worker{number}"))
                .variable("PIP_NO_INDEX", "1")
                .variable("PIP_FIND_LINKS", wheels.display().to_string());
            scope.spawn(move || {
                let (code, output, errors) = finish(options.command(&["execute", "--id", task]));
                assert_eq!(code, 0, "{output}{errors}");
            });
        }
    });
    let mut built = 0;
    for task in &tasks {
        let ended = scene.ended_within(task, LONG_LIMIT);
        ended.assert_status("completed");
        assert_eq!(ended.output(), ["out: 1.0 1.0"]);
        let ready = ended
            .console
            .lines()
            .find(|line| line.contains("environment ready in "));
        let ready = ready.unwrap_or_else(|| panic!("{}", ended.console));
        assert!(
            ready.contains(": built and cached, 2 packages") || ready.contains(": cache hit, 2 packages"),
            "{ready}"
        );
        built += usize::from(ready.contains(": built and cached"));
    }
    assert_eq!(built, 1, "the environment was built more than once");
}
