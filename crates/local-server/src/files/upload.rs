//! Uploads: every file part of a multipart form becomes the file that its form field names.

use std::ffi::OsStr;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::multipart::{Field, Multipart};
use axum::extract::{DefaultBodyLimit, FromRequest as _, Request};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use super::tree::{Staged, Target};
use super::{FilesState, blocking, disk_error, not_found};

/// How long a client may be silent in the middle of an upload.
const PATIENCE: Duration = Duration::from_secs(300);

pub(super) async fn answer(state: &Arc<FilesState>, mut request: Request) -> Response {
    // The limit is counted while writing; the one of the framework is far too small for models.
    DefaultBodyLimit::disable().apply(&mut request);
    let is_form = request
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"multipart/form-data"));
    if !is_form {
        return stored(&[]);
    }
    let mut form = match Multipart::from_request(request, &()).await {
        Ok(form) => form,
        Err(rejection) => return rejection.into_response(),
    };
    match receive(state, &mut form).await {
        Ok(staged) => publish(staged).await,
        Err(refusal) => refusal,
    }
}

/// Writes all parts to the staging folder. Nothing is published before everything has arrived.
async fn receive(state: &Arc<FilesState>, form: &mut Multipart) -> Result<Vec<(Staged, Target)>, Response> {
    let mut staged = Vec::new();
    let mut room = state.max_upload_bytes;
    loop {
        let next = tokio::time::timeout(PATIENCE, form.next_field())
            .await
            .map_err(|_| too_slow())?;
        let Some(field) = next.map_err(IntoResponse::into_response)? else {
            return Ok(staged);
        };
        if field.file_name().is_none() {
            continue;
        }
        let target = field
            .name()
            .and_then(|name| Target::parse(OsStr::new(name)))
            .ok_or_else(not_found)?;
        staged.push((store(state, field, &mut room).await?, target));
    }
}

async fn store(state: &FilesState, mut field: Field<'_>, room: &mut u64) -> Result<Staged, Response> {
    let failed = |error: io::Error| disk_error("store the upload", &error);
    let tree = Arc::clone(&state.tree);
    let (staged, file) = blocking(move || tree.stage()).await.map_err(failed)?;
    let mut file = tokio::fs::File::from_std(file);
    loop {
        let next = tokio::time::timeout(PATIENCE, field.chunk())
            .await
            .map_err(|_| too_slow())?;
        let Some(chunk) = next.map_err(IntoResponse::into_response)? else {
            break;
        };
        *room = room
            .checked_sub(chunk.len() as u64)
            .ok_or_else(|| too_large(state.max_upload_bytes))?;
        file.write_all(&chunk).await.map_err(failed)?;
    }
    file.flush().await.map_err(failed)?;
    file.sync_all().await.map_err(failed)?;
    Ok(staged)
}

async fn publish(staged: Vec<(Staged, Target)>) -> Response {
    let published = blocking(move || {
        let mut names = Vec::new();
        for (staged, target) in staged {
            staged.publish(&target)?;
            names.push(target.relative());
        }
        Ok(names)
    });
    match published.await {
        Ok(names) => stored(&names),
        Err(error) => disk_error("put the upload in its place", &error),
    }
}

/// The list of stored names. Clients expect this type, although it is JSON.
fn stored(names: &[String]) -> Response {
    (
        [(header::CONTENT_TYPE, "text/html; charset=utf-8")],
        json!(names).to_string(),
    )
        .into_response()
}

fn too_slow() -> Response {
    (StatusCode::REQUEST_TIMEOUT, "the upload stalled\n").into_response()
}

fn too_large(limit: u64) -> Response {
    (
        StatusCode::PAYLOAD_TOO_LARGE,
        format!("the upload is larger than {limit} bytes\n"),
    )
        .into_response()
}
