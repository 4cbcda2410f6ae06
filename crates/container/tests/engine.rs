//! A real engine: containers are found again, end with their codes, and become images.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::process::Command;
use std::time::Duration;

use bollard::models::ContainerCreateBody;
use clearml_container::engine::{ContainerState, Engine, EngineError, ImageReference};

const IMAGE: &str = "clearml-test-busybox:1";

/// Needs a running engine and Debian's static busybox to make an image of; says so where one is missing.
async fn engine(test: &str) -> Option<Engine> {
    let engine = match Engine::connect().await {
        Ok(engine) => engine,
        Err(e) => {
            eprintln!("SKIPPED {test}: {e}");
            return None;
        }
    };
    if engine
        .image(&ImageReference::parse(IMAGE).unwrap())
        .await
        .unwrap()
        .is_none()
    {
        let script = "d=$(mktemp -d) && mkdir $d/bin && cp $(command -v busybox) $d/bin/busybox && ln -s busybox $d/bin/sh \
            && tar c -C $d . | docker import - \"$0\"; s=$?; rm -r $d; exit $s";
        let made = Command::new("sh").args(["-c", script, IMAGE]).output().unwrap();
        if !made.status.success() {
            eprintln!(
                "SKIPPED {test}: no image could be made: {}",
                String::from_utf8_lossy(&made.stderr).trim()
            );
            return None;
        }
    }
    Some(engine)
}

fn shell(script: &str) -> ContainerCreateBody {
    ContainerCreateBody {
        image: Some(IMAGE.to_owned()),
        cmd: Some(["/bin/sh", "-c", script].map(str::to_owned).to_vec()),
        labels: Some([("clearml-test".to_owned(), std::process::id().to_string())].into()),
        ..ContainerCreateBody::default()
    }
}

async fn ended(engine: &Engine, name: &str) -> ContainerState {
    for _ in 0..300 {
        let state = engine.find(name).await.unwrap().unwrap().state;
        if matches!(state, ContainerState::Ended { .. }) {
            return state;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{name} has not ended");
}

#[tokio::test]
async fn a_name_is_given_once_and_leads_back() {
    let Some(engine) = engine("a_name_is_given_once_and_leads_back").await else {
        return;
    };
    let name = format!("clearml-test-{}-once", std::process::id());
    let (id, existed) = engine
        .create(&name, None, shell("echo hello; exit 7"))
        .await
        .unwrap();
    assert!(!existed);
    assert_eq!(
        engine.create(&name, None, shell("exit 8")).await.unwrap(),
        (id.clone(), true)
    );
    assert_eq!(
        engine.find(&name).await.unwrap().unwrap().state,
        ContainerState::Created
    );
    assert!(engine.resolve(&id, "/bin/sh").await.unwrap().is_some());
    assert!(engine.resolve(&id, "/bin/python3").await.unwrap().is_none());
    engine.start(&id).await.unwrap();
    let code = ContainerState::Ended {
        exit_code: 7,
        out_of_memory: false,
        error: String::new(),
    };
    assert_eq!(ended(&engine, &name).await, code);
    assert_eq!(engine.last_words(&id, 5).await.unwrap().trim(), "hello");
    let label = format!("clearml-test={}", std::process::id());
    assert!(engine.labelled(&label).await.unwrap().contains(&name));
    engine.stop(&id, Duration::from_secs(1)).await.unwrap();
    engine.remove(&id).await.unwrap();
    engine.remove(&id).await.unwrap();
    engine.stop(&id, Duration::from_secs(1)).await.unwrap();
    assert_eq!(engine.find(&name).await.unwrap(), None);
}

#[tokio::test]
async fn stopping_is_asked_for_before_it_is_done() {
    let Some(engine) = engine("stopping_is_asked_for_before_it_is_done").await else {
        return;
    };
    let name = format!("clearml-test-{}-stop", std::process::id());
    let script = "trap 'exit 5' TERM; while true; do /bin/busybox sleep 0.1; done";
    let (id, _) = engine.create(&name, None, shell(script)).await.unwrap();
    engine.start(&id).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    engine.stop(&id, Duration::from_secs(20)).await.unwrap();
    let code = ContainerState::Ended {
        exit_code: 5,
        out_of_memory: false,
        error: String::new(),
    };
    assert_eq!(ended(&engine, &name).await, code);
    engine.remove(&id).await.unwrap();
}

#[tokio::test]
async fn a_start_that_fails_says_why() {
    let Some(engine) = engine("a_start_that_fails_says_why").await else {
        return;
    };
    let name = format!("clearml-test-{}-fails", std::process::id());
    let body = ContainerCreateBody {
        cmd: Some(vec!["/none".to_owned()]),
        ..shell("")
    };
    let (id, _) = engine.create(&name, None, body).await.unwrap();
    let error = engine.start(&id).await.unwrap_err();
    assert!(error.to_string().contains("/none"), "{error}");
    assert!(!error.is_away());
    let Some(found) = engine.find(&name).await.unwrap() else {
        panic!("it is still there")
    };
    assert!(
        matches!(&found.state, ContainerState::Ended { error, .. } if error.contains("/none")),
        "{found:?}"
    );
    engine.remove(&id).await.unwrap();
    let missing = ContainerCreateBody {
        image: Some("clearml-test-none:1".to_owned()),
        ..shell("")
    };
    let error = engine.create(&name, None, missing).await.unwrap_err();
    assert!(error.is_absent(), "{error}");
    let image = ImageReference::parse("localhost:1/none:1").unwrap();
    let error = engine.pull(&image, None, |_| {}).await.unwrap_err();
    assert!(matches!(error, EngineError::Refused { .. }), "{error}");
    assert!(
        error.to_string().contains("pulling image localhost:1/none:1"),
        "{error}"
    );
}

#[tokio::test]
async fn a_container_becomes_an_image() {
    let Some(engine) = engine("a_container_becomes_an_image").await else {
        return;
    };
    assert!(!engine.facts().await.unwrap().version.is_empty());
    let name = format!("clearml-test-{}-commit", std::process::id());
    let image = ImageReference::parse(&format!("clearml-test-made:{}", std::process::id())).unwrap();
    let (id, _) = engine
        .create(&name, None, shell("echo made > /file"))
        .await
        .unwrap();
    engine.start(&id).await.unwrap();
    ended(&engine, &name).await;
    let changes = ["ENTRYPOINT [\"/bin/sh\", \"-c\", \"/bin/busybox cat /file\"]".to_owned()];
    engine.commit(&id, &image, &changes).await.unwrap();
    engine.remove(&id).await.unwrap();
    let facts = engine.image(&image).await.unwrap().unwrap();
    assert_eq!(facts.entrypoint.first().map(String::as_str), Some("/bin/sh"));
    let output = Command::new("docker")
        .args(["run", "--rm", &image.to_string()])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "made");
    let removed = Command::new("docker")
        .args(["rmi", "-f", &image.to_string()])
        .output()
        .unwrap();
    assert!(removed.status.success());
}
