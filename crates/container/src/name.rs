//! Names of containers, by `agent.docker_container_name_format`.

/// The longest name; engines take more, but not every tool around them.
const MAX_NAME: usize = 250;

/// Fills a format such as `clearml-id-{task_id}-{rand_string:.8}`.
///
/// `field` answers for the names in braces, with their text as it is. Characters that a name can't have become
/// dashes. `{NAME:.N}` takes the first N characters. `None` where there is no such field, the format is not
/// one, or what comes out is no name.
#[must_use]
pub fn container_name(format: &str, field: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let mut name = String::new();
    let mut rest = format;
    while let Some(at) = rest.find(['{', '}']) {
        name.push_str(&rest[..at]);
        let tail = &rest[at..];
        if let Some(after) = tail.strip_prefix("{{").or_else(|| tail.strip_prefix("}}")) {
            name.push_str(&tail[..1]);
            rest = after;
            continue;
        }
        let (inner, after) = tail.strip_prefix('{')?.split_once('}')?;
        let (key, precision) = inner.split_once(':').unwrap_or((inner, ""));
        let length = match precision.trim_end_matches('s') {
            "" => usize::MAX,
            precision => precision.strip_prefix('.')?.parse().ok()?,
        };
        let fits = |c: char| {
            if c.is_ascii_alphanumeric() || "._-".contains(c) {
                c
            } else {
                '-'
            }
        };
        name.extend(field(key)?.chars().map(fits).take(length));
        rest = after;
        if name.len() > MAX_NAME {
            return None;
        }
    }
    name.push_str(rest);
    is_name(&name).then_some(name)
}

fn is_name(name: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    (2..=MAX_NAME).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_and_what_is_none() {
        let field = |name: &str| match name {
            "task_id" => Some("abc123".to_owned()),
            "worker_id" => Some("host:gpu0,1/x".to_owned()),
            "rand_string" => Some("qwertyuiopasdfghjklzxcvbnmqwerty".to_owned()),
            "long" => Some("x".repeat(300)),
            _ => None,
        };
        for (format, expected) in [
            (
                "clearml-id-{task_id}-{rand_string:.8}",
                Some("clearml-id-abc123-qwertyui"),
            ),
            ("{worker_id}", Some("host-gpu0-1-x")),
            ("{worker_id:.4s}", Some("host")),
            ("a{{b", None),
            ("-{task_id}", None),
            ("{unknown}", None),
            ("{task_id", None),
            ("{task_id:x}", None),
            ("a b", None),
            ("{long}", None),
            ("", None),
        ] {
            assert_eq!(container_name(format, &field).as_deref(), expected, "{format}");
        }
    }
}
