//! Certificates, and what clients of every kind get from a port that has one.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clearml_local_server::{Server, ServerError, ServerOptions, TlsFiles};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};

/// Makes `NAME.pem` and `NAME.key`, self-signed. False without the `openssl` program.
fn make(folder: &Path, name: &str, subject_names: &str) -> bool {
    let (key, certificate) = (format!("{name}.key"), format!("{name}.pem"));
    let names = format!("subjectAltName={subject_names}");
    Command::new("openssl")
        .args(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=test"
                .split(' '),
        )
        .args(["-addext", &names, "-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-keyout", &key, "-out", &certificate])
        .current_dir(folder)
        .stderr(std::process::Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn options(folder: &Path, certificate: &str, key: &str) -> ServerOptions {
    let mut options = ServerOptions::new(folder.join("data"));
    options.tls = Some(TlsFiles {
        certificate: folder.join(certificate),
        key: folder.join(key),
    });
    options
}

/// A client that trusts this certificate.
fn client(certificate: &Path) -> reqwest::Client {
    builder(Some(certificate)).build().unwrap()
}

/// A client that trusts at most this certificate, and follows nothing by itself.
pub(crate) fn builder(certificate: Option<&Path>) -> reqwest::ClientBuilder {
    let mut roots = rustls::RootCertStore::empty();
    if let Some(certificate) = certificate {
        roots
            .add(CertificateDer::from_pem_file(certificate).unwrap())
            .unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    reqwest::Client::builder()
        .tls_backend_preconfigured(config)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .timeout(Duration::from_secs(30))
}

async fn login(server: &Server, client: &reqwest::Client) -> String {
    let request = client
        .post(format!("{}/auth.login", server.api_url()))
        .basic_auth(server.access_key(), Some(server.secret_key().expose()));
    let reply: Value = request.send().await.unwrap().json().await.unwrap();
    reply["data"]["token"].as_str().unwrap().to_owned()
}

fn address(url: &str) -> String {
    url.rsplit('/').next().unwrap().replace("localhost", "127.0.0.1")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn api_and_files_are_served_over_https() {
    let folder = tempfile::tempdir().unwrap();
    if !make(folder.path(), "own", "DNS:localhost") {
        eprintln!("SKIPPED api_and_files_are_served_over_https: no usable openssl program");
        return;
    }
    let server = Server::start(options(folder.path(), "own.pem", "own.key"))
        .await
        .unwrap();
    // The name is the one that the certificate is for.
    assert!(
        server.api_url().starts_with("https://localhost:"),
        "{}",
        server.api_url()
    );
    let certificate = std::fs::canonicalize(folder.path().join("own.pem")).unwrap();
    let config = std::fs::read_to_string(server.config_path()).unwrap();
    for line in [
        format!("verify_certificate: \"{}\"", certificate.display()),
        format!("api_server: \"{}\"", server.api_url()),
        format!("files_server: \"{}\"", server.files_url()),
    ] {
        assert!(config.contains(&line), "{line} in {config}");
    }

    let client = client(&certificate);
    let token = login(&server, &client).await;
    let content: Vec<u8> = (0..300_000_u32).map(|i| (i % 251) as u8).collect();
    let form = reqwest::multipart::Form::new().percent_encode_noop();
    let part = reqwest::multipart::Part::bytes(content.clone()).file_name("model.bin");
    let upload = client
        .post(server.files_url())
        .bearer_auth(&token)
        .multipart(form.part("project/model.bin", part));
    let reply = upload.send().await.unwrap();
    assert!(reply.status().is_success(), "{:?}", reply.text().await);
    let download = client
        .get(format!("{}/project/model.bin", server.files_url()))
        .bearer_auth(&token);
    assert_eq!(download.send().await.unwrap().bytes().await.unwrap(), content);

    // Without trust in the certificate nothing is sent.
    let stranger = folder.path().join("stranger.pem");
    make(folder.path(), "stranger", "DNS:localhost");
    assert!(
        self::client(&stranger)
            .get(server.api_url())
            .send()
            .await
            .is_err()
    );
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_and_plain_clients_hold_up_nobody() {
    let folder = tempfile::tempdir().unwrap();
    if !make(folder.path(), "own", "IP:127.0.0.1") {
        eprintln!("SKIPPED silent_and_plain_clients_hold_up_nobody: no usable openssl program");
        return;
    }
    let server = Server::start(options(folder.path(), "own.pem", "own.key"))
        .await
        .unwrap();
    assert!(
        server.api_url().starts_with("https://127.0.0.1:"),
        "{}",
        server.api_url()
    );
    let address = address(&server.api_url());
    let silent: Vec<_> = (0..50).map(|_| TcpStream::connect(&address).unwrap()).collect();
    let mut half = TcpStream::connect(&address).unwrap();
    half.write_all(&[0x16, 0x03, 0x01]).unwrap();

    let began = Instant::now();
    let client = client(&folder.path().join("own.pem"));
    login(&server, &client).await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());

    let mut plain = TcpStream::connect(&address).unwrap();
    plain.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    plain
        .write_all(b"GET /debug.ping HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    plain.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(answer.contains("speaks https"), "{answer}");
    drop((silent, half));
    server.shutdown().await;
}

#[tokio::test]
async fn a_fault_cuts_a_reply_inside_tls_too() {
    let folder = tempfile::tempdir().unwrap();
    if !make(folder.path(), "own", "IP:127.0.0.1") {
        eprintln!("SKIPPED a_fault_cuts_a_reply_inside_tls_too: no usable openssl program");
        return;
    }
    let mut options = options(folder.path(), "own.pem", "own.key");
    options.faults = true;
    let server = Server::start(options).await.unwrap();
    let client = client(&folder.path().join("own.pem"));
    let fault = json!({"endpoint": "debug.ping", "kind": "reset_after"});
    let set = client.post(format!("{}/_faults", server.api_url())).json(&fault);
    let reply = set.send().await.unwrap();
    assert!(reply.status().is_success(), "{:?}", reply.text().await);
    let ping = || client.get(format!("{}/debug.ping", server.api_url())).send();
    assert!(ping().await.is_err());
    assert!(ping().await.unwrap().status().is_success());
    server.shutdown().await;
}

#[tokio::test]
async fn a_bad_certificate_or_key_is_named_with_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    if !make(here, "own", "DNS:localhost") || !make(here, "other", "DNS:localhost") {
        eprintln!("SKIPPED a_bad_certificate_or_key_is_named_with_what_is_wrong: no usable openssl program");
        return;
    }
    std::fs::write(here.join("text"), "hello\n").unwrap();
    std::fs::write(
        here.join("torn.pem"),
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    )
    .unwrap();
    std::fs::write(
        here.join("locked.key"),
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    )
    .unwrap();
    for (certificate, key, named, why) in [
        ("none.pem", "own.key", "none.pem", "No such file"),
        ("own.pem", "none.key", "none.key", "No such file"),
        ("text", "own.key", "text", "no certificate in it"),
        ("own.key", "own.pem", "own.key", "swapped"),
        ("own.pem", "own.pem", "own.pem", "swapped"),
        ("torn.pem", "own.key", "torn.pem", "broken"),
        ("own.pem", "text", "text", "no private key in it"),
        ("own.pem", "locked.key", "locked.key", "encrypted"),
        ("own.pem", "other.key", "other.key", "does not belong"),
    ] {
        let error = Server::start(options(here, certificate, key)).await.unwrap_err();
        assert!(matches!(error, ServerError::Tls(_)), "{error:?}");
        let message = error.to_string();
        assert!(
            message.contains(named) && message.contains(why),
            "{certificate} {key}: {message}"
        );
    }
}
