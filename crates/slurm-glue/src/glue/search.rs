//! Submissions that are open: put off, or without an answer.

use tokio::time::Instant;

use super::{Glue, GlueError};
use crate::core::decide::{Search, Settle, settle};
use crate::core::jobs::{Marker, NAME_PREFIX, QueuedJob, is_ours};
use crate::journal::{Phase, Record};

/// Two looks for a lost submission must be so far apart, at least.
const APART_SEC: u64 = 30;

impl Glue {
    /// A task without a job: its submission is due, unless it is to be put off.
    pub(super) async fn claimed(&mut self, record: &Record) -> Result<(), GlueError> {
        let watch = self.watches.entry(record.intent.run.clone()).or_default();
        if watch.retry.is_some_and(|at| Instant::now() < at) {
            return Ok(());
        }
        Box::pin(self.submit(&record.intent.run)).await
    }

    /// A submission whose answer got lost.
    pub(super) async fn search(
        &mut self,
        record: &Record,
        named: &[&QueuedJob],
        ask: &mut Vec<(u64, String)>,
    ) -> Result<(), GlueError> {
        let run = &record.intent.run;
        let marker = Marker {
            task: record.task().to_string(),
            glue: self.worker.to_string(),
            nonce: record.nonce.clone(),
        };
        // Others could give a job of theirs the same name and comment.
        let user = record.user.as_ref().unwrap_or(&self.own_user);
        let found = named
            .iter()
            .filter(|job| job.user == *user)
            .find(|job| is_ours(job, &marker, record.since, record.marked))
            .map(|job| job.id);
        let watch = self.watches.entry(run.clone()).or_default();
        let absent = *watch.absent.get_or_insert_with(Instant::now);
        let accounting = if found.is_none() && absent.elapsed().as_secs() >= APART_SEC {
            self.slurm
                .submitted_as(&format!("{NAME_PREFIX}{}", record.task()), record.since)
                .await
        } else {
            None
        };
        let search = Search {
            found,
            in_accounting: accounting.is_some(),
            absent_for: Some(absent.elapsed().as_secs()),
        };
        match settle(search, APART_SEC) {
            Settle::Wait => {
                if let Some(id) = accounting {
                    // It was there and is over: its end is found out like that of any other job.
                    self.journal
                        .update(run, |record| record.phase = Phase::Submitted(id))?;
                    ask.push((id, run.clone()));
                }
                Ok(())
            }
            Settle::Adopt(id) => {
                let record = self
                    .journal
                    .update(run, |record| record.phase = Phase::Submitted(id))?;
                tracing::info!("the job of task {} exists: {id}", record.task());
                self.announce(&[(record, id)], "found").await;
                Ok(())
            }
            Settle::SubmitAgain => {
                tracing::info!("task {} has no job; it is submitted again", record.task());
                self.watches.remove(run);
                self.journal.update(run, |record| record.phase = Phase::Claimed)?;
                Box::pin(self.submit(run)).await
            }
        }
    }
}
