//! `queues.*` and `workers.*`.

use std::time::Duration;

use clearml_api_client::{
    MetadataItem, Move, QueueFields, QueuesQuery, RuntimeProperty, Span, StatsItem, WorkersQuery,
};
use clearml_task_model::{QueueId, TaskId, WorkerId};
use serde_json::{Value, json};

use super::Scene;

#[tokio::test]
async fn queues_are_managed() {
    let scene = Scene::new().await;
    let client = &scene.client;
    let queue = QueueId::new("q");
    let about = || json!({"queue": "q"});
    let created = scene
        .creating(
            "queues.create",
            json!({"name": "abc", "system_tags": ["s"]}),
            json!({"id": "q"}),
            || client.queues_create("abc", &["s"]),
        )
        .await;
    assert_eq!(created, queue);
    let fields = QueueFields {
        display_name: Some("shown".into()),
        ..QueueFields::default()
    };
    scene
        .safe(
            "queues.update",
            json!({"queue": "q", "display_name": "shown"}),
            json!({"updated": 1}),
            || client.queues_update(&queue, &fields),
        )
        .await;
    scene
        .safe(
            "queues.delete",
            json!({"queue": "q", "force": true}),
            json!({"deleted": 1}),
            || client.queues_delete(&queue, true),
        )
        .await;
    scene
        .safe(
            "queues.clear_queue",
            about(),
            json!({"removed_tasks": ["t"]}),
            || client.queues_clear_queue(&queue),
        )
        .await;
    let query = QueuesQuery::default();
    let listed = scene
        .safe(
            "queues.get_all_ex",
            json!({}),
            json!({"queues": [{"id": "q", "workers": []}]}),
            || client.queues_get_all_ex(&query),
        )
        .await;
    assert_eq!(listed[0]["id"], "q");
    let none = scene
        .safe("queues.peek_task", about(), json!({"task": null}), || {
            client.queues_peek_task(&queue)
        })
        .await;
    assert_eq!(none, None);
    let count = scene
        .safe("queues.get_num_entries", about(), json!({"num": 4}), || {
            client.queues_get_num_entries(&queue)
        })
        .await;
    assert_eq!(count, 4);
    let items = [MetadataItem {
        key: "k".into(),
        value: Some("v".into()),
        kind: None,
    }];
    let sent = json!({"queue": "q", "metadata": [{"key": "k", "value": "v"}], "replace_metadata": false});
    scene
        .safe(
            "queues.add_or_update_metadata",
            sent,
            json!({"updated": 1}),
            || client.queues_add_or_update_metadata(&queue, &items, false),
        )
        .await;
    scene
        .safe(
            "queues.delete_metadata",
            json!({"queue": "q", "keys": ["k"]}),
            json!({"updated": 1}),
            || client.queues_delete_metadata(&queue, &["k"]),
        )
        .await;
    let reply = json!({"queues": [{"queue": "q", "dates": [1, 2], "avg_waiting_times": [0.5, null], "queue_lengths": [1, 0]}]});
    let queues = [queue.clone()];
    let sent = json!({"from_date": 1.0, "to_date": 9.0, "interval": 60, "queue_ids": ["q"]});
    let metrics = scene
        .safe("queues.get_queue_metrics", sent, reply, || {
            client.queues_get_queue_metrics(&queues, 1.0, 9.0, Duration::from_secs(60))
        })
        .await;
    assert_eq!(metrics[0].avg_waiting_times, [Some(0.5), None]);
}

#[tokio::test]
async fn tasks_move_in_their_queue() {
    let scene = Scene::new().await;
    let client = &scene.client;
    let (queue, task) = (QueueId::new("q"), TaskId::new("t"));
    let reply = || json!({"position": 2});
    for (place, name) in [(Move::Forward(3), "forward"), (Move::Backward(3), "backward")] {
        let sent = json!({"queue": "q", "task": "t", "count": 3});
        let position = scene
            .creating(&format!("queues.move_task_{name}"), sent, reply(), || {
                client.queues_move_task(&queue, &task, place)
            })
            .await;
        assert_eq!(position, 2);
    }
    let sent = || json!({"queue": "q", "task": "t"});
    for (place, name) in [(Move::ToFront, "to_front"), (Move::ToBack, "to_back")] {
        scene
            .safe(&format!("queues.move_task_{name}"), sent(), reply(), || {
                client.queues_move_task(&queue, &task, place)
            })
            .await;
    }
    for name in ["add_task", "remove_task"] {
        scene
            .safe(&format!("queues.{name}"), sent(), json!({}), || async {
                if name == "add_task" {
                    client.queues_add_task(&queue, &task).await
                } else {
                    client.queues_remove_task(&queue, &task).await
                }
            })
            .await;
    }
}

#[tokio::test]
async fn a_popped_task_comes_with_its_owner_if_asked() {
    let scene = Scene::new().await;
    let queue = QueueId::new("q");
    let reply = json!({"entry": {"task": "t"}, "task_info": {"user": "u", "company": "c", "new": 1}});
    let sent = json!({"queue": "q", "get_task_info": true});
    let popped = scene
        .once("queues.get_next_task", sent, reply, || {
            scene.client.queues_get_next_task_and_owner(&queue, None)
        })
        .await;
    let owner = popped.task_info.unwrap();
    assert_eq!(
        (owner.user.unwrap().as_str(), owner.company.as_deref()),
        ("u", Some("c"))
    );
    assert_eq!(popped.entry.unwrap().task.as_str(), "t");
}

#[tokio::test]
async fn workers_are_counted_and_measured() {
    let scene = Scene::new().await;
    let client = &scene.client;
    let query = WorkersQuery {
        last_seen: Some(0),
        ..WorkersQuery::default()
    };
    let count = scene
        .safe(
            "workers.get_count",
            json!({"last_seen": 0}),
            json!({"count": 3}),
            || client.workers_get_count(&query),
        )
        .await;
    assert_eq!(count, 3);
    scene
        .safe(
            "workers.get_all",
            json!({"last_seen": 0}),
            json!({"workers": [{"id": "w", "queues": null}]}),
            || client.workers_get_all(&query),
        )
        .await;
    let workers = [WorkerId::new("w")];
    scene
        .safe(
            "workers.get_metric_keys",
            json!({"worker_ids": ["w"]}),
            json!({"categories": [{"name": "cpu"}]}),
            || client.workers_get_metric_keys(&workers),
        )
        .await;
    let span = Span {
        from: 1.0,
        to: 9.0,
        step: Duration::from_secs(60),
    };
    let items = [StatsItem {
        key: "cpu_usage".into(),
        aggregation: "max".into(),
    }];
    let sent = json!({"items": [{"key": "cpu_usage", "aggregation": "max"}], "from_date": 1.0, "to_date": 9.0,
                      "interval": 60, "split_by_variant": false});
    let stats = scene
        .safe(
            "workers.get_stats",
            sent,
            json!({"workers": [{"worker": "w", "metrics": []}]}),
            || client.workers_get_stats(&[], &items, span, false),
        )
        .await;
    assert_eq!(stats[0].worker, "w");
    let sent = json!({"from_date": 1.0, "to_date": 9.0, "interval": 60});
    let reply = json!({"total": {"dates": [1], "counts": [2]}, "active": {"dates": [1], "counts": [1]}});
    let activity = scene
        .safe("workers.get_activity_report", sent, reply, || {
            client.workers_get_activity_report(span)
        })
        .await;
    assert_eq!(
        (activity.total.counts, activity.active.counts),
        (vec![2.0], vec![1.0])
    );
    scene
        .safe(
            "workers.register",
            json!({"worker": "w", "queues": []}),
            json!({}),
            || client.workers_register(&workers[0], &[], None),
        )
        .await;
    scene
        .safe("workers.unregister", json!({"worker": "w"}), json!({}), || {
            client.workers_unregister(&workers[0])
        })
        .await;
}

#[tokio::test]
async fn workers_carry_runtime_properties() {
    let scene = Scene::new().await;
    let client = &scene.client;
    let worker = WorkerId::new("w");
    let reply = json!({"runtime_properties": [{"key": "force", "value": "on", "expiry": 60, "new": 1}]});
    let found = scene
        .safe(
            "workers.get_runtime_properties",
            json!({"worker": "w"}),
            reply,
            || client.workers_get_runtime_properties(&worker),
        )
        .await;
    assert_eq!(
        (found[0].value.as_deref(), found[0].expiry),
        (Some("on"), Some(60))
    );
    let properties = [RuntimeProperty {
        key: "force".into(),
        value: Some("off".into()),
        ..Default::default()
    }];
    let sent: Value = json!({"worker": "w", "runtime_properties": [{"key": "force", "value": "off"}]});
    scene
        .safe("workers.set_runtime_properties", sent, json!({}), || {
            client.workers_set_runtime_properties(&worker, &properties)
        })
        .await;
}
