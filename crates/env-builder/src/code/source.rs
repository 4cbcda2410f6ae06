//! Small changes to the entry script that let it start: what the SDK has put above `__future__` imports
//! goes below them, and `Task.init` is called in scripts that do not, if the user wants that.

use std::fs;
use std::path::Path;

use clearml_support::fs::read_limited;

use crate::tools::{Context, is_true};

/// Scripts are smaller than this.
const MAX_SCRIPT: u64 = 16 << 20;

/// What `CLEARML_AGENT_FORCE_TASK_INIT` inserts.
const TASK_INIT: [&str; 2] = [
    "from clearml import Task\n",
    "__name__ == \"__main__\" and Task.init()\n",
];

/// Whether `Task.init` shall be called in every script.
pub(crate) fn forces_task_init(context: &Context<'_>) -> bool {
    context.var("CLEARML_AGENT_FORCE_TASK_INIT").is_some_and(is_true)
}

/// Changes a script of the code in `root` where that is needed. A script that can't be read or written stays as it
/// is, and so does one that the task names elsewhere: that file is not this task's alone.
pub(crate) fn prepare(context: &Context<'_>, root: &Path, script: &Path) {
    let regular = fs::symlink_metadata(script).is_ok_and(|status| status.is_file());
    let inside = match (root.canonicalize(), script.canonicalize()) {
        (Ok(root), Ok(script)) => script.starts_with(root),
        _ => false,
    };
    let Some(text) = (regular && inside)
        .then(|| read_limited(script, MAX_SCRIPT).ok())
        .flatten()
        .and_then(|bytes| String::from_utf8(bytes).ok())
    else {
        return;
    };
    let mut new = below_future_imports(&text);
    let is_python = script.extension().is_some_and(|extension| extension == "py");
    if is_python && forces_task_init(context) {
        let with_init = with_task_init(new.as_deref().unwrap_or(&text));
        new = with_init.or(new);
    }
    if let Some(new) = new
        && let Err(error) = fs::write(script, new)
    {
        context.warn(&format!("changing {}: {error}", script.display()));
    }
}

/// Moves the two lines with which the SDK starts itself below the `__future__` imports, which Python wants
/// first. `None` when there is nothing to move.
#[must_use]
pub fn below_future_imports(text: &str) -> Option<String> {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    if !is_init(lines.get(..2)?) {
        return None;
    }
    let end = 2 + end_of_future_imports(&lines[2..])?;
    let moved = lines[2..end].iter().chain(&lines[..2]).chain(&lines[end..]);
    Some(moved.copied().collect())
}

/// Adds a call of `Task.init`. `None` when there is one at that place already.
#[must_use]
pub fn with_task_init(text: &str) -> Option<String> {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let at = end_of_future_imports(&lines).unwrap_or(0);
    if lines.get(at..at + 2).is_some_and(is_init) {
        return None;
    }
    let before = lines[..at].iter();
    let mut new: String = before.copied().collect();
    if !new.is_empty() && !new.ends_with('\n') {
        new.push('\n');
    }
    new.extend(TASK_INIT);
    new.extend(lines[at..].iter().copied());
    Some(new)
}

fn is_init(lines: &[&str]) -> bool {
    matches!(lines, [first, second] if first.starts_with("from clearml ") && second.contains("Task.init"))
}

/// The line after the last `__future__` import, before which there are only comments and documentation.
fn end_of_future_imports(lines: &[&str]) -> Option<usize> {
    let mut end = None;
    let mut at = 0;
    while let Some(line) = lines.get(at).map(|line| line.trim()) {
        if line.is_empty() || line.starts_with('#') {
            at += 1;
        } else if let Some(quote) = triple_quote(line) {
            at = end_of_text(lines, at, quote)?;
        } else if line.starts_with("from __future__ ") {
            at = end_of_statement(lines, at)?;
            end = Some(at);
        } else {
            break;
        }
    }
    end
}

fn triple_quote(line: &str) -> Option<&'static str> {
    let text = line.trim_start_matches(['r', 'R', 'u', 'U']);
    ["\"\"\"", "'''"]
        .into_iter()
        .find(|quote| line.len() - text.len() <= 1 && text.starts_with(quote))
}

fn end_of_text(lines: &[&str], start: usize, quote: &str) -> Option<usize> {
    let first = lines[start].find(quote)? + quote.len();
    if lines[start][first..].contains(quote) {
        return Some(start + 1);
    }
    let rest = lines[start + 1..].iter().position(|line| line.contains(quote))?;
    Some(start + rest + 2)
}

fn end_of_statement(lines: &[&str], start: usize) -> Option<usize> {
    let mut at = start;
    let mut open = false;
    while let Some(line) = lines.get(at) {
        let code = line.split('#').next().unwrap_or_default().trim_end();
        open = (open || code.contains('(')) && !code.contains(')');
        at += 1;
        if !open && !code.ends_with('\\') {
            return Some(at);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const INIT: &str = "from clearml import Task\nTask.init()\n";

    #[test]
    fn the_lines_of_the_sdk_go_below_future_imports() {
        for (before, after) in [
            ("from __future__ import annotations\n", "import os\n"),
            (
                "'''doc\nmore'''\n# x\n\nfrom __future__ import (\n  a, # )\n  b\n)\n",
                "x = 1",
            ),
            (
                "\"\"\"doc\"\"\"\nfrom __future__ import a, \\\n  b\n\nfrom __future__ import c\n",
                "\nx\n",
            ),
        ] {
            let new = below_future_imports(&format!("{INIT}{before}{after}"));
            assert_eq!(new.as_deref(), Some(format!("{before}{INIT}{after}").as_str()));
        }
        for text in [
            "import os\nfrom __future__ import a\n".to_owned(),
            format!("{INIT}import os\nfrom __future__ import a\n"),
            format!("{INIT}'''never closed\nfrom __future__ import a\n"),
            "from clearml import Task".to_owned(),
        ] {
            assert_eq!(below_future_imports(&text), None, "{text:?}");
        }
    }

    #[test]
    fn task_init_is_added_once() {
        let first = with_task_init("import os\n").unwrap();
        assert_eq!(first, format!("{}import os\n", TASK_INIT.concat()));
        assert_eq!(with_task_init(&first), None);
        let future = "'doc'\nfrom __future__ import a\n";
        assert_eq!(
            with_task_init(future).unwrap(),
            format!("{}{future}", TASK_INIT.concat())
        );
        let future = "'''doc'''\nfrom __future__ import a";
        let second = with_task_init(future).unwrap();
        assert_eq!(second, format!("{future}\n{}", TASK_INIT.concat()));
        assert_eq!(with_task_init(&second), None);
    }

    proptest! {
        #[test]
        fn no_line_is_lost(text in "(from clearml import Task\n|Task.init\\(\\)\n|from __future__ import a\n|from __future__ import \\(\n|\\)\n|'''|\"\"\"\n|#x\n|\n|x = 1|\\\\\n){0,12}") {
            if let Some(new) = below_future_imports(&text) {
                prop_assert_eq!(new.len(), text.len());
            }
            if let Some(new) = with_task_init(&text) {
                prop_assert!(new.len() >= text.len() + TASK_INIT.concat().len());
                prop_assert_eq!(with_task_init(&new), None);
            }
        }
    }
}
