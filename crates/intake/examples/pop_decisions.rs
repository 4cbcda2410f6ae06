//! Prints what the pop protocol does about a task whose pop was never answered, for everything that the
//! server may show.

use clearml_intake::owner::OwnerMark;
use clearml_intake::pop::{Before, Intent, Phase, Place, Sighting, TaskSighting, resolve};
use clearml_task_model::TaskStatus;

fn main() {
    let intent = Intent {
        run: "our-run".into(),
        worker: "here:0".into(),
        task: "task".into(),
        queue: "queue".into(),
        before: Before {
            status: Some(TaskStatus::Queued),
            ..Before::default()
        },
    };
    let mark = |run: &str, worker: &str| OwnerMark {
        worker: worker.into(),
        run: run.into(),
        host: "host".into(),
        ts: 0,
    };
    let rows = [
        (
            "still the head of the queue",
            Place::Head,
            TaskStatus::Queued,
            None,
            true,
        ),
        (
            "gone from the queue, no other worker",
            Place::Absent,
            TaskStatus::Queued,
            None,
            false,
        ),
        (
            "gone from the queue, other workers",
            Place::Absent,
            TaskStatus::Queued,
            None,
            true,
        ),
        (
            "carries our mark",
            Place::Absent,
            TaskStatus::Queued,
            Some(mark("our-run", "here:0")),
            true,
        ),
        (
            "carries another mark",
            Place::Absent,
            TaskStatus::InProgress,
            Some(mark("x", "there:0")),
            true,
        ),
        (
            "was aborted meanwhile",
            Place::Absent,
            TaskStatus::Stopped,
            None,
            true,
        ),
    ];
    println!("{:<38} {:<34} after the grace time", "the task …", "at once");
    for (what, place, status, owner, competitors) in rows {
        let task = TaskSighting {
            status,
            owner,
            execution_queue: None,
            stopping: false,
            taken_by: None,
            changed: None,
        };
        let seen = Sighting {
            task: Some(task),
            place,
            competitors,
        };
        let decide = |waited_out| format!("{:?}", resolve(&intent, Phase::Popping, &seen, waited_out));
        println!("{what:<38} {:<34} {}", decide(false), decide(true));
    }
}
