//! The file server: uploads of artifacts, models and debug samples below one root folder.
//!
//! Who may do what, and which request goes where, is decided here. [`tree`] is the only part that touches the disk by
//! name, and it cannot leave the root. A file is either there whole or not there: uploads are written to a staging
//! folder beside the root, synced, and renamed into place.

mod download;
mod range;
mod remove;
mod tree;
mod upload;

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

use crate::auth::Credential;
use crate::server::Shared;
use tree::{Target, Tree};

/// What the file server needs to know.
pub(crate) struct FilesState {
    tree: Arc<Tree>,
    /// Largest upload in bytes.
    max_upload_bytes: u64,
    /// Token checks and the clock.
    pub(crate) server: Arc<Shared>,
}

impl FilesState {
    /// Opens the folder that holds everything, and clears away uploads that a kill interrupted.
    pub(crate) fn open(root: PathBuf, max_upload_bytes: u64, server: Arc<Shared>) -> io::Result<Self> {
        let staging = root.with_file_name("uploads");
        Ok(Self {
            tree: Arc::new(Tree::open(root, staging)?),
            max_upload_bytes,
            server,
        })
    }

    /// 401 unless the request carries a good token. Keys are for the API only.
    fn refuse_stranger(&self, headers: &HeaderMap) -> Option<Response> {
        let token = match Credential::from_headers(headers) {
            Ok(Some(Credential::Token(token))) => token,
            Ok(Some(Credential::Keys { .. })) | Err(_) => {
                return Some(unauthorized("a bearer token is needed"));
            }
            Ok(None) => return Some(unauthorized("no token was given")),
        };
        let now = self.server.options.clock.now_ms();
        self.server
            .authenticator
            .verify(&token, now)
            .err()
            .map(|fault| unauthorized(&fault.msg))
    }
}

fn unauthorized(why: &str) -> Response {
    (StatusCode::UNAUTHORIZED, format!("{why}\n")).into_response()
}

/// Answers one request. `path` is the raw (percent-encoded) path below the server's base, with its leading slash;
/// the base is empty on the file port and `/files` on the API port.
pub(crate) async fn handle(state: Arc<FilesState>, path: String, request: Request) -> Response {
    let at_base = matches!(path.as_str(), "" | "/");
    let method = request.method().clone();
    if method == Method::OPTIONS {
        return StatusCode::OK.into_response();
    }
    if request.headers().contains_key(header::CONTENT_ENCODING) {
        return (
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "compressed requests are not supported\n",
        )
            .into_response();
    }
    let reads = matches!(method, Method::GET | Method::HEAD);
    let says_who = request.headers().contains_key(header::AUTHORIZATION)
        || request.headers().contains_key(header::COOKIE);
    let anonymous_is_fine = reads && at_base && !says_who;
    if !anonymous_is_fine && let Some(refusal) = state.refuse_stranger(request.headers()) {
        return refusal;
    }
    match method {
        Method::GET | Method::HEAD if at_base => "OK".into_response(),
        Method::GET | Method::HEAD => download::answer(&state, &path, request.into_parts().0).await,
        Method::POST if at_base => upload::answer(&state, request).await,
        Method::POST if path == "/delete_many" => remove::many(&state, request).await,
        Method::DELETE => remove::one(&state, &path).await,
        _ => (
            StatusCode::METHOD_NOT_ALLOWED,
            "files are uploaded by POST to the base address\n",
        )
            .into_response(),
    }
}

/// A file for somebody whose right to it has been checked already, never shown in place.
pub(crate) async fn attachment(state: &FilesState, path: &str, request: &Parts) -> Response {
    let mut request = request.clone();
    request.uri = Uri::from_static("/?download");
    download::answer(state, path, request).await
}

/// The file that a percent-encoded path names, unless no file can have that name.
fn target_of(encoded: &str) -> Option<Target> {
    Target::parse(&OsString::from_vec(
        percent_encoding::percent_decode_str(encoded).collect(),
    ))
}

fn not_found() -> Response {
    (StatusCode::NOT_FOUND, "there is no such file\n").into_response()
}

/// What an error of the disk looks like to a client.
fn disk_error(doing: &str, error: &io::Error) -> Response {
    use io::ErrorKind::{InvalidFilename, IsADirectory, NotADirectory, NotFound, StorageFull};
    let status = match error.kind() {
        NotFound => return not_found(),
        IsADirectory | NotADirectory => StatusCode::CONFLICT,
        InvalidFilename => StatusCode::BAD_REQUEST,
        StorageFull => StatusCode::INSUFFICIENT_STORAGE,
        _ => {
            tracing::error!(%error, "cannot {doing}");
            StatusCode::INTERNAL_SERVER_ERROR
        }
    };
    (status, format!("cannot {doing}: {error}\n")).into_response()
}

/// Runs disk work where it may block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
}
