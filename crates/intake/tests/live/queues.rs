use clearml_intake::{QueueError, resolve_queues};

use crate::world::world;

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

#[tokio::test]
async fn queues_are_found_by_id_by_name_and_by_default() {
    let world = world().await;
    let id = world.queue.as_str();
    let found = resolve_queues(&world.client, &names(&["WORK", "default", id]), false)
        .await
        .unwrap();
    let found: Vec<&str> = found.iter().map(|queue| queue.name.as_str()).collect();
    assert_eq!(found, ["work", "default"], "in the order given, each once");
    let default = resolve_queues(&world.client, &[], false).await.unwrap();
    assert_eq!(default[0].name, "default");
    let unknown = "0123456789abcdef0123456789abcdef";
    let taken = resolve_queues(&world.client, &names(&[unknown]), false)
        .await
        .unwrap();
    assert_eq!(taken[0].id.as_str(), unknown, "an id is taken as it is");
}

#[tokio::test]
async fn an_unknown_queue_is_an_error_or_is_created() {
    let world = world().await;
    let error = resolve_queues(&world.client, &names(&["wrok"]), false)
        .await
        .unwrap_err();
    assert!(matches!(error, QueueError::NotFound { .. }));
    let shown = error.to_string();
    assert!(
        shown.contains("Did you mean this?") && shown.ends_with(") work"),
        "{shown}"
    );
    let created = resolve_queues(&world.client, &names(&["a.b (new)"]), true)
        .await
        .unwrap();
    let again = resolve_queues(&world.client, &names(&["A.B (NEW)"]), true)
        .await
        .unwrap();
    assert_eq!(created[0].id, again[0].id, "the second time it is there");
}
