//! Which images of containers tasks may name.

/// Whether one of the patterns, in which `*` stands for any text, fits an image. No patterns: all do.
#[must_use]
pub fn is_allowed(patterns: &[String], image: &str) -> bool {
    let bare = image.strip_prefix("docker://").unwrap_or(image);
    let fits = |pattern: &String| fits(pattern, image) || fits(pattern, bare);
    patterns.is_empty() || patterns.iter().any(fits)
}

fn fits(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else {
        return false;
    };
    let Some(last) = parts.next_back() else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_stand_for_whole_names() {
        for (patterns, image, allowed) in [
            (&[][..], "anything", true),
            (&["nvcr.io/nvidia/*"][..], "nvcr.io/nvidia/pytorch:24.01", true),
            (
                &["nvcr.io/nvidia/*"][..],
                "docker://nvcr.io/nvidia/pytorch:24.01",
                true,
            ),
            (&["nvcr.io/nvidia/*"][..], "evil.io/nvcr.io/nvidia/x", false),
            (&["ubuntu:22.04"][..], "ubuntu:22.04", true),
            (&["ubuntu:22.04"][..], "ubuntu:22.04-evil", false),
            (&["*/lab/*:1"][..], "r/lab/py:1", true),
            (&["*/lab/*:1"][..], "r/lab/py:2", false),
            (&["a", "b*b"][..], "b", false),
            (&["a", "b*b"][..], "bb", true),
        ] {
            let patterns: Vec<String> = patterns.iter().map(|&text| text.to_owned()).collect();
            assert_eq!(is_allowed(&patterns, image), allowed, "{patterns:?} {image}");
        }
    }
}
