//! TLS for the server's ports: the certificate and key that the operator gives, what is wrong with them, and what
//! clients will think of them.
//!
//! One implementation (rustls with ring), as in the client, so that nothing depends on the machine's OpenSSL.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, RootCertStore, ServerConfig};
use webpki::EndEntityCert;

use crate::options::TlsFiles;

/// Why a certificate or key cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the TLS {what} {path}: {problem}")]
pub struct TlsError {
    /// `certificate` or `private key`.
    what: &'static str,
    /// The file given.
    path: PathBuf,
    /// What is wrong, and what to do.
    problem: String,
}

/// A certificate and key that fit together.
pub(crate) struct Tls {
    pub(crate) config: Arc<ServerConfig>,
    chain: Vec<CertificateDer<'static>>,
    /// Absolute, because client configurations name it.
    path: PathBuf,
}

/// What a client has to know to trust the certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trust {
    /// The file is its own authority, so clients verify against it.
    Itself(PathBuf),
    /// Another authority signed it; most clients know that one already.
    Authority,
}

impl Tls {
    /// Reads both files.
    ///
    /// # Errors
    /// When one cannot be read, holds something else, or they do not belong together.
    pub(crate) fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        let certificate = |problem: String| TlsError {
            what: "certificate",
            path: files.certificate.clone(),
            problem,
        };
        let path = fs::canonicalize(&files.certificate).map_err(|error| certificate(error.to_string()))?;
        let text = fs::read(&path).map_err(|error| certificate(error.to_string()))?;
        let chain = certificates(&text).map_err(certificate)?;
        let key_of = |problem: String| TlsError {
            what: "private key",
            path: files.key.clone(),
            problem,
        };
        let text = fs::read(&files.key).map_err(|error| key_of(error.to_string()))?;
        let key = private_key(&text).map_err(key_of)?;
        warn_about_readers(&files.key);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| certificate(error.to_string()))?
            .with_no_client_auth()
            .with_single_cert(chain.clone(), key)
            .map_err(|error| match error {
                rustls::Error::InconsistentKeys(_) => key_of(format!(
                    "it does not belong to the certificate {}",
                    path.display()
                )),
                rustls::Error::InvalidCertificate(_) => certificate(error.to_string()),
                other => key_of(other.to_string()),
            })?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            config: Arc::new(config),
            chain,
            path,
        })
    }

    /// Whether clients that connect to `host` accept the certificate, as far as the name goes.
    pub(crate) fn is_for(&self, host: &str) -> bool {
        let Ok(name) = ServerName::try_from(host) else {
            return false;
        };
        self.chain.first().is_some_and(|leaf| {
            EndEntityCert::try_from(leaf)
                .is_ok_and(|leaf| leaf.verify_is_valid_for_subject_name(&name).is_ok())
        })
    }

    /// What clients need for trust. Warns when they would refuse the certificate under the name `host`.
    pub(crate) fn trust(&self, host: &str) -> Trust {
        let mut authorities = RootCertStore::empty();
        for certificate in &self.chain {
            if EndEntityCert::try_from(certificate).is_ok_and(|parsed| parsed.issuer() == parsed.subject()) {
                // One that cannot serve as an authority shows up in the verification below.
                let _ = authorities.add(certificate.clone());
            }
        }
        if authorities.is_empty() {
            if !self.is_for(host) {
                self.warn(host, "it is for other names");
            }
            return Trust::Authority;
        }
        if let Err(problem) = self.verify(authorities, host) {
            self.warn(host, &problem);
        }
        Trust::Itself(self.path.clone())
    }

    /// As our own client does it.
    fn verify(&self, authorities: RootCertStore, host: &str) -> Result<(), String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(authorities), provider)
            .build()
            .map_err(|error| error.to_string())?;
        let name = ServerName::try_from(host).map_err(|error| error.to_string())?;
        let (leaf, others) = self.chain.split_first().ok_or("it is empty")?;
        match verifier.verify_server_cert(leaf, others, &name, &[], UnixTime::now()) {
            Ok(_) => Ok(()),
            // What `openssl req -x509` makes without being asked. Clients take it when it is the very
            // certificate that they were told to trust; it was valid in time, and its name is left.
            Err(rustls::Error::InvalidCertificate(CertificateError::Other(cause)))
                if cause.0.downcast_ref() == Some(&webpki::Error::CaUsedAsEndEntity) =>
            {
                match self.is_for(host) {
                    true => Ok(()),
                    false => Err("it is for other names".to_owned()),
                }
            }
            Err(error) => Err(error.to_string()),
        }
    }

    fn warn(&self, host: &str, problem: &str) {
        tracing::warn!(
            "clients that connect to {host} will refuse the certificate {}: {problem}",
            self.path.display()
        );
    }
}

fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(text)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("it is not valid PEM: {error}"))?;
    if found.is_empty() {
        return Err(if holds(text, "PRIVATE KEY") {
            "it holds a private key and no certificate; are certificate and key swapped?".to_owned()
        } else {
            "there is no certificate in it; a PEM file with BEGIN CERTIFICATE is needed".to_owned()
        });
    }
    EndEntityCert::try_from(&found[0])
        .map_err(|error| format!("its first certificate is broken: {error}"))?;
    Ok(found)
}

fn private_key(text: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(text).map_err(|error| match error {
        _ if holds(text, "ENCRYPTED") => {
            "it is encrypted; decrypt it with `openssl pkey` into a file that only you can read".to_owned()
        }
        pem::Error::NoItemsFound if holds(text, "BEGIN CERTIFICATE") => {
            "it holds a certificate and no key; are certificate and key swapped?".to_owned()
        }
        pem::Error::NoItemsFound => {
            "there is no private key in it; a PEM file with BEGIN PRIVATE KEY is needed".to_owned()
        }
        other => format!("it is not valid PEM: {other}"),
    })
}

fn holds(text: &[u8], part: &str) -> bool {
    text.windows(part.len()).any(|window| window == part.as_bytes())
}

/// A group may read keys on purpose; everybody never should.
fn warn_about_readers(key: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    if fs::metadata(key).is_ok_and(|found| found.permissions().mode() & 0o004 != 0) {
        tracing::warn!(
            "every user of this machine can read the private key {}; chmod 600 it",
            key.display()
        );
    }
}
