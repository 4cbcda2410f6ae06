//! The way to the server: address, connection, certificate, login, clock, version, queues.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clearml_agent_config::{Settings, TlsVerify};
use clearml_api_client::{ApiError, Client, SessionInfo};
use clearml_intake::resolve_queues;
use serde_json::Value;
use url::Url;

use super::Scene;
use super::report::Section;

/// Longest wait for a connection, and for an answer.
const PATIENCE: Duration = Duration::from_secs(8);
/// A difference of clocks of a few seconds is the way of the answer, not the clock.
const NOTABLE_SKEW_SEC: f64 = 10.0;
/// From here on signatures, certificates and time series go wrong.
const HARMFUL_SKEW_SEC: f64 = 300.0;

/// What to do where something answers that is no API server.
const ADDRESS: &str = "api.api_server must be the API server (by custom http://…:8008, or https://api.…), not the web \
                       page or the file server";

pub(super) async fn check(scene: &Scene, section: &Section) {
    let Some(settings) = &scene.settings else {
        section.warning(
            "server",
            "not asked, because the configuration can't be read",
            "correct the configuration first",
        );
        return;
    };
    let options = match clearml_task_runner::settings::client_options(settings) {
        Ok(mut options) => {
            options.retry.initial_retries = Some(1);
            options.connect_timeout = PATIENCE;
            options.request_timeout = PATIENCE;
            options
        }
        // That is said above, as a problem.
        Err(_) => {
            section.warning(
                "server",
                "not asked, because no server or no credentials are configured",
                "run `clearml-agent init`",
            );
            return;
        }
    };
    let client = match Client::new(options) {
        Ok(client) => client,
        Err(error) => {
            section.problem("server", error.to_string(), "correct the configuration");
            return;
        }
    };
    let before = SystemTime::now();
    match client.login().await {
        Ok(session) => {
            section.ok("connection", format!("{} answers", client.server()));
            tls(settings, section);
            about_session(&session, section);
            clock(&client, before, section);
            queues(scene, &client, section).await;
        }
        Err(error) => failed_login(settings, &error, section),
    }
    files_server(scene, settings, section).await;
}

fn failed_login(settings: &Settings, error: &ApiError, section: &Section) {
    let mut cause = error;
    while let ApiError::Login { source, .. } = cause {
        cause = source;
    }
    let (name, advice) = match cause {
        ApiError::Connect { .. } => (
            "connection",
            "check the address, that the server runs, and whether a proxy or firewall is in the way \
             (HTTPS_PROXY, NO_PROXY)",
        ),
        ApiError::Tls { plain: true, .. } => ("address", ADDRESS),
        ApiError::Tls { .. } => (
            "certificate",
            "for a private certificate authority set api.verify_certificate to the file with its certificate",
        ),
        // Refused by something that is no API server, such as the web page or a gateway.
        ApiError::Unauthorized { enveloped: false, .. }
        | ApiError::Status {
            http: 400..=499,
            enveloped: false,
            ..
        } if !cause.is_transient() => ("address", ADDRESS),
        ApiError::Unauthorized { .. } => {
            section.ok("connection", "the server answers");
            tls(settings, section);
            (
                "credentials",
                "create a new access key in the web page of the server and put it into the configuration, or run \
                 `clearml-agent init --output FILE`",
            )
        }
        ApiError::Protocol { .. } => ("address", ADDRESS),
        _ => ("login", "look at the log of the server"),
    };
    section.problem(name, error.to_string(), advice);
}

fn tls(settings: &Settings, section: &Section) {
    let Some(url) = settings
        .api
        .api_server
        .as_deref()
        .and_then(|url| Url::parse(url).ok())
    else {
        return;
    };
    let loopback = url
        .host_str()
        .is_some_and(|host| matches!(host, "localhost" | "[::1]") || host.starts_with("127."));
    match (&settings.api.verify, url.scheme()) {
        (TlsVerify::Insecure, "https") => section.warning(
            "certificate",
            "not checked (api.verify_certificate is false), so anybody on the way can read the credentials",
            "set api.verify_certificate to the file with the certificate of your authority",
        ),
        (TlsVerify::CaBundle(path), "https") => {
            section.ok("certificate", format!("valid by {}", path.display()));
        }
        (TlsVerify::Verify, "https") => section.ok("certificate", "valid"),
        _ if loopback => {}
        _ => section.warning(
            "encryption",
            "the connection is not encrypted, so credentials cross the network as they are",
            "use an https address where the network is not trusted",
        ),
    }
}

fn about_session(session: &SessionInfo, section: &Section) {
    let who = session.user_name.as_ref().or(session.user.as_ref());
    section.ok(
        "credentials",
        format!("accepted, for user {}", who.map_or("(not named)", String::as_str)),
    );
    let about = format!(
        "{} (server {}, features {})",
        session.api_version, session.server_version, session.feature_set
    );
    if session.at_least(2, 13) {
        section.ok("API version", about);
    } else {
        section.warning(
            "API version",
            about,
            "containers and abort callbacks of tasks need 2.13: update the server",
        );
    }
}

/// Compares the clocks by the time stamp of the token that was just issued.
fn clock(client: &Client, before: SystemTime, section: &Section) {
    let seconds = |time: SystemTime| {
        time.duration_since(UNIX_EPOCH)
            .map_or(0.0, |since| since.as_secs_f64())
    };
    let Some(issued) = client.token().and_then(|token| issued_at(token.expose())) else {
        section.ok("clock", "not compared: the server's tokens carry no time");
        return;
    };
    let (before, after) = (seconds(before), seconds(SystemTime::now()));
    // Time stamps of tokens are whole seconds.
    let skew = if issued + 1.0 < before {
        issued + 1.0 - before
    } else {
        (issued - after).max(0.0)
    };
    let message = format!(
        "this machine's clock is {:.0} seconds {} the server's",
        skew.abs(),
        if skew < 0.0 { "ahead of" } else { "behind" }
    );
    let advice = "set the clock, for example by switching NTP on: timedatectl set-ntp true";
    if skew.abs() > HARMFUL_SKEW_SEC {
        section.problem("clock", message, advice);
    } else if skew.abs() > NOTABLE_SKEW_SEC {
        section.warning("clock", message, advice);
    } else {
        section.ok("clock", "agrees with the server's");
    }
}

/// The claim `iat` of a token.
fn issued_at(token: &str) -> Option<f64> {
    let payload = token.split('.').nth(1)?;
    let bytes = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
    serde_json::from_slice::<Value>(&bytes).ok()?.get("iat")?.as_f64()
}

async fn queues(scene: &Scene, client: &Client, section: &Section) {
    let wanted = &scene.options.queues;
    // One by one, so that a missing one hides no other.
    let each: Vec<&[String]> = match wanted.as_slice() {
        [] => vec![&[]],
        names => names.iter().map(std::slice::from_ref).collect(),
    };
    for names in each {
        let name = names.first().map_or("default queue", String::as_str);
        let found = tokio::time::timeout(PATIENCE, resolve_queues(client, names, false)).await;
        match found {
            Ok(Ok(queues)) => {
                let described: Vec<String> = queues
                    .iter()
                    .map(|queue| format!("{} ({})", queue.name, queue.id))
                    .collect();
                section.ok(format!("queue {name}"), described.join(", "));
            }
            Ok(Err(error)) if names.is_empty() => section.warning(
                "default queue",
                error.to_string(),
                "name the queues of a daemon with --queue",
            ),
            Ok(Err(error)) => section.problem(
                format!("queue {name}"),
                error.to_string(),
                "correct the name, create the queue in the web page, or start the daemon with --create-queue",
            ),
            Err(_) => section.problem(
                format!("queue {name}"),
                "the server did not answer in time",
                "look at the log of the server",
            ),
        }
    }
}

/// Models and artifacts go there. Only a connection is made: what it answers is between it and the SDK.
async fn files_server(scene: &Scene, settings: &Settings, section: &Section) {
    let Some(files) = &settings.api.files_server else {
        section.warning(
            "file server",
            "none is configured, so the SDK has nowhere to put models and artifacts",
            "set api.files_server",
        );
        return;
    };
    // Behind a proxy a direct connection says nothing.
    let proxied = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"]
        .iter()
        .any(|name| scene.env.contains_key(*name) || scene.env.contains_key(&name.to_ascii_lowercase()));
    let Some((host, port)) = Url::parse(files).ok().and_then(|url| {
        let host = url.host_str()?.trim_matches(['[', ']']).to_owned();
        Some((host, url.port_or_known_default()?))
    }) else {
        // An object store, which only the SDK knows how to reach.
        section.ok("file server", files);
        return;
    };
    if proxied {
        section.ok("file server", format!("{files} (not tried: a proxy is set)"));
        return;
    }
    let connection = tokio::net::TcpStream::connect((host, port));
    match tokio::time::timeout(PATIENCE, connection).await {
        Ok(Ok(_)) => section.ok("file server", format!("{files} accepts connections")),
        outcome => {
            let reason = match outcome {
                Ok(Err(error)) => error.to_string(),
                _ => "no answer in time".to_owned(),
            };
            section.warning(
                "file server",
                format!("{files}: {reason}"),
                "check api.files_server and that it runs; tasks can't store models and artifacts there",
            );
        }
    }
}
