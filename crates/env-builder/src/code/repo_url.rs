//! Repository addresses: taking them apart, refusing dangerous ones, naming cache folders, and taking
//! passwords out. Pure.
//!
//! Addresses are taken apart by hand and not by a URL library, because an address that is not changed
//! must stay what it is to the letter: the cache folder's name is computed from it.

use md5::{Digest, Md5};

/// `scheme://[user[:pass]@]host[:port]rest`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parts<'a> {
    pub(crate) scheme: &'a str,
    pub(crate) user: Option<&'a str>,
    pub(crate) pass: Option<&'a str>,
    pub(crate) host: &'a str,
    pub(crate) port: Option<&'a str>,
    pub(crate) rest: &'a str,
}

impl<'a> Parts<'a> {
    pub(crate) fn parse(url: &'a str) -> Option<Self> {
        let (scheme, after) = url.split_once("://")?;
        let end = after.find(['/', '?', '#']).unwrap_or(after.len());
        let (authority, rest) = after.split_at(end);
        let (userinfo, address) = match authority.rsplit_once('@') {
            Some((userinfo, address)) => (Some(userinfo), address),
            None => (None, authority),
        };
        let (user, pass) = match userinfo.map(|info| info.split_once(':').ok_or(info)) {
            Some(Ok((user, pass))) => (Some(user), Some(pass)),
            Some(Err(user)) => (Some(user), None),
            None => (None, None),
        };
        let port_at = address.rfind(':').filter(|at| !address[*at..].contains(']'));
        let (host, port) = match port_at {
            Some(at) => (&address[..at], Some(&address[at + 1..])),
            None => (address, None),
        };
        Some(Self {
            scheme,
            user,
            pass,
            host,
            port,
            rest,
        })
    }

    pub(crate) fn text(&self) -> String {
        let user = self.user.map_or(String::new(), |user| match self.pass {
            Some(pass) => format!("{user}:{pass}@"),
            None => format!("{user}@"),
        });
        let port = self.port.map_or(String::new(), |port| format!(":{port}"));
        format!("{}://{user}{}{port}{}", self.scheme, self.host, self.rest)
    }
}

/// `[user@]host:path`, as scp writes it.
pub(crate) fn parse_scp(url: &str) -> Option<(Option<&str>, &str, &str)> {
    let (address, path) = url.split_once(':')?;
    let (user, host) = match address.split_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, address),
    };
    let bad = |text: &str| text.is_empty() || text.contains(['/', '@', ':', '#']);
    let path_ok = !path.is_empty() && !path.starts_with(['/', '@', ':', '#']);
    (!bad(host) && !user.is_some_and(bad) && path_ok).then_some((user, host, path))
}

/// Why an address may not be handed to git, if so.
#[must_use]
pub fn refusal(url: &str) -> Option<&'static str> {
    let dashed = |word: Option<&str>| word.is_some_and(|word| word.starts_with('-'));
    let parts = Parts::parse(url);
    if url.starts_with('-')
        || dashed(parts.as_ref().map(|parts| parts.host))
        || dashed(parts.as_ref().and_then(|parts| parts.user))
        || dashed(parse_scp(url).map(|(_, host, _)| host))
    {
        return Some("it, its user or its host begins with a dash and would be taken for an option");
    }
    if url.chars().any(char::is_control) {
        return Some("it contains control characters");
    }
    let word = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    if url
        .split_once("::")
        .is_some_and(|(helper, _)| !helper.is_empty() && helper.chars().all(word))
    {
        return Some("it asks for a transport helper, which could run any command");
    }
    None
}

/// The folder name of a repository: the last part of its path.
#[must_use]
pub fn folder_name(url: &str) -> String {
    let path = Parts::parse(url).map_or(url, |parts| parts.rest);
    let path = path
        .split(['?', '#'])
        .next()
        .unwrap_or_default()
        .trim_end_matches('/');
    match path.rsplit('/').next().unwrap_or_default() {
        "" | "." | ".." => "repository".to_owned(),
        name => name.to_owned(),
    }
}

/// The id under which a clone is cached: the MD5 of the address as the task gives it. The Python agent
/// computes the same, so the two share clones.
#[must_use]
pub fn cache_id(url: &str) -> String {
    Md5::digest(url.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// The address without user and password, for schemes where git sends them in a header.
pub(crate) fn without_login(url: &str) -> String {
    match Parts::parse(url) {
        Some(parts) if is_http(parts.scheme) => Parts {
            user: None,
            pass: None,
            ..parts
        }
        .text(),
        _ => url.to_owned(),
    }
}

/// The address without its password, for people.
#[must_use]
pub fn without_password(url: &str) -> String {
    match Parts::parse(url) {
        Some(parts) if parts.pass.is_some() => Parts { pass: None, ..parts }.text(),
        _ => url.to_owned(),
    }
}

pub(crate) fn is_http(scheme: &str) -> bool {
    scheme == "http" || scheme == "https"
}

/// The host in lower case, without port.
pub(crate) fn host_of(url: &str) -> Option<String> {
    let host = match Parts::parse(url) {
        Some(parts) => parts.host,
        None => parse_scp(url)?.1,
    };
    Some(host.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_ids_and_display() {
        assert_eq!(folder_name("https://h/o/bar.git"), "bar.git");
        assert_eq!(folder_name("git@h:o/bar.git/"), "bar.git");
        assert_eq!(folder_name("git@h:a.git"), "git@h:a.git");
        assert_eq!(folder_name("https://h/.."), "repository");
        assert_eq!(folder_name("/srv/r"), "r");
        assert_eq!(
            cache_id("https://h/o/bar.git"),
            "528c6ac4b1381ee3b5497a2c2ac01236"
        );
        assert_ne!(cache_id("https://h/o/bar.git"), cache_id("git@h:o/bar.git"));
        assert_eq!(without_password("https://u:p@h/a.git"), "https://u@h/a.git");
        assert_eq!(without_password("https://[::1]:80/a"), "https://[::1]:80/a");
        assert_eq!(without_login("https://x:y@h/a.git"), "https://h/a.git");
        assert_eq!(without_login("https://x@h/a.git"), "https://h/a.git");
        assert_eq!(without_login("ssh://x@h/a.git"), "ssh://x@h/a.git");
    }

    #[test]
    fn addresses_that_could_run_something_are_refused() {
        for bad in [
            "-u./x",
            "--upload-pack=touch /tmp/x",
            "ext::sh -c id",
            "fd::17",
            "https://h/a\nb",
            "ssh://-oProxyCommand=id/x",
            "ssh://-oProxyCommand=id@h/x",
            "-oProxyCommand=id@h:x",
            "git@-oProxyCommand=id:x",
        ] {
            assert!(refusal(bad).is_some(), "{bad:?}");
        }
        for good in [
            "https://h/a::b",
            "git@h:a",
            "https://[::1]/a",
            "ssh://git@[fe80::1]:22/a",
            "/srv/a",
            "https://h/-a",
        ] {
            assert!(refusal(good).is_none(), "{good:?}");
        }
    }

    proptest! {
        #[test]
        fn an_address_is_put_together_again_to_the_letter(
            url in prop_oneof!["\\PC{0,40}", "[a-z+]{1,6}://([a-z%:]{0,6}@)?[a-z0-9.:-]{0,12}(/[ -~]{0,16})?"]
        ) {
            if let Some(parts) = Parts::parse(&url) {
                prop_assert_eq!(parts.text(), url.as_str());
            }
            let shown = without_password(&url);
            prop_assert_eq!(without_password(&shown), shown.as_str());
            prop_assert!(Parts::parse(&shown).is_none_or(|parts| parts.pass.is_none()));
            let name = folder_name(&url);
            prop_assert!(!name.is_empty() && !name.contains('/') && name != "." && name != "..");
        }
    }
}
