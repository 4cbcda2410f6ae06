//! Builds that do not come to an image.

use std::io::{BufRead, BufReader};
use std::process::{Child, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::place::docker;
use crate::scene::finish;
use crate::studio::Studio;

/// A build at work. When dropped, it is told to end.
struct Build(Child);

impl Build {
    fn end(&mut self, signal: Signal) -> ExitStatus {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
        self.0.wait().unwrap()
    }
}

impl Drop for Build {
    fn drop(&mut self) {
        if self.0.try_wait().is_ok_and(|ended| ended.is_none()) {
            self.end(Signal::TERM);
        }
    }
}

/// Names of the containers of builds that are at work or were left behind, of this state folder.
fn containers() -> Vec<String> {
    let arguments = [
        "ps",
        "-a",
        "--filter",
        "label=clearml-agent-build",
        "--format",
        "{{.Names}}",
    ];
    docker(&arguments).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn what_would_leak_is_named_and_no_image_is_made() {
    let Some(studio) = Studio::or_skip("what_would_leak_is_named_and_no_image_is_made") else {
        return;
    };
    let setup = format!(
        "mkdir -p /opt/tool\ncp -r /.ssh /opt/tool/keys\necho 'machine h login robot password {}' > /root/.netrc\n",
        studio.secret("agent.git_pass")
    );
    let task = studio.task(
        "careless",
        json!({"image": studio.place.image, "setup_shell_script": setup}),
    );
    let name = studio.image("leak");
    let (code, output, errors) = finish(
        studio
            .options()
            .command(&["build", "--docker", "--target", &name, "--id", &task]),
    );
    assert_eq!(code, 1, "{output}{errors}");
    for part in [
        "the image would hold a secret",
        "/root/.netrc",
        "/opt/tool/keys/id_ed25519",
    ] {
        assert!(output.contains(part), "no {part} in {output}");
    }
    assert_eq!(docker(&["image", "inspect", &name]), None);
    studio.nothing_is_left();
}

#[test]
fn each_failure_says_what_was_wrong_and_what_to_do() {
    let Some(studio) = Studio::or_skip("each_failure_says_what_was_wrong_and_what_to_do") else {
        return;
    };
    let task = studio.task("broken", json!({}));
    let broken = studio.task(
        "exits",
        json!({"image": studio.place.image, "setup_shell_script": "exit 7"}),
    );
    let options = studio.options();
    let image = &*studio.place.image;
    let odd = format!("{image} --no-such-option");
    let of = |arguments: &[&str]| {
        let arguments = [&["build"], arguments].concat();
        let (code, output, errors) = finish(options.command(&arguments));
        (code, output + &errors)
    };
    for (arguments, expected, parts) in [
        (
            vec!["--docker", image, "--target", "./here", "--id", &task],
            1,
            vec!["\"./here\"", "team/model:1"],
        ),
        (
            vec!["--docker", image, "--target", "", "--id", &task],
            1,
            vec!["--target is empty; name an image"],
        ),
        (
            vec!["--docker", "no-such-image:1 --pull=never", "--id", &task],
            1,
            vec!["no-such-image:1", "--pull=never"],
        ),
        (vec!["--docker", &odd, "--id", &task], 1, vec!["--no-such-option"]),
        (
            vec!["--docker", image, "--id", "nobody"],
            1,
            vec!["Could not find task id=nobody"],
        ),
        (vec!["--docker", "--id", &broken], 7, vec!["exit code 7"]),
        (
            vec!["--entry-point", "reuse_task", "--id", &task],
            1,
            vec!["--entry-point needs --docker"],
        ),
        (
            vec!["--docker", image, "--entry-point", "reuse", "--id", &task],
            2,
            vec!["reuse_task"],
        ),
    ] {
        let (code, text) = of(&arguments);
        assert_eq!(code, expected, "{arguments:?}: {text}");
        for part in parts {
            assert!(text.contains(part), "{arguments:?}: no {part} in {text}");
        }
    }
    studio.nothing_is_left();
    let nowhere = studio
        .options()
        .variable("DOCKER_HOST", "unix:///nowhere/docker.sock");
    let (code, output, _) = finish(nowhere.command(&["build", "--docker", image, "--id", &task]));
    assert!(
        code == 1 && output.contains("unix:///nowhere/docker.sock"),
        "{output}"
    );
}

#[test]
fn a_build_that_was_killed_is_cleaned_up_by_the_next_one() {
    let Some(studio) = Studio::or_skip("a_build_that_was_killed_is_cleaned_up_by_the_next_one") else {
        return;
    };
    let setup = "if [ -e /slow ]; then :; fi\necho preparing at length\nsleep 60\n";
    let slow = studio.task(
        "slow",
        json!({"image": studio.place.image, "setup_shell_script": setup}),
    );
    let name = studio.image("killed");
    let options = studio.options();
    let begin = |name: &str| -> (Build, String) {
        let mut command = options.command(&["build", "--docker", "--target", name, "--id", &slow]);
        let mut build = Build(command.stdout(Stdio::piped()).spawn().unwrap());
        let lines = BufReader::new(build.0.stdout.take().unwrap()).lines();
        let mut container = String::new();
        for line in lines.map_while(Result::ok) {
            if let Some((_, rest)) = line.split_once("Container clearml-build-") {
                container = format!("clearml-build-{}", rest.split_whitespace().next().unwrap());
            }
            if line.contains("preparing at length") {
                break;
            }
        }
        assert!(containers().contains(&container), "{container}");
        (build, container)
    };
    // Ctrl-C takes its container away.
    let (mut build, container) = begin(&name);
    assert_eq!(build.end(Signal::INT).code(), Some(254));
    assert!(!containers().contains(&container));
    studio.nothing_is_left();

    // Nobody else's build is disturbed; that of the dead is removed.
    let (mut dead, left) = begin(&name);
    dead.end(Signal::KILL);
    assert!(containers().contains(&left));
    let other = studio.image("beside");
    let (mut living, beside) = begin(&other);
    assert!(!containers().contains(&left) && containers().contains(&beside));
    let quick = studio.task("quick", json!({"image": studio.place.image}));
    studio.build(&["--docker", "--target", &name, "--id", &quick]);
    assert!(docker(&["image", "inspect", &name]).is_some());
    assert!(containers().contains(&beside));
    assert_eq!(living.end(Signal::TERM).code(), Some(254));
    assert_eq!(docker(&["image", "inspect", &other]), None);
    studio.nothing_is_left();
}
