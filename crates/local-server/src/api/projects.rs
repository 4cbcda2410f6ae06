//! `projects.*`: a tree of names, in which a missing parent is made on the way.

use rusqlite::Transaction;
use serde_json::{Value, json};

use super::references::{self, Reference, Target};
use super::update::{self, Changes, has_tag, text};
use super::{ApiFault, Call, Endpoint, projects_contents};
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
        Endpoint::read("projects.get_all_ex", (2, 1), get_all_ex),
        Endpoint::write("projects.update", (2, 1), update),
    ]
}

/// The canonical form of a name: trimmed parts joined by `/`.
pub(super) fn canonical(name: &str) -> Result<Vec<String>, ApiFault> {
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

/// The project that a move goes to: an existing one by id, or one by name, made when it is missing.
pub(crate) fn wanted(call: &Call, tx: &Transaction<'_>) -> Result<String, ApiFault> {
    match (call.opt_str("project")?, call.opt_str("project_name")?) {
        (Some(project), _) => projects::require(tx, project).map(|_| project.to_owned()),
        (None, Some(name)) => find_or_create(call, tx, name),
        (None, None) => Err(ApiFault::missing_field("project")),
    }
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

const REFERENCES: [Reference; 3] = [
    Reference::new("company", Target::Company),
    Reference::new("user", Target::User),
    Reference::new("parent", Target::Project),
];

/// With `include_stats`, each project also says how many tasks of which status it and the projects below it have.
fn get_all_ex(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let mut reply = references::list(call, tx, get_all, "projects", &REFERENCES)?;
    let (stats, contents) = (
        call.flag("include_stats", false)?,
        call.flag("check_own_contents", false)?,
    );
    for project in reply["projects"].as_array_mut().into_iter().flatten() {
        let Some(id) = text(project, "id").map(str::to_owned) else {
            continue;
        };
        if stats {
            projects_contents::add_stats(tx, project, &id)?;
        }
        if contents {
            for table in ["tasks", "models"] {
                let count = projects_contents::count(tx, table, std::slice::from_ref(&id))?;
                project[format!("own_{table}")] = json!(count.all);
            }
        }
    }
    Ok(reply)
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
    rename_below(tx, &old, name)
}

/// Gives everything below a renamed project its new beginning.
pub(super) fn rename_below(tx: &Transaction<'_>, old: &str, name: &str) -> Result<(), ApiFault> {
    for mut below in projects::all(tx)? {
        let rest = text(&below, "name")
            .and_then(|below| below.strip_prefix(old))
            .filter(|rest| rest.starts_with('/'));
        if let Some(rest) = rest {
            below["name"] = json!(format!("{name}{rest}"));
            projects::save(tx, &below)?;
        }
    }
    Ok(())
}
