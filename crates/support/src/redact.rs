//! Cleaning text before it leaves the process.
//!
//! A [`Redactor`] knows the secrets of this process and replaces them wherever they occur; passwords
//! inside URLs are replaced even when nobody registered them.

use std::borrow::Cow;
use std::sync::{Arc, PoisonError, RwLock};

use crate::secret::{MASK, Secret};

/// Secrets shorter than this are not searched for: replacing every `a` would destroy the text and
/// tell the secret at the same time.
const SHORTEST: usize = 4;

/// Lines of a secret with several lines, such as a private key, are searched for from this length on: text is looked
/// at line by line in many places.
const SHORTEST_LINE: usize = 16;

/// The first lines of a secret that are searched for; a long key has about fifty.
const MOST_LINES: usize = 200;

/// Access tokens are longer than the names of users.
const SHORTEST_TOKEN: usize = 20;

/// A shared set of secrets to be removed from text. Clones share the set.
#[derive(Clone, Default)]
pub struct Redactor {
    secrets: Arc<RwLock<Vec<String>>>,
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redactor").finish_non_exhaustive()
    }
}

impl Redactor {
    /// A redactor that knows no secret yet; it still masks passwords in URLs.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Remembers a secret, also as it stands in JSON text, and its longer lines. Values of fewer than four characters
    /// are ignored.
    pub fn add(&self, secret: &Secret) {
        let value = secret.expose();
        if value.len() < SHORTEST {
            return;
        }
        let quoted = serde_json::Value::from(value).to_string();
        let mut secrets = self.secrets.write().unwrap_or_else(PoisonError::into_inner);
        let lines = value
            .lines()
            .map(str::trim)
            .filter(|line| line.len() >= SHORTEST_LINE && !line.starts_with("-----"))
            .take(MOST_LINES);
        let whole = [value, value.trim(), &quoted[1..quoted.len() - 1]];
        for form in whole.into_iter().chain(lines) {
            if form.len() >= SHORTEST && !secrets.iter().any(|known| known == form) {
                secrets.push(form.to_owned());
            }
        }
        // Longest first, so that a secret that contains another one is replaced as a whole.
        secrets.sort_by_key(|known| std::cmp::Reverse(known.len()));
    }

    /// What it searches for.
    #[must_use]
    pub fn known(&self) -> Vec<Secret> {
        let secrets = self.secrets.read().unwrap_or_else(PoisonError::into_inner);
        secrets
            .iter()
            .map(|secret| Secret::new(secret.as_str()))
            .collect()
    }

    /// The text without any known secret and without passwords in URLs. Borrows when nothing changed.
    #[must_use]
    pub fn redact<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let secrets = self.secrets.read().unwrap_or_else(PoisonError::into_inner);
        let mut result = Cow::Borrowed(text);
        for secret in secrets.iter() {
            if result.contains(secret.as_str()) {
                result = Cow::Owned(result.replace(secret.as_str(), MASK));
            }
        }
        if result.contains("://") {
            let masked = mask_urls(&result);
            if masked != result {
                result = Cow::Owned(masked);
            }
        }
        result
    }
}

/// A URL with its password, if any, replaced. Text that is not a URL comes back unchanged.
///
/// ```
/// use clearml_support::redact::mask_url;
/// assert_eq!(mask_url("https://me:pa55@host/x.git"), "https://me:****@host/x.git");
/// assert_eq!(mask_url("git@host:x.git"), "git@host:x.git");
/// ```
#[must_use]
pub fn mask_url(url: &str) -> String {
    mask_urls(url)
}

/// Whether the user part of an address, without a password beside it, is an access token rather than a
/// name: long, with digits, and nothing but letters, digits, `_` and `-`.
///
/// ```
/// use clearml_support::redact::looks_like_token;
/// assert!(looks_like_token("ghp_16C7e42F292c6912E7710c838347Ae178B4a"));
/// assert!(!looks_like_token("git") && !looks_like_token("somebody%40example.com"));
/// ```
#[must_use]
pub fn looks_like_token(user: &str) -> bool {
    let user = user.trim_end_matches(':');
    user.len() >= SHORTEST_TOKEN
        && user.bytes().any(|byte| byte.is_ascii_digit())
        && user
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

/// Replaces `user:password@` inside every `scheme://` authority of the text.
fn mask_urls(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(found) = rest.find("://") {
        let (before, after) = rest.split_at(found + 3);
        out.push_str(before);
        let word = after
            .find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>'))
            .unwrap_or(after.len());
        let end = authority_end(&after[..word]);
        let authority = &after[..end];
        match authority
            .rfind('@')
            .map(|at| (&authority[..at], &authority[at..]))
        {
            Some((userinfo, host)) => {
                match userinfo.split_once(':') {
                    Some((user, password)) if !password.is_empty() => {
                        out.push_str(user);
                        out.push(':');
                        out.push_str(MASK);
                    }
                    _ if looks_like_token(userinfo) => out.push_str(MASK),
                    _ => out.push_str(userinfo),
                }
                out.push_str(host);
            }
            None => out.push_str(authority),
        }
        rest = &after[end..];
    }
    out.push_str(rest);
    out
}

/// Where the host ends. A password may hold a `/` that should have been encoded: what looks like a port but
/// is no number is one, if there is an `@` further on.
fn authority_end(word: &str) -> usize {
    let separators = ['/', '?', '#'];
    let end = word.find(separators).unwrap_or(word.len());
    let authority = &word[..end];
    let port = authority.rsplit_once(':').map_or("", |(_, port)| port);
    let is_port = port.bytes().all(|byte| byte.is_ascii_digit() || byte == b']');
    match word.rfind('@') {
        Some(at) if !authority.contains('@') && !is_port => {
            word[at..].find(separators).map_or(word.len(), |after| at + after)
        }
        _ => end,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_secret_is_known_in_json_text_as_well() {
        let redactor = Redactor::new();
        redactor.add(&Secret::new("a\"b\\c\n"));
        let line = serde_json::json!({"message": "key a\"b\\c\n!"}).to_string();
        assert_eq!(redactor.redact(&line), r#"{"message":"key ****!"}"#);
        assert_eq!(redactor.redact("key a\"b\\c\n!"), "key ****!");
    }

    #[test]
    fn a_secret_of_several_lines_is_known_by_its_lines() {
        let redactor = Redactor::new();
        let key =
            "-----BEGIN PRIVATE KEY-----\r\nMIIEvQIBADANBgkqhkiG\r\nshort=\r\n-----END PRIVATE KEY-----\r\n";
        redactor.add(&Secret::new(key));
        assert_eq!(redactor.redact("x MIIEvQIBADANBgkqhkiG y"), "x **** y");
        let others = "-----BEGIN PRIVATE KEY----- short=";
        assert_eq!(redactor.redact(others), others);
        assert_eq!(redactor.redact(key), "****");
        // Nor does a line feed at its end, as in a file, hide it.
        redactor.add(&Secret::new("hunter22\n"));
        assert_eq!(redactor.redact("a hunter22 b"), "a **** b");
    }

    #[test]
    fn urls_lose_their_password_and_nothing_else() {
        for (text, expected) in [
            (
                "clone https://u:p%40ss@h/r.git now",
                "clone https://u:****@h/r.git now",
            ),
            ("https://token@h/r", "https://token@h/r"),
            ("https://u:@h/r", "https://u:@h/r"),
            (
                "--extra-index-url https://glpat-0123456789abcdefXYZ@h/simple",
                "--extra-index-url https://****@h/simple",
            ),
            ("https://ghp_0123456789abcdefABCD:@h/r", "https://****@h/r"),
            ("https://firstname.lastname@h/r", "https://firstname.lastname@h/r"),
            (
                "ssh://git@h:22/r and http://a:b@c",
                "ssh://git@h:22/r and http://a:****@c",
            ),
            ("https://h/p?mail=a:b@c", "https://h/p?mail=a:b@c"),
            ("no url a:b@c", "no url a:b@c"),
            (
                "https://u:pa/ss#w?d@h/r and more@h",
                "https://u:****@h/r and more@h",
            ),
            (
                "https://h:8080/r@v1 http://[::1]/r@v1",
                "https://h:8080/r@v1 http://[::1]/r@v1",
            ),
        ] {
            assert_eq!(Redactor::new().redact(text), expected);
        }
    }

    #[test]
    fn longer_secret_wins_over_the_one_inside_it() {
        let redactor = Redactor::new();
        redactor.add(&Secret::new("abcd"));
        redactor.add(&Secret::new("abcdef"));
        assert_eq!(redactor.redact("x abcdef y"), "x **** y");
    }

    proptest! {
        #[test]
        fn a_known_secret_never_survives(secret in "[A-Za-z0-9_]{8,40}", before in ".{0,40}", after in ".{0,40}") {
            let redactor = Redactor::new();
            redactor.add(&Secret::new(secret.clone()));
            let text = format!("{before}{secret}{after}");
            prop_assert!(!redactor.redact(&text).contains(&secret));
        }
    }
}
