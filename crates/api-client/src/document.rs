//! Documents of any web server, such as the parts of a configuration that are included by address. No
//! ClearML server has a part in it: no session, no envelope, nothing is repeated.

use std::time::Duration;

use crate::tls::{TlsVerify, client_config};
use crate::words::chain;

/// For the whole document.
const LIMIT: Duration = Duration::from_secs(20);
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
const MOST_REDIRECTS: usize = 5;

/// Gets a document of at most so many bytes. Certificates and proxies are those of this machine; a user in
/// the address is sent along. Ends within half a minute.
///
/// # Errors
///
/// Why there is none, without the address, which may hold a password.
pub async fn fetch_document(url: &str, most_bytes: u64) -> Result<Vec<u8>, String> {
    let tls = client_config(&TlsVerify::System, true).map_err(|error| error.to_string())?;
    let client = reqwest::Client::builder()
        .user_agent(concat!("clearml-agent/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_LIMIT)
        .timeout(LIMIT)
        .redirect(reqwest::redirect::Policy::limited(MOST_REDIRECTS))
        .tls_backend_preconfigured(tls)
        .build()
        .map_err(chain)?;
    let mut reply = client.get(url).send().await.map_err(chain)?;
    if !reply.status().is_success() {
        return Err(format!("the server answered {}", reply.status()));
    }
    let mut document = Vec::new();
    while let Some(part) = reply.chunk().await.map_err(chain)? {
        document.extend_from_slice(&part);
        if document.len() as u64 > most_bytes {
            return Err(format!("it has more than {most_bytes} bytes"));
        }
    }
    Ok(document)
}
