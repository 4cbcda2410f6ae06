//! `auth.*`, `login.*`, `users.*`, `server.*`, `debug.*`, `organization.*`.

use clearml_api_client::{Client, Selection};
use clearml_support::secret::Secret;
use clearml_task_model::UserId;
use serde_json::{Map, Value, json};

use super::Scene;
use crate::server::{Server, Step};

#[tokio::test]
async fn access_keys_are_made_listed_and_revoked() {
    let scene = Scene::new().await;
    let client = &scene.client;
    let reply = json!({"credentials": {"access_key": "A", "secret_key": "hidden-value", "label": "l"}});
    let new = scene
        .creating("auth.create_credentials", json!({"label": "l"}), reply, || {
            client.auth_create_credentials(Some("l"))
        })
        .await;
    assert_eq!(new.secret_key.expose(), "hidden-value");
    assert!(!format!("{new:?}").contains("hidden-value"));
    let reply = json!({"credentials": [{"access_key": "A", "last_used_from": "1.2.3.4"}]});
    let keys = scene
        .safe("auth.get_credentials", Value::Null, reply, || {
            client.auth_get_credentials()
        })
        .await;
    assert_eq!(keys[0].last_used_from.as_deref(), Some("1.2.3.4"));
    let sent = json!({"access_key": "A", "label": "new"});
    scene
        .safe("auth.edit_credentials", sent, json!({"updated": 1}), || {
            client.auth_edit_credentials("A", "new")
        })
        .await;
    let revoked = scene
        .safe(
            "auth.revoke_credentials",
            json!({"access_key": "A"}),
            json!({"revoked": 1}),
            || client.auth_revoke_credentials("A"),
        )
        .await;
    assert_eq!(revoked, 1);
    scene
        .safe("auth.logout", Value::Null, json!({}), || client.auth_logout())
        .await;
    scene
        .safe("login.logout", Value::Null, json!({}), || client.login_logout())
        .await;
    let token = Secret::new("some-token");
    scene
        .safe(
            "auth.validate_token",
            json!({"token": "some-token"}),
            json!({"valid": true}),
            || client.auth_validate_token(&token),
        )
        .await;
    let user = UserId::new("u");
    let theirs = scene
        .safe(
            "auth.get_token_for_user",
            json!({"user": "u"}),
            json!({"token": "theirs"}),
            || client.auth_get_token_for_user(&user),
        )
        .await;
    assert_eq!(theirs.expose(), "theirs");
}

#[tokio::test]
async fn users_are_listed_and_changed() {
    let scene = Scene::new().await;
    let client = &scene.client;
    let user = UserId::new("u");
    let one = || json!({"user": {"id": "u", "name": "n", "role": null}});
    let me = scene
        .safe("users.get_current_user", Value::Null, one(), || {
            client.users_get_current_user()
        })
        .await;
    assert_eq!((me.id.as_str(), me.role), ("u", None));
    scene
        .safe("users.get_by_id", json!({"user": "u"}), one(), || {
            client.users_get_by_id(&user)
        })
        .await;
    let query = Selection::default();
    scene
        .safe(
            "users.get_all",
            json!({}),
            json!({"users": [{"id": "u"}]}),
            || client.users_get_all(&query),
        )
        .await;
    scene
        .safe(
            "users.get_preferences",
            Value::Null,
            json!({"preferences": {"a": 1}}),
            || client.users_get_preferences(),
        )
        .await;
    let preferences = || Map::from_iter([("a.b".to_owned(), json!(1))]);
    scene
        .safe(
            "users.set_preferences",
            json!({"preferences": {"a.b": 1}}),
            json!({"updated": 1}),
            || client.users_set_preferences(preferences()),
        )
        .await;
    scene
        .creating("users.create", json!({"id": "u", "name": "n"}), json!({}), || {
            client.users_create(&user, "n")
        })
        .await;
    scene
        .safe("users.delete", json!({"user": "u"}), json!({}), || {
            client.users_delete(&user)
        })
        .await;
}

#[tokio::test]
async fn the_server_tells_about_itself() {
    let scene = Scene::new().await;
    let client = &scene.client;
    let info = scene
        .safe(
            "server.info",
            Value::Null,
            json!({"version": "2.3.0", "uid": "x"}),
            || client.server_info(),
        )
        .await;
    assert_eq!(
        (info.version.as_deref(), &info.extra["uid"]),
        (Some("2.3.0"), &json!("x"))
    );
    scene
        .safe("server.config", json!({"path": "a.b"}), json!({"c": 1}), || {
            client.server_config("a.b")
        })
        .await;
    scene
        .safe("server.endpoints", Value::Null, json!({}), || {
            client.server_endpoints()
        })
        .await;
    scene
        .safe("server.get_stats", Value::Null, json!({}), || {
            client.server_get_stats()
        })
        .await;
    let tags = scene
        .safe(
            "organization.get_tags",
            json!({"include_system": false}),
            json!({"tags": ["a"]}),
            || client.organization_get_tags(false),
        )
        .await;
    assert_eq!(tags.tags, ["a"]);
    let companies = scene
        .safe(
            "organization.get_user_companies",
            Value::Null,
            json!({"companies": [{"id": "c"}]}),
            || client.organization_get_user_companies(),
        )
        .await;
    assert_eq!(companies[0].id.as_deref(), Some("c"));
    let filters = || Map::from_iter([("tasks".to_owned(), json!({}))]);
    scene
        .safe(
            "organization.get_entities_count",
            json!({"tasks": {}}),
            json!({"tasks": 3}),
            || client.organization_get_entities_count(filters()),
        )
        .await;
}

#[tokio::test]
async fn what_needs_no_login_sends_no_credentials() {
    let server = Server::start().await;
    let client = Client::new(server.options()).unwrap();
    server.script([
        Step::ok(json!({})),
        Step::ok(json!({"enabled": false})),
        Step::ok(json!({"authenticated": false, "basic": {"enabled": true}, "sso": {}})),
    ]);
    client.debug_ping().await.unwrap();
    assert_eq!(client.auth_fixed_users_mode().await.unwrap()["enabled"], false);
    let modes = client.login_supported_modes().await.unwrap();
    assert!(!modes.authenticated && modes.basic["enabled"] == true);
    assert_eq!(server.logins().len(), 0);
    let calls = server.calls();
    let paths: Vec<&str> = calls.iter().map(|call| call.path.as_str()).collect();
    assert_eq!(
        paths,
        ["/debug.ping", "/auth.fixed_users_mode", "/login.supported_modes"]
    );
    assert!(calls.iter().all(|call| call.header("authorization").is_none()));
}
