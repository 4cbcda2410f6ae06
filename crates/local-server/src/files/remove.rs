//! Deleting files, one by one or many at once.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::{FilesState, blocking, disk_error, not_found, target_of};

/// Largest list of files to delete, in bytes.
const MAX_LIST: usize = 16 * 1024 * 1024;

pub(super) async fn one(state: &FilesState, path: &str) -> Response {
    let Some(target) = target_of(path) else {
        return not_found();
    };
    let tree = Arc::clone(&state.tree);
    let relative = target.relative();
    match blocking(move || tree.delete_file(&target)).await {
        Ok(()) => json_reply(&json!(relative)),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => not_found(),
        Err(error) => disk_error("delete the file", &error),
    }
}

/// Deletes files and folders named in `{"files": [...]}` and says what became of each.
pub(super) async fn many(state: &FilesState, request: Request) -> Response {
    let refuse = || {
        (
            StatusCode::BAD_REQUEST,
            "the body must be JSON with a list 'files'\n",
        )
            .into_response()
    };
    let Ok(body) = axum::body::to_bytes(request.into_body(), MAX_LIST).await else {
        return refuse();
    };
    let list = serde_json::from_slice::<Value>(&body).ok();
    let files = list
        .as_ref()
        .and_then(|list| list.get("files"))
        .and_then(Value::as_array);
    let Some(files) = files else { return refuse() };
    let Some(files) = files
        .iter()
        .map(|file| file.as_str().map(str::to_owned))
        .collect::<Option<Vec<_>>>()
    else {
        return refuse();
    };
    let tree = Arc::clone(&state.tree);
    let removed = blocking(move || {
        let mut deleted = BTreeMap::new();
        let mut errors: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for file in files {
            let outcome = match target_of(&file) {
                None => Err(unusable_name(&file).to_owned()),
                Some(target) => tree.delete_any(&target).map_err(|error| reason(&error)),
            };
            match outcome {
                Ok(()) => {
                    let decoded = percent_decode_str(&file).decode_utf8_lossy();
                    deleted.insert(file.clone(), decoded.trim_start_matches('/').to_owned());
                }
                Err(reason) => errors.entry(reason).or_default().push(file),
            }
        }
        Ok(json!({"deleted": deleted, "errors": errors}))
    });
    match removed.await {
        Ok(reply) => json_reply(&reply),
        Err(error) => disk_error("delete the files", &error),
    }
}

/// The root itself is never deleted, and nothing outside it has a name.
fn unusable_name(file: &str) -> &'static str {
    if file.trim_matches('/').is_empty() {
        "Empty path not allowed"
    } else {
        "Path not allowed"
    }
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => "Not found".to_owned(),
        _ => error.to_string(),
    }
}

fn json_reply(value: &Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}
