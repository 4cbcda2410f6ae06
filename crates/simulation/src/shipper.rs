//! A shipper: the calls and waits of `clearml-task-runner` around its decisions.

use std::rc::Rc;
use std::time::Duration;

use clearml_task_runner::console::Channel;
use clearml_task_runner::console::render::RenderOptions;
use clearml_task_runner::decisions::{
    Batch, Cursor, Delivery, Next, ReadAnswer, SendAnswer, View, next_batch, to_events,
};

use crate::Plant;
use crate::kernel::{Ms, either};
use crate::runner::Runner;
use crate::server::Reply;
use crate::world::Trouble;

const FLUSH: Ms = 1_000;
const LOOK: Ms = 500;
const READBACK_DELAY: Ms = 2_000;
/// A server makes new events findable with a delay.
const FINDABLE_AFTER: Ms = 1_000;
const RENDER: RenderOptions = RenderOptions {
    suppress_carriage_return: true,
};

/// Ships until the console is complete, then waits for the end of the run.
pub(crate) async fn ship(runner: &Rc<Runner>) {
    let mut cursor = runner.disk(|run| run.cursor.clone()).unwrap_or_default();
    if let Some(pending) = cursor.pending.take() {
        let window = runner.disk(|run| run.window(pending.channel, pending.start));
        let batch = pending.again(&window.unwrap_or_default(), RENDER);
        let maybe_sent = runner.world.plant != Plant::NoReadBack;
        send(runner, &mut cursor, batch, maybe_sent).await;
    }
    let mut held = [(u64::MAX, 0); 2];
    loop {
        if cursor.refused.is_some() {
            break;
        }
        // Asked before reading: what a closed channel holds by now is all it will hold.
        let closed = runner.closed.get();
        match choose(runner, &cursor, closed, &mut held) {
            Some(batch) => {
                send(runner, &mut cursor, batch, false).await;
                if closed != (true, true) {
                    let change = runner.env.until(|| runner.closed.get() != closed);
                    either(runner.env.sleep(FLUSH), change).await;
                }
            }
            None => {
                save(runner, &cursor).await;
                if closed == (true, true) {
                    break;
                }
                let change = runner.env.until(|| runner.closed.get() != closed);
                either(runner.env.sleep(LOOK), change).await;
            }
        }
    }
    runner.shipped.set(true);
    runner.env.wake_self();
    std::future::pending::<()>().await;
}

fn choose(
    runner: &Runner,
    cursor: &Cursor,
    closed: (bool, bool),
    held: &mut [(u64, Ms); 2],
) -> Option<Batch> {
    let now = runner.env.kernel.now();
    runner
        .disk(|run| {
            let windows = Channel::ALL.map(|channel| run.window(channel, cursor.position(channel)));
            let mut views =
                Channel::ALL
                    .into_iter()
                    .zip(&windows)
                    .enumerate()
                    .map(|(index, (channel, window))| {
                        let position = cursor.position(channel);
                        if held[index].0 != position || window.is_empty() {
                            held[index] = (position, now);
                        }
                        View {
                            window,
                            position,
                            held: Duration::from_millis(now - held[index].1),
                            closed: if channel == Channel::Agent {
                                closed.0
                            } else {
                                closed.1
                            },
                        }
                    });
            let (agent, task) = (views.next()?, views.next()?);
            let now = i64::try_from(now).unwrap_or(0);
            next_batch(agent, task, RENDER, Duration::from_secs(2), now)
        })
        .flatten()
}

async fn save(runner: &Runner, cursor: &Cursor) {
    runner.env.step().await;
    runner.disk(|run| run.cursor = cursor.clone());
}

async fn send(runner: &Rc<Runner>, cursor: &mut Cursor, batch: Batch, maybe_sent: bool) {
    let Batch { channel, rendered } = batch;
    let (end, ending) = (rendered.end, rendered.ending);
    let Some(identity) = runner.disk(|run| run.record.identity.clone()) else {
        return;
    };
    let events = to_events(
        rendered.messages,
        &identity.task,
        &runner.name,
        cursor.last_ts,
        |text| text,
    );
    if cursor.begin(channel, (end, ending), &events) {
        save(runner, cursor).await;
        let mut delivery = Delivery::new(events, maybe_sent);
        loop {
            match delivery.next() {
                Next::Delivered => break,
                Next::Refused(reason) => {
                    cursor.refused = Some(reason.to_owned());
                    break;
                }
                Next::Send(events) => {
                    let answer = add(runner, &identity.task, events.to_vec()).await;
                    if matches!(answer, SendAnswer::NotApplied | SendAnswer::Unclear) {
                        runner.env.sleep(500).await;
                    }
                    delivery.sent(answer);
                }
                Next::ReadBack { from, first } => {
                    if first {
                        runner.env.sleep(READBACK_DELAY).await;
                    }
                    let answer = read(runner, &identity.task, from).await;
                    if matches!(answer, ReadAnswer::Later) {
                        runner.env.sleep(500).await;
                    }
                    delivery.read(answer);
                }
            }
        }
    }
    cursor.end(channel, end);
}

async fn add(
    runner: &Rc<Runner>,
    task: &clearml_task_model::TaskId,
    events: Vec<clearml_api_client::LogEvent>,
) -> SendAnswer {
    let (kernel, task) = (runner.env.kernel.clone(), task.clone());
    let sent = runner
        .world
        .tell(&runner.env, runner.host, 0, move |server| {
            let visible = kernel.now() + kernel.below(FINDABLE_AFTER);
            server.add_events(&task, events, visible)
        })
        .await;
    match sent {
        Ok(Reply::Done) => SendAnswer::Taken,
        Ok(_) => SendAnswer::TaskGone("gone".to_owned()),
        Err(Trouble::NotApplied) => SendAnswer::NotApplied,
        Err(Trouble::Unclear) => SendAnswer::Unclear,
    }
}

async fn read(runner: &Rc<Runner>, task: &clearml_task_model::TaskId, from: i64) -> ReadAnswer {
    if runner.world.plant == Plant::NoReadBack {
        return ReadAnswer::Page(Vec::new());
    }
    let now = runner.env.kernel.now();
    let log = runner
        .world
        .ask(&runner.env, runner.host, |server| server.log_of(task, from, now))
        .await;
    match log {
        Ok(Some(events)) => ReadAnswer::Page(events),
        Ok(None) => ReadAnswer::TaskGone("gone".to_owned()),
        Err(_) => ReadAnswer::Later,
    }
}
