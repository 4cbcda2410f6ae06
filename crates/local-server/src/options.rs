//! What a caller can choose about a server.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use crate::clock::Clock;

/// A certificate and its key, both PEM.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The certificate, followed by those of intermediate authorities if there are any.
    pub certificate: PathBuf,
    /// The private key (PKCS #8, PKCS #1 or SEC 1), not encrypted.
    pub key: PathBuf,
}

/// How to start a [`crate::Server`]. [`ServerOptions::new`] gives the defaults; every field may be changed.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Folder for the database, uploaded files and `clearml.conf`. Created with mode 0700 when missing.
    pub data_dir: PathBuf,
    /// Address to listen on. Default `127.0.0.1`; an address that is not loopback needs `allow_remote`.
    pub host: IpAddr,
    /// API port; 0 (the default) picks a free one.
    pub port: u16,
    /// File server port; 0 (the default) picks a free one. Files are also served under `/files` of the API port.
    pub files_port: u16,
    /// Port of the web page; 0 picks a free one. Default none: no page.
    pub web_port: Option<u16>,
    /// Serve every port over https with this certificate. Default none: plain http.
    pub tls: Option<TlsFiles>,
    /// Turns on the fault switches (`/_faults`, `/_calls`). Only for tests. Default off.
    pub faults: bool,
    /// Permits an address that other machines can reach. Default off.
    pub allow_remote: bool,
    /// Further values of the `Host` header to answer, without port. Loopback names, loopback addresses and the bound
    /// address are always accepted; anything else is refused, so that a foreign web page cannot reach the server
    /// through a name that it controls.
    pub allowed_hosts: Vec<String>,
    /// Largest request body of an API call, in bytes. Default 64 MiB.
    pub max_body_bytes: usize,
    /// Largest upload to the file server, in bytes. Default 16 GiB.
    pub max_upload_bytes: u64,
    /// Life of a token when the client asks for none. Default 30 days.
    pub token_life: Duration,
    /// `feature_set` claim of tokens. Default `basic`; anything else makes clients try commercial extensions.
    pub feature_set: String,
    /// How often tasks without a sign of life are looked for. Default 900 s.
    pub watchdog_interval: Duration,
    /// Silence after which a running task is stopped. Default 7200 s.
    pub watchdog_threshold: Duration,
    /// Source of time for everything that is stored or expires.
    pub clock: Clock,
}

impl ServerOptions {
    /// Defaults for a data folder: loopback, free ports, no fault switches.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 0,
            files_port: 0,
            web_port: None,
            tls: None,
            faults: false,
            allow_remote: false,
            allowed_hosts: Vec::new(),
            max_body_bytes: 64 * 1024 * 1024,
            max_upload_bytes: 16 * 1024 * 1024 * 1024,
            token_life: Duration::from_secs(30 * 24 * 3600),
            feature_set: "basic".to_owned(),
            watchdog_interval: Duration::from_secs(900),
            watchdog_threshold: Duration::from_secs(7200),
            clock: Clock::system(),
        }
    }
}
