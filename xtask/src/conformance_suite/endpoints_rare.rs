//! What few clients call: public objects, vectors, runs of pipelines. Each endpoint with a call that must succeed.

use anyhow::Result;
use serde_json::json;

use super::endpoints::Contract;
use super::scene::Scene;

pub(super) const CONTRACTS: &[Contract] = &[
    Contract::new(
        "tasks.make_public",
        "tasks for everybody",
        None,
        |s| Ok(json!({"ids": [s.task()?]})),
        &["updated"],
    ),
    Contract::new(
        "tasks.make_private",
        "public tasks taken back",
        None,
        |s| Ok(json!({"ids": [public(s, "tasks", s.task()?)?]})),
        &["updated"],
    ),
    Contract::new(
        "models.make_public",
        "models for everybody",
        None,
        |s| Ok(json!({"ids": [s.model()?]})),
        &["updated"],
    ),
    Contract::new(
        "models.make_private",
        "public models taken back",
        None,
        |s| Ok(json!({"ids": [public(s, "models", s.model()?)?]})),
        &["updated"],
    ),
    Contract::new(
        "projects.make_public",
        "projects for everybody",
        None,
        |s| Ok(json!({"ids": [s.project()?]})),
        &["updated"],
    ),
    Contract::new(
        "projects.make_private",
        "public projects taken back",
        None,
        |s| Ok(json!({"ids": [public(s, "projects", s.project()?)?]})),
        &["updated"],
    ),
    Contract::new(
        "events.get_vector_metrics_and_variants",
        "the names of vectors",
        None,
        |s| Ok(json!({"task": s.task()?})),
        &["metrics"],
    ),
    Contract::new(
        "events.vector_metrics_iter_histogram",
        "vectors by iteration",
        None,
        |s| Ok(json!({"task": s.task()?, "metric": "m", "variant": "v"})),
        &["metric", "variant", "iterations", "vectors"],
    ),
    Contract::new(
        "events.get_scalar_metric_data",
        "the points of a metric as events",
        None,
        |s| Ok(json!({"task": s.task()?, "metric": "m"})),
        &["events", "returned", "total", "scroll_id"],
    ),
    Contract::new(
        "events.get_task_latest_scalar_values",
        "the last values of a task",
        None,
        |s| Ok(json!({"task": s.task()?})),
        &["metrics", "name", "status"],
    ),
    Contract::new(
        "events.plots",
        "plots by iteration",
        None,
        |s| Ok(json!({"metrics": [{"task": s.task()?, "metric": "m"}]})),
        &["metrics", "scroll_id"],
    ),
    Contract::new(
        "events.clear_scroll",
        "the end of a scroll",
        None,
        |s| {
            let page = s.ok("events.get_task_events", json!({"task": s.task()?}))?;
            Ok(json!({"scroll_id": page["scroll_id"]}))
        },
        &[],
    ),
    Contract::new(
        "pipelines.delete_runs",
        "runs of a pipeline deleted, but for the last",
        None,
        |s| {
            let project = s.project()?;
            let run = || {
                let fields = json!({"type": "controller", "project": project, "system_tags": ["pipeline"]});
                s.task_with(fields)
            };
            let first = run()?;
            run()?;
            Ok(json!({"project": project, "ids": [first]}))
        },
        &["succeeded", "failed"],
    ),
];

/// Makes an object public; its id.
fn public(s: &Scene<'_>, service: &str, id: String) -> Result<String> {
    s.ok(&format!("{service}.make_public"), json!({"ids": [id]}))?;
    Ok(id)
}
