//! What is on disk after each step, and what is refused.

use std::os::unix::fs::PermissionsExt;

use clearml_task_model::{QueueId, TaskId, WorkerId};

use super::*;
use crate::record::RunOptions;

fn new_run() -> NewRun {
    NewRun {
        task: TaskId::new("t1"),
        queue: Some(QueueId::new("q1")),
        worker: WorkerId::new("w1"),
    }
}

#[test]
fn a_new_run_is_complete_private_and_found_again() {
    let state = tempfile::tempdir().unwrap();
    let store = RunStore::open(state.path()).unwrap();
    let run = store.create(new_run()).unwrap().0;
    assert_eq!(run.path().metadata().unwrap().permissions().mode() & 0o777, 0o700);
    let listed = RunStore::open(state.path()).unwrap().list().unwrap();
    assert_eq!(listed.len(), 1);
    let record = listed[0].record().unwrap();
    assert_eq!(
        (record.phase, record.identity.task.as_str()),
        (Phase::Popping, "t1")
    );
}

#[test]
fn half_made_and_half_removed_runs_are_not_listed() {
    let state = tempfile::tempdir().unwrap();
    let store = RunStore::open(state.path()).unwrap();
    std::fs::create_dir(state.path().join("runs/.new-x")).unwrap();
    std::fs::create_dir(state.path().join("runs/damaged")).unwrap();
    assert!(store.list().unwrap().is_empty());
}

#[test]
fn what_somebody_died_over_is_swept_away_and_what_is_being_made_is_not() {
    let state = tempfile::tempdir().unwrap();
    let store = RunStore::open(state.path()).unwrap();
    let path = |name: &str| state.path().join("runs").join(name);
    let age = |name: &str, seconds: u64| {
        std::fs::create_dir_all(path(name).join("console/deep")).unwrap();
        let time = std::time::SystemTime::now() - Duration::from_secs(seconds);
        std::fs::File::open(path(name))
            .unwrap()
            .set_modified(time)
            .unwrap();
    };
    for (name, seconds) in [
        (".old-x", 0),
        (".new-old", 4000),
        (".new-dead", 90),
        (".new-now", 0),
        // Their records were removed.
        ("dead", 90),
        ("now", 0),
    ] {
        age(name, seconds);
    }
    std::fs::create_dir_all(path(".new-slow")).unwrap();
    let _alive = FileLock::try_acquire(&path(".new-slow").join("keeper.lock"))
        .unwrap()
        .unwrap();
    age(".new-slow", 90);
    store.prune(20).unwrap();
    for (name, stays) in [
        (".old-x", false),
        (".new-old", false),
        (".new-dead", false),
        (".new-now", true),
        (".new-slow", true),
        ("dead", false),
        ("now", true),
    ] {
        assert_eq!(path(name).exists(), stays, "{name}");
    }
}

#[test]
fn phases_are_kept_and_never_go_back() {
    let state = tempfile::tempdir().unwrap();
    let run = RunStore::open(state.path()).unwrap().create(new_run()).unwrap().0;
    run.set_phase(Phase::Launching).unwrap();
    assert!(matches!(
        run.set_phase(Phase::Popped),
        Err(RunDirError::Phase { .. })
    ));
    assert_eq!(
        RunDir::open(run.path()).unwrap().record().unwrap().phase,
        Phase::Launching
    );
}

#[test]
fn a_file_of_a_newer_agent_is_refused_not_guessed() {
    let state = tempfile::tempdir().unwrap();
    let run = RunStore::open(state.path()).unwrap().create(new_run()).unwrap().0;
    run.update(|record| record.schema = SCHEMA + 1).unwrap();
    let error = run.record().unwrap_err().to_string();
    assert!(error.contains("format version 2"), "{error}");
}

#[test]
fn cleaning_removes_secrets_and_keeps_the_record() {
    let state = tempfile::tempdir().unwrap();
    let store = RunStore::open(state.path()).unwrap();
    let run = store.create(new_run()).unwrap().0;
    run.write_inputs(
        &serde_json::json!({"k": "v"}),
        &RunInputs::from_process(RunOptions::default()),
    )
    .unwrap();
    assert_eq!(
        run.config_path().metadata().unwrap().permissions().mode() & 0o777,
        0o600
    );
    run.set_phase(Phase::Done).unwrap();
    run.clean().unwrap();
    run.clean().unwrap();
    assert!(!run.config_path().exists() && !run.has_inputs());
    assert_eq!(run.record().unwrap().phase, Phase::Done);
    store.prune(1).unwrap();
    assert!(run.path().exists());
    store.prune(0).unwrap();
    assert!(!run.path().exists());
}

#[test]
fn only_one_runner_has_a_run_in_hand() {
    let state = tempfile::tempdir().unwrap();
    let run = RunStore::open(state.path()).unwrap().create(new_run()).unwrap().0;
    assert!(!run.runner_alive());
    let lock = run.lock().unwrap().unwrap();
    assert!(run.runner_alive());
    assert!(run.lock().unwrap().is_none());
    drop(lock);
    assert!(!run.runner_alive());
}
