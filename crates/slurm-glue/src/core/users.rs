//! As which Linux user a task's job runs.

use std::collections::BTreeMap;

/// The map from ClearML users to Linux users; the name `default` stands for everybody else.
pub type UserMap = BTreeMap<String, String>;

/// What the site allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// The only users that may be become; empty: all.
    pub allowed: Vec<String>,
    /// Users with smaller numbers are the system's.
    pub min_uid: u32,
}

/// Whose job a task's job is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// The user of the glue.
    Glue,
    /// This Linux user.
    User(String),
    /// Nobody's: why not.
    Rejected(String),
}

/// Which map holds: what the owner's vaults say replaces what the file says, also if it is empty.
#[must_use]
pub fn effective<'a>(file: &'a UserMap, vault: Option<&'a UserMap>) -> &'a UserMap {
    vault.unwrap_or(file)
}

/// Decides. `uid_of` says which number a Linux user has.
pub fn decide(
    map: &UserMap,
    user: Option<&str>,
    rules: &Rules,
    uid_of: impl Fn(&str) -> Option<u32>,
) -> Decision {
    if map.is_empty() {
        return Decision::Glue;
    }
    let found = user.and_then(|user| map.get(user)).or_else(|| map.get("default"));
    let Some(linux) = found else {
        return Decision::Rejected(format!(
            "No Linux user mapped for ClearML user {}",
            user.unwrap_or("(unknown)")
        ));
    };
    if !rules.allowed.is_empty() && !rules.allowed.contains(linux) {
        return Decision::Rejected(format!("Linux user {linux} is not in agent.slurm.allowed_users"));
    }
    match uid_of(linux) {
        None => Decision::Rejected(format!("there is no Linux user {linux} on this machine")),
        Some(uid) if uid < rules.min_uid.max(1) => Decision::Rejected(format!(
            "jobs may not run as {linux}, whose uid {uid} is below {}",
            rules.min_uid
        )),
        Some(_) => Decision::User(linux.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uid(name: &str) -> Option<u32> {
        match name {
            "alice" => Some(1001),
            "nobody1" => Some(1002),
            "bin" => Some(2),
            "root" => Some(0),
            _ => None,
        }
    }

    #[test]
    fn users_become_who_the_map_says_and_nobody_else() {
        let map = |pairs: &[(&str, &str)]| -> UserMap {
            pairs
                .iter()
                .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
                .collect()
        };
        let rules = Rules {
            allowed: Vec::new(),
            min_uid: 1000,
        };
        let with = map(&[("u1", "alice"), ("default", "nobody1")]);
        let without = map(&[("u1", "alice")]);
        let user = |name: &str| Decision::User(name.to_owned());
        assert_eq!(decide(&with, Some("u1"), &rules, uid), user("alice"));
        assert_eq!(decide(&with, Some("u2"), &rules, uid), user("nobody1"));
        assert_eq!(decide(&with, None, &rules, uid), user("nobody1"));
        for (map, user, rules) in [
            (&without, Some("u2"), &rules),
            (&without, None, &rules),
            (&map(&[("u1", "root")]), Some("u1"), &rules),
            (&map(&[("u1", "bin")]), Some("u1"), &rules),
            (&map(&[("u1", "stranger")]), Some("u1"), &rules),
            (
                &without,
                Some("u1"),
                &Rules {
                    allowed: vec!["bob".to_owned()],
                    min_uid: 1000,
                },
            ),
            (
                &map(&[("u1", "root")]),
                Some("u1"),
                &Rules {
                    allowed: Vec::new(),
                    min_uid: 0,
                },
            ),
        ] {
            assert!(
                matches!(decide(map, user, rules, uid), Decision::Rejected(_)),
                "{map:?} {user:?}"
            );
        }
        assert_eq!(decide(&UserMap::new(), Some("u1"), &rules, uid), Decision::Glue);
        assert_eq!(effective(&with, Some(&UserMap::new())), &UserMap::new());
        assert_eq!(effective(&with, None), &with);
    }
}
