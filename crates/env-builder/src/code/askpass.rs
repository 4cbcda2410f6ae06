//! The other end of `GIT_ASKPASS`: git starts a program with its question as the only argument and reads
//! the answer from its output. Ours answers questions about the hosts that a login is meant for, and no
//! others, so that a submodule or a redirection elsewhere gets nothing.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use clearml_support::fs::read_limited;
use serde::{Deserialize, Serialize};

use crate::code::repo_url::Parts;

/// Names the file with the rules. Its presence makes a program that calls [`intercept`] the helper.
pub(crate) const RULES: &str = "CLEARML_AGENT_ASKPASS_RULES";
/// The helper that the user had configured; it is asked what no rule answers.
pub(crate) const NEXT: &str = "CLEARML_AGENT_ASKPASS_NEXT";

/// The file is ours and small.
const MAX_RULES: u64 = 1 << 20;

/// Answers git's question if git has started this program, and does nothing otherwise. A program that is
/// given as [`GitSettings::ask_pass_program`](crate::GitSettings::ask_pass_program) calls this first of all
/// and exits with the code, if there is one.
#[must_use]
pub fn intercept() -> Option<ExitCode> {
    let file = std::env::var_os(RULES).filter(|file| !file.is_empty())?;
    let prompt = std::env::args().nth(1).unwrap_or_default();
    let rules = read_limited(Path::new(&file), MAX_RULES)
        .ok()
        .and_then(|bytes| serde_json::from_slice::<Rules>(&bytes).ok());
    let Some(rules) = rules else {
        eprintln!("clearml-agent: the logins for git can't be read any more");
        return Some(ExitCode::FAILURE);
    };
    if let Some(answer) = rules.answer(&prompt) {
        println!("{answer}");
        return Some(ExitCode::SUCCESS);
    }
    if let Some(next) = std::env::var_os(NEXT).filter(|next| !next.is_empty()) {
        let error = Command::new(&next)
            .arg(&prompt)
            .env_remove(RULES)
            .env_remove(NEXT)
            .exec();
        eprintln!("clearml-agent: starting {}: {error}", Path::new(&next).display());
    }
    Some(ExitCode::FAILURE)
}

/// Logins, and who gets them. The first rule that fits answers. Has no `Debug`, because it holds passwords.
#[derive(Serialize, Deserialize)]
pub(crate) struct Rules {
    /// Answer nobody who would send the password without encryption.
    pub(crate) refuse_http: bool,
    pub(crate) rules: Vec<Rule>,
}

/// One login.
#[derive(Serialize, Deserialize)]
pub(crate) struct Rule {
    pub(crate) scope: Scope,
    pub(crate) user: String,
    pub(crate) pass: String,
}

/// Who gets it; texts are in lower case.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Scope {
    /// `scheme://host[:port]`.
    Origin(String),
    /// A host, on any port.
    Host(String),
    /// The beginning of `scheme://host[:port]`.
    Prefix(String),
}

impl Rules {
    /// As the helper reads it.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The answer to a question of git or git-lfs.
    pub(crate) fn answer(&self, prompt: &str) -> Option<&str> {
        let asked = Asked::parse(prompt)?;
        if self.refuse_http && asked.scheme == "http" {
            return None;
        }
        let rule = self.rules.iter().find(|rule| asked.fits(&rule.scope))?;
        Some(if asked.user { &rule.user } else { &rule.pass })
    }
}

/// A question: `Username for 'https://host': ` or `Password for 'https://user@host:port': `.
struct Asked<'a> {
    user: bool,
    scheme: &'a str,
    host: &'a str,
    port: Option<&'a str>,
}

impl<'a> Asked<'a> {
    /// The text between the quotes may be chosen by whoever wrote a `.gitmodules`. The host is what follows
    /// the last `@`; anything that looks like a path makes the question one that is not answered.
    fn parse(prompt: &'a str) -> Option<Self> {
        let user = match prompt.chars().next()? {
            'u' | 'U' => true,
            'p' | 'P' => false,
            _ => return None,
        };
        let (_, quoted) = prompt.split_once(" for ")?;
        let quote = quoted.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
        let inner = &quoted[1..quoted.rfind(quote).filter(|end| *end > 0)?];
        let (scheme, authority) = inner.split_once("://")?;
        if authority.contains(|c: char| matches!(c, '/' | '?' | '#') || c.is_control()) {
            return None;
        }
        let address = authority
            .rsplit_once('@')
            .map_or(authority, |(_, address)| address);
        let plain = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
        if address.is_empty() || !address.chars().all(plain) {
            return None;
        }
        let start = inner.len() - address.len();
        let (host, port) = match address.rfind(':').filter(|at| !address[*at..].contains(']')) {
            Some(at) => (&inner[start..start + at], Some(&inner[start + at + 1..])),
            None => (&inner[start..], None),
        };
        Some(Self {
            user,
            scheme,
            host,
            port,
        })
    }

    fn fits(&self, scope: &Scope) -> bool {
        match scope {
            Scope::Host(host) => self.host.eq_ignore_ascii_case(host),
            Scope::Origin(origin) => Parts::parse(origin).is_some_and(|parts| {
                parts.scheme.eq_ignore_ascii_case(self.scheme)
                    && parts.host.eq_ignore_ascii_case(self.host)
                    && port(parts.scheme, parts.port) == port(self.scheme, self.port)
            }),
            Scope::Prefix(prefix) => {
                let port = self.port.map_or(String::new(), |port| format!(":{port}"));
                let asked = format!("{}://{}{port}", self.scheme, self.host);
                crate::code::credentials::matches(&asked, prefix, true)
            }
        }
    }
}

fn port<'a>(scheme: &str, port: Option<&'a str>) -> &'a str {
    let usual = if scheme.eq_ignore_ascii_case("https") {
        "443"
    } else {
        "80"
    };
    port.filter(|port| !port.is_empty()).unwrap_or(usual)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rules(refuse_http: bool, scope: Scope) -> Rules {
        let rule = Rule {
            scope,
            user: "U".into(),
            pass: r#"P$`"\x"#.into(),
        };
        Rules {
            refuse_http,
            rules: vec![rule],
        }
    }

    #[test]
    fn a_host_is_answered_and_no_other() {
        let host = rules(true, Scope::Host("h".into()));
        for (prompt, expected) in [
            ("Username for 'https://h': ", Some("U")),
            ("Username for 'https://H:8443': ", Some("U")),
            ("Password for 'https://U@h': ", Some(r#"P$`"\x"#)),
            ("Password for 'https://me@corp@h': ", Some(r#"P$`"\x"#)),
            (r#"Password for "https://U@h""#, Some(r#"P$`"\x"#)),
            ("Username for 'http://h': ", None),
            ("Username for 'https://evil': ", None),
            ("Username for 'https://h.evil': ", None),
            ("Username for 'https://h@evil': ", None),
            ("Password for 'https://h/@evil': ", None),
            ("Password for 'https://evil/x@h': ", None),
            ("Password for 'https://x' for 'https://U@evil': ", None),
            ("Password for 'https://h': 'x@evil': ", None),
            ("Enter passphrase for key '/root/.ssh/id': ", None),
            ("Password: ", None),
            ("", None),
            ("Username for '", None),
            ("ü for 'https://h'", None),
        ] {
            assert_eq!(host.answer(prompt), expected, "{prompt:?}");
        }
    }

    #[test]
    fn servers_and_prefixes() {
        let origin = rules(false, Scope::Origin("http://127.0.0.1:8080".into()));
        assert_eq!(origin.answer("Username for 'http://127.0.0.1:8080': "), Some("U"));
        assert_eq!(origin.answer("Username for 'http://127.0.0.1:8081': "), None);
        assert_eq!(origin.answer("Username for 'http://127.0.0.1': "), None);
        let usual = rules(true, Scope::Origin("https://h".into()));
        assert_eq!(usual.answer("Username for 'https://h:443': "), Some("U"));
        let v6 = rules(false, Scope::Origin("http://[::1]:80".into()));
        assert_eq!(v6.answer("Username for 'http://[::1]': "), Some("U"));
        let prefix = rules(true, Scope::Prefix("https://h".into()));
        assert_eq!(prefix.answer("Username for 'https://h:8443': "), Some("U"));
        assert_eq!(prefix.answer("Username for 'https://h.evil': "), None);
    }

    proptest! {
        #[test]
        fn only_questions_that_end_with_the_host_are_answered(
            user in "[ -~]{0,12}", host in prop_oneof!["h", "[a-z.]{1,5}", "[ -~]{0,8}"],
        ) {
            let all = rules(true, Scope::Host("h".into()));
            let prompt = format!("Password for 'https://{user}@{host}': ");
            if all.answer(&prompt).is_some() {
                // Names of hosts have no case.
                let name = host.rsplit('@').next().unwrap().split(':').next();
                prop_assert!(name.is_some_and(|name| name.eq_ignore_ascii_case("h")), "{}", prompt);
                prop_assert!(!user.contains('/'));
            }
        }
    }
}
