//! The `Host` header check: a web page under a foreign name that resolves to this machine must not reach the server.

use std::net::IpAddr;

/// Which names this server answers to.
#[derive(Debug)]
pub(crate) struct HostRule {
    bound: IpAddr,
    extra: Vec<String>,
}

impl HostRule {
    pub(crate) fn new(bound: IpAddr, extra: &[String]) -> Self {
        Self {
            bound,
            extra: extra.iter().map(|name| name.to_ascii_lowercase()).collect(),
        }
    }

    /// Whether a `Host` value (with or without port) names this server.
    pub(crate) fn allows(&self, host: &str) -> bool {
        let name = without_port(host).to_ascii_lowercase();
        if let Ok(address) = name.trim_matches(['[', ']']).parse::<IpAddr>() {
            // A server on a wildcard address is reached by any address literal; rebinding needs a name.
            return address.is_loopback() || address == self.bound || self.bound.is_unspecified();
        }
        name == "localhost" || name.ends_with(".localhost") || self.extra.contains(&name)
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_own_names_are_answered() {
        let rule = HostRule::new("10.1.2.3".parse().unwrap(), &["Box.example".to_owned()]);
        for good in [
            "localhost",
            "LOCALHOST:8008",
            "127.0.0.1:8008",
            "127.9.9.9",
            "[::1]:8008",
            "10.1.2.3:1",
            "box.example:80",
            "a.localhost",
        ] {
            assert!(rule.allows(good), "{good}");
        }
        for bad in [
            "evil.example",
            "evil.example:8008",
            "10.1.2.4",
            "localhost.evil.example",
            "",
            "127.0.0.1.evil.example",
        ] {
            assert!(!rule.allows(bad), "{bad}");
        }
    }
}
