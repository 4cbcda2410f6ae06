//! Vaults of a server that has them, and of one that does not.

use std::path::Path;

use clearml_agent_config::{NoticeLevel, Settings, Sources};
use clearml_api_client::Call;
use clearml_intake::vaults::{for_command, shown, with_vaults};
use serde_json::{Value, json};

use crate::world::{World, world, world_of};

async fn vault(world: &World, description: &str, data: &str) {
    let body = json!({"description": description, "data": data, "enabled": true});
    let call = Call::new("users.create_vault").body(body);
    let _: Value = world.client.call(call).await.unwrap();
}

fn settings(home: &Path, env: &[(&str, &str)]) -> Settings {
    let env = env
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Settings::load(&Sources {
        home: Some(home.to_owned()),
        env: env.collect(),
        ..Sources::default()
    })
    .unwrap()
}

#[tokio::test]
async fn vaults_of_the_server_come_into_the_settings() {
    let (world, home) = (world_of("advanced").await, tempfile::tempdir().unwrap());
    let data = "agent.git_user: from-vault\nfiles.one { path: \"~/made\", contents: x }";
    vault(&world, "team", data).await;
    vault(&world, "broken", "agent {").await;
    let found = for_command(&world.client, &settings(home.path(), &[]))
        .await
        .unwrap();
    assert_eq!(found.settings.agent.git.user.as_deref(), Some("from-vault"));
    assert!(home.path().join("made").is_file(), "files of a vault are written");
    let lines: Vec<&str> = shown(&found.notices, false).collect();
    for (beginning, end) in [
        ("Loaded user vault", ": team"),
        ("Failed parsing vault broken: ", ""),
        ("Saved [one]: ", "made"),
    ] {
        let found = lines
            .iter()
            .any(|line| line.starts_with(beginning) && line.ends_with(end));
        assert!(found, "{beginning}: {lines:?}");
    }
    assert!(
        shown(&found.notices, true).count() > lines.len(),
        "details for those who debug"
    );

    let off = settings(home.path(), &[("CLEARML_AGENT_DISABLE_VAULT_SUPPORT", "yes")]);
    let off = with_vaults(&world.client, &off).await;
    assert_eq!(off.settings.agent.git.user, None);
    assert_eq!(
        shown(&off.notices, false).collect::<Vec<_>>(),
        ["Vault support is disabled"]
    );
}

#[tokio::test]
async fn an_open_server_is_not_asked() {
    let (world, home) = (world().await, tempfile::tempdir().unwrap());
    vault(&world, "team", "agent.git_user: from-vault").await;
    let found = with_vaults(&world.client, &settings(home.path(), &[])).await;
    assert_eq!(
        (found.settings.agent.git.user.as_deref(), found.notices.len()),
        (None, 0)
    );
    assert!(!world.calls().await.contains("get_vaults"));
}

#[tokio::test]
async fn a_server_that_fails_is_told_and_stops_nothing() {
    let (world, home) = (world_of("advanced").await, tempfile::tempdir().unwrap());
    let settings = settings(home.path(), &[]);
    world
        .fault(json!({"endpoint": "users.get_vaults", "kind": "status", "status": 500}))
        .await;
    let found = with_vaults(&world.client, &settings).await;
    let [notice] = &found.notices[..] else {
        panic!("{:?}", found.notices)
    };
    assert!(
        notice.level == NoticeLevel::Warning && notice.text.starts_with("Failed getting vaults: "),
        "{notice}"
    );
    assert_eq!(found.settings.effective_json(), settings.effective_json());
    // A server that does not know the call is none that failed.
    world
        .fault(json!({"endpoint": "users.get_vaults", "kind": "status", "status": 404}))
        .await;
    assert_eq!(with_vaults(&world.client, &settings).await.notices, []);
}
