//! Telling the server how a run has ended: the calls around the decisions of the product.

use clearml_task_model::TaskId;
use clearml_task_runner::decisions::{Answer, Tell, Teller};

use crate::Plant;
use crate::kernel::Env;
use crate::server::Reply;
use crate::world::{Shared, Trouble};

/// One look at the task and one call. Returns whether everything is said.
pub(crate) async fn tell_once(
    world: &Shared,
    env: &Env,
    host: usize,
    name: &str,
    teller: &mut Teller<'_>,
) -> bool {
    if teller.is_finished() {
        return true;
    }
    let Some(id) = world.run(host, name, |run| run.record.identity.task.clone()) else {
        return true;
    };
    let looked = env.kernel.now();
    let Ok(mut task) = world.ask(env, host, |server| server.task(&id)).await else {
        env.sleep(500).await;
        return false;
    };
    if world.plant == Plant::OwnerUnread
        && let Some(task) = &mut task
    {
        task.runtime.clear();
    }
    let call = teller.next(task.as_ref());
    env.kernel.log(|| format!("{name} tells: {call:?}"));
    let answer = match &call {
        Tell::Nothing(_) => return true,
        Tell::Wait(time) => {
            env.sleep(u64::try_from(time.as_millis()).unwrap_or(0)).await;
            Ok(Reply::Done)
        }
        call => make(world, env, host, name, &id, looked, call).await,
    };
    let answer = match answer {
        Ok(Reply::Done) => Answer::Done,
        Ok(Reply::Declined | Reply::NoTask) => Answer::Refused,
        Err(_) => Answer::Unclear,
    };
    teller.answered(&call, answer);
    if answer == Answer::Unclear {
        env.sleep(500).await;
    }
    false
}

async fn make(
    world: &Shared,
    env: &Env,
    host: usize,
    name: &str,
    id: &TaskId,
    looked: u64,
    call: &Tell,
) -> Result<Reply, Trouble> {
    let (id, run, kernel) = (id.clone(), name.to_owned(), env.kernel.clone());
    match call.clone() {
        Tell::End(end, reason) => {
            world
                .tell_often(env, host, move |server| {
                    let now = kernel.now();
                    server.end(&id, &run, end, &reason, (now - looked, now))
                })
                .await
        }
        Tell::Count(requeues) => {
            world
                .tell_often(env, host, move |server| server.count(&id, requeues.clone()))
                .await
        }
        Tell::PutBack(reason) => {
            let notes = world.clone();
            world
                .tell(env, host, 0, move |server| {
                    server.must_own(&id, &run, kernel.now() - looked, "puts back");
                    let life = server.lives.get(&run).cloned();
                    if let Some(life) = life {
                        *notes.put_back.borrow_mut().entry(life).or_default() += 1;
                    }
                    server.enqueue(&id, true, &reason, &run, (looked, kernel.now()))
                })
                .await
        }
        Tell::ToFront => {
            world
                .tell_often(env, host, move |server| server.put_in_front(&id))
                .await
        }
        Tell::Nothing(_) | Tell::Wait(_) => Ok(Reply::Done),
    }
}
