//! `tasks.*`.

use clearml_api_client::{
    Artifact, ArtifactMode, ConfigurationItem, DeleteTask, EnqueueTo, HyperParamKey, ModelId, ModelUse,
    ReportFields, Selection, StatusChange, TasksAction,
};
use clearml_task_model::{ProjectId, QueueId, TaskId};
use serde_json::{Map, json};

use super::Scene;

#[tokio::test]
async fn tasks_end_in_every_way_and_wait_in_queues_by_name() {
    let scene = Scene::new().await;
    let client = &scene.client;
    let (task, why) = (TaskId::new("t"), StatusChange::reason("r"));
    let sent = json!({"task": "t", "status_reason": "r"});
    let reply = || json!({"updated": 1, "fields": {"status": "x"}});
    for endpoint in ["started", "stopped", "failed", "completed", "stop", "close"] {
        let name = format!("tasks.{endpoint}");
        let updated = scene
            .safe(&name, sent.clone(), reply(), || async {
                match endpoint {
                    "started" => client.tasks_started(&task, &why).await,
                    "stopped" => client.tasks_stopped(&task, &why).await,
                    "failed" => client.tasks_failed(&task, &why).await,
                    "completed" => client.tasks_completed(&task, &why).await,
                    "stop" => client.tasks_stop(&task, &why).await,
                    _ => client.tasks_close(&task, &why).await,
                }
            })
            .await;
        assert_eq!(updated.updated, 1);
    }
    let sent = json!({"task": "t", "publish_model": false, "status_reason": "r"});
    scene
        .safe("tasks.publish", sent, reply(), || {
            client.tasks_publish(&task, &why, false)
        })
        .await;
    scene
        .once("tasks.ping", json!({"task": "t"}), json!({}), || {
            client.tasks_ping(&task)
        })
        .await;
    let to = EnqueueTo {
        queue_name: Some("gpu".into()),
        verify_watched_queue: true,
        ..EnqueueTo::default()
    };
    let sent = json!({"task": "t", "queue_name": "gpu", "verify_watched_queue": true, "status_reason": "r"});
    let reply = json!({"queued": 1, "updated": 1, "fields": null, "queue_watched": false});
    let queued = scene
        .safe("tasks.enqueue", sent, reply, || {
            client.tasks_enqueue_to(&task, &to, &why)
        })
        .await;
    assert_eq!(
        (queued.extra["queue_watched"].as_bool(), queued.fields.len()),
        (Some(false), 0)
    );
}

#[tokio::test]
async fn tasks_are_created_copied_reset_and_deleted() {
    let scene = Scene::new().await;
    let client = &scene.client;
    let task = TaskId::new("t");
    let fields = || json!({"name": "abc", "type": "training"});
    let created = scene
        .creating("tasks.create", fields(), json!({"id": "t9"}), || {
            client.tasks_create(fields())
        })
        .await;
    assert_eq!(created.as_str(), "t9");
    scene
        .safe("tasks.validate", fields(), json!({}), || {
            client.tasks_validate(fields())
        })
        .await;
    let options = clearml_api_client::CloneOptions {
        name: Some("copy".into()),
        extra: Map::from_iter([("new_project_name".to_owned(), json!("A/B"))]),
        ..Default::default()
    };
    let sent = json!({"task": "t", "new_task_name": "copy", "new_project_name": "A/B"});
    scene
        .creating("tasks.clone", sent, json!({"id": "t2"}), || {
            client.tasks_clone(&task, &options)
        })
        .await;
    let sent = json!({"task": "t", "force": true});
    scene
        .safe(
            "tasks.reset",
            sent.clone(),
            json!({"updated": 1, "dequeued": {}}),
            || client.tasks_reset(&task, true),
        )
        .await;
    let how = DeleteTask {
        force: true,
        ..DeleteTask::default()
    };
    let reply = json!({"deleted": true, "updated_children": 2, "urls": {"artifact_urls": ["u"]}, "new": 1});
    let deleted = scene
        .safe("tasks.delete", sent, reply, || client.tasks_delete(&task, &how))
        .await;
    assert_eq!((deleted.updated_children, &deleted.extra["new"]), (2, &json!(1)));
    let sent = json!({"task": "t", "requirements": {"pip": "x"}});
    scene
        .safe("tasks.set_requirements", sent, json!({"updated": 1}), || {
            client.tasks_set_requirements(&task, json!({"pip": "x"}))
        })
        .await;
    let sent = json!({"task": "t", "name": "new"});
    scene
        .safe("tasks.update", sent.clone(), json!({"updated": 1}), || {
            client.tasks_update(&task, json!({"name": "new"}))
        })
        .await;
    scene
        .safe("tasks.edit", sent, json!({"updated": 1}), || {
            client.tasks_edit(&task, false, json!({"name": "new"}))
        })
        .await;
}

#[tokio::test]
async fn tasks_have_parameters_and_configuration() {
    let scene = Scene::new().await;
    let client = &scene.client;
    let tasks = [TaskId::new("t")];
    let task = &tasks[0];
    let reply =
        json!({"params": [{"task": "t", "hyperparams": [{"section": "Args", "name": "a", "value": null}]}]});
    let params = scene
        .safe("tasks.get_hyper_params", json!({"tasks": ["t"]}), reply, || {
            client.tasks_get_hyper_params(&tasks)
        })
        .await;
    assert_eq!(params[0].hyperparams[0].value, "");
    let keys = [HyperParamKey {
        section: "Args".into(),
        name: None,
    }];
    let sent = json!({"task": "t", "hyperparams": [{"section": "Args"}], "force": false});
    let deleted = scene
        .safe("tasks.delete_hyper_params", sent, json!({"deleted": 3}), || {
            client.tasks_delete_hyper_params(task, &keys, false)
        })
        .await;
    assert_eq!(deleted, 3);
    let reply = json!({"configurations": [{"task": "t", "configuration": [{"name": "c", "value": "v", "type": "json"}]}]});
    let sent = json!({"tasks": ["t"], "names": ["c"]});
    let configurations = scene
        .safe("tasks.get_configurations", sent, reply, || {
            client.tasks_get_configurations(&tasks, &["c"])
        })
        .await;
    assert_eq!(configurations[0].configuration[0].kind.as_deref(), Some("json"));
    let reply = json!({"configurations": [{"task": "t", "names": ["c"]}]});
    let names = scene
        .safe(
            "tasks.get_configuration_names",
            json!({"tasks": ["t"]}),
            reply,
            || client.tasks_get_configuration_names(&tasks),
        )
        .await;
    assert_eq!(names[0].names, ["c"]);
    let items = [ConfigurationItem {
        name: "c".into(),
        value: "v".into(),
        ..Default::default()
    }];
    let sent = json!({
        "task": "t", "configuration": [{"name": "c", "value": "v"}], "replace_configuration": true, "force": true,
    });
    scene
        .safe("tasks.edit_configuration", sent, json!({"updated": 1}), || {
            client.tasks_edit_configuration(task, &items, true, true)
        })
        .await;
    let sent = json!({"task": "t", "configuration": ["c"], "force": false});
    scene
        .safe("tasks.delete_configuration", sent, json!({"deleted": 1}), || {
            client.tasks_delete_configuration(task, &["c"], false)
        })
        .await;
}

#[tokio::test]
async fn tasks_have_artifacts_and_models() {
    let scene = Scene::new().await;
    let client = &scene.client;
    let task = TaskId::new("t");
    let artifact: Artifact = serde_json::from_value(
        json!({"key": "k", "type": "custom", "uri": "u", "type_data": {"preview": "p"}}),
    )
    .unwrap();
    let sent = json!({"task": "t", "force": true, "artifacts": [
        {"key": "k", "type": "custom", "mode": "output", "uri": "u", "type_data": {"preview": "p"}}]});
    let artifacts = [artifact];
    scene
        .safe(
            "tasks.add_or_update_artifacts",
            sent,
            json!({"updated": 1}),
            || client.tasks_add_or_update_artifacts(&task, &artifacts),
        )
        .await;
    let sent = json!({"task": "t", "force": true, "artifacts": [{"key": "k", "mode": "input"}]});
    scene
        .safe("tasks.delete_artifacts", sent, json!({"deleted": 1}), || {
            client.tasks_delete_artifacts(&task, &[("k", ArtifactMode::Input)])
        })
        .await;
    let usage = [ModelUse {
        name: "weights".into(),
        mode: ArtifactMode::Output,
    }];
    let model = ModelId::new("m");
    let sent = json!({"task": "t", "model": "m", "name": "weights", "type": "output", "iteration": 5});
    scene
        .safe("tasks.add_or_update_model", sent, json!({"updated": 1}), || {
            client.tasks_add_or_update_model(&task, &model, &usage[0], Some(5))
        })
        .await;
    let sent = json!({"task": "t", "models": [{"name": "weights", "type": "output"}]});
    scene
        .safe("tasks.delete_models", sent, json!({"updated": 1}), || {
            client.tasks_delete_models(&task, &usage)
        })
        .await;
}

#[tokio::test]
async fn many_tasks_are_one_call() {
    let scene = Scene::new().await;
    let client = &scene.client;
    let ids = [TaskId::new("a"), TaskId::new("b")];
    for (action, name) in [
        (TasksAction::Stop, "stop_many"),
        (TasksAction::Publish, "publish_many"),
        (TasksAction::Enqueue, "enqueue_many"),
        (TasksAction::Dequeue, "dequeue_many"),
        (TasksAction::Reset, "reset_many"),
        (TasksAction::Delete, "delete_many"),
        (TasksAction::Archive, "archive_many"),
        (TasksAction::Unarchive, "unarchive_many"),
    ] {
        let reply = json!({
            "succeeded": [{"id": "a", "queued": 1}],
            "failed": [{"id": "b", "error": {"codes": [400, 110], "msg": "no", "data": {}}}],
        });
        let options = || Map::from_iter([("force".to_owned(), json!(true))]);
        let outcome = scene
            .safe(
                &format!("tasks.{name}"),
                json!({"ids": ["a", "b"], "force": true}),
                reply,
                || client.tasks_many(action, &ids, options()),
            )
            .await;
        assert_eq!(outcome.succeeded[0].extra["queued"], 1);
        assert_eq!(outcome.failed[0].code(), Some((400, 110)));
    }
    let archived = scene
        .safe(
            "tasks.archive",
            json!({"tasks": ["a", "b"]}),
            json!({"archived": 2}),
            || client.tasks_archive(&ids),
        )
        .await;
    assert_eq!(archived, 2);
    let project = ProjectId::new("p");
    scene
        .safe(
            "tasks.move",
            json!({"ids": ["a", "b"], "project": "p"}),
            json!({}),
            || client.tasks_move(&ids, &project),
        )
        .await;
    let moved = scene
        .safe(
            "tasks.move",
            json!({"ids": ["a", "b"], "project_name": "A/B"}),
            json!({"project_id": "p"}),
            || client.tasks_move_to(&ids, "A/B"),
        )
        .await;
    assert_eq!(moved, project);
    let sent = json!({"ids": ["a", "b"], "add_tags": ["x"], "remove_tags": []});
    scene
        .safe("tasks.update_tags", sent, json!({"updated": 2}), || {
            client.tasks_update_tags(&ids, &["x"], &[])
        })
        .await;
    for (public, name) in [(true, "tasks.make_public"), (false, "tasks.make_private")] {
        scene
            .safe(name, json!({"ids": ["a", "b"]}), json!({"updated": 2}), || {
                client.tasks_set_public(&ids, public)
            })
            .await;
    }
    let updates = [(
        ids[0].clone(),
        Map::from_iter([("name".to_owned(), json!("new"))]),
    )];
    let updated = scene
        .safe(
            "tasks.update_batch",
            json!({"name": "new", "task": "a"}),
            json!({"updated": 1}),
            || client.tasks_update_batch(&updates),
        )
        .await;
    assert_eq!(updated, 1);
}

#[tokio::test]
async fn tasks_are_listed_with_names_instead_of_ids() {
    let scene = Scene::new().await;
    let client = &scene.client;
    let query = Selection::ids(["t"]).only(["id", "project.name"]);
    let sent = json!({"id": ["t"], "only_fields": ["id", "project.name"]});
    let reply = || json!({"tasks": [{"id": "t", "project": {"id": "p", "name": "n"}}]});
    let tasks = scene
        .safe("tasks.get_all_ex", sent.clone(), reply(), || {
            client.tasks_get_all_ex(&query)
        })
        .await;
    assert_eq!(tasks[0]["project"]["name"], "n");
    let task = TaskId::new("t");
    let found = scene
        .safe("tasks.get_by_id_ex", sent, reply(), || {
            client.tasks_get_by_id_ex(&task, &["id", "project.name"])
        })
        .await;
    assert_eq!(found["id"], "t");
    let types = scene
        .safe(
            "tasks.get_types",
            json!({}),
            json!({"types": ["training"]}),
            || client.tasks_get_types(&[]),
        )
        .await;
    assert_eq!(types, ["training"]);
}

#[tokio::test]
async fn reports_and_pipelines_are_tasks_of_a_kind() {
    let scene = Scene::new().await;
    let client = &scene.client;
    let report = TaskId::new("t");
    let fields = ReportFields {
        name: Some("abc".into()),
        report: Some("# Text".into()),
        ..ReportFields::default()
    };
    let sent = json!({"name": "abc", "report": "# Text"});
    scene
        .creating(
            "reports.create",
            sent,
            json!({"id": "t", "project_id": "p"}),
            || client.reports_create(&fields),
        )
        .await;
    let sent = json!({"task": "t", "name": "abc", "report": "# Text"});
    scene
        .safe("reports.update", sent, json!({"updated": 1}), || {
            client.reports_update(&report, &fields)
        })
        .await;
    let about = || json!({"task": "t"});
    scene
        .safe("reports.publish", about(), json!({"updated": 1}), || {
            client.reports_publish(&report)
        })
        .await;
    for (archived, name) in [(true, "reports.archive"), (false, "reports.unarchive")] {
        scene
            .safe(name, about(), json!({"archived": 1}), || {
                client.reports_set_archived(&report, archived)
            })
            .await;
    }
    let project = ProjectId::new("p");
    scene
        .safe(
            "reports.move",
            json!({"task": "t", "project": "p"}),
            json!({"project_id": "p2"}),
            || client.reports_move(&report, &project),
        )
        .await;
    scene
        .safe("reports.delete", about(), json!({"deleted": 1}), || {
            client.reports_delete(&report)
        })
        .await;
    let query = Selection::default();
    scene
        .safe("reports.get_all_ex", json!({}), json!({"tasks": []}), || {
            client.reports_get_all_ex(&query)
        })
        .await;
    let queue = QueueId::new("q");
    let sent = json!({"task": "t", "queue": "q", "args": [{"name": "lr", "value": "0.1"}]});
    let started = scene
        .creating(
            "pipelines.start_pipeline",
            sent,
            json!({"pipeline": "t2", "enqueued": true}),
            || client.pipelines_start_pipeline(&report, &queue, &[("lr", "0.1")]),
        )
        .await;
    assert_eq!(started.pipeline.as_str(), "t2");
}
