//! Prints where a task can go from each status.

use clearml_task_model::status::{self, TaskStatus, Transition};

fn main() {
    let transitions = [
        Transition::Started,
        Transition::Stopped,
        Transition::Failed,
        Transition::Completed,
        Transition::Enqueue,
    ];
    for from in TaskStatus::KNOWN {
        let reachable: Vec<String> = transitions
            .into_iter()
            .filter_map(|transition| status::apply(&from, transition, false).ok())
            .map(|to| to.to_string())
            .collect();
        println!("{from} -> {}", reachable.join(", "));
    }
}
