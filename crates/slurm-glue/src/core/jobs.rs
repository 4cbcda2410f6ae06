//! What squeue and sacct print, read into jobs.

use std::collections::HashMap;

use super::states::{JobState, Stage};

/// The fields that squeue is asked for. The name comes last: it may contain anything but a line end.
pub const SQUEUE_FORMAT: &str = "%A|%u|%T|%V|%S|%P|%r|%k|%j";

/// The fields that sacct is asked for.
pub const SACCT_FORMAT: &str =
    "JobIDRaw,State,ExitCode,DerivedExitCode,Reason,Submit,End,Timelimit,NodeList,User,Comment,JobName";

/// What the names of our jobs begin with.
pub const NAME_PREFIX: &str = "clearml_task_";

/// A job as squeue shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueuedJob {
    /// Its number.
    pub id: u64,
    /// Its Linux user.
    pub user: String,
    /// Its state.
    pub state: JobState,
    /// When it was submitted, Unix seconds.
    pub submitted: i64,
    /// Its partition.
    pub partition: String,
    /// Why it waits, or why it ended.
    pub reason: String,
    /// Its comment.
    pub comment: String,
    /// Its name.
    pub name: String,
}

impl QueuedJob {
    /// The task that its name speaks of.
    #[must_use]
    pub fn task(&self) -> Option<&str> {
        self.name.strip_prefix(NAME_PREFIX)
    }
}

/// Reads a listing of squeue. Lines of other people's jobs are left out.
#[must_use]
pub fn read_squeue(text: &str) -> Vec<QueuedJob> {
    text.lines().filter_map(read_squeue_line).collect()
}

fn read_squeue_line(line: &str) -> Option<QueuedJob> {
    let mut fields = line.splitn(7, '|');
    let mut next = || fields.next();
    let (id, user, state, submitted, _start, partition, rest) =
        (next()?, next()?, next()?, next()?, next()?, next()?, next()?);
    // The reason may contain commas and blanks, a foreign comment anything; the name begins with ours.
    let at = rest.rfind(&format!("|{NAME_PREFIX}"))?;
    let (before, name) = (&rest[..at], &rest[at + 1..]);
    let (reason, comment) = before.split_once('|')?;
    Some(QueuedJob {
        id: id.trim().parse().ok()?,
        user: user.to_owned(),
        state: JobState::read(state),
        submitted: submitted.parse().unwrap_or(0),
        partition: partition.to_owned(),
        reason: reason.to_owned(),
        comment: comment.to_owned(),
        name: name.to_owned(),
    })
}

/// How a job ended, as accounting or the controller say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedJob {
    /// Its number.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Its state.
    pub state: JobState,
    /// Exit code and signal of its script.
    pub exit: Exit,
    /// The worst exit code of its steps.
    pub derived: Exit,
    /// Slurm's reason.
    pub reason: String,
    /// Who cancelled it: a uid, as Slurm prints it.
    pub cancelled_by: Option<String>,
    /// Its time limit, as Slurm prints it.
    pub time_limit: String,
    /// Its nodes.
    pub nodes: String,
    /// Whether the record is complete: accounting may lag behind.
    pub complete: bool,
    /// When it was submitted, Unix seconds.
    pub submitted: i64,
}

/// An exit code and a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Exit {
    /// The code.
    pub code: i32,
    /// The signal.
    pub signal: i32,
}

impl Exit {
    /// Reads `3:0`.
    #[must_use]
    pub fn read(text: &str) -> Self {
        let (code, signal) = text.split_once(':').unwrap_or((text, "0"));
        Self {
            code: code.parse().unwrap_or(0),
            signal: signal.parse().unwrap_or(0),
        }
    }
}

/// Reads sacct's records. A job that was requeued has several; the last one counts.
#[must_use]
pub fn read_sacct(text: &str) -> HashMap<u64, EndedJob> {
    text.lines()
        .filter_map(read_sacct_line)
        .map(|job| (job.id, job))
        .collect()
}

fn read_sacct_line(line: &str) -> Option<EndedJob> {
    let fields: Vec<&str> = line.split('|').collect();
    let field = |index: usize| fields.get(index).copied().unwrap_or_default();
    let state = field(1);
    Some(EndedJob {
        id: field(0).parse().ok()?,
        // A comment before it may contain anything.
        name: fields.last().copied().unwrap_or_default().to_owned(),
        state: JobState::read(state),
        exit: Exit::read(field(2)),
        derived: Exit::read(field(3)),
        reason: field(4).to_owned(),
        cancelled_by: state.split_once(" by ").map(|(_, user)| user.trim().to_owned()),
        time_limit: field(7).to_owned(),
        nodes: field(8).to_owned(),
        complete: JobState::read(state).stage() == Stage::Ended && !matches!(field(6), "" | "Unknown"),
        submitted: field(5).parse().unwrap_or(0),
    })
}

/// Reads `scontrol show job`, for clusters without accounting.
#[must_use]
pub fn read_scontrol(text: &str) -> Option<EndedJob> {
    let field = |name: &str| {
        text.split_whitespace()
            .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
            .unwrap_or_default()
    };
    let state = JobState::read(field("JobState"));
    Some(EndedJob {
        id: field("JobId").parse().ok()?,
        name: field("JobName").to_owned(),
        complete: state.stage() == Stage::Ended,
        state,
        exit: Exit::read(field("ExitCode")),
        derived: Exit::read(field("DerivedExitCode")),
        reason: field("Reason").to_owned(),
        cancelled_by: None,
        time_limit: field("TimeLimit").to_owned(),
        nodes: field("NodeList").to_owned(),
        submitted: 0,
    })
}

/// The mark in a job's comment, which tells one submission from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marker {
    /// The task.
    pub task: String,
    /// The worker id of the glue.
    pub glue: String,
    /// Unique for this submission.
    pub nonce: String,
}

impl Marker {
    /// As the comment of a job.
    #[must_use]
    pub fn comment(&self) -> String {
        format!(
            "clearml:v1 task={} glue={} nonce={}",
            self.task, self.glue, self.nonce
        )
    }

    /// Reads a comment.
    #[must_use]
    pub fn read(comment: &str) -> Option<Self> {
        let rest = comment.strip_prefix("clearml:v1 task=")?;
        let (task, rest) = rest.split_once(" glue=")?;
        // People give workers names with blanks.
        let (glue, nonce) = rest.rsplit_once(" nonce=")?;
        Some(Self {
            task: task.to_owned(),
            glue: glue.to_owned(),
            nonce: nonce.to_owned(),
        })
    }
}

/// Whether a job is this very submission: by its mark, or, where the template sets a comment of its own, by its
/// name and the time. A number alone proves nothing: after a crash of the controller numbers are given out again.
#[must_use]
pub fn is_ours(job: &QueuedJob, marker: &Marker, since: i64, has_marker: bool) -> bool {
    if job.task() != Some(&marker.task) {
        return false;
    }
    if has_marker {
        return Marker::read(&job.comment).as_ref() == Some(marker);
    }
    job.submitted >= since
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_is_read_whatever_names_and_comments_say() {
        let text = "12|alice|PENDING|1700000000|N/A|debug|ReqNodeNotAvail, UnavailableNodes:c2|clearml:v1 task=t glue=h:slurm nonce=n|clearml_task_t\n\
                    13|bob|RUNNING|1700000001|1700000002|debug|None|a|b|other\n\
                    14|bob|RUNNING|1700000001|1700000002|debug|None|x|y|clearml_task_u\n\
                    nonsense\n";
        let jobs = read_squeue(text);
        assert_eq!(jobs.len(), 2);
        assert_eq!(jobs[0].reason, "ReqNodeNotAvail, UnavailableNodes:c2");
        assert_eq!(jobs[0].task(), Some("t"));
        assert_eq!((jobs[1].comment.as_str(), jobs[1].task()), ("x|y", Some("u")));
        let marker = Marker {
            task: "t".into(),
            glue: "h:slurm".into(),
            nonce: "n".into(),
        };
        assert!(is_ours(&jobs[0], &marker, 0, true));
        assert_eq!(Marker::read(&marker.comment()), Some(marker.clone()));
        let named = Marker {
            glue: "the login | node=1:slurm".into(),
            ..marker.clone()
        };
        assert_eq!(Marker::read(&named.comment()), Some(named.clone()));
        let line = format!(
            "15|alice|PENDING|1|N/A|debug|None|{}|clearml_task_t\n",
            named.comment()
        );
        assert!(is_ours(&read_squeue(&line)[0], &named, 0, true));
        let other = Marker {
            nonce: "m".into(),
            ..marker.clone()
        };
        assert!(
            !is_ours(&jobs[0], &other, 0, true),
            "another submission of the same task"
        );
        assert!(is_ours(&jobs[0], &other, 1_700_000_000, false));
        assert!(
            !is_ours(&jobs[0], &other, 1_700_000_001, false),
            "older than the submission"
        );
        assert!(!is_ours(&jobs[1], &marker, 0, false));
    }

    #[test]
    fn accounting_is_read_and_its_gaps_are_seen() {
        let text = "7|PREEMPTED|0:0|0:0|None|5|9|01:00:00|c1|alice|c|clearml_task_t\n\
                    7|CANCELLED by 1001|0:15|0:0|None|5|9|01:00:00|c1|alice|c|clearml_task_t\n\
                    8|FAILED|3:0|0:0|NonZeroExitCode|5|Unknown|1-00:00:00|c[1-2]|alice|c|clearml_task_u\n";
        let jobs = read_sacct(text);
        assert_eq!(jobs[&7].cancelled_by.as_deref(), Some("1001"));
        assert_eq!(jobs[&7].exit, Exit { code: 0, signal: 15 });
        assert!(jobs[&7].complete && !jobs[&8].complete);
        let shown = "JobId=9 JobName=clearml_task_x\n   JobState=FAILED Reason=JobLaunchFailure Dependency=(null)\n   ExitCode=0:53 TimeLimit=00:10:00 NodeList=c1";
        let job = read_scontrol(shown).unwrap();
        assert_eq!(
            (job.id, job.exit, job.reason.as_str()),
            (9, Exit { code: 0, signal: 53 }, "JobLaunchFailure")
        );
        assert_eq!(
            (&*jobs[&7].name, &*job.name),
            ("clearml_task_t", "clearml_task_x")
        );
    }
}
