//! Telling uncommitted changes from a whole script: both arrive in `script.diff`. Pure.

use std::borrow::Cow;

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
    // A merge that was not finished: git names the files first.
    if first.starts_with("* Unmerged path ") && text.lines().any(|line| line.starts_with("diff ")) {
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

/// The text without colours, which git adds where it is configured to (`color.ui = always`).
#[must_use]
pub fn without_colours(diff: &str) -> Cow<'_, str> {
    if !diff.trim_start().starts_with("\x1b[") {
        return Cow::Borrowed(diff);
    }
    let mut out = String::with_capacity(diff.len());
    let mut rest = diff;
    while let Some((before, after)) = rest.split_once("\x1b[") {
        out.push_str(before);
        let end = after.find(|c: char| !c.is_ascii_digit() && c != ';');
        rest = match end {
            Some(end) if after[end..].starts_with(['m', 'K']) => &after[end + 1..],
            _ => after,
        };
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// The changes of one file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Section<'a> {
    /// All lines, the first of which begins with `diff `.
    pub(crate) text: &'a str,
}

impl Section<'_> {
    /// Whether the header names files without `a/` and `b/`, as `diff.noprefix` has it.
    pub(crate) fn has_bare_names(&self) -> bool {
        let header = self.text.lines().next().unwrap_or_default();
        let Some(names) = header.strip_prefix("diff --git ") else {
            return false;
        };
        let half = names.len() / 2;
        names.get(..half).is_some_and(|first| {
            names[half..].strip_prefix(' ') == Some(first) && !first.trim_start_matches('"').starts_with("a/")
        })
    }

    /// Whether it only says that a binary file has changed.
    pub(crate) fn is_binary_marker(&self) -> bool {
        let body = self.text.lines().skip(1);
        let marker = |line: &str| line.starts_with("Binary files ") && line.trim_end().ends_with(" differ");
        body.clone().any(marker) && !body.clone().any(|line| line.starts_with("@@ "))
    }
}

/// The changes of each file; what stands before the first one is not among them.
pub(crate) fn sections(diff: &str) -> Vec<Section<'_>> {
    let mut starts: Vec<usize> = Vec::new();
    let mut at = 0;
    for line in diff.split_inclusive('\n') {
        if line.starts_with("diff ") {
            starts.push(at);
        }
        at += line.len();
    }
    starts
        .iter()
        .zip(starts.iter().skip(1).chain([&diff.len()]))
        .map(|(start, end)| Section {
            text: &diff[*start..*end],
        })
        .collect()
}

/// Submodules that point to another commit without the changes in between being shown.
pub(crate) fn lost_pointers(diff: &str) -> Vec<&str> {
    let mut lost = Vec::new();
    let mut open: Option<&str> = None;
    for line in diff.lines() {
        if is_submodule_summary(line) {
            lost.extend(open.take());
            open = line
                .strip_prefix("Submodule ")
                .filter(|rest| !rest.contains(" contains "))
                .and_then(|rest| rest.split_whitespace().next());
        } else if line.starts_with("diff ") {
            open = None;
        }
    }
    lost.extend(open);
    lost
}

/// A path as git writes it: names with other than plain characters are quoted as in C.
pub(crate) fn unquoted(name: &str) -> Option<String> {
    let Some(inner) = name.strip_prefix('"') else {
        return Some(name.to_owned());
    };
    let mut bytes = inner.strip_suffix('"')?.bytes();
    let mut out = Vec::new();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        out.push(match bytes.next()? {
            b'n' => b'\n',
            b't' => b'\t',
            b'r' => b'\r',
            digit @ b'0'..=b'3' => {
                let mut octal = || {
                    bytes
                        .next()
                        .filter(|b| (b'0'..=b'7').contains(b))
                        .map(|b| b - b'0')
                };
                (digit - b'0') << 6 | octal()? << 3 | octal()?
            }
            other => other,
        });
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
            (
                "* Unmerged path main.py\ndiff --git a/main.py b/main.py",
                DiffKind::Patch,
                DiffKind::Patch,
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

    #[test]
    fn colours_go_and_everything_else_stays() {
        let coloured = "\x1b[1mdiff --git a/x b/x\x1b[m\n\x1b[31m-a\x1b[m\n\x1b[32m+\x1b[m\x1b[32mb\x1b[m\n";
        assert_eq!(without_colours(coloured), "diff --git a/x b/x\n-a\n+b\n");
        let plain = "diff --git a/x b/x\n+\x1b[1m";
        assert_eq!(without_colours(plain), plain);
    }

    #[test]
    fn sections_names_and_pointers() {
        let text = "Submodule s abcd..ef01:\n  > x\nSubmodule t abcd..ef01:\ndiff --git a/t/x b/t/x\n@@ -1 +1 @@\ndiff --git a/i b/i\nBinary files a/i and b/i differ\n";
        let found = sections(text);
        assert_eq!(found.len(), 2);
        assert!(!found[0].is_binary_marker() && found[1].is_binary_marker());
        assert!(!found[0].has_bare_names());
        assert!(sections("diff --git x y x y\n")[0].has_bare_names());
        assert!(!sections("diff --git x y\n")[0].has_bare_names());
        assert_eq!(lost_pointers(text), ["s"]);
        assert_eq!(unquoted(r#""a/\303\244 \"b\\c""#).as_deref(), Some("a/ä \"b\\c"));
        assert_eq!(unquoted("a/b c").as_deref(), Some("a/b c"));
        assert_eq!(unquoted(r#""a\3"#), None);
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in "(Submodule |diff --git |\\PC|\n|\x1b\\[|\"|\\\\){0,24}") {
            let plain = without_colours(&text);
            prop_assert_eq!(classify(&plain, true) == DiffKind::Empty, plain.trim().is_empty());
            let parts: String = sections(&plain).iter().map(|section| section.text).collect();
            prop_assert!(plain.ends_with(&parts));
            lost_pointers(&plain);
            unquoted(&plain);
        }
    }
}
