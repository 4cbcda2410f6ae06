//! Starting and stopping: data folder, lock, database, ports, client configuration, then service.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use clearml_support::fs::{create_private_dir, create_private_file, sync_folder, write_atomic};
use clearml_support::lock::FileLock;
use clearml_support::secret::Secret;
use rusqlite::Connection;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::addresses::{Addresses, Ports};
use crate::api::tasks::lifecycle::stop_silent;
use crate::api::{Access, Identity, Registry};
use crate::auth::{Authenticator, keys};
use crate::conf;
use crate::files::FilesState;
use crate::http::connection::{Listener, Peer};
use crate::http::dispatch::{self, ApiState};
use crate::http::faults::Faults;
use crate::http::host::HostRule;
use crate::http::path::Version;
use crate::http::tls::{Tls, TlsError, Trust};
use crate::options::ServerOptions;
use crate::store::schema::SchemaProblem;
use crate::store::{self, Store, StoreThreads};
use crate::time;
use crate::web::{self, Web};

/// The API version that tokens announce.
pub(crate) const API_VERSION: Version = Version::new(2, 34);
/// The server version that tokens announce.
pub(crate) const SERVER_VERSION: &str = "2.3.0";
/// How long open requests may take to finish at shutdown.
const DRAIN: Duration = Duration::from_secs(2);

/// Why a server could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// The address can be reached from other machines.
    #[error(
        "refusing to listen on {0}: other machines could reach it; use a loopback address, or allow remote access explicitly"
    )]
    NotLoopback(IpAddr),
    /// Another server uses the data folder.
    #[error("the data folder {0} is in use by another server; stop that one or choose another folder")]
    InUse(PathBuf),
    /// A file or folder could not be prepared.
    #[error("cannot {doing} {path}: {source}")]
    File {
        /// What was being done.
        doing: &'static str,
        /// With which path.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A port could not be opened.
    #[error("cannot listen on {address}: {source}; choose another port, or 0 for any free one")]
    Listen {
        /// The address wanted.
        address: SocketAddr,
        /// Why it failed.
        source: io::Error,
    },
    /// The TLS certificate or its key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The database could not be opened.
    #[error("cannot open the database {path}: {source}; move the file away to start afresh")]
    Database {
        /// The database file.
        path: PathBuf,
        /// Why it failed.
        source: rusqlite::Error,
    },
    /// The database was written by a newer program.
    #[error(
        "the database {path} has layout {found}, which this program does not know; use the newer program that wrote it"
    )]
    TooNew {
        /// The database file.
        path: PathBuf,
        /// The layout found.
        found: i64,
    },
    /// A thread could not be started.
    #[error("cannot start the storage threads: {0}")]
    Threads(io::Error),
}

/// What every request can see.
pub(crate) struct Shared {
    pub(crate) options: ServerOptions,
    pub(crate) registry: Registry,
    pub(crate) store: Store,
    pub(crate) authenticator: Authenticator,
    /// The one user of this server.
    pub(crate) identity: Identity,
    pub(crate) host_rule: HostRule,
    pub(crate) faults: Faults,
}

/// A running server. Dropping it without [`Server::shutdown`] stops it abruptly, which loses no acknowledged write.
pub struct Server {
    addresses: Addresses,
    access_key: String,
    secret_key: Secret,
    config_path: PathBuf,
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    services: Vec<JoinHandle<()>>,
    threads: StoreThreads,
    lock: FileLock,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Server")
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}

/// What the database holds about the installation itself.
struct Installation {
    writer: Connection,
    reader: Connection,
    authenticator: Authenticator,
    identity: Identity,
    access_key: String,
    secret_key: Secret,
}

impl Server {
    /// Starts a server and returns when it answers. Must be called inside a Tokio runtime with I/O and time.
    ///
    /// # Errors
    /// When the address is not allowed, the data folder is in use or unusable, or a port is taken.
    pub async fn start(options: ServerOptions) -> Result<Self, ServerError> {
        if !options.host.is_loopback() && !options.allow_remote {
            return Err(ServerError::NotLoopback(options.host));
        }
        let tls = options.tls.as_ref().map(Tls::load).transpose()?;
        // People and programs are told where things are, and do not know where we were started.
        let data_dir = std::path::absolute(&options.data_dir)
            .map_err(file_error("find the data folder", &options.data_dir))?;
        create_private_dir(&data_dir).map_err(file_error("create the data folder", &data_dir))?;
        let lock = lock_folder(&data_dir)?;
        let installation = open_database(&data_dir.join("server.db"), &options)?;
        let files_root = data_dir.join("files");
        create_private_dir(&files_root).map_err(file_error("create the folder for files", &files_root))?;

        let ports = Ports::open(&options, tls.as_ref()).await?;
        if !options.host.is_loopback() && tls.is_none() {
            tracing::warn!(
                "other machines can reach this server, and nothing is encrypted on the way: credentials and data can be read; give a TLS certificate and key"
            );
        }
        let Installation {
            writer,
            reader,
            authenticator,
            identity,
            access_key,
            secret_key,
        } = installation;
        let config_path = data_dir.join("clearml.conf");
        let config = conf::render(&ports.addresses, &access_key, &secret_key);
        write_atomic(&config_path, config.as_bytes(), 0o600).map_err(file_error("write", &config_path))?;

        let (store, threads) = Store::start(writer, reader).map_err(ServerError::Threads)?;
        let host_rule = HostRule::new(options.host, &options.allowed_hosts);
        let max_upload_bytes = options.max_upload_bytes;
        let shared = Arc::new(Shared {
            options,
            registry: Registry::new(),
            store,
            authenticator,
            identity,
            host_rule,
            faults: Faults::default(),
        });
        let files = FilesState::open(files_root.clone(), max_upload_bytes, Arc::clone(&shared))
            .map_err(file_error("prepare the folder for files", &files_root))?;
        let files = Arc::new(files);
        let web = Web::new(Arc::clone(&files), ports.addresses.clone(), tls.is_some());
        let (stop, stopped) = watch::channel(false);
        let addresses = ports.addresses.clone();
        let services = spawn_services(ports, &shared, files, web, &stopped);
        Ok(Self {
            addresses,
            access_key,
            secret_key,
            config_path,
            shared,
            stop,
            services,
            threads,
            lock,
        })
    }

    /// Base address of the API, such as `http://127.0.0.1:8008`.
    pub fn api_url(&self) -> String {
        self.addresses.api.clone()
    }

    /// Base address of the file server.
    pub fn files_url(&self) -> String {
        self.addresses.files.clone()
    }

    /// Address of the web page, when there is one.
    pub fn web_url(&self) -> Option<String> {
        self.addresses.web.clone()
    }

    /// The self-signed certificate that clients must be told to trust. The written configuration does so; the
    /// file uploads of the Python SDK look at `REQUESTS_CA_BUNDLE` instead.
    pub fn certificate_to_trust(&self) -> Option<&Path> {
        match &self.addresses.trust {
            Some(Trust::Itself(path)) => Some(path),
            Some(Trust::Authority) | None => None,
        }
    }

    /// The access key of the only user.
    pub fn access_key(&self) -> &str {
        &self.access_key
    }

    /// The secret that goes with [`Server::access_key`].
    pub fn secret_key(&self) -> &Secret {
        &self.secret_key
    }

    /// The ready client configuration, for `CLEARML_CONFIG_FILE`.
    pub fn config_path(&self) -> &Path {
        &self.config_path
    }

    /// Looks for silent tasks now instead of at the next interval, and gives the ids of those it stopped. For tests
    /// that move the clock.
    pub async fn run_watchdog(&self) -> Vec<String> {
        watchdog_round(&self.shared).await
    }

    /// Stops accepting requests, lets open ones finish (for at most two seconds), closes the database and gives the
    /// data folder free.
    pub async fn shutdown(self) {
        let Self {
            shared,
            stop,
            services,
            threads,
            lock,
            ..
        } = self;
        // Nobody listening means that everything has ended already.
        let _ = stop.send(true);
        for mut service in services {
            if tokio::time::timeout(DRAIN, &mut service).await.is_err() {
                service.abort();
                let _ = service.await;
            }
        }
        drop(shared);
        let joined = tokio::time::timeout(DRAIN, tokio::task::spawn_blocking(|| threads.join())).await;
        if joined.is_err() {
            tracing::warn!("the storage is still busy; it finishes by itself");
        }
        drop(lock);
    }
}

fn file_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ServerError {
    let path = path.to_owned();
    move |source| ServerError::File { doing, path, source }
}

fn lock_folder(data_dir: &Path) -> Result<FileLock, ServerError> {
    let path = data_dir.join("server.lock");
    let lock = FileLock::try_acquire(&path).map_err(file_error("lock", &path))?;
    lock.ok_or_else(|| ServerError::InUse(data_dir.to_owned()))
}

/// Begins to answer on every port.
fn spawn_services(
    ports: Ports,
    shared: &Arc<Shared>,
    files: Arc<FilesState>,
    web: Web,
    stopped: &watch::Receiver<bool>,
) -> Vec<JoinHandle<()>> {
    let api = Router::new().fallback(dispatch::api).with_state(ApiState {
        server: Arc::clone(shared),
        files: Arc::clone(&files),
    });
    let files = Router::new().fallback(dispatch::files_port).with_state(files);
    let page = Router::new().fallback(web::handle).with_state(Arc::new(web));
    let mut services = vec![
        tokio::spawn(serve(ports.api, api, stopped.clone())),
        tokio::spawn(serve(ports.files, files, stopped.clone())),
        tokio::spawn(watchdog(Arc::clone(shared), stopped.clone())),
    ];
    services.extend(
        ports
            .web
            .map(|listener| tokio::spawn(serve(listener, page, stopped.clone()))),
    );
    services
}

async fn serve(listener: Listener, router: Router, mut stopped: watch::Receiver<bool>) {
    let service = router.into_make_service_with_connect_info::<Peer>();
    let stop = async move {
        // An error means that the server handle was dropped, which also ends the service.
        let _ = stopped.wait_for(|stop| *stop).await;
    };
    if let Err(error) = axum::serve(listener, service).with_graceful_shutdown(stop).await {
        tracing::error!(%error, "the HTTP service ended");
    }
}

/// Looks for silent tasks until the server stops.
async fn watchdog(shared: Arc<Shared>, mut stopped: watch::Receiver<bool>) {
    loop {
        let rest = tokio::time::timeout(shared.options.watchdog_interval, stopped.wait_for(|stop| *stop));
        if rest.await.is_ok() {
            return;
        }
        watchdog_round(&shared).await;
    }
}

async fn watchdog_round(shared: &Shared) -> Vec<String> {
    let threshold = i64::try_from(shared.options.watchdog_threshold.as_millis()).unwrap_or(i64::MAX);
    let now = shared.options.clock.now_ms();
    let stopped = shared
        .store
        .run(Access::Write, move |tx| stop_silent(tx, now, threshold))
        .await;
    match stopped {
        Ok(ids) => serde_json::from_value(ids).unwrap_or_default(),
        Err(fault) => {
            tracing::warn!("the watchdog could not look for silent tasks: {}", fault.msg);
            Vec::new()
        }
    }
}

/// Opens the database, creating what a new installation needs.
fn open_database(path: &Path, options: &ServerOptions) -> Result<Installation, ServerError> {
    if !path.exists() {
        // SQLite gives its companion files the mode of the database file.
        create_private_file(path).map_err(file_error("create", path))?;
    }
    let sqlite = |source| ServerError::Database {
        path: path.to_owned(),
        source,
    };
    let mut writer = store::open_writer(path).map_err(sqlite)?;
    store::schema::ensure(&mut writer).map_err(|problem| match problem {
        SchemaProblem::Sqlite(source) => sqlite(source),
        SchemaProblem::TooNew(found) => ServerError::TooNew {
            path: path.to_owned(),
            found,
        },
    })?;
    let installation = install(writer, path, options.clock.now_ms()).map_err(sqlite)?;
    if let Some(folder) = path.parent() {
        sync_folder(folder).map_err(file_error("sync", folder))?;
    }
    Ok(installation)
}

fn install(mut writer: Connection, path: &Path, now: i64) -> rusqlite::Result<Installation> {
    let tx = writer.transaction()?;
    let secret = store::meta::get_or_create(&tx, "token_secret", || keys::secret_key().expose().to_owned())?;
    let access_key = store::meta::get_or_create(&tx, "access_key", keys::access_key)?;
    let secret_key =
        store::meta::get_or_create(&tx, "secret_key", || keys::secret_key().expose().to_owned())?;
    let company = store::meta::get_or_create(&tx, "company", clearml_support::id::hex32)?;
    let user = store::meta::get_or_create(&tx, "user", clearml_support::id::hex32)?;
    let identity = Identity {
        user,
        user_name: "local user".to_owned(),
        company,
        company_name: "local".to_owned(),
        role: "admin".to_owned(),
        session: None,
        access_key: None,
    };
    let first_start: bool = tx.query_row("SELECT NOT EXISTS (SELECT 1 FROM users)", [], |row| row.get(0))?;
    if first_start {
        let doc = json!({"id": identity.user, "name": identity.user_name, "given_name": "local", "family_name": "user",
            "company": identity.company, "role": identity.role, "created": time::iso(now)});
        store::users::save(&tx, &identity.user, &doc)?;
        store::credentials::insert(
            &tx,
            &access_key,
            &secret_key,
            &identity.user,
            Some("first start"),
            now,
        )?;
        let mut queue = crate::api::queues::fresh("default", &identity.company, now);
        queue["system_tags"] = json!(["default"]);
        store::queues::save(&tx, &queue)?;
    }
    tx.execute("DELETE FROM revoked_sessions WHERE expires < ?1", [now / 1000])?;
    let revoked: HashMap<String, i64> = tx
        .prepare("SELECT session, expires FROM revoked_sessions")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    tx.commit()?;
    let reader = store::open_reader(path)?;
    let authenticator = Authenticator::new(secret.into_bytes(), revoked);
    Ok(Installation {
        writer,
        reader,
        authenticator,
        identity,
        access_key,
        secret_key: Secret::new(secret_key),
    })
}
