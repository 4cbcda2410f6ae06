//! Logins of package indexes, kept out of arguments. Pure.
//!
//! pip hands the addresses of its indexes to another pip when it has to build something, as arguments, where
//! every user of the machine can read them. So their logins go into a netrc file, which pip and uv read.

use percent_encoding::percent_decode_str;

use crate::code::repo_url::{Parts, is_http};

/// The addresses without the logins that fit into a netrc file, and the lines of that file.
///
/// Two logins for one host can't both be in it, nor can what would have to be quoted, as versions of Python
/// differ in that: such addresses stay as they are. `known` are the hosts that the user's own file has.
#[must_use]
pub fn to_netrc(urls: &[String], known: &[String]) -> (Vec<String>, String) {
    let mut entries: Vec<(String, String, String)> = Vec::new();
    let mut netrc = String::new();
    let urls = urls
        .iter()
        .map(|url| {
            let Some((host, user, pass, plain)) = login(url) else {
                return url.clone();
            };
            if known.contains(&host) {
                return url.clone();
            }
            match entries.iter().find(|(entry, ..)| *entry == host) {
                Some((_, known_user, known_pass)) if *known_user == user && *known_pass == pass => plain,
                Some(_) => url.clone(),
                None => {
                    netrc.push_str(&format!("machine {host}\nlogin {user}\npassword {pass}\n"));
                    entries.push((host, user, pass));
                    plain
                }
            }
        })
        .collect();
    (urls, netrc)
}

/// The hosts that a netrc file has entries for.
#[must_use]
pub fn hosts(netrc: &str) -> Vec<String> {
    let mut words = netrc.split_whitespace();
    let mut hosts = Vec::new();
    while let Some(word) = words.next() {
        if word == "machine" {
            hosts.extend(words.next().map(str::to_owned));
        }
    }
    hosts
}

/// Host, user, password, and the address without them.
fn login(url: &str) -> Option<(String, String, String, String)> {
    let parts = Parts::parse(url).filter(|parts| is_http(parts.scheme))?;
    let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let (user, pass) = (decode(parts.user?), decode(parts.pass?));
    let plain = |text: &str| {
        let odd = |c: char| !c.is_ascii_graphic() || matches!(c, '"' | '\'' | '\\');
        !text.is_empty() && !text.starts_with('#') && !text.contains(odd)
    };
    if !plain(&user) || !plain(&pass) || !plain(parts.host) || parts.host.contains(':') {
        return None;
    }
    let host = parts.host.to_owned();
    let without = Parts {
        user: None,
        pass: None,
        ..parts
    };
    Some((host, user, pass, without.text()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_move_into_the_file_where_that_says_the_same() {
        let urls = [
            "https://u:p%40ss@h:8443/simple",
            "https://u:p%40ss@h/other",
            "https://v:x@h/simple",
            "https://u:a%20b@i/simple",
            "https://u:#x@j/simple",
            "https://token@k/simple",
            "https://l/simple",
            "https://u:p@mine/simple",
        ]
        .map(str::to_owned);
        let (plain, netrc) = to_netrc(&urls, &hosts("machine mine login a password b"));
        assert_eq!(netrc, "machine h\nlogin u\npassword p@ss\n");
        assert_eq!(plain[..2], ["https://h:8443/simple", "https://h/other"]);
        assert_eq!(plain[2..], urls[2..]);
    }
}
