//! Older ways to say the same: what requests of old clients mean, and what replies to them contain besides.

use serde_json::{Map, Value, json};

use crate::api::update::{text, unset};
use crate::http::path::Version;
use crate::select::shape_common;

/// System tags that clients before 2.3 sent among the tags.
const KNOWN_SYSTEM_TAGS: [&str; 8] = [
    "development",
    "archived",
    "hidden",
    "pipeline",
    "dataset",
    "reports",
    "k8s-glue",
    "default",
];

/// Rewrites request data of any version into the present form. What it finds inside `execution` and `output` is
/// moved: parameters to `_legacy_parameters`, model descriptions to `_legacy_model_desc` (merged when applied),
/// container commands to `container`, and models to `models`.
pub(crate) fn incoming(version: Version, data: &mut Map<String, Value>) {
    if version < Version::new(2, 3) && !data.contains_key("system_tags") {
        split_tags(data);
    }
    let mut take = |object: &str, field: &str| {
        let map = data.get_mut(object)?.as_object_mut()?;
        map.shift_remove(field).filter(|value| !value.is_null())
    };
    let parameters = take("execution", "parameters");
    let model_desc = take("execution", "model_desc");
    let docker_cmd = take("execution", "docker_cmd");
    let input = take("execution", "model");
    let output = take("output", "model");
    if let Some(Value::Object(parameters)) = parameters {
        data.insert("_legacy_parameters".to_owned(), Value::Object(parameters));
    }
    if let Some(Value::Object(model_desc)) = model_desc {
        data.insert("_legacy_model_desc".to_owned(), Value::Object(model_desc));
    }
    if let Some(command) = docker_cmd.as_ref().and_then(Value::as_str).map(str::trim) {
        let (image, arguments) = command.split_once(' ').unwrap_or((command, ""));
        data.insert(
            "container".to_owned(),
            json!({"image": image, "arguments": arguments.trim()}),
        );
    }
    for (side, name, model) in [
        ("input", "Input Model", input),
        ("output", "Output Model", output),
    ] {
        if let Some(model) = model
            .as_ref()
            .and_then(Value::as_str)
            .filter(|model| !model.is_empty())
        {
            let models = data.entry("models").or_insert_with(|| json!({}));
            models[side] = json!([{"name": name, "model": model}]);
        }
    }
}

fn split_tags(data: &mut Map<String, Value>) {
    let Some(Value::Array(tags)) = data.get_mut("tags") else {
        return;
    };
    let is_system = |tag: &Value| tag.as_str().is_some_and(|tag| KNOWN_SYSTEM_TAGS.contains(&tag));
    let (system, own): (Vec<Value>, Vec<Value>) = std::mem::take(tags).into_iter().partition(is_system);
    *tags = own;
    if !system.is_empty() {
        data.insert("system_tags".to_owned(), Value::Array(system));
    }
}

/// Where a parameter of the flat form lives now: section and name.
pub(crate) fn parameter_place(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some(("TF_DEFINE", rest)) => ("TF_DEFINE", rest),
        _ => ("Args", name),
    }
}

/// A value of the flat form as text, the way Python writes it.
pub(crate) fn parameter_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// Adds to a task what clients of this version look for, and takes away what no client sees.
pub(crate) fn outgoing(version: Version, task: &mut Value, listing: bool) {
    for hidden in ["enqueue_status", "company_origin"] {
        unset(task, hidden);
    }
    if listing {
        unset(task, "unique_metrics");
    }
    if version < Version::new(2, 9) {
        let parameters = legacy_parameters(task);
        let model_desc = legacy_items(task.get("configuration"));
        task["execution"]["parameters"] = Value::Object(parameters);
        task["execution"]["model_desc"] = Value::Object(model_desc);
    }
    if version < Version::new(2, 13) {
        add_container_and_models(task);
    }
    shape_common(version, task);
}

fn legacy_parameters(task: &Value) -> Map<String, Value> {
    let mut parameters = Map::new();
    let sections = task.get("hyperparams").and_then(Value::as_object);
    for (section, items) in sections.into_iter().flatten() {
        for (name, value) in legacy_items(Some(items)) {
            let flat = if section == "Args" {
                name
            } else {
                format!("{section}/{name}")
            };
            parameters.insert(flat, value);
        }
    }
    parameters
}

fn legacy_items(items: Option<&Value>) -> Map<String, Value> {
    let items = items.and_then(Value::as_object).into_iter().flatten();
    items
        .filter(|(_, item)| text(item, "type") == Some("legacy"))
        .map(|(name, item)| (name.clone(), item.get("value").cloned().unwrap_or_default()))
        .collect()
}

fn add_container_and_models(task: &mut Value) {
    let container = &task["container"];
    if let Some(image) = text(container, "image").filter(|image| !image.is_empty()) {
        let arguments = text(container, "arguments").unwrap_or_default();
        task["execution"]["docker_cmd"] = json!(format!("{image} {arguments}").trim());
    }
    let model = |models: Option<&Value>| models.and_then(|model| model.get("model")).cloned();
    let input = model(task["models"]["input"].as_array().and_then(|list| list.first()));
    let output = model(task["models"]["output"].as_array().and_then(|list| list.last()));
    if let Some(input) = input {
        task["execution"]["model"] = input;
    }
    if let Some(output) = output {
        task["output"]["model"] = output;
    }
}
