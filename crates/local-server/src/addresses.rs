//! Ports, and the addresses under which clients reach them.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::net::TcpListener;

use crate::http::connection::{Listener, room};
use crate::http::tls::{Tls, Trust};
use crate::options::ServerOptions;
use crate::server::ServerError;

/// Where clients find the server.
#[derive(Clone, Debug)]
pub(crate) struct Addresses {
    pub(crate) api: String,
    pub(crate) files: String,
    /// None without a web page.
    pub(crate) web: Option<String>,
    /// What clients need to trust the certificate, when there is one.
    pub(crate) trust: Option<Trust>,
}

/// The open ports.
pub(crate) struct Ports {
    pub(crate) api: Listener,
    pub(crate) files: Listener,
    pub(crate) web: Option<Listener>,
    pub(crate) addresses: Addresses,
}

impl Ports {
    pub(crate) async fn open(options: &ServerOptions, tls: Option<&Tls>) -> Result<Self, ServerError> {
        let origin = Origin::new(options, tls);
        let room = room();
        let open = async |port| {
            let (tcp, port) = listen(options.host, port).await?;
            let listener = Listener::new(tcp, tls.map(|tls| Arc::clone(&tls.config)), Arc::clone(&room));
            Ok::<_, ServerError>((listener, origin.url(port)))
        };
        let (api, api_url) = open(options.port).await?;
        let (files, files_url) = open(options.files_port).await?;
        let (web, web_url) = match options.web_port {
            Some(port) => open(port)
                .await
                .map(|(listener, url)| (Some(listener), Some(url)))?,
            None => (None, None),
        };
        let addresses = Addresses {
            api: api_url,
            files: files_url,
            web: web_url,
            trust: origin.trust,
        };
        Ok(Self {
            api,
            files,
            web,
            addresses,
        })
    }
}

/// Opens a port; 0 gives a free one.
async fn listen(host: IpAddr, port: u16) -> Result<(TcpListener, u16), ServerError> {
    let address = SocketAddr::new(host, port);
    let failed = |source| ServerError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let port = listener.local_addr().map_err(failed)?.port();
    Ok((listener, port))
}

/// What stands before the port in the addresses that clients get.
struct Origin {
    scheme: &'static str,
    /// An IPv6 address stands in brackets.
    host: String,
    trust: Option<Trust>,
}

impl Origin {
    /// Without TLS the bound address, because it needs no name resolution. With TLS the first name that the
    /// certificate is for: an allowed host, the address, or `localhost`.
    fn new(options: &ServerOptions, tls: Option<&Tls>) -> Self {
        let address = reachable(options.host);
        let Some(tls) = tls else {
            return Self {
                scheme: "http",
                host: in_url(&address.to_string()),
                trust: None,
            };
        };
        let mut candidates = options.allowed_hosts.clone();
        candidates.push(address.to_string());
        if address.is_loopback() {
            candidates.push("localhost".to_owned());
        }
        let host = candidates
            .iter()
            .find(|candidate| tls.is_for(candidate))
            .unwrap_or(&candidates[0]);
        Self {
            scheme: "https",
            host: in_url(host),
            trust: Some(tls.trust(host)),
        }
    }

    fn url(&self, port: u16) -> String {
        format!("{}://{}:{port}", self.scheme, self.host)
    }
}

/// Clients on this machine need an address that they can connect to.
fn reachable(bound: IpAddr) -> IpAddr {
    match bound {
        IpAddr::V4(address) if address.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
        IpAddr::V6(address) if address.is_unspecified() => IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
        other => other,
    }
}

fn in_url(host: &str) -> String {
    if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    }
}
