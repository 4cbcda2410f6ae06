//! The addresses of the three servers of one installation: what a person types, made uniform, and one
//! derived from another. Pure.

use url::Url;

/// The three addresses; an empty one is unknown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Servers {
    pub(crate) api: String,
    pub(crate) web: String,
    pub(crate) files: String,
}

/// What one address says about the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Derivation {
    /// All three follow. `from_api` when the address was recognised as that of the API server.
    Servers { servers: Servers, from_api: bool },
    /// A port of somebody's own; nothing follows.
    OwnPort,
    /// No port and no known name: a person has to say.
    NoPort,
}

/// The ports of an installation on one host.
pub(crate) const WEB_PORT: u16 = 8080;
const API_PORT: u16 = 8008;
const FILES_PORT: u16 = 8081;

/// The host names of the hosted installations begin with these: web, API, files.
const NAMES: [[&str; 3]; 2] = [["demoapp.", "demoapi.", "demofiles."], ["app.", "api.", "files."]];

/// The parts of an address that count here.
struct Address<'a> {
    scheme: &'a str,
    /// `user:password@`, if there.
    login: &'a str,
    host: &'a str,
    port: Option<u16>,
    path: &'a str,
}

impl<'a> Address<'a> {
    fn parse(url: &'a str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (login, place) = authority.split_at(authority.rfind('@').map_or(0, |at| at + 1));
        // The colons inside the brackets of an IPv6 address separate no port.
        let (host, port) = match place.rfind(':').filter(|colon| !place[*colon..].contains(']')) {
            Some(colon) => (&place[..colon], place[colon + 1..].parse().ok()),
            None => (place, None),
        };
        Some(Self {
            scheme,
            login,
            host,
            port,
            path,
        })
    }

    fn text(&self) -> String {
        let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        format!("{}://{}{}{port}{}", self.scheme, self.login, self.host, self.path)
    }

    fn with_port(&self, port: Option<u16>) -> String {
        Self { port, ..*self }.text()
    }

    fn with_host(&self, host: &str) -> String {
        Address { host, ..*self }.text()
    }
}

/// The address that somebody typed, as it goes into the file; `None` when it is none.
pub(crate) fn normalise(input: &str) -> Option<String> {
    let input = input.trim();
    if input.is_empty() || input.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return None;
    }
    let text = match input.split_once("://") {
        Some((scheme, rest)) => format!("{}://{rest}", scheme.to_ascii_lowercase()),
        None if input.contains(':') => format!("http://{input}"),
        None => format!("https://{input}"),
    };
    let url = Url::parse(&text).ok()?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return None;
    }
    let end = text.find(['?', '#']).unwrap_or(text.len());
    Some(text[..end].trim_end_matches('/').to_owned())
}

/// What a uniform address says about the other servers.
pub(crate) fn derive(url: &str) -> Derivation {
    let Some(address) = Address::parse(url) else {
        return Derivation::OwnPort;
    };
    let lower = address.host.to_ascii_lowercase();
    for [web, api, files] in NAMES {
        for (name, from_api) in [(web, false), (api, true)] {
            let Some(domain) = lower.strip_prefix(name) else {
                continue;
            };
            let sibling = |name: &str| address.with_host(&format!("{name}{domain}"));
            return Derivation::Servers {
                servers: Servers {
                    api: sibling(api),
                    web: sibling(web),
                    files: sibling(files),
                },
                from_api,
            };
        }
    }
    match address.port {
        Some(port @ (API_PORT | WEB_PORT)) => Derivation::Servers {
            servers: on_usual_ports(url),
            from_api: port == API_PORT,
        },
        Some(_) => Derivation::OwnPort,
        None => Derivation::NoPort,
    }
}

/// The three servers on one host, each on its usual port.
pub(crate) fn on_usual_ports(url: &str) -> Servers {
    Servers {
        api: with_port(url, Some(API_PORT)),
        web: with_port(url, Some(WEB_PORT)),
        files: with_port(url, Some(FILES_PORT)),
    }
}

/// The same address with another port, or without one.
pub(crate) fn with_port(url: &str, port: Option<u16>) -> String {
    Address::parse(url).map_or_else(|| url.to_owned(), |address| address.with_port(port))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_people_type_becomes_an_address() {
        for (input, expected) in [
            ("localhost:8080", Some("http://localhost:8080")),
            ("clearml.example.com", Some("https://clearml.example.com")),
            (" HTTP://Host:1/a/b/ ", Some("http://Host:1/a/b")),
            ("https://app.clear.ml/?x=1#y", Some("https://app.clear.ml")),
            ("[::1]:8080", Some("http://[::1]:8080")),
            ("ftp://host", None),
            ("http://", None),
            ("host:port", None),
            ("two words", None),
            ("", None),
        ] {
            assert_eq!(normalise(input).as_deref(), expected, "{input:?}");
        }
    }

    #[test]
    fn servers_follow_from_known_names_and_ports() {
        for (url, api, web, files, from_api) in [
            (
                "https://demoapp.x.y/p",
                "https://demoapi.x.y/p",
                "https://demoapp.x.y/p",
                "https://demofiles.x.y/p",
                false,
            ),
            (
                "https://app.clear.ml",
                "https://api.clear.ml",
                "https://app.clear.ml",
                "https://files.clear.ml",
                false,
            ),
            (
                "https://demoapi.x.y",
                "https://demoapi.x.y",
                "https://demoapp.x.y",
                "https://demofiles.x.y",
                true,
            ),
            (
                "https://api.clear.ml",
                "https://api.clear.ml",
                "https://app.clear.ml",
                "https://files.clear.ml",
                true,
            ),
            // Only the beginning of the name is replaced, and only once.
            (
                "https://app.app.example.com:444",
                "https://api.app.example.com:444",
                "https://app.app.example.com:444",
                "https://files.app.example.com:444",
                false,
            ),
            (
                "http://h:8008/p",
                "http://h:8008/p",
                "http://h:8080/p",
                "http://h:8081/p",
                true,
            ),
            (
                "http://h:8080",
                "http://h:8008",
                "http://h:8080",
                "http://h:8081",
                false,
            ),
            (
                "http://u:p@[::1]:8080",
                "http://u:p@[::1]:8008",
                "http://u:p@[::1]:8080",
                "http://u:p@[::1]:8081",
                false,
            ),
        ] {
            let expected = Derivation::Servers {
                servers: Servers {
                    api: api.into(),
                    web: web.into(),
                    files: files.into(),
                },
                from_api,
            };
            assert_eq!(derive(url), expected, "{url}");
        }
        assert_eq!(derive("http://h:1234"), Derivation::OwnPort);
        assert_eq!(derive("https://clearml.example.com/x"), Derivation::NoPort);
        assert_eq!(derive("http://[::1]"), Derivation::NoPort);
        assert_eq!(with_port("http://[::1]/x", Some(5)), "http://[::1]:5/x");
        assert_eq!(with_port("http://h:5/x", None), "http://h/x");
    }

    proptest! {
        #[test]
        fn any_text_is_an_address_or_none(text in ".{0,60}") {
            if let Some(url) = normalise(&text) {
                prop_assert_eq!(normalise(&url), Some(url.clone()));
                if let Derivation::Servers { servers, .. } = derive(&url) {
                    for server in [servers.api, servers.web, servers.files] {
                        prop_assert!(normalise(&server).is_some(), "{} gave {}", url, server);
                    }
                }
            }
        }
    }
}
