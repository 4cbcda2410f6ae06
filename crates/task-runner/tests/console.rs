//! What becomes of output while the server is away.

mod common;

use common::world::World;
use serde_json::json;

const MEGABYTE: u64 = 1 << 20;

/// Prints numbered lines, says when it is through, and ends when it is told to.
const PRINTER: &str = "long=$(printf %60s); i=0; while [ $i -lt 60000 ]; do echo \"line $i $long .\"; i=$((i+1)); done; touch printed; \
                       while ! [ -e go ]; do sleep 0.05; done";

fn numbers(output: &str) -> Vec<u64> {
    output
        .lines()
        .filter_map(|line| {
            line.strip_prefix("line ")?
                .strip_suffix(" .")?
                .trim()
                .parse()
                .ok()
        })
        .collect()
}

#[tokio::test]
async fn a_server_that_is_away_for_long_costs_the_newest_lines_and_the_console_says_how_many() {
    let mut world = World::start_with(&[
        ("agent.console.max_bytes", json!(MEGABYTE)),
        ("agent.console.segment_bytes", json!(MEGABYTE / 8)),
    ])
    .await;
    let (task, run) = world
        .task(&format!(
            "echo ready; while ! [ -e begin ]; do sleep 0.05; done; {PRINTER}"
        ))
        .await;
    let mut runner = world.spawn(&run);
    world.wait_for_output(&task, "ready").await;
    world.stop_server().await;
    let scratch = world.scratch();
    std::fs::write(scratch.join("begin"), "").unwrap();
    let printed = scratch.join("printed");
    // The program notices nothing of it.
    world
        .wait_until("the program has printed all", || printed.exists())
        .await;
    let on_disk: u64 = std::fs::read_dir(run.console_dir())
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert!(on_disk < 2 * MEGABYTE, "{on_disk} bytes on the disk");
    world.start_server().await;
    std::fs::write(scratch.join("go"), "").unwrap();
    assert_eq!(world.end_of(&mut runner, &run).await, 0);
    let events = world.events(&task).await;
    let console: String = events.iter().map(|event| event.msg.as_str()).collect();
    let got = numbers(&console);
    let oldest = got
        .iter()
        .zip(0..)
        .take_while(|(number, at)| *number == at)
        .count();
    assert!(
        (1000..60_000).contains(&oldest),
        "{oldest} of the oldest lines are kept"
    );
    assert!(
        got.is_sorted_by(|one, next| one < next),
        "lines are doubled or out of order"
    );
    // Where there was room again, in the last segment for example, later lines are kept as well.
    assert!(
        got.len() < 2 * oldest,
        "{} lines of which {oldest} are the oldest",
        got.len()
    );
    let told: u64 = console
        .lines()
        .filter_map(|line| {
            line.strip_prefix("### ")?
                .split_once(" lines (")?
                .0
                .parse::<u64>()
                .ok()
        })
        .next_back()
        .unwrap_or_else(|| {
            panic!(
                "no line says what is missing: {}",
                &console[console.len() - 600..]
            )
        });
    let missing = 60_000 - got.len() as u64;
    assert!(
        told.abs_diff(missing) <= 1,
        "{missing} lines are missing and {told} are told"
    );
    assert_eq!(world.status(&task).await.0, "completed");
}

#[tokio::test]
async fn output_that_cannot_be_sent_is_on_disk_and_not_in_memory() {
    let mut world = World::start().await;
    let flood = "echo ready; while ! [ -e begin ]; do sleep 0.05; done; \
                 head -c 100000000 /dev/zero | tr '\\0' x | fold -w 1000; touch printed; \
                 while ! [ -e go ]; do sleep 0.05; done";
    let (task, run) = world.task(flood).await;
    let mut runner = world.spawn(&run);
    world.wait_for_output(&task, "ready").await;
    let shim = run.claim().unwrap().unwrap().shim.pid;
    world.stop_server().await;
    let scratch = world.scratch();
    std::fs::write(scratch.join("begin"), "").unwrap();
    let printed = scratch.join("printed");
    world
        .wait_until("the program has printed all", || printed.exists())
        .await;
    let peak = |pid: i32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    };
    for (who, pid) in [("runner", runner.id().cast_signed()), ("supervisor", shim)] {
        let peak = peak(pid);
        assert!(peak < 64 * MEGABYTE, "the {who} has used {peak} bytes");
    }
    // Nobody has to see a hundred megabytes.
    runner.kill().unwrap();
    runner.wait().unwrap();
    std::fs::write(scratch.join("go"), "").unwrap();
    common::eventually("the supervisor ends", || run.verdict().unwrap().is_some());
}
