//! What an attempt to submit a job has led to.

/// The outcome of sbatch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Submission {
    /// There is a job.
    Accepted(u64),
    /// There is none, and there never will be one: the user, the template or the site has to change something.
    Refused(String),
    /// There is none for now: a limit of the account is reached.
    Full(String),
    /// There is none: Slurm can't be reached at all.
    Outage(String),
    /// Nobody knows: the answer got lost. The job may exist and run.
    Unknown(String),
    /// It was refused for a reason that is not known; it may be a passing one.
    Odd(String),
}

/// Texts of a controller that did not answer: the job may have been created all the same.
const UNKNOWN: [&str; 4] = [
    "Socket timed out",
    "Zero Bytes were transmitted or received",
    "Connection reset",
    "Transport endpoint is not connected",
];

/// Texts of a Slurm that was not reached.
const OUTAGE: [&str; 6] = [
    "Protocol authentication error",
    "Munge",
    "Unable to contact slurm controller",
    "cannot stat file",
    "Could not establish a configuration source",
    "Connection refused",
];

/// Texts about a limit on the number of jobs.
const FULL: [&str; 5] = [
    "MaxSubmitJob",
    "job submit limit",
    "temporarily unable to accept job",
    "Resource temporarily unavailable",
    "Slurm temporarily unable",
];

/// Texts of refusals that repeating does not change.
const PERMANENT: [&str; 23] = [
    "nvalid partition",
    "nvalid node name",
    "node configuration is not available",
    "Memory specification can not be satisfied",
    "nvalid generic resource",
    "reservation is invalid",
    "nvalid account",
    "nvalid qos",
    "nvalid --time",
    "not a valid node count",
    "unrecognized option",
    "nvalid directive",
    "Unmatched",
    "does not look like a batch script",
    "script is empty",
    "DOS line breaks",
    "too long",
    "nvalid --uid",
    "nvalid feature",
    "nvalid wckey",
    "Access/permission denied",
    "nvalid numeric",
    "nvalid number",
];

/// Judges what sbatch printed. `code` is its exit code; `None`: it was killed or ran out of time.
#[must_use]
pub fn judge(code: Option<i32>, stdout: &str, stderr: &str) -> Submission {
    let text = complaint(stderr);
    let says = |texts: &[&str]| texts.iter().any(|wanted| stderr.contains(wanted));
    let Some(code) = code else {
        return Submission::Unknown(format!("sbatch did not end in time: {text}"));
    };
    if code == 0 {
        return match job_id(stdout) {
            Some(id) => Submission::Accepted(id),
            None => Submission::Unknown("sbatch named no job".to_owned()),
        };
    }
    if says(&UNKNOWN) {
        return Submission::Unknown(text);
    }
    // "Job violates accounting/QOS policy" also covers sizes and times, so a text about the number decides.
    if says(&FULL) {
        return Submission::Full(text);
    }
    if says(&OUTAGE) {
        // Contact may have been lost after the request was sent.
        return if stderr.contains("Unable to contact slurm controller") {
            Submission::Unknown(text)
        } else {
            Submission::Outage(text)
        };
    }
    let policy = stderr.contains("Unspecified error") && stderr.lines().count() > 1;
    if code == 255 || policy || says(&PERMANENT) || stderr.contains("Job violates accounting/QOS policy") {
        return Submission::Refused(text);
    }
    Submission::Odd(text)
}

/// Whether what a command of Slurm printed means that Slurm can't be reached.
#[must_use]
pub fn is_outage(stderr: &str) -> bool {
    UNKNOWN.iter().chain(&OUTAGE).any(|text| stderr.contains(text))
}

/// The number of the job in what `sbatch --parsable` prints.
fn job_id(stdout: &str) -> Option<u64> {
    stdout
        .lines()
        .find_map(|line| line.split(';').next()?.trim().parse().ok())
}

/// The lines that say something, without the name of the program.
fn complaint(stderr: &str) -> String {
    let lines: Vec<&str> = stderr
        .lines()
        .map(|line| {
            line.trim_start_matches("sbatch: ")
                .trim_start_matches("error: ")
                .trim()
        })
        .filter(|line| !line.is_empty())
        .collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_told_apart_by_what_sbatch_prints() {
        type Is = fn(&Submission) -> bool;
        let table: [(Option<i32>, &str, &str, Is); 14] = [
            (Some(0), "17\n", "", |s| *s == Submission::Accepted(17)),
            (Some(0), "17;lab\n", "", |s| *s == Submission::Accepted(17)),
            (Some(0), "note\n18\n", "", |s| *s == Submission::Accepted(18)),
            (Some(0), "", "", |s| matches!(s, Submission::Unknown(_))),
            (None, "", "", |s| matches!(s, Submission::Unknown(_))),
            (
                Some(1),
                "",
                "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation",
                |s| matches!(s, Submission::Unknown(_)),
            ),
            (
                Some(1),
                "",
                "sbatch: error: Batch job submission failed: Invalid partition name specified",
                |s| matches!(s, Submission::Refused(_)),
            ),
            (
                Some(1),
                "",
                "sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)",
                |s| matches!(s, Submission::Full(_)),
            ),
            (
                Some(1),
                "",
                "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (size)",
                |s| matches!(s, Submission::Refused(_)),
            ),
            (
                Some(1),
                "",
                "sbatch: error: lab policy: no\nsbatch: error: Batch job submission failed: Unspecified error",
                |s| matches!(s, Submission::Refused(text) if text.starts_with("lab policy: no")),
            ),
            (
                Some(255),
                "",
                "sbatch: unrecognized option '--container-image=x'",
                |s| matches!(s, Submission::Refused(_)),
            ),
            (
                Some(1),
                "",
                "sbatch: error: Batch job submission failed: Protocol authentication error",
                |s| matches!(s, Submission::Outage(_)),
            ),
            (
                Some(1),
                "",
                "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)",
                |s| matches!(s, Submission::Unknown(_)),
            ),
            (Some(1), "", "sbatch: error: something new", |s| {
                matches!(s, Submission::Odd(_))
            }),
        ];
        for (code, stdout, stderr, expected) in table {
            let outcome = judge(code, stdout, stderr);
            assert!(expected(&outcome), "{stderr}: {outcome:?}");
        }
    }
}
