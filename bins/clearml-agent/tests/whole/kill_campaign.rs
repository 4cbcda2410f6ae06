//! Daemon, runner and server are killed at random moments over a batch of tasks; nothing is lost.
//!
//! The seed is printed; `CLEARML_TEST_SEED=<number>` repeats a campaign, `CLEARML_TEST_KILLS=<number>` sets how
//! often each of the three is killed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use crate::scene::{LONG_LIMIT, Scene};
use rustix::process::{Pid, Signal, kill_process};
use xtask::workbench::{Agent, TaskSpec};

const LINES: usize = 40;
/// How often the runner of one run is killed.
const MOST_OF_ONE_RUN: u32 = 8;

/// Numbers that look random and depend on the seed alone (xorshift64*).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % limit
    }

    fn pause(&mut self, most_ms: u64) {
        sleep(Duration::from_millis(self.below(most_ms)));
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Victim {
    Daemon,
    Runner,
    Server,
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn nothing_is_lost_doubled_or_reordered_under_kill_9() {
    let clock = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let seed = number("CLEARML_TEST_SEED").unwrap_or(clock).max(1);
    let each = number("CLEARML_TEST_KILLS").unwrap_or(10);
    println!("seed {seed}");
    eprintln!("kill campaign: CLEARML_TEST_SEED={seed} repeats it");
    let mut dice = Dice(seed);
    let mut scene = Scene::new();
    let mut daemon = scene.daemon();
    let mut batch = Vec::new();
    for _ in 0..8 {
        batch.push(submit(&scene, batch.len()));
    }

    let most = usize::try_from(6 * each).unwrap();
    let mut left: BTreeMap<Victim, u64> = [
        (Victim::Daemon, each),
        (Victim::Runner, each),
        (Victim::Server, each),
    ]
    .into();
    let mut killed = BTreeMap::new();
    while !left.is_empty() {
        dice.pause(700);
        let victims: Vec<_> = left.keys().copied().collect();
        let victim = victims[usize::try_from(dice.below(victims.len() as u64)).unwrap()];
        if !kill(victim, &mut dice, &mut scene, &mut daemon, &mut killed) {
            continue;
        }
        let count = left.get_mut(&victim).unwrap();
        *count -= 1;
        if *count == 0 {
            left.remove(&victim);
        }
        // Work must not run out before the campaign does.
        if scene.api.waiting(&scene.queue).unwrap().len() < 2 && batch.len() < most {
            batch.push(submit(&scene, batch.len()));
        }
    }

    eprintln!(
        "killed each of three {each} times while {} tasks ran",
        batch.len()
    );
    for (index, (task, witness)) in batch.iter().enumerate() {
        check(
            &scene,
            index,
            task,
            witness,
            &format!("seed {seed}\n{}", daemon.output()),
        );
    }
}

/// A task that prints numbered lines, leaves one character per execution, and ends with `index % 2`.
fn submit(scene: &Scene, index: usize) -> (String, PathBuf) {
    let witness = scene.folder.path().join(format!("{index}.witness"));
    let code = format!(
        "import time\nwith open({:?}, 'a') as witness:\n    witness.write('x')\n\
         for i in range({LINES}):\n    print('out:', i, flush=True)\n    time.sleep(0.03)\n\
         raise SystemExit({})\n",
        witness.display().to_string(),
        index % 2
    );
    (
        scene.submit(&format!("campaign {index}"), &TaskSpec::script(&code)),
        witness,
    )
}

/// False when there is nobody to kill at this moment.
fn kill(
    victim: Victim,
    dice: &mut Dice,
    scene: &mut Scene,
    daemon: &mut Agent,
    killed: &mut BTreeMap<String, u32>,
) -> bool {
    match victim {
        Victim::Daemon => {
            daemon.kill();
            dice.pause(500);
            daemon.start_again().unwrap();
        }
        Victim::Server => {
            scene.server.kill();
            dice.pause(500);
            scene.server.start_again().unwrap();
        }
        Victim::Runner => {
            let runner = daemon
                .mark()
                .processes()
                .into_iter()
                .find(|(_, line)| line.contains(" runner --run "))
                .filter(|(_, line)| {
                    // A daemon gives a run up whose runners die ten times in a row, and says so.
                    let times = killed.entry(line.clone()).or_default();
                    *times += 1;
                    *times <= MOST_OF_ONE_RUN
                });
            let Some(pid) = runner.and_then(|(pid, _)| Pid::from_raw(pid)) else {
                return false;
            };
            if kill_process(pid, Signal::KILL).is_err() {
                return false;
            }
        }
    }
    true
}

fn check(scene: &Scene, index: usize, task: &str, witness: &Path, context: &str) {
    let ended = scene.ended_within(task, LONG_LIMIT);
    let (status, reason) = match index % 2 {
        0 => ("completed", "worker execution done".to_owned()),
        code => ("failed", format!("worker execution exit code {code}")),
    };
    let expected: Vec<_> = (0..LINES).map(|i| format!("out: {i}")).collect();
    assert_eq!(ended.output(), expected, "task {index}: {context}");
    assert_eq!(
        (ended.status(), ended.reason()),
        (status, reason.as_str()),
        "task {index}: {context}\n{}",
        ended.console
    );
    let executions = fs::read_to_string(witness).unwrap_or_default();
    assert_eq!(
        executions,
        "x",
        "task {index} was executed {} times: {context}",
        executions.len()
    );
}
