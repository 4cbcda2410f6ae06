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
//! [`variables`]): type, default, variables, description, whether it is a secret, and whether it takes
//! effect yet ([`Standing`]). Packaged defaults are part of the table. [`Settings::load`]
//!
//! 1. reads the layers: packaged defaults, configuration folder, files, `CLEARML_AGENT__…` overrides,
//!    mapped variables, command line. Files are HOCON in ClearML's dialect; the `hocon-rs` crate
//!    parses and resolves them behind a scanner that knows the dialect and the positions;
//! 2. merges them with the `config` crate, each value carrying its [`Origin`];
//! 3. checks every declared key against its type and warns of keys that nobody knows;
//! 4. fills the typed structures, and puts what it worked out (host name, servers) into the tree.
//!
//! The merged tree remains available: whole for the process that runs a task
//! ([`Settings::effective_json`]), without secrets for people ([`Settings::masked_json`], [`printout`]),
//! and by key ([`Settings::get`], and typed, [`Settings::flag`] and its like).
//!
//! Layers are kept, so that more can come later: what the server's vaults say
//! ([`Settings::with_vaults`]), what a part of the program decides ([`Settings::with_overrides`]), or the
//! same files anew ([`Settings::reload`]). A command that is about to run tasks calls
//! [`Settings::prepare`], which creates the folders of the caches and the files of the section `files`.
//!
//! # Decisions
//!
//! * An ill-typed value is an error, also for keys without effect, because the file would fail with
//!   another agent; what is only handed on to the SDK is not judged. Where the Python agent goes on with
//!   a substitute, so do we, after a warning ([`Declaration::instead`]).
//! * The `environment` section is never set in this process, which may have threads. It is for the
//!   processes that are started ([`Settings::environment`]).
//! * Vaults, and texts that are not files, may include nothing; documents that came by URL may include
//!   other URLs but no files. A vault whose objects are written by indentation is YAML, whatever it
//!   would mean as HOCON.
//! * A file of the section `files` without a mode is private, or keeps the mode that it has; links at its
//!   place are replaced, not followed.
//! * Masking hides more than the Python agent does: declared secrets whatever the patterns say,
//!   passwords in all URLs, `--env=NAME=…` as well as `-e NAME=…`, and variables whose names speak of secrets.
//!
//! # What it is not for
//!
//! It makes no connections (see [`Fetch`] and [`Vault`] for what others may bring in), does not look for
//! interpreters or devices, and changes nothing in the process. Only [`Settings::prepare`] and
//! [`Settings::write_files`] write anything. Loading twice from the same [`Sources`] and files gives
//! the same settings; only a substitution like `${NAME}` that neither the document nor
//! [`Sources::env`] answers falls back to the environment of the process.
//!
//! Reading is bounded: file size, nesting, includes, and the size to which substitutions may grow.

mod convert;
mod effective;
mod error;
mod fetch;
mod files;
mod folder;
mod hocon;
mod keys;
mod layers;
mod left_out;
mod mask;
mod notice;
mod origin;
mod prepare;
mod printout;
mod settings;
mod source;
mod vaults;

pub use error::{ConfigError, Place, Warning};
pub use fetch::Fetch;
pub use files::{PlannedFile, UnusableFile};
pub use keys::{
    Class, Declaration, DefaultValue, Kind, Section, Standing, Variable, VariableSection, declaration,
    declarations, sections, variable, variable_sections, variables,
};
pub use layers::Sources;
pub use mask::{CommandMask, mask_urls};
pub use notice::{Notice, NoticeLevel};
pub use origin::Origin;
pub use prepare::Prepared;
pub use printout::{printout, properties};
pub use settings::{
    AgentSettings, ApiSettings, CacheSettings, ConsoleSettings, ContainerSettings, Credentials,
    EnvironmentOverrides, GitCredential, GitSettings, HgSettings, HttpMethod, InitialConnect, InternalMounts,
    OnStop, PackageManager, PackageManagerSettings, PollSettings, RetryCounts, Settings, TlsVerify,
    TorchSettings, VenvsCacheSettings,
};
pub use vaults::{Vault, WithVaults};

/// Reads one text in the language of `clearml.conf` by itself: substitutions are resolved, nothing is laid
/// over anything, nothing is checked against the declarations. The text may include nothing.
///
/// `name` stands for the text in errors.
///
/// # Errors
///
/// [`ConfigError`], when the text is too long or is not HOCON.
pub fn parse(text: &str, name: &std::path::Path) -> Result<serde_json::Value, ConfigError> {
    if text.len() as u64 > hocon::MAX_FILE_BYTES {
        return Err(ConfigError::Read {
            path: name.to_path_buf(),
            source: std::io::Error::from(std::io::ErrorKind::FileTooLarge),
        });
    }
    let context = hocon::Context {
        env: &std::collections::BTreeMap::new(),
        fetch: None,
    };
    let document = hocon::read_text_as(text, name, &hocon::Base::Closed, &context)?;
    Ok(serde_json::Value::Object(document.root))
}
