//! How a container has ended, and what that means. Pure.

use clearml_container::engine::ContainerState;

use crate::inside::{Reports, State};
use crate::record::{Failure, Verdict};

/// What is known about a container that does not run any more.
#[derive(Debug, Default)]
pub(super) struct Ending<'a> {
    /// The engine's word; `None` = there is no such container.
    pub(super) state: Option<&'a ContainerState>,
    /// The shim's word.
    pub(super) verdict: Option<&'a Verdict>,
    /// Whether a shim has begun.
    pub(super) claimed: bool,
    /// What the preparation has told.
    pub(super) reports: Option<&'a Reports>,
    /// Whether we wanted it to end.
    pub(super) aborted: bool,
    /// What the container has printed past the shim.
    pub(super) last_words: &'a str,
    pub(super) image: &'a str,
}

/// Why the task's program has not run to its own end; `None` where it has, or was stopped by us.
pub(super) fn judge(ending: &Ending<'_>) -> Option<Failure> {
    if ending.aborted {
        return None;
    }
    let out_of_memory = matches!(
        ending.state,
        Some(ContainerState::Ended {
            out_of_memory: true,
            ..
        })
    );
    match ending.verdict {
        Some(verdict) => by_verdict(ending, verdict, out_of_memory),
        None => Some(without_verdict(ending, out_of_memory)),
    }
}

fn by_verdict(ending: &Ending<'_>, verdict: &Verdict, out_of_memory: bool) -> Option<Failure> {
    if verdict.aborted {
        return Some(over(
            "the container was stopped by somebody else: by hand, or because the container engine was shut down",
        ));
    }
    let code = verdict.code();
    if out_of_memory && matches!(code, Some(-9 | 137)) {
        return Some(memory(code));
    }
    let reports = ending.reports.filter(|reports| reports.state != State::Preparing);
    match reports {
        Some(reports) if reports.state == State::Failed => Some(Failure {
            stage: reports.stage.chars().take(MAX_STAGE).collect(),
            text: reports.text.chars().take(MAX_TEXT).collect(),
            exit_code: reports.exit_code.map(|code| code & 0xff),
            over: true,
        }),
        Some(_) => None,
        // A program that could not be started says so itself.
        None if verdict.launch_error.is_some() => None,
        None => Some(Failure {
            stage: "environment".to_owned(),
            text: format!(
                "the preparation in the container ended with exit code {} before the program of the task was \
                 started; see what it has printed",
                code.unwrap_or_default()
            ),
            exit_code: code.filter(|code| *code != 0),
            over: true,
        }),
    }
}

/// Texts of a container are not for filling disks.
const MAX_STAGE: usize = 32;
const MAX_TEXT: usize = 4096;

fn without_verdict(ending: &Ending<'_>, out_of_memory: bool) -> Failure {
    let Some(ContainerState::Ended { exit_code, error, .. }) = ending.state else {
        return over("the container has vanished while the task was running");
    };
    let code = i32::try_from(*exit_code).ok();
    if out_of_memory {
        return memory(code);
    }
    if !error.is_empty() {
        return launch(error.clone(), code);
    }
    if !ending.claimed {
        let words = ending.last_words.lines().rfind(|line| !line.trim().is_empty());
        let words: String = words
            .unwrap_or("it said nothing")
            .chars()
            .take(MAX_TEXT)
            .collect();
        let text = format!(
            "the agent's program does not run in image {} (exit code {exit_code}): {words}",
            ending.image
        );
        return launch(text, code);
    }
    over(&format!(
        "the container ended (exit code {exit_code}) without a word about the task: it was killed, or the container \
         engine was restarted"
    ))
}

fn over(text: &str) -> Failure {
    Failure {
        over: true,
        ..Failure::infrastructure(text)
    }
}

fn launch(text: String, exit_code: Option<i32>) -> Failure {
    Failure {
        stage: "launch".to_owned(),
        text,
        exit_code,
        over: true,
    }
}

fn memory(exit_code: Option<i32>) -> Failure {
    Failure {
        stage: "process".to_owned(),
        text: "out of memory: the kernel has killed a process of the container, which has used up its limit or the \
               memory of the machine"
            .to_owned(),
        exit_code,
        over: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(code: i32) -> Verdict {
        Verdict::of(Some(code))
    }

    fn ended(exit_code: i64, out_of_memory: bool, error: &str) -> ContainerState {
        ContainerState::Ended {
            exit_code,
            out_of_memory,
            error: error.to_owned(),
        }
    }

    #[test]
    fn each_way_to_end_has_its_reason() {
        let (started, failed) = (
            Reports {
                state: State::Started,
                ..Reports::default()
            },
            Reports {
                state: State::Failed,
                stage: "clone".to_owned(),
                text: "no such repository".to_owned(),
                ..Reports::default()
            },
        );
        let quiet = ended(0, false, "");
        let of = |state: Option<&ContainerState>, verdict: Option<&Verdict>, reports: Option<&Reports>| {
            judge(&Ending {
                state,
                verdict,
                claimed: true,
                reports,
                image: "img",
                ..Ending::default()
            })
            .map(|failure| failure.to_string())
        };
        let begins = |failure: Option<String>, with: &str| {
            let failure = failure.unwrap();
            assert!(failure.starts_with(with), "{failure}");
        };
        assert_eq!(of(Some(&quiet), Some(&verdict(0)), Some(&started)), None);
        assert_eq!(of(Some(&quiet), Some(&verdict(127)), Some(&started)), None);
        assert_eq!(
            of(None, Some(&verdict(3)), Some(&started)),
            None,
            "removed by somebody at its end"
        );
        begins(
            of(Some(&quiet), Some(&verdict(0)), None),
            "environment: the preparation",
        );
        begins(
            of(Some(&quiet), Some(&verdict(1)), Some(&failed)),
            "clone: no such repository",
        );
        let killed = ended(0, true, "");
        begins(
            of(Some(&killed), Some(&verdict(-9)), Some(&started)),
            "process: out of memory",
        );
        assert_eq!(
            of(Some(&killed), Some(&verdict(0)), Some(&started)),
            None,
            "a child that was killed and not missed"
        );
        begins(
            of(Some(&ended(137, true, "")), None, Some(&started)),
            "process: out of memory",
        );
        begins(
            of(Some(&ended(127, false, "no such file")), None, None),
            "launch: no such file",
        );
        begins(
            of(Some(&ended(137, false, "")), None, Some(&started)),
            "infrastructure: the container ended",
        );
        begins(
            of(None, None, Some(&started)),
            "infrastructure: the container has vanished",
        );
        let stopped = Verdict {
            aborted: true,
            ..verdict(-15)
        };
        begins(
            of(Some(&quiet), Some(&stopped), Some(&started)),
            "infrastructure: the container was stopped",
        );
        let by_us = Ending {
            state: Some(&quiet),
            verdict: Some(&stopped),
            aborted: true,
            ..Ending::default()
        };
        assert_eq!(judge(&by_us), None);
        let state = ended(1, false, "");
        let foreign = judge(&Ending {
            state: Some(&state),
            last_words: "version `GLIBC_2.34' not found\n\n",
            image: "img",
            ..Ending::default()
        });
        let foreign = foreign.unwrap().to_string();
        assert!(
            foreign.contains("does not run in image img (exit code 1): version `GLIBC"),
            "{foreign}"
        );
    }
}
