//! Which certificates we trust. One TLS implementation (rustls with ring), no OpenSSL, so that
//! nothing depends on the image the program runs in.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, ConfigBuilder, DigitallySignedStruct, OtherError, RootCertStore,
    SignatureScheme, WantsVerifier,
};

use crate::error::ApiError;

/// How the server's certificate is checked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum TlsVerify {
    /// Against the certificates of this machine: `REQUESTS_CA_BUNDLE`, `CURL_CA_BUNDLE`,
    /// `SSL_CERT_FILE`/`SSL_CERT_DIR`, then the system's usual places, then a built-in list.
    #[default]
    System,
    /// Not at all. A warning is logged once.
    Insecure,
    /// Against the certificates of this file or folder (PEM) and no others.
    CaBundle(PathBuf),
}

/// The TLS configuration for a server. Loading the system's certificates costs milliseconds and
/// hundreds of kilobytes, so it is done only when a TLS connection can actually come up.
pub(crate) fn client_config(verify: &TlsVerify, needed: bool) -> Result<ClientConfig, ApiError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let algorithms = provider.signature_verification_algorithms;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| ApiError::Options {
            reason: format!("TLS cannot be initialised: {error}"),
        })?;
    if !needed {
        return Ok(builder
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth());
    }
    Ok(match verify {
        TlsVerify::Insecure => {
            warn_once();
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AcceptAny(algorithms)))
                .with_no_client_auth()
        }
        TlsVerify::System => match env_bundle() {
            Some(path) => trusting(builder, &path)?,
            None => builder
                .with_root_certificates(system_roots())
                .with_no_client_auth(),
        },
        TlsVerify::CaBundle(path) => trusting(builder, path)?,
    })
}

/// Trusts the certificates that somebody has chosen, and what they have signed.
fn trusting(
    builder: ConfigBuilder<ClientConfig, WantsVerifier>,
    path: &Path,
) -> Result<ClientConfig, ApiError> {
    let certificates = bundle(path)?;
    let roots = Arc::new(store_of(certificates.clone()));
    let inner = WebPkiServerVerifier::builder_with_provider(roots, builder.crypto_provider().clone())
        .build()
        .map_err(|error| ApiError::Options {
            reason: format!(
                "the certificate bundle {} cannot be used: {error}",
                path.display()
            ),
        })?;
    Ok(builder
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Chosen { inner, certificates }))
        .with_no_client_auth())
}

fn warn_once() {
    static WARNED: AtomicBool = AtomicBool::new(false);
    if !WARNED.swap(true, Ordering::Relaxed) {
        tracing::warn!(
            "the API server's certificate is not verified (api.verify_certificate is off): anybody on the way can read the credentials"
        );
    }
}

fn env_bundle() -> Option<PathBuf> {
    ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"]
        .iter()
        .find_map(|name| std::env::var_os(name).filter(|value| !value.is_empty()))
        .map(PathBuf::from)
}

fn system_roots() -> RootCertStore {
    let found = rustls_native_certs::load_native_certs();
    let store = store_of(found.certs);
    if !store.is_empty() {
        return store;
    }
    tracing::debug!(errors = ?found.errors, "no certificates found on this machine, using the built-in list");
    let mut store = RootCertStore::empty();
    store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    store
}

fn bundle(path: &Path) -> Result<Vec<CertificateDer<'static>>, ApiError> {
    let found = if path.is_dir() {
        rustls_native_certs::load_certs_from_paths(None, Some(path))
    } else {
        rustls_native_certs::load_certs_from_paths(Some(path), None)
    };
    if store_of(found.certs.clone()).is_empty() {
        let causes: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        let causes = if causes.is_empty() {
            "no PEM certificate in it".to_owned()
        } else {
            causes.join("; ")
        };
        return Err(ApiError::Options {
            reason: format!(
                "the certificate bundle {} cannot be used: {causes}",
                path.display()
            ),
        });
    }
    Ok(found.certs)
}

/// Real bundles contain certificates that no strict parser accepts; one of those must not make the
/// others useless.
fn store_of(certificates: Vec<CertificateDer<'static>>) -> RootCertStore {
    let mut store = RootCertStore::empty();
    let (_, ignored) = store.add_parsable_certificates(certificates);
    if ignored > 0 {
        tracing::debug!(ignored, "certificates that cannot be parsed were left out");
    }
    store
}

/// As usual, and a server may also show one of the chosen certificates itself although that one says it
/// is an authority: `openssl req -x509` makes self-signed certificates that way, and OpenSSL takes them.
#[derive(Debug)]
struct Chosen {
    inner: Arc<WebPkiServerVerifier>,
    certificates: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Chosen {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let checked =
            self.inner
                .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match checked {
            // Said only of a certificate that is valid at this time; its name was not looked at.
            Err(error) if is_authority(&error) && self.certificates.iter().any(|own| own == end_entity) => {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            checked => checked,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

fn is_authority(error: &rustls::Error) -> bool {
    let rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(cause))) = error else {
        return false;
    };
    matches!(
        cause.downcast_ref::<webpki::Error>(),
        Some(webpki::Error::CaUsedAsEndEntity)
    )
}

/// Accepts every certificate, but still checks that the peer holds the key of the one it showed.
#[derive(Debug)]
struct AcceptAny(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
