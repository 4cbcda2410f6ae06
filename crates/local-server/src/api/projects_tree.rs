//! `projects.*` that change the tree: moving, merging and deleting projects with what is in them.

use rusqlite::Transaction;
use serde_json::{Map, Value, json};

use super::projects::{canonical, find_or_create, rename_below};
use super::projects_contents::{count, with_below};
use super::update::text;
use super::{ApiFault, Call, Endpoint, models, tasks};
use crate::store::{parse_all, projects};

pub(crate) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::write("projects.delete", (2, 1), delete),
        Endpoint::read("projects.validate_delete", (2, 14), validate_delete),
        Endpoint::write("projects.move", (2, 13), move_project),
        Endpoint::write("projects.merge", (2, 13), merge),
    ]
}

fn id_of(doc: &Value) -> String {
    text(doc, "id").unwrap_or_default().to_owned()
}

/// What stands in the way of a deletion.
fn validate_delete(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let project = projects::require(tx, call.required_str("project")?)?;
    let ids = with_below(tx, &[id_of(&project)])?;
    let (tasks, models) = (count(tx, "tasks", &ids)?, count(tx, "models", &ids)?);
    Ok(json!({
        "tasks": tasks.all, "non_archived_tasks": tasks.live,
        "models": models.all, "non_archived_models": models.live,
    }))
}

/// Deletes a project and those below it. Their tasks and models stay, without a project, or go with it when the
/// caller says so.
fn delete(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let project = projects::require(tx, call.required_str("project")?)?;
    let ids = with_below(tx, &[id_of(&project)])?;
    let force = call.flag("force", false)?;
    for (table, refusal) in [("tasks", 402), ("models", 405)] {
        if count(tx, table, &ids)?.live > 0 && !force {
            let id = id_of(&project);
            return Err(ApiFault::new(
                400,
                refusal,
                format!("Project has associated {table}, use force=true to delete: id={id}"),
            ));
        }
    }
    let mut deleted = Deleted::default();
    if call.flag("delete_contents", false)? {
        deleted = delete_contents(call, tx, &ids)?;
    }
    let loose_tasks = detach(tx, "tasks", &ids)?;
    let loose_models = detach(tx, "models", &ids)?;
    for id in &ids {
        projects::delete(tx, id)?;
    }
    Ok(json!({
        "deleted": ids.len(),
        "disassociated_tasks": loose_tasks,
        "disassociated_models": loose_models,
        "deleted_tasks": deleted.tasks,
        "deleted_models": deleted.models,
        "urls": {"artifact_urls": deleted.artifact_urls, "model_urls": deleted.model_urls, "event_urls": []},
    }))
}

#[derive(Default)]
struct Deleted {
    tasks: usize,
    models: i64,
    artifact_urls: Vec<Value>,
    model_urls: Vec<Value>,
}

/// Deletes every task and model of the projects. Where their files are is part of the answer; this server does not
/// delete files on file servers, because it cannot know who else refers to them.
fn delete_contents(call: &Call, tx: &Transaction<'_>, ids: &[String]) -> Result<Deleted, ApiFault> {
    let mut deleted = Deleted::default();
    let forced = |field: &str, id: &str| {
        let data: Map<String, Value> = [
            (field.to_owned(), json!(id)),
            ("force".to_owned(), json!(true)),
            ("return_file_urls".to_owned(), json!(true)),
        ]
        .into_iter()
        .collect();
        call.with_data(data)
    };
    for task in docs_in(tx, "tasks", ids)? {
        let reply = tasks::delete_task(&forced("task", &id_of(&task)), tx)?;
        deleted.tasks += 1;
        deleted.models += reply["deleted_models"].as_i64().unwrap_or_default();
        let urls = reply["urls"]["artifact_urls"].as_array().cloned();
        deleted.artifact_urls.extend(urls.unwrap_or_default());
    }
    for model in docs_in(tx, "models", ids)? {
        let reply = models::delete(&forced("model", &id_of(&model)), tx)?;
        deleted.models += 1;
        deleted.model_urls.push(reply["url"].clone());
    }
    Ok(deleted)
}

fn docs_in(tx: &Transaction<'_>, table: &'static str, ids: &[String]) -> Result<Vec<Value>, ApiFault> {
    let sql = format!("SELECT doc FROM {table} WHERE project IN (SELECT value FROM json_each(?1))");
    let mut statement = tx.prepare_cached(&sql)?;
    parse_all(statement.query_map([json!(ids).to_string()], |row| row.get::<_, String>(0))?)
}

/// Takes the project away from tasks or models.
fn detach(tx: &Transaction<'_>, table: &'static str, ids: &[String]) -> Result<usize, ApiFault> {
    let sql = format!(
        "UPDATE {table} SET project = NULL, doc = json_remove(doc, '$.project')
            WHERE project IN (SELECT value FROM json_each(?1))"
    );
    Ok(tx.execute(&sql, [json!(ids).to_string()])?)
}

/// Hangs a project with everything below it under another one; an empty place is the top level.
fn move_project(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let project = projects::require(tx, call.required_str("project")?)?;
    let place = call.opt_str("new_location")?.unwrap_or_default().trim();
    let moved = relocate(call, tx, &project, place)?;
    Ok(json!({"moved": moved}))
}

/// Moves a project below the named one, and says how many projects have a new name now.
fn relocate(call: &Call, tx: &Transaction<'_>, project: &Value, place: &str) -> Result<usize, ApiFault> {
    let old = text(project, "name").unwrap_or_default().to_owned();
    let basename = old.rsplit('/').next().unwrap_or(&old);
    let place = if place.is_empty() {
        String::new()
    } else {
        canonical(place)?.join("/")
    };
    if place == old || place.starts_with(&format!("{old}/")) {
        return Err(ApiFault::validation(format!(
            "project {old} cannot be moved below itself"
        )));
    }
    let name = match place.as_str() {
        "" => basename.to_owned(),
        place => format!("{place}/{basename}"),
    };
    if name == old {
        return Ok(0);
    }
    canonical(&name)?;
    if projects::by_name(tx, &name)?.is_some() {
        return Err(ApiFault::not_unique("name", &name));
    }
    let mut project = project.clone();
    if let Value::Object(fields) = &mut project {
        fields.shift_remove("parent");
    }
    project["name"] = json!(name);
    project["basename"] = json!(basename);
    if !place.is_empty() {
        project["parent"] = json!(find_or_create(call, tx, &place)?);
    }
    let affected = with_below(tx, &[id_of(&project)])?;
    projects::save(tx, &project)?;
    rename_below(tx, &old, &name)?;
    renew_paths(tx, &affected)?;
    for id in [text(&project, "parent"), text(&project, "id")] {
        projects::touch(tx, id, call.now)?;
    }
    Ok(affected.len())
}

/// Writes the ancestors anew, of parents before their children.
fn renew_paths(tx: &Transaction<'_>, ids: &[String]) -> Result<(), ApiFault> {
    let mut moved = Vec::new();
    for id in ids {
        moved.push(projects::require(tx, id)?);
    }
    moved.sort_by_key(|project| text(project, "name").unwrap_or_default().matches('/').count());
    for mut project in moved {
        let path = match text(&project, "parent") {
            Some(parent) => {
                let parent = projects::require(tx, parent)?;
                let mut path = parent["path"].as_array().cloned().unwrap_or_default();
                path.push(parent["id"].clone());
                path
            }
            None => Vec::new(),
        };
        project["path"] = Value::Array(path);
        projects::save(tx, &project)?;
    }
    Ok(())
}

/// Gives the contents of a project and its children to another project, and deletes it.
fn merge(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let project = projects::require(tx, call.required_str("project")?)?;
    let name = text(&project, "name").unwrap_or_default().to_owned();
    let target = call.opt_str("destination_project")?.unwrap_or_default().trim();
    let target = match target {
        "" => None,
        place => Some(canonical(place)?.join("/")),
    };
    let inside = |target: &String| *target == name || target.starts_with(&format!("{name}/"));
    if target.as_ref().is_some_and(inside) {
        return Err(ApiFault::validation(format!(
            "project {name} cannot be merged into itself"
        )));
    }
    let target_id = match &target {
        Some(place) => Some(find_or_create(call, tx, place)?),
        None => None,
    };
    let id = id_of(&project);
    let mut entities = 0;
    for table in ["tasks", "models"] {
        let sql = format!(
            "UPDATE {table} SET project = ?2, doc = CASE WHEN ?2 IS NULL THEN json_remove(doc, '$.project')
                ELSE json_set(doc, '$.project', ?2) END WHERE project = ?1"
        );
        entities += tx.execute(&sql, rusqlite::params![id, target_id])?;
    }
    let children = projects::all(tx)?;
    let children = children.iter().filter(|child| text(child, "parent") == Some(&id));
    let mut moved = 0;
    for child in children {
        relocate(call, tx, child, target.as_deref().unwrap_or_default())?;
        moved += 1;
    }
    projects::delete(tx, &id)?;
    projects::touch(tx, target_id.as_deref(), call.now)?;
    Ok(json!({"moved_entities": entities, "moved_projects": moved}))
}
