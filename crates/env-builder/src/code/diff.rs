//! Telling uncommitted changes from a whole script: both arrive in `script.diff`. Pure.

/// What a `diff` text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiffKind {
    /// Nothing.
    Empty,
    /// Output of a diff tool, to be applied.
    Patch,
    /// Only submodules that point elsewhere: nothing that can be applied.
    PointersOnly,
    /// The client left the changes out because they were too large.
    Placeholder,
    /// A whole script.
    Literal,
}

/// Classifies a `diff` text. With a repository and a commit, fewer texts can be scripts.
#[must_use]
pub fn classify(diff: &str, has_commit: bool) -> DiffKind {
    let text = diff.trim_start();
    if text.is_empty() {
        return DiffKind::Empty;
    }
    let starts = |line: &str, prefix: &str| {
        line.get(..prefix.len())
            .is_some_and(|head| head.eq_ignore_ascii_case(prefix))
    };
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    let second = lines.next().unwrap_or_default();
    if starts(first, "diff ") || (starts(first, "submodule ") && starts(second, "diff ")) {
        return DiffKind::Patch;
    }
    if is_submodule_summary(first) {
        let sections = text.lines().any(|line| line.starts_with("diff "));
        return if sections {
            DiffKind::Patch
        } else {
            DiffKind::PointersOnly
        };
    }
    if !has_commit {
        return DiffKind::Literal;
    }
    if text
        .lines()
        .all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
    {
        return DiffKind::Placeholder;
    }
    let hunk_follows = text
        .lines()
        .zip(text.lines().skip(1))
        .any(|(a, b)| a.starts_with("+++ ") && b.starts_with("@@ "));
    if (first.starts_with("--- ") || first.starts_with("Index: ")) && hunk_follows {
        return DiffKind::Patch;
    }
    DiffKind::Literal
}

/// `Submodule <path> <hex>..<hex>:` or `Submodule <path> contains …`.
fn is_submodule_summary(line: &str) -> bool {
    let Some(rest) = line.strip_prefix("Submodule ") else {
        return false;
    };
    let range = |word: &str| {
        let hex = |part: &str| part.len() >= 4 && part.chars().all(|c| c.is_ascii_hexdigit());
        word.trim_end_matches(':')
            .split_once("..")
            .is_some_and(|(a, b)| hex(a) && hex(b.trim_start_matches('.')))
    };
    rest.contains(" contains ") || rest.split_whitespace().skip(1).any(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_scripts_and_the_rest() {
        for (text, with_commit, without) in [
            ("", DiffKind::Empty, DiffKind::Empty),
            (" \n\t", DiffKind::Empty, DiffKind::Empty),
            ("print(1)", DiffKind::Literal, DiffKind::Literal),
            ("diff --git a/x b/x\n", DiffKind::Patch, DiffKind::Patch),
            (" \n DIFF --git a/x b/x", DiffKind::Patch, DiffKind::Patch),
            ("différent = 1", DiffKind::Literal, DiffKind::Literal),
            ("difference = 1", DiffKind::Literal, DiffKind::Literal),
            (
                "Submodule sub contains modified content\ndiff --git a/sub/x b/sub/x",
                DiffKind::Patch,
                DiffKind::Patch,
            ),
            (
                "Submodule sub abcdef1..0123456:\n  > msg",
                DiffKind::PointersOnly,
                DiffKind::PointersOnly,
            ),
            (
                "Submodule sub abcdef1..0123456:\n  > msg\ndiff --git a/x b/x",
                DiffKind::Patch,
                DiffKind::Patch,
            ),
            (
                "# WARNING! git diff too large\n#\n# more",
                DiffKind::Placeholder,
                DiffKind::Literal,
            ),
            (
                "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b",
                DiffKind::Patch,
                DiffKind::Literal,
            ),
            ("--- is not a patch", DiffKind::Literal, DiffKind::Literal),
            (
                "submodule = 3\nprint(submodule)",
                DiffKind::Literal,
                DiffKind::Literal,
            ),
        ] {
            assert_eq!(classify(text, true), with_commit, "{text:?} with a commit");
            assert_eq!(classify(text, false), without, "{text:?} without");
        }
    }
}
