//! Looking at the status of many tasks by few requests.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use clearml_api_client::{Client, TasksQuery};
use clearml_task_model::{Task, TaskId};
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval};

use super::abort::OBSERVED;

/// So many tasks are asked for at once. Servers shorten longer answers.
const AT_ONCE: usize = 250;

/// Where the runs of one process leave their questions. They are asked together, once in a period.
#[derive(Debug)]
pub(crate) struct Board {
    client: Client,
    every: Duration,
    questions: Mutex<Vec<Question>>,
    begun: AtomicBool,
}

#[derive(Debug)]
struct Question {
    task: TaskId,
    answer: oneshot::Sender<Option<Task>>,
}

impl Board {
    pub(crate) fn new(client: Client, every: Duration) -> Arc<Self> {
        Arc::new(Self {
            client,
            every: every.max(Duration::from_millis(10)),
            questions: Mutex::default(),
            begun: AtomicBool::new(false),
        })
    }

    /// The task as it is at the next look; `None` = the server does not have it. Comes once a period.
    pub(crate) async fn look(self: &Arc<Self>, task: &TaskId) -> Option<Task> {
        if !self.begun.swap(true, Ordering::Relaxed) {
            tokio::spawn(ask(Arc::downgrade(self), self.every));
        }
        let (answer, answered) = oneshot::channel();
        self.questions().push(Question {
            task: task.clone(),
            answer,
        });
        match answered.await {
            Ok(task) => task,
            // Nobody asks any more, which is so only when the process ends.
            Err(_) => std::future::pending().await,
        }
    }

    fn questions(&self) -> std::sync::MutexGuard<'_, Vec<Question>> {
        self.questions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(&self, questions: Vec<Question>) {
        let query = TasksQuery {
            id: questions.iter().map(|question| question.task.clone()).collect(),
            only_fields: ["id"].into_iter().chain(OBSERVED).map(str::to_owned).collect(),
            ..TasksQuery::one(&questions[0].task, OBSERVED)
        };
        let tasks = match self.client.tasks_get_all(&query).await {
            Ok(tasks) => tasks,
            Err(e) => {
                tracing::debug!("asking for the status of {} tasks: {e}", questions.len());
                return self.questions().extend(questions);
            }
        };
        for question in questions {
            let found = tasks.iter().find(|task| task.id.as_ref() == Some(&question.task));
            let found = match found {
                Some(task) => Some(task.clone()),
                // The end of a task must not hang on what else was in an answer.
                None => match self
                    .client
                    .tasks_get_all(&TasksQuery::one(&question.task, OBSERVED))
                    .await
                {
                    Ok(tasks) => tasks.into_iter().next(),
                    Err(e) => {
                        tracing::debug!("asking for the status of task {}: {e}", question.task);
                        self.questions().push(question);
                        continue;
                    }
                },
            };
            // The run may have ended meanwhile.
            let _ended = question.answer.send(found);
        }
    }
}

async fn ask(board: Weak<Board>, every: Duration) {
    let mut period = interval(every);
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick comes at once, and nothing can have changed so soon.
    period.tick().await;
    loop {
        period.tick().await;
        let Some(board) = board.upgrade() else { return };
        let mut questions = std::mem::take(&mut *board.questions());
        questions.retain(|question| !question.answer.is_closed());
        while !questions.is_empty() {
            let some = questions.drain(..questions.len().min(AT_ONCE)).collect();
            board.answer(some).await;
        }
    }
}
