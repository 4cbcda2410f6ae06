//! Which document an `include` means, and its text.

use std::path::{Path, PathBuf};

use hocon_rs::raw::include::{Inclusion, Location};
use url::Url;

use super::{Context, MAX_FILE_BYTES, read_text, text_of};
use crate::error::ConfigError;

/// What the includes of a document are relative to.
#[derive(Debug, Clone)]
pub(crate) enum Base {
    /// The file that the document is.
    File(PathBuf),
    /// The address that it came from. It can name other addresses, but no files of this machine.
    Url(Url),
    /// The document comes from elsewhere and may include nothing.
    Closed,
}

/// An included document.
pub(super) struct Included {
    pub(super) text: String,
    /// What messages call it.
    pub(super) name: PathBuf,
    pub(super) base: Base,
}

/// Why there is no included document.
pub(super) enum Missing {
    /// It is not there; that matters only where it is required.
    Absent(String),
    /// The statement is not acceptable, or the document is not.
    Refused(String),
    /// The same, with a place of its own.
    Broken(ConfigError),
}

/// What an include names: a file or an address.
pub(super) enum Target {
    File(PathBuf),
    Url(Url),
}

impl Target {
    pub(super) fn of(inclusion: &Inclusion, base: &Base) -> Result<Self, Missing> {
        let text = inclusion.path.as_str();
        let is_url = match inclusion.location {
            Some(Location::Classpath) => {
                return Err(Missing::Refused(format!(
                    "cannot include {text}: there is no class path; name a file"
                )));
            }
            Some(Location::Url) => true,
            Some(Location::File) => false,
            None => ["http://", "https://", "file://"]
                .iter()
                .any(|scheme| text.starts_with(scheme)),
        };
        match base {
            Base::Closed => Err(Missing::Refused(format!(
                "cannot include {text}: this document may not include others"
            ))),
            Base::Url(from) => match from.join(text) {
                Ok(url) if matches!(url.scheme(), "http" | "https") => Ok(Self::Url(url)),
                _ => Err(Missing::Refused(format!(
                    "cannot include {text}: a document from the network may include no file of this machine"
                ))),
            },
            Base::File(from) if !is_url => Ok(Self::File(
                from.parent().unwrap_or_else(|| Path::new("")).join(text),
            )),
            Base::File(_) => match Url::parse(text) {
                Ok(url) if url.scheme() == "file" => url
                    .to_file_path()
                    .map(Self::File)
                    .map_err(|()| Missing::Absent(format!("{text} names no file of this machine"))),
                Ok(url) if matches!(url.scheme(), "http" | "https") => Ok(Self::Url(url)),
                _ => Err(Missing::Absent(format!(
                    "{text} is no URL that begins with http://, https:// or file://"
                ))),
            },
        }
    }

    /// What makes this document the same as another, whatever it is called.
    pub(super) fn identity(&self) -> PathBuf {
        match self {
            Self::File(path) => std::fs::canonicalize(path).unwrap_or_else(|_| path.clone()),
            Self::Url(url) => PathBuf::from(url.as_str()),
        }
    }

    pub(super) fn read(self, context: &Context<'_>) -> Result<Included, Missing> {
        match self {
            Self::File(path) => match read_text(&path) {
                Ok(text) => Ok(Included {
                    text,
                    base: Base::File(path.clone()),
                    name: path,
                }),
                Err(ConfigError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                    Err(Missing::Absent(format!(
                        "the included file {} does not exist",
                        path.display()
                    )))
                }
                Err(error) => Err(Missing::Broken(error)),
            },
            Self::Url(url) => {
                let shown = clearml_support::redact::mask_url(url.as_str());
                let name = PathBuf::from(&shown);
                let Some(fetch) = context.fetch else {
                    return Err(Missing::Absent(format!(
                        "{shown} is not included, this program reads configuration from files only; \
                         download it and name the file"
                    )));
                };
                let bytes = fetch
                    .get(url.as_str(), MAX_FILE_BYTES)
                    .map_err(|reason| Missing::Absent(format!("{shown} cannot be included: {reason}")))?;
                Ok(Included {
                    text: text_of(bytes, &name).map_err(Missing::Broken)?,
                    base: Base::Url(url),
                    name,
                })
            }
        }
    }
}
