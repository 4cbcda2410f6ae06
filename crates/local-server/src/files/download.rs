//! Reading files: whole, in part, or only when they changed.

use std::ffi::OsStr;
use std::io::{self, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use axum::body::{Body, Bytes};
use axum::http::request::Parts;
use axum::http::response::Builder;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};

use super::range::{self, Wanted};
use super::{FilesState, blocking, disk_error, not_found, target_of};
use crate::http::dispatch::text_header;

/// Bytes read from the disk at a time.
const CHUNK: usize = 256 * 1024;

/// What a file is now.
struct Facts {
    size: u64,
    etag: String,
    modified: SystemTime,
}

pub(super) async fn answer(state: &FilesState, path: &str, request: Parts) -> Response {
    let Some(target) = target_of(path) else {
        return not_found();
    };
    let tree = std::sync::Arc::clone(&state.tree);
    let wanted = target.clone();
    let opened = blocking(move || {
        let file = tree.read(&wanted)?;
        let facts = Facts::of(&file)?;
        Ok((file, facts))
    });
    let (file, facts) = match opened.await {
        Ok(opened) => opened,
        // A file where a folder was expected is nothing that a reader could find.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => return not_found(),
        Err(error) => return disk_error("read the file", &error),
    };
    let attachment = request.uri.query().is_some_and(asks_for_attachment);
    let reply = Response::builder()
        .header(header::ETAG, &facts.etag)
        .header(header::LAST_MODIFIED, httpdate::fmt_http_date(facts.modified))
        .header(header::CACHE_CONTROL, "public, max-age=300")
        .header(header::ACCEPT_RANGES, "bytes")
        .header(header::CONTENT_DISPOSITION, disposition(target.file_name(), attachment))
        // A page that a task uploaded shares its origin with the API: it may run scripts, but not as the user.
        .header(header::CONTENT_SECURITY_POLICY, "sandbox allow-scripts")
        .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    let reply = deliver(
        reply,
        &request,
        tokio::fs::File::from_std(file),
        &facts,
        target.file_name(),
    )
    .await;
    reply.unwrap_or_else(|error| disk_error("read the file", &error))
}

async fn deliver(
    reply: Builder,
    request: &Parts,
    mut file: tokio::fs::File,
    facts: &Facts,
    name: &OsStr,
) -> io::Result<Response> {
    let headers = &request.headers;
    if unchanged(headers, facts) {
        return finish(reply.status(StatusCode::NOT_MODIFIED), Body::empty());
    }
    let range = text_header(headers, "range").filter(|_| range_still_applies(headers, facts));
    let reply = reply.header(header::CONTENT_TYPE, content_type(name));
    let (reply, start, end) = match range.map_or(Wanted::Whole, |range| range::parse(range, facts.size)) {
        Wanted::Whole => (reply.status(StatusCode::OK), 0, facts.size),
        Wanted::Part(start, end) => {
            let shown = format!("bytes {start}-{}/{}", end - 1, facts.size);
            (
                reply
                    .status(StatusCode::PARTIAL_CONTENT)
                    .header(header::CONTENT_RANGE, shown),
                start,
                end,
            )
        }
        Wanted::Unsatisfiable => {
            let shown = format!("bytes */{}", facts.size);
            let reply = reply
                .status(StatusCode::RANGE_NOT_SATISFIABLE)
                .header(header::CONTENT_RANGE, shown);
            return finish(reply, Body::empty());
        }
    };
    let reply = reply.header(header::CONTENT_LENGTH, end - start);
    if request.method == Method::HEAD {
        return finish(reply, Body::empty());
    }
    file.seek(SeekFrom::Start(start)).await?;
    finish(reply, stream(file, end - start))
}

fn finish(reply: Builder, body: Body) -> io::Result<Response> {
    reply
        .body(body)
        .map(IntoResponse::into_response)
        .map_err(io::Error::other)
}

/// The next `length` bytes of a file, read as the client takes them.
fn stream(file: tokio::fs::File, length: u64) -> Body {
    Body::from_stream(futures::stream::try_unfold(
        (file, length),
        |(mut file, left)| async move {
            if left == 0 {
                return Ok(None);
            }
            let room = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
            let mut buffer = vec![0; room];
            let read = file.read(&mut buffer).await?;
            if read == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            }
            buffer.truncate(read);
            Ok(Some((Bytes::from(buffer), (file, left - read as u64))))
        },
    ))
}

impl Facts {
    fn of(file: &std::fs::File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        let modified = metadata.modified()?;
        // Uploads replace the whole file, so the inode changes even when size and time do not.
        let etag = format!(
            "\"{:x}-{:x}-{:x}\"",
            metadata.ino(),
            metadata.size(),
            metadata
                .mtime()
                .wrapping_mul(1_000_000_000)
                .wrapping_add(metadata.mtime_nsec())
        );
        Ok(Self {
            size: metadata.len(),
            etag,
            modified,
        })
    }

    /// HTTP dates have whole seconds.
    fn modified_not_after(&self, date: &str) -> bool {
        let given = httpdate::parse_http_date(date);
        given.is_ok_and(|given| self.modified < given + Duration::from_secs(1))
    }
}

fn unchanged(headers: &HeaderMap, facts: &Facts) -> bool {
    if let Some(known) = text_header(headers, "if-none-match") {
        return known
            .split(',')
            .map(|tag| tag.trim().trim_start_matches("W/"))
            .any(|tag| tag == "*" || tag == facts.etag);
    }
    text_header(headers, "if-modified-since").is_some_and(|date| facts.modified_not_after(date))
}

/// With `If-Range`, a part is only wanted of the file that the client began with.
fn range_still_applies(headers: &HeaderMap, facts: &Facts) -> bool {
    match text_header(headers, "if-range") {
        None => true,
        Some(tag) if tag.starts_with('"') => tag == facts.etag,
        Some(date) => facts.modified_not_after(date),
    }
}

/// Guessed from the name. Compressed files are opaque: a type that describes their contents would make clients
/// unpack what they asked to store.
fn content_type(name: &OsStr) -> String {
    let path = Path::new(name);
    if path
        .extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("gz"))
    {
        return "application/octet-stream".to_owned();
    }
    let guess = mime_guess::from_path(path).first_or_octet_stream();
    if guess.type_() == mime_guess::mime::TEXT {
        format!("{guess}; charset=utf-8")
    } else {
        guess.to_string()
    }
}

fn asks_for_attachment(query: &str) -> bool {
    url::form_urlencoded::parse(query.as_bytes()).any(|(name, _)| name == "download")
}

fn disposition(name: &OsStr, attachment: bool) -> String {
    let kind = if attachment { "attachment" } else { "inline" };
    let name = name.to_string_lossy();
    format!(
        "{kind}; filename*=UTF-8''{}",
        utf8_percent_encode(&name, NON_ALPHANUMERIC)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_guessed_and_gzip_stays_opaque() {
        for (name, expected) in [
            ("a.json", "application/json"),
            ("a.png", "image/png"),
            ("a.txt", "text/plain; charset=utf-8"),
            ("a.csv.gz", "application/octet-stream"),
            ("a", "application/octet-stream"),
        ] {
            assert_eq!(content_type(OsStr::new(name)), expected, "{name}");
        }
    }
}
