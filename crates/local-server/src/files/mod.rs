//! The file server: uploads of artifacts, models and debug samples below one root folder.

use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use crate::server::Shared;

/// What the file server needs to know.
pub(crate) struct FilesState {
    /// Folder that holds everything; nothing outside is ever read or written.
    pub(crate) root: PathBuf,
    /// Largest upload in bytes.
    pub(crate) max_upload_bytes: u64,
    /// Token checks and the clock.
    pub(crate) server: Arc<Shared>,
}

/// Answers one request. `path` is the raw (percent-encoded) path below the server's base, with its leading slash;
/// the base is empty on the file port and `/files` on the API port.
pub(crate) async fn handle(state: Arc<FilesState>, path: String, request: Request) -> Response {
    let _ = (&state.root, state.max_upload_bytes, &state.server, path, request);
    StatusCode::NOT_FOUND.into_response()
}
