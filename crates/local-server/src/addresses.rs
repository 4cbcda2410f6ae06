//! Ports, and the addresses under which clients reach them.

use std::net::{IpAddr, SocketAddr};

use tokio::net::TcpListener;

use crate::http::tls::{Tls, Trust};
use crate::options::ServerOptions;
use crate::server::ServerError;

/// Opens a port; 0 gives a free one.
pub(crate) async fn listen(host: IpAddr, port: u16) -> Result<(TcpListener, u16), ServerError> {
    let address = SocketAddr::new(host, port);
    let failed = |source| ServerError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let port = listener.local_addr().map_err(failed)?.port();
    Ok((listener, port))
}

/// What stands before the port in the addresses that clients get.
pub(crate) struct Origin {
    scheme: &'static str,
    /// An IPv6 address stands in brackets.
    host: String,
    /// What clients need to trust the certificate, when there is one.
    pub(crate) trust: Option<Trust>,
}

impl Origin {
    /// Without TLS the bound address, because it needs no name resolution. With TLS the first name that the
    /// certificate is for: an allowed host, the address, or `localhost`.
    pub(crate) fn new(options: &ServerOptions, tls: Option<&Tls>) -> Self {
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

    pub(crate) fn url(&self, port: u16) -> String {
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
