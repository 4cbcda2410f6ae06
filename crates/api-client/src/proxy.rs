//! Which variable of the environment sends requests through a proxy. The proxying itself, `NO_PROXY`
//! included, is done by the HTTP library; this is for messages and for the choice of certificates.

const HTTP: [&str; 2] = ["HTTP_PROXY", "http_proxy"];
const HTTPS: [&str; 2] = ["HTTPS_PROXY", "https_proxy"];
const ALL: [&str; 2] = ["ALL_PROXY", "all_proxy"];

/// The first variable that names a proxy for such servers.
pub(crate) fn variable(https: bool) -> Option<&'static str> {
    let own = if https { HTTPS } else { HTTP };
    own.into_iter()
        .chain(ALL)
        .find(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
}

/// Whether one of the proxies is spoken to by TLS.
pub(crate) fn speaks_tls() -> bool {
    HTTP.into_iter()
        .chain(HTTPS)
        .chain(ALL)
        .any(|name| std::env::var(name).is_ok_and(|value| value.starts_with("https://")))
}

/// The passwords of the proxies.
pub(crate) fn passwords() -> Vec<String> {
    HTTP.into_iter()
        .chain(HTTPS)
        .chain(ALL)
        .filter_map(|name| std::env::var(name).ok())
        .filter_map(|value| url::Url::parse(&value).ok())
        .filter_map(|url| url.password().map(str::to_owned))
        .collect()
}
