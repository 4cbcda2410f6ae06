//! Names of images.

use std::fmt;

use thiserror::Error;

/// The registry of names that name none.
const DEFAULT_REGISTRY: &str = "docker.io";

/// A text that is not the name of an image.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{text:?} is not the name of an image: {reason}; [REGISTRY/]NAME[:TAG][@sha256:DIGEST] is expected")]
pub struct ReferenceError {
    text: String,
    reason: &'static str,
}

/// The name of an image, as the engine takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageReference {
    /// Registry and path, as written.
    pub name: String,
    /// The tag; `latest` if neither tag nor digest is given.
    pub tag: Option<String>,
    /// The digest, with its algorithm.
    pub digest: Option<String>,
}

impl ImageReference {
    /// Reads a name by the grammar of the distribution project (`reference` of the OCI distribution).
    ///
    /// # Errors
    ///
    /// When it is none.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        let wrong = |reason| ReferenceError {
            text: text.chars().take(300).collect(),
            reason,
        };
        let (front, digest) = match text.split_once('@') {
            Some((front, digest)) => (front, Some(digest)),
            None => (text, None),
        };
        // A colon before the last slash belongs to the registry's port.
        let (name, tag) = match front.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (front, None),
        };
        if name.is_empty() || name.len() > 255 {
            return Err(wrong("its name is empty or too long"));
        }
        let mut components = name.split('/');
        let first = components.next().unwrap_or_default();
        // A name of one part has no registry.
        let has_registry = name.contains('/') && is_registry(first);
        if !has_registry && !is_component(first) {
            return Err(wrong("names have small letters, digits, and . _ - between them"));
        }
        if !components.all(is_component) {
            return Err(wrong("names have small letters, digits, and . _ - between them"));
        }
        let word = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        if tag.is_some_and(|tag| {
            tag.is_empty() || tag.len() > 128 || tag.starts_with(['.', '-']) || !tag.chars().all(word)
        }) {
            return Err(wrong("its tag has up to 128 letters, digits, and . _ -"));
        }
        let is_digest = |digest: &str| {
            digest.split_once(':').is_some_and(|(algorithm, hex)| {
                algorithm.starts_with(|c: char| c.is_ascii_lowercase())
                    && hex.len() >= 32
                    && hex.chars().all(|c| c.is_ascii_hexdigit())
            })
        };
        if digest.is_some_and(|digest| !is_digest(digest)) {
            return Err(wrong("its digest is not sha256: and 64 digits"));
        }
        let tag = match (tag, digest) {
            (None, None) => Some("latest"),
            (tag, _) => tag,
        };
        Ok(Self {
            name: name.to_owned(),
            tag: tag.map(str::to_owned),
            digest: digest.map(str::to_owned),
        })
    }

    /// The registry, for credentials.
    #[must_use]
    pub fn registry(&self) -> &str {
        match self.name.split_once('/') {
            Some((first, _)) if is_registry(first) => first,
            _ => DEFAULT_REGISTRY,
        }
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// The first component is a registry if it looks like a host.
fn is_registry(text: &str) -> bool {
    let host = text.rsplit_once(':').map_or(text, |(host, port)| {
        if port.chars().all(|c| c.is_ascii_digit()) {
            host
        } else {
            ""
        }
    });
    let looks_so =
        text.contains(['.', ':']) || text == "localhost" || text.chars().any(|c| c.is_ascii_uppercase());
    let is_name = |c: char| c.is_ascii_alphanumeric() || ".-[]:".contains(c);
    looks_so && !host.is_empty() && host.chars().all(is_name) && !host.starts_with(['-', '.'])
}

fn is_component(text: &str) -> bool {
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.starts_with(word) && text.ends_with(word) && text.chars().all(|c| word(c) || "._-".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_what_is_none() {
        let digest = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
        for (text, shown, registry) in [
            ("ubuntu", "ubuntu:latest", "docker.io"),
            (
                "nvidia/cuda:12.6.3-cudnn-runtime-ubuntu20.04",
                "nvidia/cuda:12.6.3-cudnn-runtime-ubuntu20.04",
                "docker.io",
            ),
            (
                "nvcr.io/nvidia/pytorch:24.01-py3",
                "nvcr.io/nvidia/pytorch:24.01-py3",
                "nvcr.io",
            ),
            (
                "localhost:5000/a/b",
                "localhost:5000/a/b:latest",
                "localhost:5000",
            ),
            (&format!("a/b@{digest}"), &format!("a/b@{digest}"), "docker.io"),
        ] {
            let reference = ImageReference::parse(text).unwrap();
            assert_eq!(
                (reference.to_string().as_str(), reference.registry()),
                (shown, registry)
            );
        }
        for text in [
            "",
            "-v",
            "a b",
            "a:",
            "a:-x",
            "A/b?c",
            "Upper",
            "a//b",
            "../x",
            "a@sha256:zz",
            "a\nb",
            "http://x/y",
            "a:b/c:d/",
        ] {
            let error = ImageReference::parse(text).unwrap_err().to_string();
            assert!(error.contains("is not the name of an image"), "{error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_shown_is_read_again(text in "[a-z0-9./:@-]{0,40}") {
            if let Ok(reference) = ImageReference::parse(&text) {
                proptest::prop_assert_eq!(ImageReference::parse(&reference.to_string()), Ok(reference));
            }
        }
    }
}
