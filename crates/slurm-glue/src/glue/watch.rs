//! What is remembered about a task between two looks, and forgotten when the glue ends: since when things are so.

use std::time::Duration;

use tokio::time::Instant;

use crate::core::decide::{Graces, JobSeen, Since, TaskSeen};
use crate::core::jobs::EndedJob;
use crate::core::states::Stage;

/// Since when something has been so.
#[derive(Debug, Default, Clone, Copy)]
struct Clock(Option<Instant>);

impl Clock {
    fn set(&mut self, holds: bool) -> u64 {
        if holds {
            self.0.get_or_insert_with(Instant::now).elapsed().as_secs()
        } else {
            self.0 = None;
            0
        }
    }
}

/// One task.
#[derive(Debug, Default)]
pub(super) struct Watch {
    ended: Clock,
    missing: Clock,
    finished: Clock,
    stopping: Clock,
    elsewhere: Clock,
    unparked: Clock,
    idle: Clock,
    gone_back: Clock,
    pub(super) hopeless: Option<Instant>,
    /// How the job ended.
    pub(super) how: Option<EndedJob>,
    /// An incomplete record of accounting was seen once before.
    pub(super) incomplete: bool,
    /// What was last shown to people, and when a line last went to the console.
    pub(super) shown: Option<String>,
    pub(super) said: Option<Instant>,
    /// The first complete listing without a job whose submission is unknown.
    pub(super) absent: Option<Instant>,
    /// Not before then is a submission tried again.
    pub(super) retry: Option<Instant>,
    /// A message about the outage has been shown.
    pub(super) outage_shown: bool,
}

impl Watch {
    /// Moves all clocks on.
    pub(super) fn tick(&mut self, job: JobSeen<'_>, task: TaskSeen) -> Since {
        let stage = match job {
            JobSeen::Listed(job) => Some(job.state.stage()),
            JobSeen::Missing => None,
        };
        let missing = matches!(job, JobSeen::Missing);
        let queued = matches!(task, TaskSeen::Queued { .. });
        let running = matches!(task, TaskSeen::Running { .. });
        Since {
            ended: self
                .ended
                .set(stage == Some(Stage::Ended) || (missing && self.how.is_some())),
            missing: self.missing.set(missing),
            finished: self.finished.set(matches!(task, TaskSeen::Final { .. })),
            stopping: self.stopping.set(task == TaskSeen::Running { stopping: true }),
            elsewhere: self.elsewhere.set(task == TaskSeen::Elsewhere),
            unparked: self.unparked.set(task == TaskSeen::Queued { parked: false }),
            idle: self.idle.set(queued && stage == Some(Stage::Active)),
            gone_back: self.gone_back.set(running && stage == Some(Stage::Waiting)),
        }
    }

    /// How the job ended is known now; its end may be older.
    pub(super) fn learned(&mut self, how: EndedJob) {
        self.how = Some(how);
        self.ended.set(true);
    }

    /// When the time is up that the agent has for its last report.
    pub(super) fn due(&self, graces: &Graces) -> Option<Instant> {
        self.how.as_ref()?;
        Some(self.ended.0? + Duration::from_secs(graces.end))
    }

    pub(super) fn forget_absence(&mut self) {
        self.missing = Clock::default();
        self.absent = None;
    }
}
