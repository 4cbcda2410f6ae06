//! Services beyond the agent's own calls, against real state: projects, models, metrics, files, access
//! keys, other users, and following a task.

use std::time::Duration;

use clearml_api_client::{
    Artifact, ArtifactMode, Auth, Axis, Client, ConfigurationItem, DeleteTask, EnqueueTo, Event, EventsQuery,
    LogEvent, MetadataItem, ModelFields, ModelUse, ModelsAction, Move, ProjectFields, ProjectsQuery,
    QueueFields, Selection, TasksAction, exact,
};
use clearml_local_server::{Server, ServerOptions};
use clearml_task_model::{TaskStatus, UserId, WorkerId};
use serde_json::{Map, json};

use crate::{options, plain, world};

#[tokio::test]
async fn projects_hold_tasks_and_models() {
    let world = world().await;
    let client = &world.client;
    let fields = ProjectFields {
        description: Some("first".into()),
        ..ProjectFields::named("Alpha/Beta")
    };
    let project = client.projects_create(&fields).await.unwrap();
    assert!(
        client
            .projects_create(&fields)
            .await
            .unwrap_err()
            .is_code(400, 801)
    );
    let query = ProjectsQuery {
        name: Some(exact("Alpha/Beta")),
        only_fields: vec!["id".into()],
        ..Default::default()
    };
    let found = client.projects_get_all(&query).await.unwrap();
    assert_eq!(found[0].id.as_deref(), Some(project.as_str()));
    let change = ProjectFields {
        description: Some("second".into()),
        ..ProjectFields::default()
    };
    client.projects_update(&project, &change).await.unwrap();
    let read = client.projects_get_by_id(&project).await.unwrap();
    assert_eq!(
        (read.name.as_deref(), &read.extra["description"]),
        (Some("Alpha/Beta"), &json!("second"))
    );

    let task = world.draft().await;
    client
        .tasks_move(std::slice::from_ref(&task), &project)
        .await
        .unwrap();
    let fields = ModelFields {
        name: Some("weights".into()),
        uri: Some("file:///weights".into()),
        project: Some(project.clone()),
        task: Some(task.clone()),
        ready: Some(false),
        ..ModelFields::default()
    };
    let model = client.models_create(&fields).await.unwrap();
    let change = ModelFields {
        comment: Some("better".into()),
        ..ModelFields::default()
    };
    client.models_edit(&model, &change).await.unwrap();
    let items = [MetadataItem {
        key: "k".into(),
        kind: Some("str".into()),
        value: Some("v".into()),
    }];
    client
        .models_add_or_update_metadata(&model, &items, false)
        .await
        .unwrap();
    client.models_set_ready(&model, false).await.unwrap();
    assert!(
        client
            .models_set_ready(&model, false)
            .await
            .unwrap_err()
            .is_code(400, 203)
    );
    let usage = ModelUse {
        name: "best".into(),
        mode: ArtifactMode::Output,
    };
    client
        .tasks_add_or_update_model(&task, &model, &usage, Some(7))
        .await
        .unwrap();
    let query = Selection::default()
        .filter("task", json!([task]))
        .order(["created"]);
    let models = client.models_get_all(&query).await.unwrap();
    assert_eq!((models.len(), models[0].ready), (1, Some(true)));
    let read = client.models_get_by_id(&model).await.unwrap();
    assert_eq!(
        (read.metadata["k"]["value"].as_str(), read.project.as_ref()),
        (Some("v"), Some(&project))
    );
    let outcome = client
        .models_many(ModelsAction::Archive, std::slice::from_ref(&model))
        .await
        .unwrap();
    assert_eq!(outcome.succeeded.len(), 1);
    client.models_delete(&model, true).await.unwrap();
    assert!(
        client
            .models_get_by_id(&model)
            .await
            .unwrap_err()
            .is_code(400, 201)
    );
    assert!(
        client
            .projects_delete(&project, false, false)
            .await
            .unwrap_err()
            .is_code(400, 402)
    );
    assert_eq!(
        client
            .projects_delete(&project, true, false)
            .await
            .unwrap()
            .disassociated_tasks,
        1
    );
}

#[tokio::test]
async fn metrics_come_back_as_curves() {
    let world = world().await;
    let client = &world.client;
    let task = world.draft().await;
    let points: Vec<_> = (0..6)
        .map(|iter| Event::scalar(&task, "loss", "train", iter, 1.0 / (iter + 1) as f64))
        .collect();
    assert_eq!(client.events_add_metrics(&points).await.unwrap().added, 6);
    let single = Event::scalar(&task, "Summary", "best", clearml_api_client::SINGLE_VALUE, 0.25);
    client.events_add(&single).await.unwrap();
    let curves = client
        .events_scalar_metrics_iter_histogram(&task, 2000, Axis::Iter)
        .await
        .unwrap();
    assert_eq!(curves["loss"]["train"].y.len(), 6);
    let tasks = std::slice::from_ref(&task);
    let single = client.events_get_task_single_value_metrics(tasks).await.unwrap();
    assert_eq!(single[0].values[0].value, Some(0.25));
    let names = client
        .events_get_scalar_metrics_and_variants(&task)
        .await
        .unwrap();
    assert_eq!(names["loss"], ["train"]);
    let mut query = EventsQuery {
        event_type: Some("training_stats_scalar".into()),
        batch_size: Some(4),
        ..Default::default()
    };
    let mut seen = 0;
    loop {
        let page = client.events_get_task_events(&task, &query).await.unwrap();
        if page.events.is_empty() {
            break;
        }
        seen += page.events.len();
        query.scroll_id = page.scroll_id;
    }
    assert_eq!(seen, 7);
    client.events_delete_for_task(&task, false).await.unwrap();
    assert!(
        client
            .events_scalar_metrics_iter_histogram(&task, 10, Axis::Iter)
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn tasks_have_configuration_artifacts_and_an_end() {
    let world = world().await;
    let client = &world.client;
    let task = world.draft().await;
    let tasks = std::slice::from_ref(&task);
    let item = ConfigurationItem {
        name: "c".into(),
        value: "text".into(),
        ..Default::default()
    };
    client
        .tasks_edit_configuration(&task, std::slice::from_ref(&item), false, false)
        .await
        .unwrap();
    let read = client.tasks_get_configurations(tasks, &[]).await.unwrap();
    assert_eq!(read[0].configuration, [item]);
    assert_eq!(
        client.tasks_get_configuration_names(tasks).await.unwrap()[0].names,
        ["c"]
    );
    client
        .tasks_delete_configuration(&task, &["c"], false)
        .await
        .unwrap();
    let artifact = Artifact {
        key: "data".into(),
        kind: "custom".into(),
        uri: Some("u".into()),
        ..Artifact::default()
    };
    client
        .tasks_add_or_update_artifacts(&task, &[artifact])
        .await
        .unwrap();
    client
        .tasks_delete_artifacts(&task, &[("data", ArtifactMode::Output)])
        .await
        .unwrap();
    client.tasks_update_tags(tasks, &["a"], &[]).await.unwrap();
    client
        .tasks_validate(json!({"name": "abc", "type": "training"}))
        .await
        .unwrap();
    let stop = client
        .tasks_many(TasksAction::Stop, tasks, Map::new())
        .await
        .unwrap();
    assert_eq!(
        stop.failed[0].code(),
        Some((400, 110)),
        "a draft cannot be stopped"
    );
    client.tasks_started(&task, &plain()).await.unwrap();
    client.tasks_completed(&task, &plain()).await.unwrap();
    client.tasks_publish(&task, &plain(), true).await.unwrap();
    assert_eq!(world.status(&task).await.0, TaskStatus::Published);
    let force = DeleteTask {
        force: true,
        ..DeleteTask::default()
    };
    client.tasks_delete(&task, &force).await.unwrap();
    assert!(client.tasks_get_by_id(&task).await.unwrap_err().is_code(400, 101));
}

#[tokio::test]
async fn queues_are_ordered_and_workers_counted() {
    let world = world().await;
    let client = &world.client;
    let (first, queue) = world.enqueued().await;
    let second = world.draft().await;
    let to = EnqueueTo {
        queue: Some(queue.clone()),
        verify_watched_queue: true,
        ..EnqueueTo::default()
    };
    let queued = client.tasks_enqueue_to(&second, &to, &plain()).await.unwrap();
    assert_eq!(queued.extra["queue_watched"], false);
    assert_eq!(client.queues_get_num_entries(&queue).await.unwrap(), 2);
    assert_eq!(
        client.queues_peek_task(&queue).await.unwrap(),
        Some(first.clone())
    );
    assert_eq!(
        client
            .queues_move_task(&queue, &first, Move::Backward(5))
            .await
            .unwrap(),
        1
    );
    assert_eq!(world.waiting(&queue).await, [second.clone(), first.clone()]);
    assert_eq!(
        client
            .queues_move_task(&queue, &first, Move::ToFront)
            .await
            .unwrap(),
        0
    );
    let fields = QueueFields {
        tags: Some(vec!["force_workers:on".into()]),
        ..QueueFields::default()
    };
    client.queues_update(&queue, &fields).await.unwrap();
    assert_eq!(
        client.queues_get_by_id(&queue, None).await.unwrap().tags,
        ["force_workers:on"]
    );
    assert!(
        client
            .queues_delete(&queue, false)
            .await
            .unwrap_err()
            .is_code(400, 702)
    );
    client.queues_delete(&queue, true).await.unwrap();
    assert_eq!(world.status(&first).await.0, TaskStatus::Created);

    let worker = WorkerId::new("host:0");
    client.workers_register(&worker, &[], None).await.unwrap();
    assert_eq!(client.workers_get_count(&Default::default()).await.unwrap(), 1);
}

#[tokio::test]
async fn files_are_stored_found_and_removed() {
    let world = world().await;
    for address in [
        world.server.files_url(),
        format!("{}/files/", world.server.api_url()),
    ] {
        let files = world.client.files(&address).unwrap();
        let path = "/Proj A/run+1/50%.json";
        assert!(!files.exists(path).await.unwrap());
        files.upload(path, &b"{}"[..]).await.unwrap();
        assert!(files.exists(path).await.unwrap());
        assert_eq!(&files.download(path).await.unwrap()[..], b"{}");
        assert!(
            files.url(path).unwrap().ends_with("/Proj%20A/run+1/50%25.json"),
            "{:?}",
            files.url(path)
        );
        assert!(files.delete(path).await.unwrap());
        assert!(!files.delete(path).await.unwrap());
        files.upload(path, vec![7; 100_000]).await.unwrap();
        let removed = files.delete_many(&[path, "none"]).await.unwrap();
        assert_eq!(
            (removed.deleted.len(), removed.errors.len()),
            (1, 1),
            "{removed:?}"
        );
        assert!(files.download("..").await.is_err() && files.url("a/../../b").is_err());
    }
    // Another token than the server's is replaced, then refused.
    let mut wrong = options(&world.server);
    wrong.auth = Auth::keys("WRONG", "not the secret");
    wrong.retry.initial_retries = Some(0);
    let files = Client::new(wrong)
        .unwrap()
        .files(&world.server.files_url())
        .unwrap();
    assert!(files.download("a").await.unwrap_err().is_code(401, 22));
}

#[tokio::test]
async fn access_keys_and_tokens_come_and_go() {
    let world = world().await;
    let made = world
        .client
        .auth_create_credentials(Some("for a test"))
        .await
        .unwrap();
    let mut theirs = options(&world.server);
    theirs.auth = Auth::keys(&made.access_key, made.secret_key.expose());
    let second = Client::new(theirs).unwrap();
    second.login().await.unwrap();
    let listed = world.client.auth_get_credentials().await.unwrap();
    assert!(
        listed
            .iter()
            .any(|key| key.access_key == made.access_key && key.label.as_deref() == Some("for a test"))
    );
    assert_eq!(
        world
            .client
            .auth_revoke_credentials(&made.access_key)
            .await
            .unwrap(),
        1
    );
    assert!(second.login().await.unwrap_err().is_code(401, 22));

    let mut by_token = options(&world.server);
    by_token.auth = Auth::Token(world.client.token().unwrap());
    let child = Client::new(by_token).unwrap();
    child.users_get_current_user().await.unwrap();
    // After a logout the old token is refused, and the client gets itself another.
    world.client.auth_logout().await.unwrap();
    world.client.users_get_current_user().await.unwrap();
}

#[tokio::test]
async fn work_is_done_for_the_owner_of_a_task() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(ServerOptions {
        feature_set: "advanced".into(),
        ..ServerOptions::new(folder.path())
    })
    .await
    .unwrap();
    let client = Client::new(options(&server)).unwrap();
    let task = client
        .tasks_create(json!({"name": "owned", "type": "training"}))
        .await
        .unwrap();
    let queue = client.queues_get_default().await.unwrap().id.unwrap();
    client.tasks_enqueue(&task, &queue, &plain()).await.unwrap();
    let popped = client.queues_get_next_task_and_owner(&queue, None).await.unwrap();
    let owner = popped.task_info.unwrap();
    let session = client.session().unwrap();
    assert_eq!(owner.user.as_ref().map(UserId::as_str), session.user.as_deref());
    let theirs = client
        .impersonate(&owner.user.unwrap(), &owner.company.unwrap())
        .await
        .unwrap();
    assert_eq!(theirs.session().unwrap().user, session.user);
    theirs.tasks_started(&task, &plain()).await.unwrap();
    let error = client.impersonate(&UserId::new("nobody"), "c").await.unwrap_err();
    assert!(error.is_code(400, 6), "{error:?}");
    client.users_get_vaults().await.unwrap();
    server.shutdown().await;
}

#[tokio::test]
async fn a_console_is_followed_to_the_end_of_its_task() {
    let world = world().await;
    let client = world.client.clone();
    let task = world.draft().await;
    client.tasks_started(&task, &plain()).await.unwrap();
    let line = |number: i64, at| LogEvent::new(&task, "INFO", "w", format!("line {number}"), at);
    client
        .events_add_batch(&[line(0, 1000), line(1, 1001), line(2, 1001)])
        .await
        .unwrap();
    let mut console = client.follow(&task).every(Duration::from_millis(20));
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(console.next().await.unwrap().unwrap().msg);
    }
    let waiting = tokio::time::timeout(Duration::from_millis(60), console.next()).await;
    assert!(waiting.is_err() && console.status() == Some(&TaskStatus::InProgress));
    // One more of the same millisecond, and the last words.
    client
        .events_add_batch(&[line(3, 1001), line(4, 1002)])
        .await
        .unwrap();
    client.tasks_completed(&task, &plain()).await.unwrap();
    while let Some(event) = console.next().await.unwrap() {
        seen.push(event.msg);
    }
    assert_eq!(seen, ["line 0", "line 1", "line 2", "line 3", "line 4"]);
    assert_eq!(console.status(), Some(&TaskStatus::Completed));
}
