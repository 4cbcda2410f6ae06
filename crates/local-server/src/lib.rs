//! An embedded ClearML-compatible server: the API, the storage and the file server of one user, in one process,
//! on SQLite. It exists so that an agent can be tried, taught and tested without an installation.
//!
//! What it is for: a laptop, a test suite, a demonstration. The official Python SDK, the official Python agent and
//! this project's agent work against it unmodified.
//!
//! What it is not for: several users, a large network, or millions of tasks. There is one company with one
//! administrator, it listens on loopback unless told otherwise, and every selection that is not by id reads the stored
//! documents of the candidates.
//!
//! # How it works
//!
//! ```text
//! socket ── http: path, body, version, fault switches ── auth ── one storage thread ── envelope ── socket
//!                                                                 │ transaction per call
//!                                                                 └ one commit (fsync) for all calls that wait
//! ```
//!
//! * An API endpoint is a plain function from a call and a transaction to a JSON value or a fault. It neither
//!   waits nor knows HTTP.
//! * All writing calls run one after another on a single thread, so "atomic" needs no further thought: a pop, an
//!   enqueue or a status transition is simply a function. Calls that arrive while the disk is busy share the next
//!   commit. A reply leaves only after its commit is on disk (`journal_mode=WAL`, `synchronous=FULL`), so neither
//!   `kill -9` nor a power cut loses an acknowledged write.
//! * Reading calls run on a second connection and never wait for the disk.
//! * A task is one JSON document plus a few indexed columns. Selections use the columns where they can and filter
//!   the documents in memory for the rest.
//!
//! The client configuration `clearml.conf` (mode 0600) is written into the data folder after the ports are known and
//! before the first request is served. Any client can use it through `CLEARML_CONFIG_FILE`.
//!
//! With [`TlsFiles`] every port speaks https. Handshakes are done beside the accepting of connections and for at most
//! ten seconds, so that a silent client holds up nobody; plain HTTP gets a plain explanation.
//!
//! With [`ServerOptions::web_port`] there is a small web page on a port of its own: HTML from here, escaped by
//! construction, made of what the API's own operations return, behind a sign-in with the server's keys. Every form
//! carries a token; origin and `Host` are checked; the content security policy allows this server's own script and
//! style only.
//!
//! # Example
//!
//! ```no_run
//! # async fn demo() -> Result<(), clearml_local_server::ServerError> {
//! use clearml_local_server::{Server, ServerOptions};
//! let server = Server::start(ServerOptions::new("/tmp/my-server")).await?;
//! println!("{} with {}", server.api_url(), server.config_path().display());
//! server.shutdown().await;
//! # Ok(()) }
//! ```

mod addresses;
mod api;
mod auth;
mod clock;
mod conf;
mod events;
mod files;
mod http;
mod options;
mod select;
mod server;
mod store;
mod time;
mod web;

pub use clock::Clock;
pub use http::tls::TlsError;
pub use options::{ServerOptions, TlsFiles};
pub use server::{Server, ServerError};
