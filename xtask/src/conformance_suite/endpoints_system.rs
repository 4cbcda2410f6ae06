//! Logging in, users, tags and projects: each endpoint with a call that must succeed.

use anyhow::Result;
use serde_json::json;

use super::endpoints::Contract;
use super::scene::{Scene, text};

pub(super) const CONTRACTS: &[Contract] = &[
    Contract::new(
        "auth.create_credentials",
        "a further key pair for the caller",
        None,
        |s| Ok(json!({"label": s.name("label")})),
        &["credentials"],
    ),
    Contract::new(
        "auth.get_credentials",
        "the caller's key pairs, without secrets",
        None,
        |_| Ok(json!({})),
        &["credentials"],
    ),
    Contract::new(
        "auth.edit_credentials",
        "another label for a key pair",
        Some("2.19"),
        |s| Ok(json!({"access_key": key(s)?, "label": "new"})),
        &["updated"],
    ),
    Contract::new(
        "auth.revoke_credentials",
        "the end of a key pair",
        None,
        |s| Ok(json!({"access_key": key(s)?})),
        &["revoked"],
    ),
    Contract::new(
        "auth.fixed_users_mode",
        "whether users are fixed",
        None,
        |_| Ok(json!({})),
        &["enabled", "guest", "server_errors"],
    ),
    Contract::new(
        "auth.login",
        "a token for a key pair or another token",
        None,
        |_| Ok(json!({})),
        &["token"],
    ),
    Contract::new(
        "login.supported_modes",
        "the ways to log in",
        None,
        |_| Ok(json!({})),
        &["basic", "sso", "sso_providers", "server_errors", "authenticated"],
    ),
    Contract::new("debug.ping", "a sign of life", None, |_| Ok(json!({})), &["msg"]),
    Contract::new(
        "server.info",
        "what the server is",
        None,
        |_| Ok(json!({})),
        &["version", "build", "commit", "api_version"],
    ),
    Contract::new(
        "users.get_current_user",
        "who is asking",
        None,
        |_| Ok(json!({})),
        &["user", "getting_started", "settings"],
    ),
    Contract::new(
        "users.get_all",
        "the users",
        None,
        |_| Ok(json!({"only_fields": ["id", "name"]})),
        &["users"],
    ),
    Contract::new(
        "users.get_by_id",
        "one user",
        None,
        |s| Ok(json!({"user": s.ok("users.get_current_user", json!({}))?["user"]["id"]})),
        &["user"],
    ),
    Contract::new(
        "users.get_preferences",
        "what the web page keeps for a user",
        None,
        |_| Ok(json!({})),
        &["preferences"],
    ),
    Contract::new(
        "users.get_vaults",
        "configuration that the server keeps for a user (an extension)",
        None,
        |_| Ok(json!({"enabled": true, "types": ["config"]})),
        &["vaults"],
    ),
    Contract::new(
        "organization.get_tags",
        "the tags in use",
        None,
        |_| Ok(json!({})),
        &["tags"],
    ),
    Contract::new(
        "organization.get_user_companies",
        "the company of the caller",
        None,
        |_| Ok(json!({})),
        &["companies"],
    ),
    Contract::new(
        "projects.create",
        "a new project",
        None,
        |s| Ok(json!({"name": s.name("created"), "description": ""})),
        &["id"],
    ),
    Contract::new(
        "projects.get_by_id",
        "one project",
        None,
        |s| Ok(json!({"project": s.project()?})),
        &["project"],
    ),
    Contract::new(
        "projects.get_all",
        "the projects of a selection",
        None,
        |s| Ok(json!({"id": [s.project()?]})),
        &["projects"],
    ),
    Contract::new(
        "projects.get_all_ex",
        "the same with references and numbers of tasks",
        None,
        |s| Ok(json!({"id": [s.project()?], "include_stats": true})),
        &["projects"],
    ),
    Contract::new(
        "projects.update",
        "another description of a project",
        None,
        |s| Ok(json!({"project": s.project()?, "description": "d"})),
        &["updated", "fields"],
    ),
    Contract::new(
        "projects.delete",
        "the end of a project",
        None,
        |s| Ok(json!({"project": s.project()?})),
        &[
            "deleted",
            "disassociated_tasks",
            "deleted_models",
            "deleted_tasks",
            "urls",
        ],
    ),
    Contract::new(
        "projects.validate_delete",
        "what stands in the way of deleting a project",
        None,
        |s| Ok(json!({"project": s.project()?})),
        &["tasks", "non_archived_tasks", "models", "non_archived_models"],
    ),
    Contract::new(
        "projects.move",
        "another place for a project",
        None,
        |s| Ok(json!({"project": s.project()?, "new_location": named(s, s.project()?)?})),
        &["moved"],
    ),
    Contract::new(
        "projects.merge",
        "the contents of a project moved to another",
        None,
        |s| Ok(json!({"project": s.project()?, "destination_project": named(s, s.project()?)?})),
        &["moved_entities", "moved_projects"],
    ),
    Contract::new(
        "projects.get_project_tags",
        "the tags of projects",
        None,
        |_| Ok(json!({})),
        &["tags"],
    ),
    Contract::new(
        "projects.get_task_tags",
        "the tags of tasks",
        None,
        |s| Ok(json!({"projects": [s.project()?]})),
        &["tags"],
    ),
    Contract::new(
        "projects.get_model_tags",
        "the tags of models",
        None,
        |s| Ok(json!({"projects": [s.project()?]})),
        &["tags"],
    ),
    Contract::new(
        "projects.get_hyper_parameters",
        "the names of parameters in a project",
        None,
        |s| Ok(json!({"project": s.project()?})),
        &["parameters", "remaining", "total"],
    ),
    Contract::new(
        "projects.get_hyperparam_values",
        "the values of a parameter",
        None,
        |s| Ok(json!({"projects": [s.project()?], "section": "S", "name": "n"})),
        &["total", "values"],
    ),
    Contract::new(
        "projects.get_unique_metric_variants",
        "the metrics in a project",
        None,
        |s| Ok(json!({"project": s.project()?})),
        &["metrics"],
    ),
    Contract::new(
        "projects.get_model_metadata_keys",
        "the names of notes on models",
        None,
        |s| Ok(json!({"project": s.project()?})),
        &["keys", "remaining", "total"],
    ),
    Contract::new(
        "projects.get_model_metadata_values",
        "the values of a note on models",
        None,
        |s| Ok(json!({"projects": [s.project()?], "key": "k"})),
        &["total", "values"],
    ),
    Contract::new(
        "projects.get_task_parents",
        "the parents of tasks",
        None,
        |s| Ok(json!({"projects": [s.project()?]})),
        &["parents"],
    ),
    Contract::new(
        "projects.get_user_names",
        "the owners of tasks",
        None,
        |s| Ok(json!({"projects": [s.project()?]})),
        &["users"],
    ),
];

/// The access key of a fresh key pair.
fn key(s: &Scene<'_>) -> Result<String> {
    let made = s.ok("auth.create_credentials", json!({}))?;
    text(&made["credentials"], "access_key")
}

fn named(s: &Scene<'_>, project: String) -> Result<String> {
    let found = s.ok("projects.get_by_id", json!({"project": project}))?;
    text(&found["project"], "name")
}
