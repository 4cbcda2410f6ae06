//! Which login belongs to which address, and how it reaches git. Pure, but for the last step.
//!
//! A login is bound to hosts. Without `git_host` it is bound to the very server of the task's repository,
//! so that a submodule on another server does not get it.

use base64::Engine;
use clearml_support::redact::{Redactor, looks_like_token};
use clearml_support::secret::Secret;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::code::askpass::{Rule, Rules, Scope};
use crate::code::convert::forced_ssh_origin;
use crate::code::repo_url::{Parts, host_of, is_http, parse_scp, without_login};
use crate::code::secret_file::SecretFile;
use crate::error::FileError;
use crate::request::{Credential, GitSettings};

/// User and password.
pub(crate) type Login = (String, Secret);

/// Whether a login for `host` is meant for this address: by the name of the host, or with `prefix` by the
/// beginning of the address (of `host:path`, where there is no scheme).
#[must_use]
pub fn matches(url: &str, host: &str, prefix: bool) -> bool {
    let host = host.to_lowercase();
    if !prefix {
        return host_of(url).is_some_and(|of_url| of_url == host);
    }
    let text = match (Parts::parse(url), parse_scp(url)) {
        (Some(parts), _) => Parts {
            user: None,
            pass: None,
            ..parts
        }
        .text(),
        (None, Some((_, host, path))) => format!("{host}:{path}"),
        (None, None) => return false,
    };
    // Where the prefix ends a name must end too: `https://h` does not stand for `https://h.elsewhere`.
    text.to_lowercase().strip_prefix(&host).is_some_and(|rest| {
        host.ends_with(['/', ':']) || rest.is_empty() || rest.starts_with(['/', ':', '?'])
    })
}

/// The configured login for an address.
#[must_use]
pub fn login_for(url: &str, git: &GitSettings) -> Option<(String, Secret)> {
    host_of(url)?;
    let prefix = git.host_match_prefix;
    if let Some((_, user, pass)) =
        usable(&git.extra_credentials).find(|(host, ..)| matches(url, host, prefix))
    {
        return Some((user.to_owned(), pass.clone()));
    }
    let (user, pass) = primary(git)?;
    let meant = only_host(git).is_none_or(|host| matches(url, host, prefix));
    meant.then(|| (user.to_owned(), pass.clone()))
}

fn primary(git: &GitSettings) -> Option<(&str, &Secret)> {
    let user = git.user.as_deref().filter(|user| !user.is_empty())?;
    let pass = git.pass.as_ref().filter(|pass| !pass.is_empty())?;
    Some((user, pass))
}

fn only_host(git: &GitSettings) -> Option<&str> {
    git.host.as_deref().filter(|host| !host.is_empty())
}

fn usable(entries: &[Credential]) -> impl Iterator<Item = (&str, &str, &Secret)> {
    entries.iter().filter_map(|entry| {
        let host = entry.host.as_deref().filter(|host| !host.is_empty())?;
        let complete = !entry.user.is_empty() && !entry.pass.is_empty();
        complete.then_some((host, entry.user.as_str(), &entry.pass))
    })
}

/// How many entries of a list of logins are of no use, because a part is missing.
pub(crate) fn unusable(entries: &[Credential]) -> usize {
    entries.len() - usable(entries).count()
}

/// A login with the address it was found for, taken out of it.
///
/// A complete login in the address wins over the configured one. An access token in the place of the user
/// is a login without password.
#[must_use]
pub fn split_login(url: &str, git: &GitSettings) -> (String, Option<(String, Secret)>) {
    let Some(parts) = Parts::parse(url).filter(|parts| is_http(parts.scheme)) else {
        return (url.to_owned(), None);
    };
    let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let login = match (parts.user, parts.pass.filter(|pass| !pass.is_empty())) {
        (Some(user), Some(pass)) => Some((decode(user), Secret::new(decode(pass)))),
        (user, _) => login_for(url, git).or_else(|| {
            let token = user.filter(|user| looks_like_token(user))?;
            Some((token.to_owned(), Secret::default()))
        }),
    };
    match login {
        Some(login) => (without_login(url), Some(login)),
        None => (url.to_owned(), None),
    }
}

/// `scheme://host[:port]` of an address.
fn origin(url: &str) -> Option<String> {
    let parts = Parts::parse(url)?;
    let origin = Parts {
        user: None,
        pass: None,
        rest: "",
        ..parts
    };
    Some(origin.text())
}

/// Who gets a login when asking for one: first the server of the repository, then what is configured.
pub(crate) fn rules(url: &str, login: Option<&Login>, git: &GitSettings) -> Rules {
    let scheme = Parts::parse(url).map_or("ssh", |parts| parts.scheme);
    let mut rules = Rules {
        refuse_http: scheme != "http",
        rules: Vec::new(),
    };
    let mut add = |scope, (user, pass): (&str, &Secret)| {
        rules.rules.push(Rule {
            scope,
            user: user.to_owned(),
            pass: pass.expose().to_owned(),
        });
    };
    if let (Some((user, pass)), Some(origin)) = (login, origin(url).filter(|_| is_http(scheme))) {
        add(Scope::Origin(origin), (user, pass));
    }
    let scope = |host: &str| {
        if git.host_match_prefix {
            Scope::Prefix(host.to_lowercase())
        } else {
            Scope::Host(host.to_lowercase())
        }
    };
    for (host, user, pass) in usable(&git.extra_credentials) {
        add(scope(host), (user, pass));
    }
    if let Some(login) = primary(git) {
        match only_host(git) {
            Some(host) => add(scope(host), login),
            // Reached by ssh, its submodules may be reached by https.
            None if !is_http(scheme) => {
                if let Some(host) = host_of(url) {
                    add(Scope::Host(host), login);
                }
            }
            None => {}
        }
    }
    rules
}

/// Options of git that reach the submodules of a repository by the protocol of the repository itself.
pub(crate) fn rewrites(url: &str, git: &GitSettings) -> Vec<String> {
    let mut hosts: Vec<String> = host_of(url).into_iter().collect();
    let configured = usable(&git.extra_credentials).map(|(host, ..)| host);
    for host in only_host(git).into_iter().chain(configured) {
        let host = host_of(host).unwrap_or_else(|| host.to_lowercase());
        let plain = host
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || ".-[]".contains(c));
        if plain && !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    let mut options = Vec::new();
    for host in hosts {
        let forced =
            git.force_ssh_protocol && only_host(git).is_none_or(|only| only.eq_ignore_ascii_case(&host));
        if forced {
            let ssh = forced_ssh_origin(&host, git);
            options.push(format!("url.{ssh}/.insteadOf=https://{host}/"));
        }
        if git.translate_ssh && login_for(&format!("https://{host}/"), git).is_some() {
            let web = format!("url.{}://{host}/.insteadOf", git.replacement_scheme);
            options.push(format!("{web}=git@{host}:"));
            if !forced {
                options.push(format!("{web}=ssh://git@{host}/"));
            }
        }
    }
    options
}

/// How git reaches a repository without any secret in its arguments, its environment or `.git/config`.
#[derive(Debug)]
pub struct Access {
    /// The address for git.
    pub url: String,
    /// For the helper that git asks for logins.
    pub(crate) rules: Option<SecretFile>,
    /// A piece of git configuration with a header for the server of the repository.
    pub(crate) header: Option<SecretFile>,
    /// Options of every call.
    pub(crate) options: Vec<String>,
}

impl Access {
    /// Prepares the way to an address that is converted already. Its secrets are added to `redactor`.
    ///
    /// # Errors
    ///
    /// When the system refuses a file in memory.
    pub(crate) fn new(url: &str, git: &GitSettings, redactor: &Redactor) -> Result<Self, FileError> {
        let (plain, login) = split_login(url, git);
        let rules = rules(&plain, login.as_ref(), git);
        for rule in &rules.rules {
            hide(redactor, &rule.user, &rule.pass);
        }
        let token = git.use_ms_entra_token || git.use_azure_pat;
        let helper = git.enable_ask_pass && git.ask_pass_program.is_some();
        let mut access = Self {
            options: rewrites(&plain, git),
            rules: None,
            header: None,
            url: plain,
        };
        if helper && !rules.rules.is_empty() {
            access.rules = Some(SecretFile::new(&rules.to_json())?);
        }
        if let (Some((user, pass)), true) = (&login, token || !helper)
            && let Some(origin) = origin(&access.url)
        {
            let value = header_value(user, pass, git);
            redactor.add(&Secret::new(value.clone()));
            redactor.add(&Secret::new(value.rsplit(' ').next().unwrap_or_default()));
            let quoted = quote(&format!("Authorization: {value}"));
            let config = format!(
                "[http {}]\n\textraHeader = {quoted}\n",
                quote(&format!("{origin}/"))
            );
            access.header = Some(SecretFile::new(config.as_bytes())?);
            // git would send the header to wherever the server points it.
            access.options.push("http.followRedirects=false".to_owned());
        }
        Ok(access)
    }
}

fn header_value(user: &str, pass: &Secret, git: &GitSettings) -> String {
    let basic = |pair: String| format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair));
    if git.use_ms_entra_token {
        format!("Bearer {}", pass.expose())
    } else if git.use_azure_pat {
        basic(format!(":{}", pass.expose()))
    } else {
        basic(format!("{user}:{}", pass.expose()))
    }
}

/// A value for a file of git's configuration.
fn quote(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn hide(redactor: &Redactor, user: &str, pass: &str) {
    let secret = if pass.is_empty() { user } else { pass };
    redactor.add(&Secret::new(secret));
    redactor.add(&Secret::new(
        utf8_percent_encode(secret, NON_ALPHANUMERIC).to_string(),
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_login() -> GitSettings {
        GitSettings {
            user: Some("U".into()),
            pass: Some(Secret::new("P@ss")),
            ..GitSettings::default()
        }
    }

    fn entry(user: &str, pass: &str, host: Option<&str>) -> Credential {
        Credential {
            user: user.into(),
            pass: Secret::new(pass),
            host: host.map(str::to_owned),
        }
    }

    fn login(url: &str, git: &GitSettings) -> Option<String> {
        login_for(url, git).map(|(user, pass)| format!("{user}:{}", pass.expose()))
    }

    #[test]
    fn hosts_and_prefixes() {
        for (url, host, prefix, expected) in [
            ("https://H:8443/a", "h", false, true),
            ("git@H:a", "h", false, true),
            ("https://evil/h", "h", false, false),
            ("https://h/org/a", "https://h/org", true, true),
            ("https://h/other/a", "https://h/org", true, false),
            ("https://h/organic/a", "https://h/org", true, false),
            ("https://h.evil/org", "https://h", true, false),
            ("https://h@evil/org", "https://h", true, false),
            ("https://h:x@evil/org", "https://h", true, false),
            ("https://me@h/org/a", "https://H/org/", true, true),
            ("git@h:org/a", "h:org", true, true),
            ("/srv/h", "/srv", true, false),
        ] {
            assert_eq!(matches(url, host, prefix), expected, "{url} {host}");
        }
    }

    #[test]
    fn the_first_entry_that_fits_wins() {
        let mut git = GitSettings {
            host: Some("h".into()),
            extra_credentials: vec![
                entry("no", "host", None),
                entry("a", "b", Some("Z")),
                entry("c", "d", Some("z")),
                entry("", "x", Some("h")),
            ],
            ..with_login()
        };
        assert_eq!(unusable(&git.extra_credentials), 2);
        assert_eq!(login("https://z/a", &git).as_deref(), Some("a:b"));
        assert_eq!(login("https://h/a", &git).as_deref(), Some("U:P@ss"));
        assert_eq!(login("https://other/a", &git), None);
        assert_eq!(login("/srv/repo.git", &git), None);
        git.host = None;
        assert_eq!(login("https://other/a", &git).as_deref(), Some("U:P@ss"));
        git.pass = None;
        assert_eq!(login("https://other/a", &git), None);
    }

    #[test]
    fn no_login_stays_in_the_address() {
        let git = with_login();
        let of = |url: &str, git: &GitSettings| {
            let (url, login) = split_login(url, git);
            (url, login.map(|(user, pass)| format!("{user}:{}", pass.expose())))
        };
        let some = |text: &str| Some(text.to_owned());
        for url in ["https://h/a.git", "https://x@h/a.git"] {
            assert_eq!(of(url, &git), ("https://h/a.git".into(), some("U:P@ss")));
        }
        assert_eq!(
            of("https://x:y%2F@h/a.git", &git),
            ("https://h/a.git".into(), some("x:y/"))
        );
        for plain in [
            "ssh://h/a",
            "git://h/a",
            "git@h:a",
            "/srv/repo.git",
            "file:///srv/r",
        ] {
            assert_eq!(of(plain, &git), (plain.into(), None));
        }
        let host = GitSettings {
            host: Some("h".into()),
            ..with_login()
        };
        assert!(of("https://H:8443/a", &host).1.is_some());
        assert_eq!(
            of("https://tok@evil/a", &host),
            ("https://tok@evil/a".into(), None)
        );
        let token = of(
            "https://glpat-0123456789abcdefXYZ@h/a.git",
            &GitSettings::default(),
        );
        assert_eq!(
            token,
            ("https://h/a.git".into(), some("glpat-0123456789abcdefXYZ:"))
        );
    }

    #[test]
    fn without_a_configured_host_only_the_server_of_the_repository_is_answered() {
        let git = with_login();
        let (url, login) = split_login("https://h:8443/a.git", &git);
        let all = rules(&url, login.as_ref(), &git);
        for (prompt, expected) in [
            ("Password for 'https://U@h:8443': ", Some("P@ss")),
            ("Username for 'https://h:8443': ", Some("U")),
            ("Password for 'https://U@h': ", None),
            ("Password for 'http://U@h:8443': ", None),
            ("Password for 'https://U@evil:8443': ", None),
        ] {
            assert_eq!(all.answer(prompt), expected, "{prompt}");
        }
        let by_ssh = rules("git@h:a.git", None, &git);
        assert_eq!(by_ssh.answer("Username for 'https://h': "), Some("U"));
        assert_eq!(by_ssh.answer("Username for 'https://evil': "), None);
    }

    #[test]
    fn submodules_follow_the_protocol_of_their_repository() {
        let mut git = with_login();
        let expected = [
            "url.https://h/.insteadOf=git@h:",
            "url.https://h/.insteadOf=ssh://git@h/",
        ];
        assert_eq!(rewrites("https://h/a.git", &git), expected);
        git.force_ssh_protocol = true;
        git.force_ssh_port = Some(2222);
        let expected = [
            "url.ssh://git@h:2222/.insteadOf=https://h/",
            "url.https://h/.insteadOf=git@h:",
        ];
        assert_eq!(rewrites("ssh://git@h:2222/a.git", &git), expected);
        assert!(rewrites("/srv/a", &GitSettings::default()).is_empty());
    }

    #[test]
    fn headers() {
        let pass = Secret::new("abc");
        let git = |entra, pat| GitSettings {
            use_ms_entra_token: entra,
            use_azure_pat: pat,
            ..GitSettings::default()
        };
        assert_eq!(header_value("u", &pass, &git(true, true)), "Bearer abc");
        assert_eq!(header_value("u", &pass, &git(false, true)), "Basic OmFiYw==");
        assert_eq!(header_value("u", &pass, &git(false, false)), "Basic dTphYmM=");
        assert_eq!(quote(r#"a"b\c"#), r#""a\"b\\c""#);
    }
}
