//! Images of registries that want a login: that of `docker login`.

use serde_json::json;

use crate::place::{Place, docker};
use crate::registry;

/// `user:pass word`.
const LOGIN: &str = "dXNlcjpwYXNzIHdvcmQ=";

#[test]
fn an_image_is_pulled_with_the_login_of_this_user() {
    let Some(place) = Place::or_skip("an_image_is_pulled_with_the_login_of_this_user") else {
        return;
    };
    let folder = place.scene.folder.path();
    let image = registry::serve(folder, Some(LOGIN));
    let registry = image.split('/').next().unwrap();
    let logins = folder.join("docker");
    std::fs::create_dir(&logins).unwrap();
    let options = place
        .options()
        .variable("DOCKER_CONFIG", logins.to_str().unwrap());
    let mut agent = place.daemon(&options);
    let pulled = |login: serde_json::Value| {
        std::fs::write(logins.join("config.json"), login.to_string()).unwrap();
        let task = place.submit("from a registry", "print('out: it ran')", json!({"image": image}));
        let ended = place.ended(&task);
        ended.assert_status("failed");
        ended.reason().to_owned()
    };
    let none = pulled(json!({}));
    assert!(
        none.contains("pulling image") && none.contains("no basic auth credentials"),
        "{none}"
    );
    let helper = pulled(json!({"credHelpers": {registry: "clearml-no-such-helper"}}));
    for part in [
        "no basic auth credentials",
        registry,
        "docker-credential-…) can't be started",
    ] {
        assert!(helper.contains(part), "no {part:?} in {helper}");
    }
    // It is there, and has nothing in it.
    let right = pulled(json!({"auths": {registry: {"auth": LOGIN}}}));
    assert!(right.contains("has no GNU C library"), "{right}");
    docker(&["rmi", "-f", &image]);
    agent.stop().unwrap();
}
