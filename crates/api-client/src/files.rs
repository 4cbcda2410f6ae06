//! The file server: where tasks put artifacts, models and images. It is no part of the API (no envelope,
//! no versions), but it takes the API's tokens.

use std::collections::BTreeMap;

use bytes::Bytes;
use reqwest::RequestBuilder;
use reqwest::multipart::{Form, Part};
use serde::Deserialize;
use serde_json::json;
use url::Url;

use crate::call::Call;
use crate::client::Client;
use crate::error::ApiError;
use crate::transport::Transport;

/// A file server (`api.files_server`), used with a client's session. Every request is sent once, and once
/// more after a 401: repeating a transfer is for the caller to decide, who knows its size.
#[derive(Debug)]
pub struct Files {
    client: Client,
    transport: Transport,
    base: Url,
}

/// What [`Files::delete_many`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct RemovedFiles {
    /// Removed paths: as asked for, and as the server understood them.
    pub deleted: BTreeMap<String, String>,
    /// Paths that were not removed, by reason.
    pub errors: BTreeMap<String, Vec<String>>,
}

impl Client {
    /// The file server at this address. It may be a path on the API server's port.
    ///
    /// # Errors
    /// [`ApiError::Options`] when the address cannot be used.
    pub fn files(&self, files_server: &str) -> Result<Files, ApiError> {
        let mut options = self.inner.options.clone();
        files_server.clone_into(&mut options.api_server);
        let transport = Transport::new(&options)?;
        let text = transport.server.url("", None);
        let base = Url::parse(text.trim_end_matches('/')).map_err(|error| ApiError::Options {
            reason: format!(
                "api.files_server {} is not a URL: {error}",
                transport.server.shown()
            ),
        })?;
        Ok(Files {
            client: self.clone(),
            transport,
            base,
        })
    }
}

impl Files {
    /// The address of a file, for people and for the API: `path` has `/` between its parts.
    ///
    /// # Errors
    /// [`ApiError::Options`] for an empty path, or one with `.` or `..` in it.
    pub fn url(&self, path: &str) -> Result<String, ApiError> {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        if parts.is_empty() || parts.iter().any(|part| matches!(*part, "." | "..")) {
            return Err(ApiError::Options {
                reason: format!("{path:?} is not the path of a file"),
            });
        }
        let mut url = self.base.clone();
        url.path_segments_mut()
            .expect("an address with a host has a path")
            .pop_if_empty()
            .extend(parts);
        Ok(url.into())
    }

    /// Stores a file, overwriting another one there.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn upload(&self, path: &str, content: impl Into<Bytes>) -> Result<(), ApiError> {
        self.url(path)?;
        let content = content.into();
        let name = path.rsplit('/').next().unwrap_or(path).to_owned();
        let build = || {
            let part = Part::stream(content.clone()).file_name(name.clone());
            // The server takes the name of the field for the path, as it stands.
            let form = Form::new().percent_encode_noop().part(path.to_owned(), part);
            self.transport.http.post(self.base.as_str()).multipart(form)
        };
        self.send("files.upload", content.len(), build).await.map(drop)
    }

    /// Reads a file of at most [`max_response_bytes`](crate::ClientOptions::max_response_bytes).
    ///
    /// # Errors
    /// 404 when there is no such file. See [`ApiError`].
    pub async fn download(&self, path: &str) -> Result<Bytes, ApiError> {
        let url = self.url(path)?;
        self.send("files.download", 0, || self.transport.http.get(&url))
            .await
    }

    /// Whether there is such a file.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn exists(&self, path: &str) -> Result<bool, ApiError> {
        let url = self.url(path)?;
        missing_is_false(
            self.send("files.head", 0, || self.transport.http.head(&url))
                .await,
        )
    }

    /// Removes a file; `false` when there was none.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn delete(&self, path: &str) -> Result<bool, ApiError> {
        let url = self.url(path)?;
        missing_is_false(
            self.send("files.delete", 0, || self.transport.http.delete(&url))
                .await,
        )
    }

    /// Removes files, and folders with everything in them.
    ///
    /// # Errors
    /// [`ApiError::Options`] for a path with `.` or `..` in it. See [`ApiError`].
    pub async fn delete_many(&self, paths: &[&str]) -> Result<RemovedFiles, ApiError> {
        let mut encoded = Vec::with_capacity(paths.len());
        let prefix = self.base.path().trim_end_matches('/').len() + 1;
        for path in paths {
            let url = self.url(path)?;
            let path =
                Url::parse(&url).map_or_else(|_| (*path).to_owned(), |url| url.path()[prefix..].to_owned());
            encoded.push(path);
        }
        let mut url = self.base.clone();
        url.path_segments_mut()
            .expect("an address with a host has a path")
            .pop_if_empty()
            .push("delete_many");
        let body = json!({ "files": encoded });
        let endpoint = "files.delete_many";
        let reply = self
            .send(endpoint, 0, || self.transport.http.post(url.as_str()).json(&body))
            .await?;
        serde_json::from_slice(&reply).map_err(|error| ApiError::Data {
            endpoint: endpoint.to_owned(),
            reason: error.to_string(),
        })
    }

    async fn send(
        &self,
        endpoint: &'static str,
        size: usize,
        build: impl Fn() -> RequestBuilder,
    ) -> Result<Bytes, ApiError> {
        let inner = &self.client.inner;
        let call = Call::new(endpoint);
        let needs_login = |source| ApiError::Login {
            endpoint: endpoint.to_owned(),
            source: Box::new(inner.redacted(source)),
        };
        let mut held = inner.valid_token().await.map_err(needs_login)?;
        let mut first = true;
        loop {
            let request = build().bearer_auth(held.token.expose());
            match self.transport.send_foreign(&call, size, request).await {
                Err(ApiError::Unauthorized { .. }) if first => {
                    first = false;
                    held = inner.replace(&held).await.map_err(needs_login)?;
                }
                other => return other.map_err(|error| inner.redacted(error)),
            }
        }
    }
}

fn missing_is_false(outcome: Result<Bytes, ApiError>) -> Result<bool, ApiError> {
    match outcome {
        Ok(_) => Ok(true),
        Err(error) if error.is_code(404, 0) => Ok(false),
        Err(error) => Err(error),
    }
}
