//! Working in the name of the task's owner.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use clearml_api_client::{Auth, Call, Client, ClientOptions};
use clearml_support::secret::Secret;
use clearml_task_model::TaskId;
use clearml_task_runner::Phase;
use clearml_task_runner::owner::OwnerSession;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::scene::{Daemon, Scene, WORKER, eventually};

const OWNER: (&str, &str) = ("EXAMPLE_OWNER", "1");

async fn console(scene: &Scene, task: &TaskId) -> String {
    let log = scene.client.events_get_task_log(task, None, false, 1000).await;
    log.unwrap().events.into_iter().map(|event| event.msg).collect()
}

fn session(scene: &Scene) -> Option<OwnerSession> {
    scene.runs().list().unwrap().first()?.owner().unwrap()
}

fn file(scene: &Scene, name: &str) -> String {
    let path: PathBuf = scene.folder().join(name);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

async fn vault(scene: &Scene, data: &str) {
    let body = json!({"description": "mine", "data": data, "enabled": true, "type": "config"});
    let call = Call::new("users.create_vault").body(body);
    let _: Value = scene.client.call(call).await.unwrap();
}

/// The keys in the configuration of the daemon.
fn own_secret(scene: &Scene) -> String {
    let text = file(scene, "server/clearml.conf");
    let behind = text.split_once("secret_key").unwrap().1;
    behind.split('"').find(|part| part.len() > 15).unwrap().to_owned()
}

fn with_token(scene: &Scene, token: &str) -> Client {
    let auth = Auth::Token(Secret::new(token));
    Client::new(ClientOptions::new(scene.client.server(), auth)).unwrap()
}

#[tokio::test]
async fn a_task_has_the_session_of_its_owner_and_nothing_of_the_agents() {
    let scene = Scene::start_of("advanced").await;
    let secret = own_secret(&scene);
    vault(&scene, "environment { FROM_THE_VAULT: \"of the owner\" }").await;
    let variables = [
        OWNER,
        ("CLEARML_AGENT__API__CREDENTIALS__SECRET_KEY", &secret),
        ("TRAINS_API_SECRET_KEY", &secret),
    ];
    let daemon = scene.daemon_with(WORKER, &["work"], &variables);
    let script = "env > $HOME/environment; cp $CLEARML_CONFIG_FILE $HOME/configuration\n\
                  stat -c %a $(dirname $CLEARML_CONFIG_FILE)/owner.json > $HOME/mode\n\
                  tr '\\0' ' ' < /proc/$PPID/cmdline > $HOME/above\n\
                  echo the token is $CLEARML_AUTH_TOKEN.";
    let task = scene.enqueued_script(&scene.queue, "owned", script).await;
    scene.completes_once(&task, "owned", &daemon).await;

    let environment = file(&scene, "environment");
    let token = environment
        .lines()
        .find_map(|line| line.strip_prefix("CLEARML_AUTH_TOKEN="))
        .unwrap_or_else(|| panic!("{environment}"));
    let theirs = with_token(&scene, token).login().await.unwrap();
    assert_eq!(theirs.user, scene.client.session().unwrap().user);
    assert!(
        environment.contains("FROM_THE_VAULT=of the owner\n"),
        "{environment}"
    );
    for (what, text) in [
        ("environment", &environment),
        ("configuration", &file(&scene, "configuration")),
    ] {
        assert!(!text.contains(&secret), "{what}: {text}");
    }
    let configuration: Value = serde_json::from_str(&file(&scene, "configuration")).unwrap();
    assert_eq!(configuration["api"].get("credentials"), None);
    assert!(configuration["api"]["api_server"].is_string());
    assert_eq!(file(&scene, "mode"), "600\n");
    let console = console(&scene, &task).await;
    assert!(console.contains("the token is ****."), "{console}");
    for text in [&console, &daemon.output(), &file(&scene, "above")] {
        assert!(!text.contains(token), "{text}");
    }
    // A run that is done has no secrets.
    let run = scene.runs().list().unwrap().remove(0);
    eventually("the run is cleaned", || run.owner().unwrap().is_none()).await;
}

/// Ends the daemon and the runner as a machine out of memory does.
fn kill(scene: &Scene, daemon: Daemon) {
    drop(daemon);
    let record = scene.runs().list().unwrap()[0].record().unwrap();
    let runner = record.runner.unwrap();
    assert!(runner.signal(Signal::KILL).unwrap(), "the runner lived");
}

#[tokio::test]
async fn the_token_is_renewed_and_survives_those_who_renew_it() {
    let scene = Scene::start_of("advanced").await;
    // Half of that is the time after which it is replaced.
    let life = ("CLEARML_AGENT__API__AUTH__REQUEST_TOKEN_EXPIRATION_SEC", "6");
    let daemon = scene.daemon_with(WORKER, &["work"], &[OWNER, life]);
    let script = "while [ ! -e $HOME/enough ]; do sleep 0.1; done; echo it was $CLEARML_AUTH_TOKEN.";
    let task = scene.enqueued_script(&scene.queue, "long", script).await;
    eventually("the task runs", || scene.executions("long") == 1).await;
    let given = session(&scene).unwrap().given.expect("the program has one");
    eventually("the runner has renewed it", || {
        session(&scene).is_some_and(|session| session.token != given)
    })
    .await;
    kill(&scene, daemon);
    // What the dead runner has left expires.
    sleep(Duration::from_secs(7)).await;
    let left = session(&scene).unwrap();
    assert_eq!(left.given.as_ref(), Some(&given));
    let expired = with_token(&scene, left.token.expose()).login().await.unwrap_err();
    assert!(
        expired.to_string().contains("401") || !expired.is_transient(),
        "{expired}"
    );

    let next = scene.daemon_with(WORKER, &["work"], &[OWNER, life]);
    next.says("Continuing task").await;
    eventually("its successor has one that is good", || {
        session(&scene).is_some_and(|session| session.token != left.token)
    })
    .await;
    fs::write(scene.folder().join("enough"), "").unwrap();
    scene.completes_once(&task, "long", &next).await;
    let console = console(&scene, &task).await;
    assert!(console.contains("it was ****."), "{console}");
    assert!(!console.contains(given.expose()));
}

#[tokio::test]
async fn a_task_whose_owner_can_not_be_spoken_for_fails_and_says_why() {
    let scene = Scene::start_of("advanced").await;
    let daemon = scene.daemon_with(WORKER, &["work"], &[OWNER]);
    daemon.says("No tasks in Queues").await;
    let refusal = json!({"endpoint": "auth.login", "kind": "status", "status": 400, "subcode": 6});
    scene.fault(refusal).await;
    let task = scene.enqueued(&scene.queue, "refused").await;
    let ended = scene.ended(&task, &daemon).await;
    assert_eq!(ended.status.unwrap().as_str(), "failed", "{}", daemon.output());
    assert_eq!(scene.executions("refused"), 0);
    let said = console(&scene, &task).await;
    assert!(
        said.contains("--use-owner-token") && said.contains("logging in as user"),
        "{said}"
    );
    let run = scene.runs().list().unwrap().remove(0);
    eventually("the run is over", || {
        run.record().is_ok_and(|record| record.phase == Phase::Abandoned)
    })
    .await;
    // It was the task's fault, not the machine's.
    let task = scene.enqueued(&scene.queue, "next").await;
    scene.completes_once(&task, "next", &daemon).await;

    // A server in trouble is waited for, or the task goes back and comes again.
    let trouble = json!({"endpoint": "auth.login", "kind": "status", "status": 503, "count": 3});
    scene.fault(trouble).await;
    let task = scene.enqueued(&scene.queue, "later").await;
    scene.completes_once(&task, "later", &daemon).await;
}

#[tokio::test]
async fn services_have_a_session_each() {
    let scene = Scene::start_of("advanced").await;
    let daemon = scene.daemon_with(WORKER, &["work"], &[OWNER, ("EXAMPLE_SERVICES", "2")]);
    let script = "echo $CLEARML_AUTH_TOKEN > $HOME/$CLEARML_TASK_ID";
    let mut tokens = Vec::new();
    for name in ["one", "two"] {
        let task = scene.enqueued_script(&scene.queue, name, script).await;
        scene.completes_once(&task, name, &daemon).await;
        tokens.push(file(&scene, task.as_str()));
    }
    assert!(tokens.iter().all(|token| token.len() > 20), "{tokens:?}");
    assert_ne!(tokens[0], tokens[1]);
}

#[tokio::test]
async fn a_server_that_does_not_know_of_it_is_refused_at_the_start() {
    let scene = Scene::start().await;
    let mut daemon = scene.daemon_with(WORKER, &["work"], &[OWNER]);
    let status = daemon.end_within(Duration::from_secs(20)).await;
    assert_eq!(status.code(), Some(1));
    let said = daemon.output();
    assert!(
        said.contains("Server does not support the --use-owner-token option"),
        "{said}"
    );
}
