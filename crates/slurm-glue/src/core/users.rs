//! As which Linux user a task's job runs.

use std::collections::BTreeMap;

/// The map from ClearML users to Linux users; the name `default` stands for everybody else.
pub type UserMap = BTreeMap<String, String>;

/// What the site allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// The only users that may be become, or groups as `@group`; empty: all.
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

/// Who has made a vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VaultScope {
    /// The user whom it is for.
    Personal,
    /// Somebody who may decide for others.
    Admin,
}

/// Whose vaults count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Trust {
    /// Everybody's.
    #[default]
    Any,
    /// Those of administrators.
    Admin,
    /// Nobody's.
    Off,
}

impl Trust {
    /// Whether a map in such a vault counts.
    #[must_use]
    pub fn counts(self, scope: VaultScope) -> bool {
        match self {
            Self::Any => true,
            Self::Admin => scope == VaultScope::Admin,
            Self::Off => false,
        }
    }
}

/// Which map holds: the last vault that counts and has one replaces what the file says, also if it is empty.
#[must_use]
pub fn effective<'a>(file: &'a UserMap, vaults: &'a [(VaultScope, UserMap)], trust: Trust) -> &'a UserMap {
    let mut from_last = vaults.iter().rev();
    from_last
        .find(|(scope, _)| trust.counts(*scope))
        .map_or(file, |(_, map)| map)
}

/// A Linux user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its number.
    pub uid: u32,
    /// Its home.
    pub home: String,
    /// The groups that it belongs to; needed where the rules name groups.
    pub groups: Vec<String>,
}

impl Rules {
    /// Whether they name groups.
    #[must_use]
    pub fn name_groups(&self) -> bool {
        self.allowed.iter().any(|name| name.starts_with('@'))
    }

    fn allow(&self, linux: &str, account: Option<&Account>) -> bool {
        let in_group =
            |name: &str| account.is_some_and(|account| account.groups.iter().any(|own| own == name));
        let mut allowed = self.allowed.iter();
        self.allowed.is_empty()
            || allowed.any(|entry| match entry.strip_prefix('@') {
                Some(group) => in_group(group),
                None => entry == linux,
            })
    }
}

/// The Linux user that the map names for a ClearML user.
#[must_use]
pub fn wanted<'a>(map: &'a UserMap, user: Option<&str>) -> Option<&'a str> {
    let found = user.and_then(|user| map.get(user)).or_else(|| map.get("default"));
    found.map(String::as_str)
}

/// Decides. `account`: the wanted Linux user, if there is one of that name.
#[must_use]
pub fn decide(map: &UserMap, user: Option<&str>, rules: &Rules, account: Option<&Account>) -> Decision {
    if map.is_empty() {
        return Decision::Glue;
    }
    let Some(linux) = wanted(map, user) else {
        return Decision::Rejected(format!(
            "No Linux user mapped for ClearML user {}",
            user.unwrap_or("(unknown)")
        ));
    };
    if !rules.allow(linux, account) {
        return Decision::Rejected(format!("Linux user {linux} is not in agent.slurm.allowed_users"));
    }
    match account.map(|account| account.uid) {
        None => Decision::Rejected(format!("there is no Linux user {linux} on this machine")),
        Some(uid) if uid < rules.min_uid.max(1) => Decision::Rejected(format!(
            "jobs may not run as {linux}, whose uid {uid} is below {}",
            rules.min_uid
        )),
        Some(_) => Decision::User(linux.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(name: &str) -> Option<Account> {
        let uid = match name {
            "alice" => 1001,
            "nobody1" => 1002,
            "bin" => 2,
            "root" => 0,
            _ => return None,
        };
        let groups = if name == "alice" {
            vec!["lab".to_owned()]
        } else {
            Vec::new()
        };
        Some(Account {
            uid,
            home: format!("/home/{name}"),
            groups,
        })
    }

    fn decided(map: &UserMap, user: Option<&str>, rules: &Rules) -> Decision {
        let account = wanted(map, user).and_then(account);
        decide(map, user, rules, account.as_ref())
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
        assert_eq!(decided(&with, Some("u1"), &rules), user("alice"));
        assert_eq!(decided(&with, Some("u2"), &rules), user("nobody1"));
        assert_eq!(decided(&with, None, &rules), user("nobody1"));
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
                matches!(decided(map, user, rules), Decision::Rejected(_)),
                "{map:?} {user:?}"
            );
        }
        assert_eq!(decided(&UserMap::new(), Some("u1"), &rules), Decision::Glue);
        for (allowed, fits) in [("@lab", true), ("@other", false), ("alice", true), ("lab", false)] {
            let rules = Rules {
                allowed: vec![allowed.to_owned()],
                min_uid: 1000,
            };
            assert_eq!(
                decided(&with, Some("u1"), &rules) == user("alice"),
                fits,
                "{allowed}"
            );
        }
    }

    #[test]
    fn the_last_vault_that_has_a_map_replaces_it_as_a_whole() {
        let map = |text: &str| -> UserMap { [("u".to_owned(), text.to_owned())].into() };
        let file = map("file");
        let admin = || (VaultScope::Admin, map("admin"));
        let personal = || (VaultScope::Personal, UserMap::new());
        for (vaults, trust, expected) in [
            (vec![], Trust::Any, file.clone()),
            (vec![admin()], Trust::Any, map("admin")),
            (vec![admin(), personal()], Trust::Any, UserMap::new()),
            (vec![admin(), personal()], Trust::Admin, map("admin")),
            (vec![personal()], Trust::Admin, file.clone()),
            (vec![admin(), personal()], Trust::Off, file.clone()),
        ] {
            assert_eq!(effective(&file, &vaults, trust), &expected, "{trust:?}");
        }
    }
}
