//! Reading tasks: by id, by selection, and their parameters.

use rusqlite::{Transaction, params_from_iter};
use serde_json::{Value, json};

use super::legacy::outgoing;
use super::{TYPES, id};
use crate::api::references::{self, Reference, Target};
use crate::api::update::{has_tag, text};
use crate::api::{ApiFault, Call, Endpoint};
use crate::select::{Collection, Kind, Selection};
use crate::store::tasks;

pub(super) const TASKS: Collection = Collection {
    fields: &[
        ("id", Kind::List),
        ("user", Kind::List),
        ("tags", Kind::List),
        ("system_tags", Kind::List),
        ("type", Kind::List),
        ("status", Kind::List),
        ("project", Kind::List),
        ("parent", Kind::List),
        ("execution.queue", Kind::List),
        ("models.input.model", Kind::List),
        ("hyperparams.*", Kind::List),
        ("name", Kind::Pattern),
        ("comment", Kind::Pattern),
        ("report", Kind::Pattern),
        ("created", Kind::Range),
        ("started", Kind::Range),
        ("active_duration", Kind::Range),
        ("last_iteration", Kind::Range),
        ("last_metrics.*", Kind::Range),
        ("status_changed", Kind::DateTime),
        ("last_update", Kind::DateTime),
        ("last_change", Kind::DateTime),
        ("runtime.*", Kind::Equality),
    ],
    known: &[
        "id",
        "name",
        "type",
        "status",
        "status_reason",
        "status_message",
        "status_changed",
        "comment",
        "company",
        "user",
        "created",
        "started",
        "completed",
        "published",
        "active_duration",
        "parent",
        "project",
        "tags",
        "system_tags",
        "script",
        "container",
        "execution",
        "models",
        "hyperparams",
        "configuration",
        "runtime",
        "output",
        "last_worker",
        "last_worker_report",
        "last_update",
        "last_change",
        "last_changed_by",
        "last_iteration",
        "last_metrics",
        "metric_stats",
        "report",
        "report_assets",
        "input",
        "unique_metrics",
        "enqueue_status",
        "company_origin",
    ],
};

const REFERENCES: [Reference; 5] = [
    Reference::new("company", Target::Company),
    Reference::new("user", Target::User),
    Reference::new("project", Target::Project),
    Reference::new("parent", Target::Task),
    Reference::new("execution.queue", Target::Queue),
];

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::read("tasks.get_by_id", (1, 0), get_by_id),
        Endpoint::read("tasks.get_all", (1, 0), get_all),
        Endpoint::read("tasks.get_all_ex", (1, 0), get_all_ex),
        Endpoint::read("tasks.get_by_id_ex", (1, 0), get_by_id_ex),
        Endpoint::read("tasks.get_hyper_params", (2, 9), get_hyper_params),
        Endpoint::read("tasks.get_configurations", (2, 9), get_configurations),
        Endpoint::read("tasks.get_configuration_names", (2, 9), get_configuration_names),
        Endpoint::read("tasks.get_types", (2, 8), get_types),
    ]
}

fn get_by_id(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let mut task = tasks::require(tx, call.required_str("task")?)?;
    outgoing(call.version, &mut task, false);
    Ok(json!({"task": task}))
}

pub(crate) fn get_all_ex(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    references::list(call, tx, get_all, "tasks", &REFERENCES)
}

fn get_by_id_ex(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let names = ("tasks", "task");
    references::one(call, tx, get_all, names, &REFERENCES, ApiFault::invalid_task_id)
}

fn get_all(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let selection = Selection::parse(&call.data, &TASKS)?;
    let show_hidden = selection.mentions("id") || call.flag("search_hidden", false)?;
    let wanted =
        |task: &Value| (show_hidden || !has_tag(task, "system_tags", "hidden")) && selection.matches(task);
    let mut docs = match selection.ids() {
        Some(ids) => ids
            .iter()
            .filter_map(|id| tasks::load(tx, id).transpose())
            .collect::<Result<Vec<_>, _>>()?,
        None => scan(tx, &selection, wanted)?,
    };
    docs.retain(wanted);
    let page = selection.page(docs);
    let mut docs = page.docs;
    for task in &mut docs {
        outgoing(call.version, task, true);
    }
    let mut reply = json!({"tasks": selection.project(docs)});
    if let Some(scroll_id) = page.scroll_id {
        reply["scroll_id"] = json!(scroll_id);
    }
    Ok(reply)
}

/// The matching documents in order of creation. Columns narrow the rows; the rest is decided on each document.
fn scan(
    tx: &Transaction<'_>,
    selection: &Selection,
    wanted: impl Fn(&Value) -> bool,
) -> Result<Vec<Value>, ApiFault> {
    let mut sql = "SELECT doc FROM tasks WHERE true".to_owned();
    let mut values: Vec<&str> = Vec::new();
    for column in ["status", "type", "project", "parent", "user"] {
        if let Some(list) = selection.any_of(column) {
            let marks = vec!["?"; list.len()].join(",");
            sql.push_str(&format!(" AND {column} IN ({marks})"));
            values.extend(list);
        }
    }
    sql.push_str(" ORDER BY seq");
    let mut statement = tx.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(values))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let task: Value = serde_json::from_str(row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?)?;
        if wanted(&task) {
            found.push(task);
        }
    }
    Ok(found)
}

/// The items of a section or of the configuration, sorted by name.
fn sorted_items(items: Option<&Value>) -> Vec<Value> {
    let mut items: Vec<Value> = items
        .and_then(Value::as_object)
        .into_iter()
        .flat_map(|map| map.values().cloned())
        .collect();
    items.sort_by(|left, right| text(left, "name").cmp(&text(right, "name")));
    items
}

fn get_hyper_params(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let mut params = Vec::new();
    for task in required_tasks(call, tx)? {
        let mut sections: Vec<&String> = task["hyperparams"]
            .as_object()
            .into_iter()
            .flat_map(|map| map.keys())
            .collect();
        sections.sort();
        let items: Vec<Value> = sections
            .into_iter()
            .flat_map(|section| sorted_items(task["hyperparams"].get(section)))
            .collect();
        params.push(json!({"task": id(&task), "hyperparams": items}));
    }
    Ok(json!({"params": params}))
}

fn required_tasks(call: &Call, tx: &Transaction<'_>) -> Result<Vec<Value>, ApiFault> {
    call.required_strings("tasks")?
        .iter()
        .map(|id| tasks::require(tx, id))
        .collect()
}

fn get_configurations(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let names = call.opt_strings("names")?.filter(|names| !names.is_empty());
    let wanted = |item: &Value| {
        names
            .as_ref()
            .is_none_or(|names| names.iter().any(|name| text(item, "name") == Some(name.as_str())))
    };
    let describe = |task: Value| {
        let mut items = sorted_items(task.get("configuration"));
        items.retain(&wanted);
        json!({"task": id(&task), "configuration": items})
    };
    let configurations: Vec<Value> = required_tasks(call, tx)?.into_iter().map(describe).collect();
    Ok(json!({"configurations": configurations}))
}

fn get_configuration_names(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let skip_empty = call.flag("skip_empty", true)?;
    let mut configurations = Vec::new();
    for task in required_tasks(call, tx)? {
        let mut items = sorted_items(task.get("configuration"));
        items.retain(|item| !skip_empty || text(item, "value").is_some_and(|value| !value.is_empty()));
        let names: Vec<Value> = items.into_iter().map(|mut item| item["name"].take()).collect();
        configurations.push(json!({"task": id(&task), "names": names}));
    }
    Ok(json!({"configurations": configurations}))
}

fn get_types(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let projects = call.opt_strings("projects")?.unwrap_or_default();
    let mut statement = tx.prepare_cached("SELECT DISTINCT type, project FROM tasks")?;
    let rows = statement.query_map([], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, Option<String>>(1)?))
    })?;
    let used: Vec<(String, Option<String>)> = rows.collect::<rusqlite::Result<_>>()?;
    let counts = |project: &Option<String>| {
        projects.is_empty() || project.as_ref().is_some_and(|project| projects.contains(project))
    };
    let is_used = |name: &str| used.iter().any(|(used, project)| used == name && counts(project));
    let types: Vec<&str> = TYPES.into_iter().filter(|name| is_used(name)).collect();
    Ok(json!({"types": types}))
}
