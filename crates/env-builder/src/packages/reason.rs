//! Why an installer failed, for a status reason: what it said, without what is only ours, and what to do. Pure.

use crate::tools::Ended;

/// What installers say, in lower case, and what that calls for. The first that fits counts.
const ADVICE: [(&[&str], &str); 5] = [
    (
        &[
            "401 client error",
            "401 unauthorized",
            "403 client error",
            "403 forbidden",
        ],
        "check the login of the package index",
    ),
    (
        &["do not match the hashes", "hash mismatch"],
        "update the hashes of the list, if the file was changed for a reason",
    ),
    (
        &[
            "connection refused",
            "failed to establish a new connection",
            "max retries exceeded",
            "name or service not known",
            "temporary failure in name resolution",
            "proxyerror",
            "read timed out",
            "error sending request",
            "dns error",
        ],
        "a package index may be out of reach of this worker: check agent.package_manager.extra_index_url, the \
         configuration of pip, and the proxy",
    ),
    (
        &[
            "no matching distribution found",
            "no version of",
            "no versions of",
            "not found in the package registry",
        ],
        "correct the version in the list, or name the index that has it for this Python \
         (agent.package_manager.extra_index_url)",
    ),
    (
        &[
            "resolutionimpossible",
            "conflicting dependencies",
            "unsatisfiable",
        ],
        "relax the versions in the list that contradict each other",
    ),
];

/// What the installer gives as the reason, and what to do about it.
pub(crate) fn reason(ended: &Ended) -> String {
    let said = without_file(&said(ended));
    let lines: Vec<String> = ended.tail.iter().map(|line| line.to_lowercase()).collect();
    let fits = |phrases: &[&str]| {
        lines
            .iter()
            .any(|line| phrases.iter().any(|phrase| line.contains(phrase)))
    };
    match ADVICE.iter().find(|(phrases, _)| fits(phrases)) {
        Some((_, advice)) => format!("{said}; {advice}"),
        None => said,
    }
}

/// pip has one line for it; uv names the cause after the error, and older versions draw both over several
/// lines.
fn said(ended: &Ended) -> String {
    let trimmed = || ended.tail.iter().map(|line| line.trim_start());
    if let Some(cause) = trimmed().find_map(|line| line.strip_prefix("cause: ")) {
        return cause.to_owned();
    }
    let words: Vec<&str> = trimmed()
        .skip_while(|line| !line.starts_with('×'))
        .flat_map(str::split_whitespace)
        .filter(|word| !matches!(*word, "×" | "╰─▶" | "├─▶" | "│"))
        .take(80)
        .collect();
    if words.is_empty() {
        ended.last_line()
    } else {
        words.join(" ")
    }
}

/// The file that the list was written to is gone by now, and its lines are not those of the user's.
fn without_file(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(" (from -r ") {
        out.push_str(before);
        rest = after.split_once("))").map_or("", |(_, after)| after);
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;

    fn of(lines: &[&str]) -> String {
        reason(&Ended {
            status: ExitStatus::from_raw(256),
            tail: lines.iter().map(|line| (*line).to_owned()).collect(),
        })
    }

    #[test]
    fn reasons_name_the_line_and_the_next_step() {
        for (lines, start, advice) in [
            (
                &[
                    "ERROR: No matching distribution found for six==99 (from -r /r/tmp/requirements.txt (line 1))",
                ][..],
                "ERROR: No matching distribution found for six==99; ",
                "correct the version",
            ),
            (
                &[
                    "WARNING: Retrying after connection broken by 'Failed to establish a new connection: [Errno 111]'",
                    "ERROR: No matching distribution found for a==1 (from -r /r (line 2)) (from versions: none)",
                ],
                "ERROR: No matching distribution found for a==1 (from versions: none); ",
                "out of reach",
            ),
            (
                &[
                    "  × No solution found when resolving dependencies:",
                    "  ╰─▶ Because there is no version of alpha==9 and you require alpha==9,",
                    "      we can conclude that your requirements are unsatisfiable.",
                ],
                "No solution found when resolving dependencies: Because there is no version of alpha==9",
                "correct the version",
            ),
            (
                &[
                    "ERROR: Cannot install a and b",
                    "ERROR: ResolutionImpossible: for help visit x",
                ],
                "ERROR: ResolutionImpossible",
                "relax",
            ),
            (
                &["error: it failed", "cause: the disk is full"],
                "the disk is full",
                "",
            ),
        ] {
            let text = of(lines);
            assert!(text.starts_with(start) && text.contains(advice), "{text}");
        }
    }
}
