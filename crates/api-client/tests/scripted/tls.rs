//! Certificates, against a real TLS server with a real (throw-away) certificate.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use clearml_api_client::{ApiError, Auth, Client, ClientOptions, RetryPolicy, TlsVerify};
use clearml_support::secret::Secret;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::AsyncWriteExt;
use tokio_rustls::TlsAcceptor;

use crate::server::{Server, Step, serve_well};

/// A self-signed certificate for `localhost`, or `None` without the `openssl` program.
pub(crate) fn certificate(folder: &Path) -> Option<()> {
    certificate_of(folder, "CA:FALSE")
}

fn certificate_of(folder: &Path, constraints: &str) -> Option<()> {
    let status = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
        ])
        .args([
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost,DNS:api.test",
        ])
        .args([
            "-addext",
            &format!("basicConstraints=critical,{constraints}"),
            "-keyout",
            "key.pem",
            "-out",
            "cert.pem",
        ])
        .current_dir(folder)
        .stderr(std::process::Stdio::null())
        .status()
        .ok()?;
    status.success().then_some(())
}

pub(crate) async fn start(folder: &Path) -> String {
    let certificates = CertificateDer::pem_file_iter(folder.join("cert.pem"))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let key = PrivateKeyDer::from_pem_file(folder.join("key.pem")).unwrap();
    let config =
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(certificates, key)
            .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    serve_well(stream).await;
                }
            });
        }
    });
    url
}

fn client(url: &str, verify: TlsVerify) -> Result<Client, ApiError> {
    let auth = Auth::Keys {
        access_key: Secret::new("A"),
        secret_key: Secret::new("S"),
    };
    let retry = RetryPolicy {
        initial_retries: Some(0),
        ..RetryPolicy::default()
    };
    Client::new(ClientOptions {
        verify,
        retry,
        ..ClientOptions::new(url, auth)
    })
}

#[tokio::test]
async fn certificates_are_checked_as_configured() {
    // The second is what OpenSSL makes without being asked.
    for constraints in ["CA:FALSE", "CA:TRUE"] {
        let folder = tempfile::tempdir().unwrap();
        if certificate_of(folder.path(), constraints).is_none() {
            eprintln!("SKIPPED certificates_are_checked_as_configured: no usable openssl program");
            return;
        }
        check(folder.path()).await;
    }
}

async fn check(folder: &Path) {
    let url = start(folder).await;
    let bundle = TlsVerify::CaBundle(folder.join("cert.pem"));
    client(&url, bundle).unwrap().login().await.unwrap();
    client(&url, TlsVerify::Insecure).unwrap().login().await.unwrap();

    let error = client(&url, TlsVerify::System)
        .unwrap()
        .login()
        .await
        .unwrap_err();
    assert!(
        matches!(error, ApiError::Tls { .. }) && error.was_not_applied(),
        "{error:?}"
    );
    assert!(
        error.to_string().contains("check api.verify_certificate"),
        "{error}"
    );
    // The right certificate for another name is not the right certificate.
    let other = url.replace("localhost", "127.0.0.1");
    let bundle = TlsVerify::CaBundle(folder.join("cert.pem"));
    let error = client(&other, bundle).unwrap().login().await.unwrap_err();
    assert!(matches!(error, ApiError::Tls { .. }), "{error:?}");
}

#[tokio::test]
async fn an_address_that_speaks_no_tls_or_no_api_is_told_as_such() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _gone = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let error = client(&url, TlsVerify::Insecure)
        .unwrap()
        .login()
        .await
        .unwrap_err();
    assert!(matches!(error, ApiError::Tls { plain: true, .. }), "{error:?}");
    let text = error.to_string();
    assert!(
        text.contains("begin with http://") && !text.contains("verify_certificate"),
        "{text}"
    );
    let server = Server::start().await;
    // A web page, a file server or a portal refuses in its own words.
    for (status, expected) in [
        (401, "check whether api.api_server is the API server"),
        (403, "api.api_server may be wrong"),
        (404, "api.api_server may be wrong"),
    ] {
        server.login_script([Step::html(status)]);
        let error = Client::new(server.options()).unwrap().login().await.unwrap_err();
        assert!(error.to_string().contains(expected), "{status}: {error}");
    }
}

#[test]
fn a_bundle_that_cannot_be_used_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty.pem");
    std::fs::write(&empty, "not a certificate").unwrap();
    for path in [empty, folder.path().join("missing.pem")] {
        let error = client("https://localhost", TlsVerify::CaBundle(path.clone()))
            .unwrap_err()
            .to_string();
        assert!(error.contains(path.to_str().unwrap()), "{error}");
    }
    // Without TLS nobody needs it.
    client("http://localhost", TlsVerify::CaBundle("/missing.pem".into())).unwrap();
}
