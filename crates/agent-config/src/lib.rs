//! The configuration of the agent: `clearml.conf`, environment variables and command line as one typed
//! value that knows where each part of it came from.
//!
//! ```
//! use clearml_agent_config::{Settings, Sources};
//!
//! # fn main() -> Result<(), clearml_agent_config::ConfigError> {
//! let sources = Sources {
//!     env: [("CLEARML_API_HOST".to_owned(), "http://localhost:8008".to_owned())].into(),
//!     home: Some("/home/me".into()),
//!     ..Sources::default()
//! };
//! let settings = Settings::load(&sources)?;
//! assert_eq!(settings.api.require_server()?, "http://localhost:8008");
//! assert_eq!(settings.api.files_server.as_deref(), Some("http://localhost:8081"));
//! assert_eq!(settings.agent.vcs_cache.path.to_str(), Some("/home/me/.clearml/vcs-cache"));
//! let origin = settings.origin("api.api_server").map(|origin| origin.to_string());
//! assert_eq!(origin.as_deref(), Some("environment variable CLEARML_API_HOST"));
//! # Ok(())
//! # }
//! ```
//!
//! # How it works
//!
//! Every key and every environment variable is declared once, in a table ([`declarations`],
//! [`variables`]): type, default, variables, description, whether it is a secret. [`Settings::load`]
//!
//! 1. reads the layers: packaged defaults, configuration folder, files, `CLEARML_AGENT__…` overrides,
//!    mapped variables, command line. Files are HOCON in ClearML's dialect; the `hocon-rs` crate
//!    parses and resolves them behind a scanner that knows the dialect and the positions;
//! 2. merges them with the `config` crate, each value carrying its [`Origin`];
//! 3. checks every declared key against its type and warns of keys that nobody knows;
//! 4. fills the typed structures, and puts what it worked out (host name, servers) into the tree.
//!
//! The merged tree remains available: whole for the process that runs a task
//! ([`Settings::effective_json`]), without secrets for people ([`Settings::masked_json`]), and by key
//! ([`Settings::get`]).
//!
//! # What it is not for
//!
//! It reads no configuration from the server, writes no files, does not look for interpreters or
//! devices, and changes nothing in the process. Loading twice from the same [`Sources`] and files gives
//! the same settings; only a substitution like `${NAME}` that neither the document nor
//! [`Sources::env`] answers falls back to the environment of the process.
//!
//! Reading is bounded: file size, nesting, includes, and the size to which substitutions may grow.

mod convert;
mod effective;
mod error;
mod hocon;
mod keys;
mod layers;
mod mask;
mod origin;
mod settings;
mod source;

pub use error::{ConfigError, Place, Warning};
pub use keys::{Declaration, DefaultValue, Kind, Variable, declaration, declarations, variables};
pub use layers::Sources;
pub use origin::Origin;
pub use settings::{
    AgentSettings, ApiSettings, CacheSettings, ConsoleSettings, Credentials, EnvironmentOverrides,
    GitCredential, GitSettings, HttpMethod, InitialConnect, OnStop, PackageManager, PackageManagerSettings,
    PollSettings, Settings, TlsVerify, VenvsCacheSettings,
};
