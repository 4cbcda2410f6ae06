//! `projects.*`: a tree of names, in which a missing parent is made on the way.

use rusqlite::Transaction;
use serde_json::{Map, Value, json};

use super::update::{self, Changes, has_tag, text};
use super::{ApiFault, Call, Endpoint};
use crate::select::{Collection, Kind, Selection, shape_common};
use crate::store::projects;
use crate::time;

const MAX_DEPTH: usize = 10;

const PROJECTS: Collection = Collection {
    fields: &[
        ("id", Kind::List),
        ("tags", Kind::List),
        ("system_tags", Kind::List),
        ("parent", Kind::List),
        ("path", Kind::List),
        ("name", Kind::Pattern),
        ("basename", Kind::Pattern),
        ("description", Kind::Pattern),
        ("last_update", Kind::DateTime),
    ],
    known: &[
        "id",
        "name",
        "basename",
        "description",
        "company",
        "user",
        "created",
        "last_update",
        "tags",
        "system_tags",
        "default_output_destination",
        "featured",
        "parent",
        "path",
    ],
};

pub(crate) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::write("projects.create", (2, 1), create),
        Endpoint::read("projects.get_by_id", (2, 1), get_by_id),
        Endpoint::read("projects.get_all", (2, 1), get_all),
        Endpoint::write("projects.update", (2, 1), update),
        Endpoint::write("projects.delete", (2, 1), delete),
    ]
}

/// The canonical form of a name: trimmed parts joined by `/`.
fn canonical(name: &str) -> Result<Vec<String>, ApiFault> {
    let parts: Vec<String> = name
        .split('/')
        .map(|part| part.trim().to_owned())
        .filter(|part| !part.is_empty())
        .collect();
    if parts.is_empty() || parts.iter().any(|part| part.chars().count() < 3) {
        return Err(ApiFault::validation(format!(
            "every part of a project name needs three characters: {name}"
        )));
    }
    if parts.len() > MAX_DEPTH {
        return Err(ApiFault::new(
            400,
            409,
            format!("Project hierarchy is too deep: max={MAX_DEPTH}"),
        ));
    }
    Ok(parts)
}

/// The id of the project with this name, made (with its parents) when it is missing.
pub(crate) fn find_or_create(call: &Call, tx: &Transaction<'_>, name: &str) -> Result<String, ApiFault> {
    let parts = canonical(name)?;
    let mut parent: Option<Value> = None;
    for depth in 1..=parts.len() {
        let path = parts[..depth].join("/");
        parent = Some(match projects::by_name(tx, &path)? {
            Some(known) => known,
            None => {
                let project = fresh(call, &path, parent.as_ref());
                projects::save(tx, &project)?;
                project
            }
        });
    }
    parent
        .as_ref()
        .and_then(|project| text(project, "id"))
        .map(str::to_owned)
        .ok_or_else(|| ApiFault::invalid_project_id(name))
}

fn fresh(call: &Call, name: &str, parent: Option<&Value>) -> Value {
    let mut project = json!({
        "id": clearml_support::id::hex32(),
        "name": name,
        "basename": name.rsplit('/').next().unwrap_or(name),
        "description": "",
        "company": call.user.company,
        "user": call.user.user,
        "created": time::iso(call.now),
        "last_update": time::iso(call.now),
        "tags": [],
        "system_tags": [],
        "featured": 9999,
        "path": [],
    });
    if let Some(parent) = parent {
        project["parent"] = parent["id"].clone();
        let mut path = parent
            .get("path")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        path.push(parent["id"].clone());
        project["path"] = Value::Array(path);
    }
    project
}

fn create(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let name = call
        .opt_str("name")?
        .ok_or_else(|| ApiFault::missing_fields("name"))?;
    let canonical = canonical(name)?.join("/");
    if projects::by_name(tx, &canonical)?.is_some() {
        return Err(ApiFault::not_unique("name", &canonical));
    }
    let id = find_or_create(call, tx, name)?;
    let mut project = projects::require(tx, &id)?;
    apply_fields(call, &mut project, &mut Changes::default())?;
    projects::save(tx, &project)?;
    Ok(json!({"id": id}))
}

/// Takes over the fields other than the name. Unlike elsewhere, a null is stored as such.
fn apply_fields(call: &Call, project: &mut Value, changes: &mut Changes) -> Result<(), ApiFault> {
    for field in ["description", "default_output_destination"] {
        match call.data.get(field) {
            Some(Value::Null) if field == "default_output_destination" => {
                changes.set(project, field, Value::Null)
            }
            _ => {
                if let Some(value) = call.opt_str(field)? {
                    changes.set(project, field, value);
                }
            }
        }
    }
    for field in ["tags", "system_tags"] {
        if let Some(tags) = call.opt_strings(field)? {
            changes.set(project, field, update::tags(tags)?);
        }
    }
    Ok(())
}

fn get_by_id(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let mut project = projects::require(tx, call.required_str("project")?)?;
    shape_common(call.version, &mut project);
    Ok(json!({"project": project}))
}

fn get_all(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let shallow = call.flag("shallow_search", false)?;
    let mut data = call.data.clone();
    if !shallow && let Some(parent) = data.get("parent").filter(|parent| !parent.is_null()).cloned() {
        // Everything below the parent, not only its children.
        data.shift_remove("parent");
        data.insert("path".to_owned(), parent);
    }
    let selection = Selection::parse(&data, &PROJECTS)?;
    let top_level_only = shallow && !selection.mentions("parent");
    let show_hidden = call.flag("search_hidden", false)? || selection.mentions("id");
    let mut candidates = projects::all(tx)?;
    candidates.retain(|project| {
        (show_hidden || !has_tag(project, "system_tags", "hidden"))
            && (!top_level_only || project.get("parent").is_none())
    });
    let page = selection.run(candidates);
    let mut docs = page.docs;
    for project in &mut docs {
        update::unset(project, "path");
        shape_common(call.version, project);
    }
    let mut reply = json!({"projects": selection.project(docs)});
    if let Some(scroll_id) = page.scroll_id {
        reply["scroll_id"] = json!(scroll_id);
    }
    Ok(reply)
}

fn update(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let mut project = projects::require(tx, call.required_str("project")?)?;
    let mut changes = Changes::default();
    if let Some(name) = call.opt_str("name")? {
        rename(tx, &mut project, &canonical(name)?.join("/"), &mut changes)?;
    }
    apply_fields(call, &mut project, &mut changes)?;
    if !changes.is_empty() {
        changes.set(&mut project, "last_update", time::iso(call.now));
        projects::save(tx, &project)?;
    }
    Ok(Value::Object(changes.reply()))
}

/// Gives a project another last part, and everything below it the new beginning.
fn rename(
    tx: &Transaction<'_>,
    project: &mut Value,
    name: &str,
    changes: &mut Changes,
) -> Result<(), ApiFault> {
    let old = text(project, "name").unwrap_or_default().to_owned();
    if old == name {
        return Ok(());
    }
    let parent_of = |name: &str| name.rsplit_once('/').map(|(parent, _)| parent.to_owned());
    if parent_of(&old) != parent_of(name) {
        return Err(ApiFault::new(
            400,
            408,
            format!("Project location cannot be changed by renaming: name={name}"),
        ));
    }
    if projects::by_name(tx, name)?.is_some() {
        return Err(ApiFault::not_unique("name", name));
    }
    changes.set(project, "name", name);
    changes.set(project, "basename", name.rsplit('/').next().unwrap_or(name));
    for mut below in projects::all(tx)? {
        let rest = text(&below, "name")
            .and_then(|below| below.strip_prefix(&old))
            .filter(|rest| rest.starts_with('/'));
        if let Some(rest) = rest {
            below["name"] = json!(format!("{name}{rest}"));
            projects::save(tx, &below)?;
        }
    }
    Ok(())
}

/// Deletes a project and those below it. Their tasks and models stay, without a project; deleting the contents too
/// is left to the callers that list them first.
fn delete(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let project = projects::require(tx, call.required_str("project")?)?;
    let force = call.flag("force", false)?;
    let id = text(&project, "id").unwrap_or_default().to_owned();
    let below = |project: &Value| {
        project
            .get("path")
            .and_then(Value::as_array)
            .is_some_and(|path| path.contains(&json!(id)))
    };
    let ids: Vec<String> = projects::all(tx)?
        .iter()
        .filter(|other| below(other) || text(other, "id") == Some(&id))
        .filter_map(|project| text(project, "id").map(str::to_owned))
        .collect();
    let (mut tasks, mut models) = (0, 0);
    for id in &ids {
        tasks += detach(tx, "tasks", id, force, 402)?;
        models += detach(tx, "models", id, force, 405)?;
    }
    for id in &ids {
        projects::delete(tx, id)?;
    }
    let mut reply = Map::new();
    reply.insert("deleted".to_owned(), json!(ids.len()));
    reply.insert("disassociated_tasks".to_owned(), json!(tasks));
    reply.insert("disassociated_models".to_owned(), json!(models));
    for field in ["deleted_models", "deleted_tasks"] {
        reply.insert(field.to_owned(), json!(0));
    }
    reply.insert("urls".to_owned(), json!({}));
    Ok(Value::Object(reply))
}

/// Takes the project away from its tasks or models; refuses while some are not archived, unless forced.
fn detach(
    tx: &Transaction<'_>,
    table: &'static str,
    id: &str,
    force: bool,
    refusal: u32,
) -> Result<usize, ApiFault> {
    let live: i64 = tx.query_row(
        &format!(
            "SELECT count(*) FROM {table} WHERE project = ?1 AND NOT EXISTS
             (SELECT 1 FROM json_each(doc, '$.system_tags') WHERE value = 'archived')"
        ),
        [id],
        |row| row.get(0),
    )?;
    if live > 0 && !force {
        return Err(ApiFault::new(
            400,
            refusal,
            format!("Project has associated {table}, use force=true to delete: id={id}"),
        ));
    }
    Ok(tx.execute(
        &format!("UPDATE {table} SET project = NULL, doc = json_remove(doc, '$.project') WHERE project = ?1"),
        [id],
    )?)
}
