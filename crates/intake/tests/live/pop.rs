use clearml_api_client::StatusChange;
use clearml_intake::owner::{HOST_KEY, OwnerMark};
use clearml_intake::pop::{Phase, Why};
use clearml_intake::{Outcome, PopError};
use clearml_task_model::TaskStatus;
use serde_json::json;

use crate::world::{World, world};

async fn assert_claimed(world: &World, outcome: Outcome) {
    let Outcome::Ours(intent) = outcome else {
        panic!("{outcome:?}")
    };
    let task = world.task(&intent.task).await;
    assert_eq!(task.status, Some(TaskStatus::InProgress));
    assert_eq!(task.status_message.as_deref(), Some("pulled by agent"));
    assert!(task.extra.contains_key("started"), "{task:?}");
    assert_eq!(OwnerMark::read(&task.runtime).unwrap().run, intent.run);
    assert_eq!(task.runtime[HOST_KEY], json!("host"));
    assert!(!world.waiting().await.contains(&intent.task));
}

#[tokio::test]
async fn a_pop_takes_the_head_and_claims_it() {
    let world = world().await;
    let (first, second) = (world.enqueued("first").await, world.enqueued("second").await);
    let popper = world.popper("w:0");
    assert_eq!(
        popper.acquire(&world.queue, &second).await.unwrap(),
        Outcome::Missed,
        "it is not the head"
    );
    assert!(popper.journal().intents.borrow().is_empty());
    let outcome = popper.acquire(&world.queue, &first).await.unwrap();
    assert_claimed(&world, outcome).await;
    assert_eq!(world.waiting().await, [second]);
}

#[tokio::test]
async fn a_pop_whose_answer_is_lost_is_found_out() {
    for (kind, apply) in [
        ("reset_after", true),
        ("truncate", true),
        ("reset_before", false),
        ("html", true),
    ] {
        for competitor in [false, true] {
            let world = world().await;
            if competitor {
                let queues = [world.queue.clone()];
                world
                    .client
                    .workers_register(&"other:0".into(), &queues, None)
                    .await
                    .unwrap();
            }
            let (first, second) = (world.enqueued("first").await, world.enqueued("second").await);
            world
                .fault(json!({"endpoint": "queues.get_next_task", "kind": kind, "apply": apply}))
                .await;
            let popper = world.popper("w:0");
            let outcome = popper.acquire(&world.queue, &first).await.unwrap();
            if competitor && apply {
                assert!(matches!(outcome, Outcome::PutBack(_)), "{kind}: {outcome:?}");
                assert_eq!(
                    world.waiting().await,
                    [first, second],
                    "{kind}: back where it was"
                );
            } else {
                assert_claimed(&world, outcome).await;
                assert_eq!(world.waiting().await, [second], "{kind}: only one was popped");
            }
        }
    }
}

#[tokio::test]
async fn every_lost_answer_of_a_claim_is_found_out() {
    for endpoint in ["tasks.edit_runtime", "tasks.dequeue", "tasks.started"] {
        for kind in ["reset_after", "reset_before", "status"] {
            let world = world().await;
            let task = world.enqueued("only").await;
            world
                .fault(json!({"endpoint": endpoint, "kind": kind, "count": 1}))
                .await;
            let popper = world.popper("w:0");
            let outcome = match popper.acquire(&world.queue, &task).await {
                Err(PopError::Unresolved { intent, phase, .. }) => {
                    assert_eq!(phase, Phase::Popped);
                    popper.recover(*intent, phase).await.unwrap()
                }
                other => other.unwrap(),
            };
            let Outcome::Ours(intent) = &outcome else {
                panic!("{endpoint} {kind}: {outcome:?}")
            };
            assert_eq!(
                world.task(&intent.task).await.status,
                Some(TaskStatus::InProgress),
                "{endpoint} {kind}"
            );
            assert_eq!(popper.journal().intents.borrow()[&intent.run].1, Phase::Claimed);
        }
    }
}

#[tokio::test]
async fn a_task_that_was_reset_after_it_was_seen_in_its_queue_stays_a_draft() {
    for kind in ["reset_after", "reset_before"] {
        for competitor in [false, true] {
            let world = world().await;
            if competitor {
                let queues = [world.queue.clone()];
                let other = "other:0".into();
                world
                    .client
                    .workers_register(&other, &queues, None)
                    .await
                    .unwrap();
            }
            let task = world.enqueued("only").await;
            world.client.tasks_reset(&task, true).await.unwrap();
            world
                .fault(json!({"endpoint": "queues.get_next_task", "kind": kind}))
                .await;
            let popper = world.popper("w:0");
            let outcome = popper.acquire(&world.queue, &task).await.unwrap();
            assert_eq!(outcome, Outcome::Missed, "{kind}, {competitor}");
            let status = world.task(&task).await.status;
            assert_eq!(status, Some(TaskStatus::Created), "{kind}, {competitor}");
            assert!(world.waiting().await.is_empty(), "{kind}, {competitor}");
        }
    }
}

#[tokio::test]
async fn a_draft_that_was_put_into_the_queue_is_pulled() {
    let world = world().await;
    let task = world.enqueued("only").await;
    world.client.tasks_reset(&task, true).await.unwrap();
    let entry = json!({"queue": world.queue, "task": task});
    let call = clearml_api_client::Call::new("queues.add_task").body(entry);
    world.client.call::<serde_json::Value>(call).await.unwrap();
    assert_eq!(world.task(&task).await.status, Some(TaskStatus::Created));
    let outcome = world.popper("w:0").acquire(&world.queue, &task).await.unwrap();
    assert_claimed(&world, outcome).await;
}

#[tokio::test]
async fn a_refused_pop_leaves_nothing_behind() {
    let world = world().await;
    let task = world.enqueued("only").await;
    world
        .fault(json!({"endpoint": "queues.get_next_task", "kind": "status", "status": 503}))
        .await;
    let popper = world.popper("w:0");
    let error = popper.acquire(&world.queue, &task).await.unwrap_err();
    assert!(matches!(error, PopError::Refused { .. }), "{error}");
    assert!(popper.journal().intents.borrow().is_empty());
    assert_eq!(world.waiting().await, [task]);
}

#[tokio::test]
async fn an_abort_after_the_pop_is_not_overwritten() {
    let world = world().await;
    let task = world.enqueued("only").await;
    let popper = world.popper("w:0");
    // Popped by a process that has died before it could claim the task; aborted before the next one came.
    let intent = popper_intent(&world, &popper, &task).await;
    world
        .client
        .queues_get_next_task(&world.queue, Some(&task))
        .await
        .unwrap()
        .unwrap();
    world
        .client
        .tasks_stop(&task, &StatusChange::default())
        .await
        .unwrap();
    for phase in [Phase::Popping, Phase::Popped, Phase::Claimed] {
        let outcome = popper.recover(intent.clone(), phase).await.unwrap();
        assert_eq!(
            outcome,
            Outcome::NotOurs(intent.clone(), Why::Status(TaskStatus::Stopped))
        );
    }
    assert_eq!(world.task(&task).await.status, Some(TaskStatus::Stopped));
}

async fn popper_intent(
    world: &World,
    popper: &clearml_intake::Popper<clearml_intake::ApiQueueServer, crate::world::Memory>,
    task: &clearml_task_model::TaskId,
) -> clearml_intake::Intent {
    use clearml_intake::{ApiQueueServer, Journal, QueueServer};
    let seen = ApiQueueServer::new(world.client.clone())
        .look(task)
        .await
        .unwrap()
        .unwrap();
    popper
        .journal()
        .begin(task, &world.queue, &seen.as_before())
        .unwrap()
}

#[tokio::test]
async fn a_claimed_task_goes_back_to_the_head_and_can_be_pulled_again() {
    let world = world().await;
    let (first, second) = (world.enqueued("first").await, world.enqueued("second").await);
    let popper = world.popper("w:0");
    let Outcome::Ours(intent) = popper.acquire(&world.queue, &first).await.unwrap() else {
        panic!("not ours")
    };
    let outcome = popper.give_back(intent, Phase::Claimed).await.unwrap();
    assert!(matches!(outcome, Outcome::PutBack(_)), "{outcome:?}");
    assert_eq!(world.waiting().await, [first.clone(), second]);
    assert_eq!(world.task(&first).await.status, Some(TaskStatus::Queued));
    let outcome = world
        .popper("other:0")
        .acquire(&world.queue, &first)
        .await
        .unwrap();
    assert_claimed(&world, outcome).await;
}

#[tokio::test]
async fn a_crash_while_giving_back_does_not_run_the_task_twice() {
    let world = world().await;
    let task = world.enqueued("only").await;
    let popper = world.popper("w:0");
    let Outcome::Ours(intent) = popper.acquire(&world.queue, &task).await.unwrap() else {
        panic!("not ours")
    };
    world
        .client
        .tasks_enqueue(&task, &world.queue, &StatusChange::default().force())
        .await
        .unwrap();
    let outcome = popper.recover(intent.clone(), Phase::Claimed).await.unwrap();
    assert_eq!(outcome, Outcome::NotOurs(intent, Why::InQueue));
    assert_eq!(world.waiting().await, [task]);
}

#[tokio::test]
async fn a_full_disk_puts_the_task_back() {
    for phase in [Phase::Popping, Phase::Popped, Phase::Claimed] {
        let world = world().await;
        let task = world.enqueued("only").await;
        let popper = world.popper("w:0");
        *popper.journal().fail_at.borrow_mut() = Some(phase);
        let error = popper.acquire(&world.queue, &task).await.unwrap_err();
        assert!(matches!(error, PopError::Journal { .. }), "{phase:?}: {error}");
        assert_eq!(world.waiting().await, std::slice::from_ref(&task), "{phase:?}");
        assert_eq!(
            world.task(&task).await.status,
            Some(TaskStatus::Queued),
            "{phase:?}"
        );
        assert!(popper.journal().intents.borrow().is_empty(), "{phase:?}");
    }
}

#[tokio::test]
async fn a_task_whose_queue_was_deleted_is_stopped_with_a_reason() {
    let world = world().await;
    let task = world.enqueued("only").await;
    let popper = world.popper("w:0");
    let intent = popper_intent(&world, &popper, &task).await;
    world
        .client
        .queues_get_next_task(&world.queue, Some(&task))
        .await
        .unwrap()
        .unwrap();
    let delete = clearml_api_client::Call::new("queues.delete").body(json!({"queue": world.queue}));
    world.client.call::<serde_json::Value>(delete).await.unwrap();
    let outcome = popper.give_back(intent.clone(), Phase::Popped).await.unwrap();
    assert_eq!(
        outcome,
        Outcome::NotOurs(intent, Why::Status(TaskStatus::Stopped))
    );
    assert_eq!(world.task(&task).await.status, Some(TaskStatus::Stopped));
}

#[tokio::test]
async fn a_deleted_task_does_not_block_its_queue() {
    let world = world().await;
    let (first, second) = (world.enqueued("first").await, world.enqueued("second").await);
    let popper = world.popper("w:0");
    let ghost = clearml_task_model::TaskId::new(clearml_support::id::hex32());
    world.client.queues_add_task(&world.queue, &ghost).await.unwrap();
    world
        .client
        .queues_move_task_to_front(&world.queue, &ghost)
        .await
        .unwrap();
    let outcome = popper.acquire(&world.queue, &ghost).await.unwrap();
    assert!(matches!(&outcome, Outcome::NotOurs(_, Why::Gone)), "{outcome:?}");
    assert_eq!(world.waiting().await, [first, second]);
}
