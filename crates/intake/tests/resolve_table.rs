//! The decisions of the pop protocol, row by row.

use clearml_intake::owner::OwnerMark;
use clearml_intake::pop::{Action, Before, Intent, Phase, Place, Sighting, TaskSighting, Why, resolve};
use clearml_task_model::TaskStatus;

const QUEUED: TaskStatus = TaskStatus::Queued;
const RUNNING: TaskStatus = TaskStatus::InProgress;
const DRAFT: TaskStatus = TaskStatus::Created;

fn intent(before: TaskStatus) -> Intent {
    Intent {
        run: "mine".into(),
        worker: "me:0".into(),
        task: "t".into(),
        queue: "q".into(),
        before: Before {
            status: Some(before),
            owner_run: Some("stale".into()),
            execution_queue: Some("q".into()),
            changed: Some("1".into()),
        },
    }
}

fn mark(run: &str) -> Option<OwnerMark> {
    (!run.is_empty()).then(|| OwnerMark {
        worker: "other:0".into(),
        run: run.into(),
        host: String::new(),
        ts: 0,
    })
}

fn seen(place: Place, status: TaskStatus, owner: &str, competitors: bool) -> Sighting {
    let task = TaskSighting {
        status,
        owner: mark(owner),
        execution_queue: Some("q".into()),
        stopping: false,
        taken_by: None,
        changed: Some("1".into()),
    };
    Sighting {
        task: Some(task),
        place,
        competitors,
    }
}

fn decide(phase: Phase, sighting: &Sighting) -> (Action, Action) {
    let intent = intent(QUEUED);
    (
        resolve(&intent, phase, sighting, false),
        resolve(&intent, phase, sighting, true),
    )
}

fn status(status: TaskStatus) -> Action {
    Action::NotOurs(Why::Status(status))
}

#[test]
fn while_the_pop_is_open() {
    use Action::*;
    use Place::*;
    let in_queue = || NotOurs(Why::InQueue);
    let claimed = || NotOurs(Why::ClaimedBy("other:0".into()));
    // place, status, mark, competitors | at once | after the grace time
    let rows = [
        (Head, QUEUED, "", true, Retry, Retry),
        (Head, QUEUED, "stale", false, Retry, Retry),
        (Behind, QUEUED, "", false, Wait, in_queue()),
        (Absent, QUEUED, "", false, Ours, Ours),
        (Absent, QUEUED, "stale", false, Ours, Ours),
        (Absent, QUEUED, "", true, Wait, PutBackAtHead),
        (Absent, QUEUED, "stale", true, Wait, PutBackAtHead),
        // Another is about to take it, or has given it back since; then our pop may have removed the entry.
        (Absent, QUEUED, "fresh", true, Wait, PutBackAtHead),
        (Absent, QUEUED, "fresh", false, Wait, PutBackAtHead),
        (Head, QUEUED, "fresh", true, Retry, Retry),
        (Behind, QUEUED, "fresh", true, Wait, in_queue()),
        (Absent, RUNNING, "fresh", true, claimed(), claimed()),
        // Somebody without mark has started it: the Python agent, or a person.
        (Absent, RUNNING, "", true, status(RUNNING), status(RUNNING)),
        (Absent, RUNNING, "stale", false, status(RUNNING), status(RUNNING)),
        (Absent, QUEUED, "mine", true, Ours, Ours),
        (Absent, RUNNING, "mine", true, AlreadyStarted, AlreadyStarted),
        (
            Absent,
            TaskStatus::Stopped,
            "mine",
            false,
            status(TaskStatus::Stopped),
            status(TaskStatus::Stopped),
        ),
        (
            Absent,
            TaskStatus::Stopped,
            "",
            false,
            status(TaskStatus::Stopped),
            status(TaskStatus::Stopped),
        ),
        (Absent, DRAFT, "", false, status(DRAFT), status(DRAFT)),
        (
            Absent,
            "newer".into(),
            "",
            false,
            status("newer".into()),
            status("newer".into()),
        ),
    ];
    for (place, task, owner, competitors, at_once, later) in rows {
        let row = seen(place, task, owner, competitors);
        assert_eq!(decide(Phase::Popping, &row), (at_once, later), "{row:?}");
    }
}

#[test]
fn after_a_confirmed_pop() {
    use Action::*;
    use Place::*;
    let in_queue = || NotOurs(Why::InQueue);
    let claimed = || NotOurs(Why::ClaimedBy("other:0".into()));
    let rows = [
        (Absent, QUEUED, "", false, Ours, Ours),
        (Absent, QUEUED, "", true, Wait, Ours),
        (Absent, QUEUED, "mine", true, Ours, Ours),
        (Absent, RUNNING, "mine", true, AlreadyStarted, AlreadyStarted),
        (Absent, RUNNING, "fresh", true, claimed(), claimed()),
        (Absent, QUEUED, "fresh", true, Wait, PutBackAtHead),
        (Absent, RUNNING, "", true, status(RUNNING), status(RUNNING)),
        (Head, QUEUED, "", true, Wait, in_queue()),
        (Behind, QUEUED, "mine", true, Wait, in_queue()),
        (
            Absent,
            TaskStatus::Published,
            "",
            false,
            status(TaskStatus::Published),
            status(TaskStatus::Published),
        ),
    ];
    for (place, task, owner, competitors, at_once, later) in rows {
        let row = seen(place, task, owner, competitors);
        assert_eq!(decide(Phase::Popped, &row), (at_once, later), "{row:?}");
    }
}

#[test]
fn after_a_claim() {
    use Action::*;
    use Place::*;
    let in_queue = || NotOurs(Why::InQueue);
    let claimed = || NotOurs(Why::ClaimedBy("other:0".into()));
    let rows = [
        (Absent, RUNNING, "mine", true, AlreadyStarted, AlreadyStarted),
        (Absent, RUNNING, "mine", false, AlreadyStarted, AlreadyStarted),
        (Head, QUEUED, "mine", true, Wait, in_queue()),
        (Behind, QUEUED, "mine", false, Wait, in_queue()),
        // Given back, and pulled again by somebody who has written nothing yet, or by nobody.
        (Absent, QUEUED, "mine", true, Wait, PutBackAtHead),
        (Absent, QUEUED, "mine", false, PutBackAtHead, PutBackAtHead),
        (Absent, RUNNING, "fresh", true, claimed(), claimed()),
        (Absent, RUNNING, "", true, status(RUNNING), status(RUNNING)),
        (Absent, DRAFT, "", false, status(DRAFT), status(DRAFT)),
        (
            Absent,
            TaskStatus::Stopped,
            "mine",
            true,
            status(TaskStatus::Stopped),
            status(TaskStatus::Stopped),
        ),
    ];
    for (place, task, owner, competitors, at_once, later) in rows {
        let row = seen(place, task, owner, competitors);
        assert_eq!(decide(Phase::Claimed, &row), (at_once, later), "{row:?}");
    }
}

#[test]
fn a_task_that_was_put_back_meanwhile_goes_through_the_queue_once_more() {
    for owner in ["", "mine", "fresh"] {
        let mut again = seen(Place::Absent, QUEUED, owner, true);
        if let Some(task) = &mut again.task {
            task.changed = Some("2".into());
        }
        assert_eq!(
            decide(Phase::Popped, &again),
            (Action::Wait, Action::PutBackAtHead),
            "{owner}"
        );
    }
}

#[test]
fn a_deleted_task_is_nobodys() {
    let gone = Sighting {
        task: None,
        place: Place::Absent,
        competitors: true,
    };
    for phase in [Phase::Popping, Phase::Popped] {
        assert_eq!(decide(phase, &gone).0, Action::NotOurs(Why::Gone));
    }
}

#[test]
fn a_task_that_was_moved_to_another_queue_stays_there() {
    let mut moved = seen(Place::Absent, QUEUED, "", false);
    if let Some(task) = &mut moved.task {
        task.execution_queue = Some("elsewhere".into());
    }
    assert_eq!(decide(Phase::Popping, &moved).1, Action::NotOurs(Why::InQueue));
}

#[test]
fn drafts_that_somebody_put_into_a_queue_run_like_queued_ones() {
    let draft = seen(Place::Absent, DRAFT, "", true);
    assert_eq!(resolve(&intent(DRAFT), Phase::Popped, &draft, true), Action::Ours);
    assert_eq!(
        resolve(&intent(DRAFT), Phase::Popping, &draft, true),
        Action::PutBackAtHead
    );
    assert_eq!(
        resolve(&intent(QUEUED), Phase::Popped, &draft, true),
        status(DRAFT),
        "it was reset meanwhile"
    );
}

#[test]
fn a_draft_goes_on_only_for_whoever_has_taken_it_out_of_its_queue() {
    for phase in [Phase::Popping, Phase::Popped] {
        for (owner, taken, ours) in [
            ("mine", "mine", Action::Ours),
            // Another agent was given an entry as well; ours is the last mark.
            ("mine", "fresh", Action::Ours),
            // Reset and enqueued again before it was taken.
            ("", "mine", Action::Ours),
            // Somebody has taken it out of its queue, or it was reset.
            ("mine", "", status(DRAFT)),
            ("", "fresh", status(DRAFT)),
            ("fresh", "mine", Action::NotOurs(Why::ClaimedBy("other:0".into()))),
        ] {
            let mut row = seen(Place::Absent, DRAFT, owner, true);
            if let Some(task) = &mut row.task {
                task.taken_by = (!taken.is_empty()).then(|| taken.into());
            }
            assert_eq!(decide(phase, &row).0, ours, "{row:?}");
        }
    }
}

/// For every combination: a task that another has marked and taken, in whatever place, is left alone. One that
/// is only marked is never run.
#[test]
fn a_foreign_mark_is_never_overruled() {
    for phase in [Phase::Popping, Phase::Popped] {
        for place in [Place::Head, Place::Behind, Place::Absent] {
            for task in TaskStatus::KNOWN {
                for competitors in [false, true] {
                    let row = seen(place, task.clone(), "fresh", competitors);
                    let (at_once, later) = decide(phase, &row);
                    if task == QUEUED {
                        for action in [at_once, later] {
                            let ran = matches!(action, Action::Ours | Action::AlreadyStarted);
                            assert!(!ran, "{row:?}");
                        }
                    } else {
                        let claimed = Action::NotOurs(Why::ClaimedBy("other:0".into()));
                        assert_eq!((&at_once, &later), (&claimed, &claimed), "{row:?}");
                    }
                }
            }
        }
    }
}
