//! An engine that is away, or silent, while somebody needs it.

use std::time::Duration;

use rustix::process::Signal;
use xtask::engine::IMAGE;

use crate::stage::Stage;

fn is_long() -> bool {
    std::env::var_os("CLEARML_TEST_LONG").is_some_and(|value| !value.is_empty())
}

/// How long an engine stays away: as long as an upgrade takes, or shorter.
fn upgrade() -> Duration {
    Duration::from_secs(if is_long() { 120 } else { 10 })
}

#[test]
fn a_task_waits_for_an_engine_that_is_away_or_silent() {
    let Some(mut stage) = Stage::or_skip("a_task_waits_for_an_engine_that_is_away_or_silent") else {
        return;
    };
    let mut agent = Stage::daemon(&stage.options("tester:0"));
    // The daemon has seen the engine.
    stage.until("the worker", || agent.output().contains("Running in Docker mode"));
    stage.engine.end(Signal::TERM).unwrap();
    let task = stage.submit("patient", "print('out: here')", IMAGE, "");
    stage.until("the pop", || {
        stage.scene.api.status(&task).unwrap() == "in_progress"
    });
    std::thread::sleep(upgrade());
    assert_eq!(stage.scene.api.status(&task).unwrap(), "in_progress");
    stage.engine.start_again(false).unwrap();
    let ended = stage.ended(&task);
    ended.assert_status("completed");
    assert_eq!(ended.output(), ["out: here"]);

    // It listens and says nothing.
    stage.are_removed([task.as_str()]);
    stage.engine.signal(Signal::STOP).unwrap();
    let task = stage.submit("still patient", "print('out: here')", IMAGE, "");
    stage.until("the pop", || {
        stage.scene.api.status(&task).unwrap() == "in_progress"
    });
    std::thread::sleep(upgrade() / 2);
    stage.engine.signal(Signal::CONT).unwrap();
    let ended = stage.ended(&task);
    ended.assert_status("completed");
    assert_eq!(ended.output(), ["out: here"]);

    // Who does not want to wait any more need not.
    stage.are_removed([task.as_str()]);
    stage.engine.end(Signal::KILL).unwrap();
    let task = stage.submit("unwanted", "print('out: here')", IMAGE, "");
    stage.until("the pop", || {
        stage.scene.api.status(&task).unwrap() == "in_progress"
    });
    stage.abort(&task);
    let ended = stage.ended(&task);
    ended.assert_status("stopped");
    assert_eq!(ended.output(), [""; 0]);
    if is_long() {
        // Patience has an end.
        let task = stage.submit("in vain", "print('out: here')", IMAGE, "");
        let ended = stage.scene.ended_within(&task, Duration::from_secs(900));
        ended.assert_failed_in("infrastructure", "can't be reached");
    }
    stage.engine.start_again(false).unwrap();
    stage.are_removed([task.as_str()]);
    agent.stop().unwrap();
}
