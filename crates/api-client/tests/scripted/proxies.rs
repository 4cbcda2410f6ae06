//! Proxies, as the environment names them. The environment of this process cannot change, so each case
//! runs in a process of its own: this test program, told to run [`one_client`] only.

use std::process::Command;
use std::sync::{Arc, Mutex};

use clearml_api_client::{Auth, Client, ClientOptions, RetryPolicy, TlsVerify};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use crate::faults::Lines;
use crate::server::Server;
use crate::tls;

const TARGET: &str = "API_CLIENT_TEST_TARGET";
const BUNDLE: &str = "API_CLIENT_TEST_BUNDLE";
const VARIABLES: [&str; 13] = [
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "ALL_PROXY",
    "all_proxy",
    "NO_PROXY",
    "no_proxy",
    "REQUEST_METHOD",
];

/// Not a case by itself: does nothing unless a case has started this program for it.
#[tokio::test]
async fn one_client() {
    let Ok(target) = std::env::var(TARGET) else {
        return;
    };
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let mut options = ClientOptions::new(target, Auth::keys("AKEY", "the-secret"));
    options.retry = RetryPolicy {
        initial_retries: Some(0),
        ..RetryPolicy::default()
    };
    options.connect_timeout = std::time::Duration::from_millis(500);
    if let Ok(path) = std::env::var(BUNDLE) {
        options.verify = TlsVerify::CaBundle(path.into());
    }
    let outcome = match Client::new(options.clone()) {
        Ok(client) => client.login().await.map(drop),
        Err(error) => Err(error),
    };
    match outcome {
        Ok(()) => println!("OUTCOME well"),
        Err(error) => println!("OUTCOME {error} {error:?}"),
    }
    println!(
        "{options:?} {}",
        String::from_utf8_lossy(&lines.0.lock().unwrap())
    );
}

/// Everything that [`one_client`] says with these variables.
async fn run(target: &str, variables: &[(&str, String)]) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    for name in VARIABLES {
        command.env_remove(name);
    }
    command
        .args(["--exact", "proxies::one_client", "--nocapture"])
        .env(TARGET, target)
        .envs(variables.iter().map(|(name, value)| (*name, value.as_str())));
    let output = tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("OUTCOME "),
        "{text} {}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

#[tokio::test]
async fn plain_requests_go_through_the_proxy_of_the_environment() {
    let proxy = Server::start().await; // it answers whatever host is asked for
    let address = proxy.url.replace("http://", "");
    let with_password = format!("http://me:canary%40pass@{address}");
    for (number, name) in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"]
        .into_iter()
        .enumerate()
    {
        let said = run("http://api.test:8008/base", &[(name, with_password.clone())]).await;
        assert!(said.contains("OUTCOME well"), "{name}: {said}");
        assert!(!said.contains("canary"), "{name}: {said}");
        let login = proxy.logins().pop().unwrap();
        assert_eq!(login.path, "http://api.test:8008/base/auth.login");
        // me:canary@pass
        assert_eq!(
            login.header("proxy-authorization"),
            Some("Basic bWU6Y2FuYXJ5QHBhc3M=")
        );
        assert!(login.header("authorization").unwrap().starts_with("Basic "));
        assert_eq!(proxy.logins().len(), number + 1);
    }
}

#[tokio::test]
async fn some_hosts_need_no_proxy() {
    let proxy = Server::start().await;
    let local = Server::start().await;
    for (target, exception) in [
        ("http://192.0.2.7:8008", "example.com, 192.0.2.0/24"),
        ("http://192.0.2.7:8008", "192.0.2.7"),
        ("http://sub.api.test:8008", ".api.test"),
        ("http://api.test:8008", "*"),
        // This machine is never reached through another one.
        (local.url.as_str(), ""),
    ] {
        let variables = [
            ("HTTP_PROXY", proxy.url.clone()),
            ("NO_PROXY", exception.to_owned()),
        ];
        run(target, &variables).await;
        assert_eq!(proxy.logins().len(), 0, "{target} {exception}");
    }
    assert_eq!(local.logins().len(), 1);
    let variables = [
        ("HTTP_PROXY", proxy.url.clone()),
        ("NO_PROXY", "192.0.3.0/24,other.test".to_owned()),
    ];
    run("http://192.0.2.7:8008", &variables).await;
    assert_eq!(proxy.logins().len(), 1);
}

#[tokio::test]
async fn a_dead_proxy_is_named_without_its_password() {
    let proxy = Server::start().await;
    proxy.stop();
    tokio::task::yield_now().await;
    let dead = proxy.url.replace("http://", "http://me:canary-pass@");
    let said = run("http://api.test:8008", &[("HTTP_PROXY", dead)]).await;
    assert!(
        said.contains("refused") && said.contains("through the proxy in HTTP_PROXY"),
        "{said}"
    );
    assert!(!said.contains("canary"), "{said}");
}

/// A proxy that connects every tunnel to `upstream`; gives its address and the heads of what was asked.
async fn tunnel(upstream: String, answer: &'static str) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let heads = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&heads);
    tokio::spawn(async move {
        while let Ok((mut inner, _)) = listener.accept().await {
            let (upstream, seen) = (upstream.clone(), Arc::clone(&seen));
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(inner.read_u8().await.unwrap());
                }
                seen.lock().unwrap().push(String::from_utf8(head).unwrap());
                inner.write_all(answer.as_bytes()).await.unwrap();
                if answer.contains(" 200 ") {
                    let mut outer = TcpStream::connect(upstream).await.unwrap();
                    let _ = copy_bidirectional(&mut inner, &mut outer).await;
                }
            });
        }
    });
    (address, heads)
}

#[tokio::test]
async fn secure_requests_go_through_a_tunnel() {
    let folder = tempfile::tempdir().unwrap();
    if tls::certificate(folder.path()).is_none() {
        eprintln!("SKIPPED secure_requests_go_through_a_tunnel: no usable openssl program");
        return;
    }
    let upstream = tls::start(folder.path()).await.replace("https://", "");
    let bundle = folder.path().join("cert.pem").to_str().unwrap().to_owned();
    let (address, heads) = tunnel(upstream.clone(), "HTTP/1.1 200 Connected\r\n\r\n").await;
    for name in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"] {
        let variables = [
            (name, format!("http://me:canary-pass@{address}")),
            (BUNDLE, bundle.clone()),
        ];
        let said = run("https://api.test", &variables).await;
        assert!(
            said.contains("OUTCOME well") && !said.contains("canary"),
            "{name}: {said}"
        );
        let head = heads.lock().unwrap().pop().unwrap();
        assert!(head.starts_with("CONNECT api.test:443 HTTP/1.1\r\n"), "{head}");
        assert!(
            head.to_lowercase().contains("proxy-authorization: basic "),
            "{head}"
        );
    }
    // Bundles of the environment count when the check is simply on.
    for name in ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"] {
        let variables = [
            ("HTTPS_PROXY", format!("http://{address}")),
            (name, bundle.clone()),
        ];
        let said = run("https://api.test", &variables).await;
        assert!(said.contains("OUTCOME well"), "{name}: {said}");
    }
    let (address, _) = tunnel(upstream, "HTTP/1.1 407 No\r\n\r\n").await;
    let variables = [
        ("HTTPS_PROXY", format!("http://me:canary-pass@{address}")),
        (BUNDLE, bundle),
    ];
    let said = run("https://api.test", &variables).await;
    assert!(
        said.contains("through the proxy in HTTPS_PROXY") && !said.contains("canary"),
        "{said}"
    );
}
