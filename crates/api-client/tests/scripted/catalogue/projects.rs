//! `projects.*` and `models.*`.

use clearml_api_client::{
    MetadataItem, ModelFields, ModelId, ModelsAction, ProjectFields, Selection, TagsOf,
};
use clearml_task_model::ProjectId;
use serde_json::json;

use super::Scene;

#[tokio::test]
async fn projects_are_created_changed_and_deleted() {
    let scene = Scene::new().await;
    let client = &scene.client;
    let project = ProjectId::new("p");
    let about = || json!({"project": "p"});
    let fields = ProjectFields {
        description: Some("d".into()),
        ..ProjectFields::named("A/B")
    };
    let created = scene
        .creating(
            "projects.create",
            json!({"name": "A/B", "description": "d"}),
            json!({"id": "p"}),
            || client.projects_create(&fields),
        )
        .await;
    assert_eq!(created, project);
    let sent = json!({"project": "p", "name": "A/B", "description": "d"});
    scene
        .safe("projects.update", sent, json!({"updated": 1}), || {
            client.projects_update(&project, &fields)
        })
        .await;
    let reply = || json!({"project": {"id": "p", "name": "A/B", "basename": "B"}});
    let found = scene
        .safe("projects.get_by_id", about(), reply(), || {
            client.projects_get_by_id(&project)
        })
        .await;
    assert_eq!(found.extra["basename"], "B");
    scene
        .safe("projects.validate_delete", about(), json!({"tasks": 2}), || {
            client.projects_validate_delete(&project)
        })
        .await;
    let sent = json!({"project": "p", "force": true, "delete_contents": false});
    let reply = json!({"deleted": 1, "disassociated_tasks": 3, "urls": null});
    let deleted = scene
        .safe("projects.delete", sent, reply, || {
            client.projects_delete(&project, true, false)
        })
        .await;
    assert_eq!(deleted.disassociated_tasks, 3);
    scene
        .safe(
            "projects.move",
            json!({"project": "p", "new_location": "C"}),
            json!({"moved": 1}),
            || client.projects_move(&project, "C"),
        )
        .await;
    let into = ProjectId::new("p2");
    let sent = json!({"project": "p", "destination_project": "p2"});
    scene
        .safe("projects.merge", sent, json!({"moved_entities": 1}), || {
            client.projects_merge(&project, &into)
        })
        .await;
    let query = Selection::default().page(0, 10);
    scene
        .safe(
            "projects.get_all_ex",
            json!({"page": 0, "page_size": 10}),
            json!({"projects": []}),
            || client.projects_get_all_ex(&query),
        )
        .await;
}

#[tokio::test]
async fn projects_tell_what_is_in_them() {
    let scene = Scene::new().await;
    let client = &scene.client;
    let projects = [ProjectId::new("p")];
    for (of, name) in [
        (TagsOf::Projects, "projects.get_project_tags"),
        (TagsOf::Tasks, "projects.get_task_tags"),
        (TagsOf::Models, "projects.get_model_tags"),
    ] {
        let sent = json!({"include_system": true, "projects": ["p"]});
        let tags = scene
            .safe(name, sent, json!({"tags": ["a"], "system_tags": null}), || {
                client.projects_get_tags(of, &projects, true)
            })
            .await;
        assert_eq!((tags.tags.len(), tags.system_tags.len()), (1, 0));
    }
    let reply = json!({"metrics": [{"metric": "loss", "variant": "train", "metric_hash": "h"}]});
    let metrics = scene
        .safe(
            "projects.get_unique_metric_variants",
            json!({"project": "p"}),
            reply,
            || client.projects_get_unique_metric_variants(Some(&projects[0])),
        )
        .await;
    assert_eq!(metrics[0].variant, "train");
    let reply = json!({"parameters": [{"section": "Args", "name": "lr"}], "total": 1});
    let parameters = scene
        .safe(
            "projects.get_hyper_parameters",
            json!({"project": "p"}),
            reply,
            || client.projects_get_hyper_parameters(&projects[0]),
        )
        .await;
    assert_eq!(parameters[0].name, "lr");
    let sent = json!({"projects": ["p"], "section": "Args", "name": "lr"});
    let values = scene
        .safe(
            "projects.get_hyperparam_values",
            sent,
            json!({"values": ["1"], "total": 1}),
            || client.projects_get_hyperparam_values(&projects, "Args", "lr"),
        )
        .await;
    assert_eq!(values, ["1"]);
    let sent = || json!({"projects": ["p"]});
    let parents = scene
        .safe(
            "projects.get_task_parents",
            sent(),
            json!({"parents": [{"id": "t", "name": "n"}]}),
            || client.projects_get_task_parents(&projects),
        )
        .await;
    assert_eq!(parents[0].name.as_deref(), Some("n"));
    scene
        .safe(
            "projects.get_user_names",
            sent(),
            json!({"users": [{"id": "u"}]}),
            || client.projects_get_user_names(&projects),
        )
        .await;
    scene
        .safe(
            "projects.get_model_metadata_keys",
            json!({"project": "p"}),
            json!({"keys": ["k"]}),
            || client.projects_get_model_metadata_keys(&projects[0]),
        )
        .await;
    let sent = json!({"project": "p", "key": "k"});
    let values = scene
        .safe(
            "projects.get_model_metadata_values",
            sent,
            json!({"values": ["v"], "total": 1}),
            || client.projects_get_model_metadata_values(&projects[0], "k"),
        )
        .await;
    assert_eq!(values, ["v"]);
}

#[tokio::test]
async fn models_are_created_changed_and_deleted() {
    let scene = Scene::new().await;
    let client = &scene.client;
    let model = ModelId::new("m");
    let fields = ModelFields {
        name: Some("abc".into()),
        uri: Some("file:///m".into()),
        ready: Some(false),
        ..ModelFields::default()
    };
    let sent = || json!({"name": "abc", "uri": "file:///m", "ready": false});
    let created = scene
        .creating(
            "models.create",
            sent(),
            json!({"id": "m", "created": true}),
            || client.models_create(&fields),
        )
        .await;
    assert_eq!(created, model);
    let mut edited = sent();
    edited["model"] = json!("m");
    for name in ["models.edit", "models.update"] {
        scene
            .safe(name, edited.clone(), json!({"updated": 1}), || async {
                if name == "models.edit" {
                    client.models_edit(&model, &fields).await
                } else {
                    client.models_update(&model, &fields).await
                }
            })
            .await;
    }
    let reply =
        json!({"model": {"id": "m", "ready": true, "tags": null, "metadata": [], "labels": {"cat": 1}}});
    let found = scene
        .safe("models.get_by_id", json!({"model": "m"}), reply, || {
            client.models_get_by_id(&model)
        })
        .await;
    assert_eq!(
        (found.ready, &found.extra["labels"]["cat"]),
        (Some(true), &json!(1))
    );
    let query = Selection::default()
        .filter("task", json!(["t"]))
        .order(["created"]);
    let sent = || json!({"task": ["t"], "order_by": ["created"]});
    scene
        .safe("models.get_all", sent(), json!({"models": [{"id": "m"}]}), || {
            client.models_get_all(&query)
        })
        .await;
    scene
        .safe(
            "models.get_all_ex",
            sent(),
            json!({"models": [{"id": "m"}]}),
            || client.models_get_all_ex(&query),
        )
        .await;
    scene
        .safe(
            "models.set_ready",
            json!({"model": "m", "publish_task": true}),
            json!({"updated": 1}),
            || client.models_set_ready(&model, true),
        )
        .await;
    let items = [MetadataItem {
        key: "k".into(),
        value: Some("v".into()),
        kind: Some("str".into()),
    }];
    let sent = json!({"model": "m", "metadata": [{"key": "k", "type": "str", "value": "v"}], "replace_metadata": true});
    scene
        .safe(
            "models.add_or_update_metadata",
            sent,
            json!({"updated": 1}),
            || client.models_add_or_update_metadata(&model, &items, true),
        )
        .await;
    scene
        .safe(
            "models.delete_metadata",
            json!({"model": "m", "keys": ["k"]}),
            json!({"updated": 1}),
            || client.models_delete_metadata(&model, &["k"]),
        )
        .await;
    let deleted = scene
        .safe(
            "models.delete",
            json!({"model": "m", "force": false}),
            json!({"deleted": true, "url": "u"}),
            || client.models_delete(&model, false),
        )
        .await;
    assert_eq!(deleted.url.as_deref(), Some("u"));
}

#[tokio::test]
async fn many_models_are_one_call() {
    let scene = Scene::new().await;
    let client = &scene.client;
    let ids = [ModelId::new("m")];
    for (action, name) in [
        (ModelsAction::Archive, "models.archive_many"),
        (ModelsAction::Unarchive, "models.unarchive_many"),
        (ModelsAction::Delete, "models.delete_many"),
        (ModelsAction::Publish, "models.publish_many"),
    ] {
        let outcome = scene
            .safe(
                name,
                json!({"ids": ["m"]}),
                json!({"succeeded": [{"id": "m"}], "failed": []}),
                || client.models_many(action, &ids),
            )
            .await;
        assert_eq!(outcome.succeeded.len(), 1);
    }
    let project = ProjectId::new("p");
    scene
        .safe(
            "models.move",
            json!({"ids": ["m"], "project": "p"}),
            json!({}),
            || client.models_move(&ids, &project),
        )
        .await;
    let sent = json!({"ids": ["m"], "add_tags": [], "remove_tags": ["x"]});
    scene
        .safe("models.update_tags", sent, json!({"updated": 1}), || {
            client.models_update_tags(&ids, &[], &["x"])
        })
        .await;
    let frameworks = scene
        .safe(
            "models.get_frameworks",
            json!({}),
            json!({"frameworks": ["PyTorch"]}),
            || client.models_get_frameworks(&[]),
        )
        .await;
    assert_eq!(frameworks, ["PyTorch"]);
}
