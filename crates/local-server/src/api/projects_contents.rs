//! What is in projects: how much of everything, and which tags, parameters, metrics and people occur.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, Transaction};
use serde_json::{Value, json};

use super::update::text;
use super::{ApiFault, Call, Endpoint};
use crate::select::MAX_PAGE;
use crate::store::{projects, tasks, users};

pub(crate) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::read("projects.get_project_tags", (2, 8), |call, tx| {
            tags(call, tx, &["projects"])
        }),
        Endpoint::read("projects.get_task_tags", (2, 8), |call, tx| {
            tags(call, tx, &["tasks"])
        }),
        Endpoint::read("projects.get_model_tags", (2, 8), |call, tx| {
            tags(call, tx, &["models"])
        }),
        Endpoint::read("organization.get_tags", (2, 8), |call, tx| {
            tags(call, tx, &["tasks", "models", "projects"])
        }),
        Endpoint::read("organization.get_user_companies", (2, 12), get_user_companies),
        Endpoint::read("projects.get_hyper_parameters", (2, 9), get_hyper_parameters),
        Endpoint::read("projects.get_hyperparam_values", (2, 13), get_hyperparam_values),
        Endpoint::read("projects.get_unique_metric_variants", (2, 1), get_metric_variants),
        Endpoint::read("projects.get_model_metadata_keys", (2, 17), get_metadata_keys),
        Endpoint::read("projects.get_model_metadata_values", (2, 17), get_metadata_values),
        Endpoint::read("projects.get_task_parents", (2, 12), get_task_parents),
        Endpoint::read("projects.get_user_names", (2, 23), get_user_names),
    ]
}

/// How many objects there are.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) all: i64,
    /// Without the archived ones.
    pub(crate) live: i64,
}

/// Tasks or models in some projects.
pub(crate) fn count(connection: &Connection, table: &str, projects: &[String]) -> Result<Count, ApiFault> {
    let sql = format!(
        "SELECT count(*), coalesce(sum(NOT EXISTS
            (SELECT 1 FROM json_each(doc, '$.system_tags') WHERE value = 'archived')), 0)
            FROM {table} WHERE project IN (SELECT value FROM json_each(?1))"
    );
    let read = |row: &rusqlite::Row<'_>| {
        Ok(Count {
            all: row.get(0)?,
            live: row.get(1)?,
        })
    };
    Ok(connection
        .prepare_cached(&sql)?
        .query_row([json!(projects).to_string()], read)?)
}

/// The projects themselves and all below them.
pub(crate) fn with_below(tx: &Transaction<'_>, ids: &[String]) -> Result<Vec<String>, ApiFault> {
    let inside = |project: &Value| {
        let path = project.get("path").and_then(Value::as_array);
        path.into_iter()
            .flatten()
            .chain(project.get("id"))
            .filter_map(Value::as_str)
            .any(|id| ids.iter().any(|wanted| wanted == id))
    };
    let all = projects::all(tx)?;
    let found = all.iter().filter(|project| inside(project));
    Ok(found
        .filter_map(|project| text(project, "id").map(str::to_owned))
        .collect())
}

/// Adds numbers of tasks to a listed project.
pub(crate) fn add_stats(tx: &Transaction<'_>, project: &mut Value, id: &str) -> Result<(), ApiFault> {
    let ids = with_below(tx, &[id.to_owned()])?;
    let sql =
        "SELECT EXISTS (SELECT 1 FROM json_each(doc, '$.system_tags') WHERE value = 'archived') AS archived,
            status, count(*), coalesce(sum(json_extract(doc, '$.active_duration')), 0)
        FROM tasks WHERE project IN (SELECT value FROM json_each(?1)) GROUP BY archived, status";
    let mut stats = json!({});
    for state in ["active", "archived"] {
        stats[state] = json!({"status_count": {}, "total_tasks": 0, "total_runtime": 0});
    }
    let mut statement = tx.prepare_cached(sql)?;
    let mut rows = statement.query([json!(ids).to_string()])?;
    while let Some(row) = rows.next()? {
        let state = if row.get::<_, bool>(0)? {
            "archived"
        } else {
            "active"
        };
        let (status, tasks, runtime): (String, i64, f64) = (row.get(1)?, row.get(2)?, row.get(3)?);
        let slot = &mut stats[state];
        slot["status_count"][&status] = json!(tasks);
        slot["total_tasks"] = json!(slot["total_tasks"].as_i64().unwrap_or_default() + tasks);
        #[expect(clippy::cast_possible_truncation, reason = "whole seconds of tasks")]
        let runtime = slot["total_runtime"].as_i64().unwrap_or_default() + runtime as i64;
        slot["total_runtime"] = json!(runtime);
    }
    let mut below = Vec::new();
    for other in ids.iter().filter(|other| *other != id) {
        below.push(json!({"id": other, "name": projects::require(tx, other)?["name"]}));
    }
    project["stats"] = stats;
    project["sub_projects"] = Value::Array(below);
    Ok(())
}

/// Documents of a table that belong to the projects of a call, with those below them; all without such a wish.
fn each_doc(
    call: &Call,
    tx: &Transaction<'_>,
    table: &str,
    mut visit: impl FnMut(Value),
) -> Result<(), ApiFault> {
    let mut wanted = call.opt_strings("projects")?.unwrap_or_default();
    wanted.extend(call.opt_strings("project")?.unwrap_or_default());
    wanted.retain(|id| !id.is_empty());
    let limit = if wanted.is_empty() {
        None
    } else if call.flag("include_subprojects", true)? {
        Some(with_below(tx, &wanted)?)
    } else {
        Some(wanted)
    };
    // A project belongs to itself here.
    let column = if table == "projects" { "id" } else { "project" };
    let sql = format!(
        "SELECT doc FROM {table} WHERE ?1 IS NULL OR {column} IN (SELECT value FROM json_each(?1)) ORDER BY seq"
    );
    let mut statement = tx.prepare_cached(&sql)?;
    let mut rows = statement.query([limit.map(|ids| json!(ids).to_string())])?;
    while let Some(row) = rows.next()? {
        visit(serde_json::from_str(
            row.get_ref(0)?.as_str().unwrap_or_default(),
        )?);
    }
    Ok(())
}

fn tags(call: &Call, tx: &Transaction<'_>, tables: &[&str]) -> Result<Value, ApiFault> {
    let filter = call.opt_object("filter")?.cloned().unwrap_or_default();
    let wanted: Vec<&str> = filter
        .get("system_tags")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let (mut tags, mut system) = (BTreeSet::new(), BTreeSet::new());
    for table in tables {
        each_doc(call, tx, table, |doc| {
            let texts = |field: &str| -> Vec<String> {
                let list = doc.get(field).and_then(Value::as_array).into_iter().flatten();
                list.filter_map(Value::as_str).map(str::to_owned).collect()
            };
            let own = texts("system_tags");
            if wanted.iter().all(|wanted| own.iter().any(|tag| tag == wanted)) {
                tags.extend(texts("tags"));
                system.extend(own);
            }
        })?;
    }
    let mut reply = json!({"tags": tags});
    if call.flag("include_system", false)? {
        reply["system_tags"] = json!(system);
    }
    Ok(reply)
}

fn get_user_companies(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let owners: Vec<Value> = users::all(tx)?
        .iter()
        .map(|user| json!({"id": user.get("id"), "name": user.get("name")}))
        .collect();
    let company = json!({
        "id": call.user.company, "name": call.user.company_name, "allocated": owners.len(), "owners": owners,
    });
    Ok(json!({"companies": [company]}))
}

/// One page of a list, with how much there is in all and how much is still to come.
fn page(call: &Call, name: &str, items: Vec<Value>) -> Result<Value, ApiFault> {
    let number = |name: &str, least: i64, default: usize| match call.opt_i64(name)? {
        None => Ok(default),
        Some(number) if number >= least => Ok(usize::try_from(number).unwrap_or(usize::MAX)),
        Some(_) => Err(ApiFault::validation(format!(
            "field '{name}' must be at least {least}"
        ))),
    };
    let size = number("page_size", 1, MAX_PAGE)?;
    let start = number("page", 0, 0)?.saturating_mul(size);
    let total = items.len();
    let shown: Vec<Value> = items.into_iter().skip(start).take(size).collect();
    let remaining = total.saturating_sub(start.saturating_add(shown.len()));
    Ok(json!({name: shown, "remaining": remaining, "total": total}))
}

fn get_hyper_parameters(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let mut found = BTreeMap::new();
    each_doc(call, tx, "tasks", |task| {
        for (section, items) in task["hyperparams"].as_object().into_iter().flatten() {
            for (name, item) in items.as_object().into_iter().flatten() {
                let mut shown = json!({"section": section, "name": name});
                if let Some(kind) = item.get("type") {
                    shown["type"] = kind.clone();
                }
                found.entry((section.clone(), name.clone())).or_insert(shown);
            }
        }
    })?;
    page(call, "parameters", found.into_values().collect())
}

fn get_hyperparam_values(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let (section, name) = (call.required_str("section")?, call.required_str("name")?);
    let mut values = BTreeSet::new();
    each_doc(call, tx, "tasks", |task| {
        let value = task["hyperparams"]
            .get(section)
            .and_then(|items| items.get(name)?.get("value")?.as_str().map(str::to_owned));
        values.extend(value);
    })?;
    Ok(json!({"total": values.len(), "values": values.into_iter().take(MAX_PAGE).collect::<Vec<_>>()}))
}

fn get_metric_variants(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let table = if call.flag("model_metrics", false)? {
        "models"
    } else {
        "tasks"
    };
    let mut found = BTreeMap::new();
    each_doc(call, tx, table, |doc| {
        for (metric_hash, variants) in doc["last_metrics"].as_object().into_iter().flatten() {
            for (variant_hash, value) in variants.as_object().into_iter().flatten() {
                let name = |field: &str| text(value, field).unwrap_or_default().to_owned();
                let (metric, variant) = (name("metric"), name("variant"));
                let shown = json!({
                    "metric": metric, "metric_hash": metric_hash, "variant": variant, "variant_hash": variant_hash,
                });
                found.insert((metric, variant), shown);
            }
        }
    })?;
    Ok(json!({"metrics": found.into_values().collect::<Vec<_>>()}))
}

fn get_metadata_keys(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let mut keys = BTreeSet::new();
    each_doc(call, tx, "models", |model| {
        let metadata = model["metadata"].as_object().into_iter().flatten();
        keys.extend(metadata.map(|(key, _)| key.clone()));
    })?;
    page(call, "keys", keys.into_iter().map(Value::from).collect())
}

fn get_metadata_values(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let key = call.required_str("key")?;
    let mut values = BTreeSet::new();
    each_doc(call, tx, "models", |model| {
        let value = model["metadata"]
            .get(key)
            .and_then(|item| item.get("value")?.as_str().map(str::to_owned));
        values.extend(value);
    })?;
    Ok(json!({"total": values.len(), "values": values.into_iter().take(MAX_PAGE).collect::<Vec<_>>()}))
}

fn get_task_parents(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let archived = match call.opt_str("tasks_state")? {
        None => None,
        Some("active") => Some(false),
        Some("archived") => Some(true),
        Some(other) => {
            return Err(ApiFault::validation(format!(
                "field 'tasks_state' is '{other}'; use active or archived"
            )));
        }
    };
    let mut ids = BTreeSet::new();
    each_doc(call, tx, "tasks", |task| {
        let is_archived = super::update::has_tag(&task, "system_tags", "archived");
        if archived.is_none_or(|wanted| wanted == is_archived) {
            ids.extend(text(&task, "parent").map(str::to_owned));
        }
    })?;
    let mut parents = Vec::new();
    for id in ids {
        let Some(task) = tasks::load(tx, &id)? else {
            continue;
        };
        let mut shown = json!({"id": id, "name": task["name"]});
        if let Some(project) = text(&task, "project") {
            let name = projects::load(tx, project)?.map(|project| project["name"].clone());
            shown["project"] = json!({"id": project, "name": name});
        }
        parents.push(shown);
    }
    Ok(json!({"parents": parents}))
}

fn get_user_names(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let mut ids = BTreeSet::new();
    each_doc(call, tx, "tasks", |task| {
        ids.extend(text(&task, "user").map(str::to_owned));
    })?;
    let mut shown = Vec::new();
    for id in ids {
        let name = users::load(tx, &id)?.and_then(|user| user.get("name").cloned());
        shown.push(json!({"id": id, "name": name}));
    }
    Ok(json!({"users": shown}))
}
