//! Several nodes that run one task.

mod common;

use common::world::World;

async fn console(world: &World, task: &clearml_task_model::TaskId) -> String {
    world
        .events(task)
        .await
        .into_iter()
        .map(|event| event.msg)
        .collect()
}

#[tokio::test]
async fn a_later_node_leaves_the_status_alone_and_says_who_it_is() {
    let world = World::start().await;
    let variables = [("RANK", "2"), ("CLEARML_MULTI_NODE_SINGLE_TASK", "1")];
    let (task, run) = world.task_among(&variables, "echo line; exit 3").await;
    let before = world.get(&task).await;
    assert_eq!(world.run(&run).await, 0);
    let after = world.get(&task).await;
    assert_eq!(after.status, before.status);
    assert_eq!(after.status_reason, before.status_reason);
    assert_eq!(
        after.status_message, before.status_message,
        "a node beside the first one has called `started`"
    );
    let console = console(&world, &task).await;
    let heading = "\u{1b}[38;5;22mRANK 2:\u{1b}[0m\n";
    assert!(console.starts_with(heading), "{console:?}");
    assert!(
        console.contains("line\n") && console.contains("Process failed, exit code 3 - rank 2"),
        "{console:?}"
    );
}

#[tokio::test]
async fn where_only_the_first_node_counts_the_others_are_not_heard() {
    let world = World::start().await;
    let variables = [("RANK", "1"), ("CLEARML_MULTI_NODE_SINGLE_TASK", "-1")];
    let (task, run) = world.task_among(&variables, "echo line; touch ran").await;
    assert_eq!(world.run(&run).await, 0);
    assert!(world.scratch().join("ran").exists());
    assert_eq!(world.status(&task).await.0, "in_progress");
    assert_eq!(console(&world, &task).await, "");
}
