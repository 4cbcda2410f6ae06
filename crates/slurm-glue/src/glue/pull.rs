//! Taking tasks: one look at the heads of all queues, then the pop protocol, then the job.

use std::time::Duration;

use clearml_api_client::QueuesQuery;
use clearml_intake::order::Choice;
use clearml_intake::popper::{Outcome, PopError};
use clearml_task_model::TaskId;
use tokio::sync::watch as signal;

use super::{Glue, GlueError};

/// The most tasks that one look takes.
const BURST: usize = 10;

impl Glue {
    /// Takes tasks while there are any and there is room. `once`: at most one of each queue.
    pub(super) async fn pull(&mut self, once: bool, stop: &signal::Receiver<bool>) -> Result<(), GlueError> {
        for served in &mut self.served {
            served.template.refresh();
        }
        let mut taken = vec![0usize; self.served.len()];
        for _ in 0..BURST {
            if *stop.borrow() || self.outage.is_some() {
                return Ok(());
            }
            let room: Vec<bool> = (0..self.served.len())
                .map(|index| self.has_room(index) && !(once && taken[index] > 0))
                .collect();
            if !room.contains(&true) {
                return Ok(());
            }
            let heads = self.heads().await;
            let ready: Vec<bool> = heads
                .iter()
                .zip(&room)
                .map(|(head, room)| head.is_some() && *room)
                .collect();
            let index = match self.order.choose(&ready) {
                Choice::Serve(index) => index,
                Choice::NextPass if once => return Ok(()),
                Choice::NextPass => continue,
                Choice::Idle => return Ok(()),
            };
            let Some(task) = &heads[index] else { return Ok(()) };
            self.take(index, task, &mut taken).await?;
        }
        Ok(())
    }

    async fn take(&mut self, index: usize, task: &TaskId, taken: &mut [usize]) -> Result<(), GlueError> {
        let queue = self.served[index].queue.id.clone();
        let tracked = self
            .journal
            .all()
            .into_iter()
            .find(|record| record.task() == task);
        match Box::pin(self.popper.acquire(&queue, task)).await {
            Ok(Outcome::Ours(intent)) => {
                self.order.pulled(index);
                taken[index] += 1;
                if let Some(record) = tracked {
                    // Somebody has put a task into the queue again whose job exists: it is parked again.
                    tracing::info!("task {task} was queued again; job {:?} goes on", record.job());
                    self.journal.remove(&intent.run)?;
                    return Ok(());
                }
                self.submit(&intent.run).await
            }
            Ok(Outcome::NotOurs(intent, why)) => {
                self.order.passed_over(index);
                tracing::info!("task {} is not submitted: {why}", intent.task);
                Ok(())
            }
            Ok(Outcome::PutBack(_) | Outcome::Missed) => {
                self.order.passed_over(index);
                Ok(())
            }
            Err(PopError::Journal { source, .. }) => Err(source.into()),
            Err(error) => {
                self.order.passed_over(index);
                tracing::warn!("{error}");
                tokio::time::sleep(Duration::from_millis(500)).await;
                Ok(())
            }
        }
    }

    /// The task at the head of each queue, by one request.
    async fn heads(&self) -> Vec<Option<TaskId>> {
        let query = QueuesQuery {
            id: self.queues(),
            only_fields: ["id", "name", "entries"].map(str::to_owned).to_vec(),
            max_task_entries: Some(1),
            search_hidden: true,
            ..QueuesQuery::default()
        };
        let queues = match self.client.queues_get_all(&query).await {
            Ok(queues) => queues,
            Err(error) => {
                tracing::warn!("looking at the queues: {error}");
                return vec![None; self.served.len()];
            }
        };
        self.served
            .iter()
            .map(|served| {
                let queue = queues
                    .iter()
                    .find(|queue| queue.id.as_ref() == Some(&served.queue.id))?;
                Some(queue.entries.first()?.task.clone())
            })
            .collect()
    }
}
