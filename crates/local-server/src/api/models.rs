//! `models.*`: what tasks produce and start from. A model is a name, a place where its weights are, and notes.

use rusqlite::{Connection, Transaction};
use serde_json::{Map, Value, json};

use super::references::{self, Reference, Target};
use super::{ApiFault, Call, Endpoint, batch};
use crate::select::{self, Collection, Kind, Selection};
use crate::{store, time};
use clearml_support::id::hex32;
use clearml_task_model::status::{self, TaskStatus, Transition};

pub(crate) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::write("models.create", (1, 5), create),
        Endpoint::read("models.get_by_id", (1, 5), get_by_id),
        Endpoint::read("models.get_all", (1, 5), get_all),
        Endpoint::read("models.get_all_ex", (1, 5), get_all_ex),
        Endpoint::read("models.get_by_id_ex", (1, 5), get_by_id_ex),
        Endpoint::write("models.edit", (1, 5), edit),
        Endpoint::write("models.update", (1, 5), update),
        Endpoint::write("models.set_ready", (1, 5), set_ready),
        Endpoint::write("models.add_or_update_metadata", (2, 13), add_or_update_metadata),
        Endpoint::write("models.delete_metadata", (2, 13), delete_metadata),
        Endpoint::write("models.delete", (1, 5), delete),
        Endpoint::write("models.archive_many", (2, 13), archive_many),
        Endpoint::write("models.unarchive_many", (2, 13), unarchive_many),
    ]
}

const REFERENCES: [Reference; 5] = [
    Reference::new("company", Target::Company),
    Reference::new("user", Target::User),
    Reference::new("project", Target::Project),
    Reference::new("task", Target::Task),
    Reference::new("parent", Target::Model),
];

static MODELS: Collection = Collection {
    fields: &[
        ("id", Kind::List),
        ("user", Kind::List),
        ("project", Kind::List),
        ("task", Kind::List),
        ("parent", Kind::List),
        ("tags", Kind::List),
        ("system_tags", Kind::List),
        ("framework", Kind::List),
        ("uri", Kind::List),
        ("metadata.*", Kind::List),
        ("name", Kind::Pattern),
        ("comment", Kind::Pattern),
        ("created", Kind::Range),
        ("last_iteration", Kind::Range),
        ("last_metrics.*", Kind::Range),
        ("last_update", Kind::DateTime),
        ("last_change", Kind::DateTime),
        ("ready", Kind::Equality),
    ],
    known: &[
        "id",
        "name",
        "company",
        "user",
        "uri",
        "framework",
        "project",
        "task",
        "parent",
        "comment",
        "tags",
        "system_tags",
        "labels",
        "design",
        "ready",
        "created",
        "last_update",
        "last_change",
        "last_changed_by",
        "metadata",
        "last_iteration",
        "last_metrics",
    ],
};

/// What a field of a request must look like.
#[derive(Clone, Copy)]
enum Shape {
    Text,
    Strings,
    Object,
    Flag,
}

/// Fields that a caller may write.
const WRITABLE: [(&str, Shape); 12] = [
    ("name", Shape::Text),
    ("uri", Shape::Text),
    ("labels", Shape::Object),
    ("tags", Shape::Strings),
    ("system_tags", Shape::Strings),
    ("comment", Shape::Text),
    ("project", Shape::Text),
    ("parent", Shape::Text),
    ("framework", Shape::Text),
    ("design", Shape::Object),
    ("ready", Shape::Flag),
    ("task", Shape::Text),
];

/// Fields that are a matter of description and may change at any time.
const DESCRIPTIVE: [&str; 5] = ["name", "comment", "tags", "system_tags", "project"];

const ARCHIVED: &str = "archived";

fn create(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    call.required_str("name")?;
    call.required_str("uri")?;
    let given = given_fields(call, tx)?;
    let id = hex32();
    let now = time::iso(call.now);
    let mut model = json!({
        "id": id, "name": "", "user": call.user.user, "company": call.user.company, "created": now,
        "tags": [], "system_tags": [], "labels": {}, "design": {}, "ready": true, "metadata": {},
    });
    if let Some(doc) = model.as_object_mut() {
        doc.extend(given);
    }
    merge_metadata(&mut model, &metadata_items(call, "metadata")?, true);
    save(call, tx, &mut model)?;
    Ok(json!({"id": id, "created": true}))
}

fn get_by_id(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let mut model = store::models::require(tx, call.required_str("model")?)?;
    select::shape_common(call.version, &mut model);
    Ok(json!({"model": model}))
}

fn get_all_ex(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    references::list(call, tx, get_all, "models", &REFERENCES)
}

fn get_by_id_ex(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let names = ("models", "model");
    references::one(call, tx, get_all, names, &REFERENCES, ApiFault::invalid_model_id)
}

fn get_all(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let selection = Selection::parse(&call.data, &MODELS)?;
    let page = selection.run(candidates(tx, &selection)?);
    let mut docs = page.docs;
    for doc in &mut docs {
        select::shape_common(call.version, doc);
    }
    let mut reply = json!({"models": selection.project(docs)});
    if let Some(scroll) = page.scroll_id {
        reply["scroll_id"] = scroll.into();
    }
    Ok(reply)
}

/// Narrows what must be read by the first indexed field that the selection names.
fn candidates(tx: &Connection, selection: &Selection) -> Result<Vec<Value>, ApiFault> {
    let indexed = ["id", "task", "project"];
    let narrowed = indexed
        .into_iter()
        .find_map(|column| Some((column, selection.any_of(column)?)));
    let Some((column, mut values)) = narrowed else {
        return store::models::candidates(tx, "id", None);
    };
    values.sort_unstable();
    values.dedup();
    let mut docs = Vec::new();
    for value in values {
        docs.append(&mut store::models::candidates(tx, column, Some(value))?);
    }
    Ok(docs)
}

fn edit(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let mut model = store::models::require(tx, call.required_str("model")?)?;
    let given = given_fields(call, tx)?;
    if let Some(iteration) = call.opt_i64("iteration")?
        && let Some(task) = given
            .get("task")
            .or_else(|| model.get("task"))
            .and_then(Value::as_str)
    {
        raise_iteration(call, tx, task, iteration)?;
    }
    let mut changed = changed_fields(&mut model, given);
    if call.get("metadata").is_some() {
        merge_metadata(&mut model, &metadata_items(call, "metadata")?, true);
        changed.insert("metadata".into(), model["metadata"].clone());
    }
    finish_update(call, tx, &mut model, changed)
}

fn update(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let mut model = store::models::require(tx, call.required_str("model")?)?;
    let mut given = given_fields(call, tx)?;
    given.retain(|name, _| DESCRIPTIVE.contains(&name.as_str()));
    let changed = changed_fields(&mut model, given);
    finish_update(call, tx, &mut model, changed)
}

pub(super) fn set_ready(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let id = call.required_str("model")?;
    let mut model = store::models::require(tx, id)?;
    if model["ready"] == true {
        return Err(ApiFault::new(400, 203, format!("Model is ready: id={id}")).with("id", id));
    }
    let force = call.flag("force_publish_task", false)?;
    let published = match model["task"].as_str() {
        Some(task) if call.flag("publish_task", true)? => publish_task(call, tx, task, force)?,
        _ => None,
    };
    let changed = changed_fields(&mut model, Map::from_iter([("ready".to_owned(), json!(true))]));
    let mut reply = finish_update(call, tx, &mut model, changed)?;
    if let Some(published) = published {
        reply["published_task"] = published;
    }
    Ok(reply)
}

/// Publishes the creating task; a task that is gone or published already is left alone.
fn publish_task(call: &Call, tx: &Connection, id: &str, force: bool) -> Result<Option<Value>, ApiFault> {
    let Some(mut task) = store::tasks::load(tx, id)? else {
        return Ok(None);
    };
    let from = TaskStatus::from(task["status"].as_str().unwrap_or_default());
    if from == TaskStatus::Published {
        return Ok(None);
    }
    let to = status::apply(&from, Transition::Publish, force)
        .map_err(|illegal| ApiFault::invalid_task_status(illegal.to_string()))?;
    let now = time::iso(call.now);
    let fields = json!({
        "status": to.as_str(), "status_changed": now, "status_reason": "", "status_message": "",
        "published": now, "last_update": now, "last_change": now, "last_changed_by": call.user.user,
    });
    if let (Some(task), Value::Object(fields)) = (task.as_object_mut(), fields.clone()) {
        task.extend(fields);
    }
    store::tasks::save(tx, &task)?;
    Ok(Some(json!({"id": id, "data": {"updated": 1, "fields": fields}})))
}

fn add_or_update_metadata(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let mut model = store::models::require(tx, call.required_str("model")?)?;
    call.required("metadata")?;
    let items = metadata_items(call, "metadata")?;
    merge_metadata(&mut model, &items, call.flag("replace_metadata", false)?);
    save(call, tx, &mut model)?;
    Ok(json!({"updated": 1}))
}

fn delete_metadata(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let mut model = store::models::require(tx, call.required_str("model")?)?;
    let keys = call.required_strings("keys")?;
    let before = model["metadata"].clone();
    if let Some(metadata) = model["metadata"].as_object_mut() {
        metadata.retain(|key, _| !keys.contains(key));
    }
    let updated = i32::from(model["metadata"] != before);
    save(call, tx, &mut model)?;
    Ok(json!({"updated": updated}))
}

pub(super) fn delete(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let id = call.required_str("model")?;
    let model = store::models::require(tx, id)?;
    if !call.flag("force", false)? {
        if used_as_input(tx, id)? {
            return Err(ApiFault::new(
                400,
                205,
                format!("Model is used as execution model: id={id}"),
            ));
        }
        let task = match model["task"].as_str() {
            Some(task) => store::tasks::load(tx, task)?,
            None => None,
        };
        if task.is_some_and(|task| task["status"] == "published") {
            return Err(ApiFault::new(
                400,
                206,
                format!("Model has an associated published task: id={id}"),
            ));
        }
    }
    store::models::delete(tx, id)?;
    store::events::delete_for_task(tx, id)?;
    Ok(json!({"deleted": true, "url": model["uri"]}))
}

/// Whether a task starts from this model. The text search only narrows; the documents decide.
fn used_as_input(tx: &Connection, id: &str) -> Result<bool, ApiFault> {
    let mut statement = tx.prepare_cached("SELECT doc FROM tasks WHERE instr(doc, ?1) > 0")?;
    let mut rows = statement.query([id])?;
    while let Some(row) = rows.next()? {
        let task: Value = serde_json::from_str(row.get_ref(0)?.as_str().unwrap_or_default())?;
        let inputs = task["models"]["input"].as_array();
        if inputs.is_some_and(|inputs| inputs.iter().any(|input| input["model"] == id)) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn archive_many(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    batch::run(call, tx, "ids", |call, tx, id| set_archived(call, tx, id, true))
}

fn unarchive_many(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    batch::run(call, tx, "ids", |call, tx, id| set_archived(call, tx, id, false))
}

fn set_archived(
    call: &Call,
    tx: &Transaction<'_>,
    id: &str,
    archived: bool,
) -> Result<Map<String, Value>, ApiFault> {
    let mut model = store::models::require(tx, id)?;
    let mut tags: Vec<Value> = model["system_tags"].as_array().cloned().unwrap_or_default();
    let was = tags.iter().any(|tag| tag == ARCHIVED);
    tags.retain(|tag| tag != ARCHIVED);
    if archived {
        tags.push(ARCHIVED.into());
    }
    model["system_tags"] = Value::Array(tags);
    save(call, tx, &mut model)?;
    let name = if archived { "archived" } else { "unarchived" };
    Ok(Map::from_iter([(name.to_owned(), json!(was != archived))]))
}

/// The writable fields of a request, checked.
pub(super) fn given_fields(call: &Call, tx: &Connection) -> Result<Map<String, Value>, ApiFault> {
    let mut given = Map::new();
    for (name, shape) in WRITABLE {
        let value = match shape {
            Shape::Text => call.opt_str(name)?.map(Value::from),
            Shape::Strings => call.opt_strings(name)?.map(Value::from),
            Shape::Object => call.opt_object(name)?.cloned().map(Value::Object),
            Shape::Flag => call.opt_bool(name)?.map(Value::from),
        };
        if let Some(value) = value {
            given.insert(name.to_owned(), value);
        }
    }
    for name in ["tags", "system_tags"] {
        let reserved = given.get(name).and_then(Value::as_array).into_iter().flatten();
        if reserved
            .filter_map(Value::as_str)
            .any(|tag| tag.starts_with("__$"))
        {
            return Err(ApiFault::bad_value(format!(
                "a tag in '{name}' starts with the reserved '__$'"
            )));
        }
    }
    if let Some(project) = given.get("project").and_then(Value::as_str)
        && store::projects::load(tx, project)?.is_none()
    {
        return Err(ApiFault::validation(format!("there is no project {project}")).with("field", "project"));
    }
    if let Some(task) = given.get("task").and_then(Value::as_str) {
        store::tasks::require(tx, task)?;
    }
    Ok(given)
}

/// Writes the given fields and tells which of them are new values.
fn changed_fields(model: &mut Value, given: Map<String, Value>) -> Map<String, Value> {
    let mut changed = Map::new();
    for (name, value) in given {
        if model.get(&name) != Some(&value) {
            model[&name] = value.clone();
            changed.insert(name, value);
        }
    }
    changed
}

fn finish_update(
    call: &Call,
    tx: &Connection,
    model: &mut Value,
    changed: Map<String, Value>,
) -> Result<Value, ApiFault> {
    if changed.is_empty() {
        return Ok(json!({"updated": 0, "fields": {}}));
    }
    save(call, tx, model)?;
    Ok(json!({"updated": 1, "fields": changed}))
}

pub(super) fn save(call: &Call, tx: &Connection, model: &mut Value) -> Result<(), ApiFault> {
    let now = time::iso(call.now);
    model["last_update"] = now.as_str().into();
    model["last_change"] = now.into();
    model["last_changed_by"] = call.user.user.as_str().into();
    store::models::save(tx, model)?;
    store::projects::touch(tx, model["project"].as_str(), call.now)
}

fn raise_iteration(call: &Call, tx: &Connection, task: &str, iteration: i64) -> Result<(), ApiFault> {
    let Some(mut task) = store::tasks::load(tx, task)? else {
        return Ok(());
    };
    if task["last_iteration"].as_i64().unwrap_or(0) < iteration {
        task["last_iteration"] = iteration.into();
        task["last_update"] = time::iso(call.now).into();
        store::tasks::save(tx, &task)?;
    }
    Ok(())
}

/// Notes of a request: a list of `{key, type, value}`, or an object of them by key.
fn metadata_items(call: &Call, name: &str) -> Result<Vec<Map<String, Value>>, ApiFault> {
    let wrong = || {
        ApiFault::validation(format!(
            "field '{name}' must list objects with 'key', 'type' and 'value'"
        ))
        .with("field", name)
    };
    let items: Vec<&Value> = match call.get(name) {
        None => return Ok(Vec::new()),
        Some(Value::Array(items)) => items.iter().collect(),
        Some(Value::Object(items)) => items.values().collect(),
        Some(_) => return Err(wrong()),
    };
    items
        .into_iter()
        .map(|item| {
            let item = item.as_object().ok_or_else(wrong)?;
            let mut kept = Map::new();
            for part in ["key", "type", "value"] {
                match item.get(part) {
                    None | Some(Value::Null) => {}
                    Some(text @ Value::String(_)) => {
                        kept.insert(part.to_owned(), text.clone());
                    }
                    Some(_) => return Err(wrong()),
                }
            }
            if kept.contains_key("key") {
                Ok(kept)
            } else {
                Err(wrong())
            }
        })
        .collect()
}

fn merge_metadata(model: &mut Value, items: &[Map<String, Value>], replace: bool) {
    if replace || !model["metadata"].is_object() {
        model["metadata"] = json!({});
    }
    for item in items {
        if let Some(key) = item.get("key").and_then(Value::as_str) {
            model["metadata"][key] = Value::Object(item.clone());
        }
    }
}
