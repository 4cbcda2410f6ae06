//! A container that ends without a word.

use serde_json::json;

use crate::place::{Place, docker};
use crate::registry;
use crate::stand::{Stand, until};

#[test]
fn a_service_whose_container_is_killed_is_put_back_as_often_as_configured_and_then_fails() {
    let name = "a_service_whose_container_is_killed_is_put_back_as_often_as_configured_and_then_fails";
    let Some(mut stand) = Stand::or_skip(name) else {
        return;
    };
    let task = stand.service("killed", "");
    let once = [("CLEARML_AGENT__AGENT__REQUEUE_ON_INFRASTRUCTURE_FAILURE", "1")];
    let mut daemon = stand.daemon("--docker", &["--services-mode", "--foreground"], &once);
    let mut known = Vec::new();
    for _ in 0..2 {
        until("another container", || {
            let names = Place::containers(&task);
            names.len() == 1 && !known.contains(&names[0])
        });
        known.extend(Place::containers(&task));
        let runs = || stand.place.scene.api.console(&task).unwrap();
        until("its program to run", || {
            runs().matches("out: 3\n").count() == known.len()
        });
        docker(&["kill", "-s", "KILL", &known[known.len() - 1]]).unwrap();
    }
    stand
        .place
        .ended(&task)
        .assert_failed_in("infrastructure", "the container ended (exit code 137)");
    Place::is_removed(&task);
    until("its worker to go", || stand.workers().len() == 1);
    daemon.stop().unwrap();
}

/// The image has nothing that a task could use, which is seen only once it is there.
#[test]
fn an_image_that_is_not_there_is_pulled() {
    let Some(stand) = Stand::or_skip("an_image_that_is_not_there_is_pulled") else {
        return;
    };
    let image = registry::serve(stand.place.scene.folder.path(), None);
    let mut daemon = stand.place.daemon(&stand.place.options());
    let task = stand.place.submit("pulled", "print()", json!({"image": image}));
    let ended = stand.place.ended(&task);
    Place::is_removed(&task);
    let there = docker(&["rmi", &image]).is_some();
    ended.assert_failed_in("environment", "has no GNU C library");
    let told = format!("Pulling image {image}\n");
    assert!(there && ended.console.contains(&told), "{}", ended.console);
    daemon.stop().unwrap();
}
