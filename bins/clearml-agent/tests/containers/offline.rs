//! What containers find in the mounted caches.

use serde_json::json;
use xtask::workbench::TaskSpec;

use crate::fixtures::make_wheel;
use crate::place::Place;
use crate::scene::finish;

#[test]
fn packages_and_repositories_come_from_the_mounted_caches() {
    let Some(place) = Place::or_skip("packages_and_repositories_come_from_the_mounted_caches") else {
        return;
    };
    let folder = place.scene.folder.path();
    let wheels = folder.join("wheels");
    make_wheel(&wheels, "alpha", "1.0");
    let main = ("main.py", "import alpha\nprint('out: alpha', alpha.VERSION)\n");
    let (url, commit) = place.scene.repository("repository", &[main]);
    let repository = folder.join("repository");
    let spec = TaskSpec::repository(&url, &commit, "main.py").requirements("alpha==1.0\n");
    // Where packages come from tells one environment from another.
    let nothing = "--network none -e PIP_NO_INDEX=1 -e PIP_FIND_LINKS=/wheels";
    let both = format!(
        "{nothing} -v {0}:{0}:ro -v {1}:/wheels:ro -e GIT_CONFIG_COUNT=1 -e GIT_CONFIG_KEY_0=safe.directory \
         -e GIT_CONFIG_VALUE_0=*",
        repository.display(),
        wheels.display()
    );
    let mut agent = place.daemon(&place.options());
    let first = place.submit_spec("with both", &spec, place.with(&both, ""));
    place.ended(&first).assert_status("completed");

    // Neither packages, nor the repository, nor any network.
    let task = place.submit_spec("with nothing", &spec, place.with(nothing, ""));
    let ended = place.ended(&task);
    ended.assert_status("completed");
    assert_eq!(ended.output(), ["out: alpha 1.0"]);
    agent.stop().unwrap();

    // The same by hand.
    let task = place.scene.api.create_task("by hand", &spec).unwrap();
    let body = json!({"task": task, "force": true, "container": place.with(nothing, "")});
    place.scene.api.call("tasks.edit", body).unwrap();
    let options = place.options();
    let (code, stdout, stderr) = finish(options.command(&["execute", "--id", &task, "--docker"]));
    assert_eq!(code, 0, "{stdout}{stderr}");
    place.ended(&task).assert_status("completed");
}

#[test]
fn what_is_known_about_an_image_is_not_looked_for_again() {
    let Some(place) = Place::or_skip("what_is_known_about_an_image_is_not_looked_for_again") else {
        return;
    };
    let mut agent = place.daemon(&place.options());
    let code = "import os, sys, subprocess\nprint('out: user', os.getuid())\n\
                subprocess.run([sys.executable, '-m', 'pip', '--version'], check=True)\n\
                subprocess.run(['pip', '--version'], check=True)\n";
    // The caches of one user are not another's; who may not write anywhere has caches of the container.
    for user in ["0", "0", "12345:12345"] {
        let arguments = format!("--network none --user {user} -e HOME=/tmp/home");
        let task = place.submit(&format!("user {user}"), code, place.with(&arguments, ""));
        let ended = place.ended(&task);
        ended.assert_status("completed");
        let name = user.split(':').next().unwrap_or_default();
        assert!(
            ended.output().contains(&&*format!("out: user {name}")),
            "{}",
            ended.console
        );
    }
    let images = place
        .options()
        .home
        .join(".local/state/clearml-agent/caches/images");
    let image = std::fs::read_dir(&images)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let mut users: Vec<_> = std::fs::read_dir(image.join("inside"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    users.sort();
    assert_eq!(users, ["0", "12345"]);
    assert!(image.join("inside/0/interpreters.json").is_file());
    assert!(image.join("seen.json").is_file());
    agent.stop().unwrap();
}
