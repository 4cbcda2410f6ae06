//! `server`: the embedded ClearML-compatible server.

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use clearml_local_server::{Server, ServerError, ServerOptions, TlsFiles};
use tokio::signal::unix::{SignalKind, signal};

use crate::arguments::expected;

#[derive(Args)]
pub(crate) struct ServerArguments {
    /// The folder that holds the database, the files and the client configuration; created if missing.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The address to listen on.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1", value_parser = expected::<IpAddr>("an IP address, such as 127.0.0.1 or ::1"))]
    host: IpAddr,
    /// The port of the API; 0 takes any free one.
    #[arg(long, value_name = "PORT", default_value_t = 8008)]
    port: u16,
    /// The port of the file server; 0 takes any free one.
    #[arg(long, value_name = "PORT", default_value_t = 8081)]
    files_port: u16,
    /// The port of the web page; 0 takes any free one.
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    web_port: u16,
    /// Serve no web page.
    #[arg(long)]
    no_web: bool,
    /// Serve over https with this certificate (PEM; intermediate certificates may follow it).
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The private key of the certificate (PEM, not encrypted).
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Listen on an address that other machines can reach. Give --tls-cert and --tls-key too, or everybody on the
    /// way can read credentials and data.
    #[arg(long)]
    allow_remote: bool,
    /// A further name by which clients reach this server; requests under other names are refused.
    #[arg(long, value_name = "NAME")]
    allowed_host: Vec<String>,
    /// Let clients switch faults on, to see how they cope.
    #[arg(long, hide = true)]
    faults: bool,
    /// Say that this is a server with more than the open one has, to see how clients cope.
    #[arg(long, hide = true, value_name = "NAME")]
    feature_set: Option<String>,
}

pub(crate) async fn server(options: ServerArguments) -> anyhow::Result<i32> {
    // Installed before the server is announced, so that nobody can stop it too early to be graceful.
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let web_port = (!options.no_web).then_some(options.web_port);
    let usual = ServerOptions::new(options.data);
    let server = Server::start(ServerOptions {
        feature_set: options.feature_set.unwrap_or(usual.feature_set.clone()),
        host: options.host,
        port: options.port,
        files_port: options.files_port,
        web_port,
        tls: options
            .tls_cert
            .zip(options.tls_key)
            .map(|(certificate, key)| TlsFiles { certificate, key }),
        faults: options.faults,
        allow_remote: options.allow_remote,
        allowed_hosts: options.allowed_host,
        ..usual
    })
    .await
    .map_err(|error| match error {
        ServerError::NotLoopback(_) => anyhow::Error::new(error).context("--host needs --allow-remote"),
        ServerError::Listen { address, .. } if Some(address.port()) == web_port => anyhow::Error::new(error)
            .context("the web page has no port: choose one with --web-port, or give --no-web"),
        other => other.into(),
    })?;
    print_usage(&server);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    server.shutdown().await;
    Ok(0)
}

fn print_usage(server: &Server) {
    let config = server.config_path().display();
    println!("ClearML API server   {}", server.api_url());
    println!("ClearML file server  {}", server.files_url());
    if let Some(url) = server.web_url() {
        println!("Web page             {url}");
    }
    println!();
    println!("The credentials are in {config}. To use this server from any ClearML client:");
    println!();
    println!("    export CLEARML_CONFIG_FILE={config}");
    println!("    clearml-agent daemon --queue default --create-queue --foreground");
    println!();
    if let Some(certificate) = server.certificate_to_trust() {
        println!(
            "The Python SDK uploads files only where REQUESTS_CA_BUNDLE names a file with the certificate"
        );
        println!(
            "{} (and those of other servers, such as the package index).",
            certificate.display()
        );
        println!();
    }
    println!("Ctrl-C stops the server; its data stay.");
}
