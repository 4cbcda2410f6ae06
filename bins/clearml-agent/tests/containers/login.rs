//! Images of registries, with the login that `docker login` has left.

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
    let pulled = |image: &str, login: serde_json::Value| {
        std::fs::write(logins.join("config.json"), login.to_string()).unwrap();
        let task = place.submit("from a registry", "print('out: it ran')", json!({"image": image}));
        let ended = place.ended(&task);
        ended.assert_status("failed");
        ended.reason().to_owned()
    };
    let none = pulled(&image, json!({}));
    assert!(
        none.contains("pulling image") && none.contains("no basic auth credentials"),
        "{none}"
    );
    let helper = pulled(
        &image,
        json!({"credHelpers": {registry: "clearml-no-such-helper"}}),
    );
    for part in [
        "no basic auth credentials",
        registry,
        "docker-credential-…) can't be started",
    ] {
        assert!(helper.contains(part), "no {part:?} in {helper}");
    }
    // It is there, and has nothing in it.
    let login = json!({"auths": {registry: {"auth": LOGIN}}});
    let right = pulled(&image, login.clone());
    assert!(right.contains("has no GNU C library"), "{right}");
    docker(&["rmi", "-f", &image]);
    // What goes wrong when the pull has begun is the registry's word as well, and no engine that is away.
    let begin = std::time::Instant::now();
    let broken = pulled(&format!("{}broken", image.strip_suffix('1').unwrap()), login);
    assert!(broken.starts_with("environment: pulling image"), "{broken}");
    assert!(begin.elapsed().as_secs() < 100, "{:?}", begin.elapsed());
    agent.stop().unwrap();
}
