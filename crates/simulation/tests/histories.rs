//! Ten thousand histories without a broken rule, and planted bugs that are found among as many.
//!
//! `SIMULATION_HISTORIES=n` plays n of them, `CLEARML_TEST_SEED=first` begins elsewhere.

use clearml_simulation::{Plant, Told, play};

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// The seeds to be played. They are numbered from the given one on, so a failed one replays as the first.
fn seeds() -> std::ops::Range<u64> {
    let first = number("CLEARML_TEST_SEED").unwrap_or(0);
    first..first.saturating_add(number("SIMULATION_HISTORIES").unwrap_or(10_000))
}

#[test]
fn no_history_breaks_a_rule() {
    let mut sum = Told::default();
    let mut failed = 0;
    for seed in seeds() {
        match play(seed, Plant::Nothing, false) {
            Ok(told) => {
                sum.virtual_ms += told.virtual_ms;
                sum.programs += told.programs;
                sum.put_back += told.put_back;
                sum.gaps += told.gaps;
                sum.wiped += told.wiped;
            }
            Err(broken) => {
                failed += 1;
                println!("CLEARML_TEST_SEED={seed} SIMULATION_HISTORIES=1:\n{broken}\n");
                assert!(failed < 10, "more than enough histories break rules");
            }
        }
    }
    println!("{} histories, {sum:?}", seeds().count());
    assert_eq!(failed, 0, "histories that break rules; see above");
}

#[test]
fn planted_bugs_are_found() {
    for plant in Plant::BUGS {
        let found = (0..10_000).find_map(|seed| Some((seed, play(seed, plant, false).err()?)));
        let Some((seed, broken)) = found else {
            panic!("{plant:?} is not found in 10,000 histories");
        };
        println!("{plant:?} breaks a rule in history {seed}: {broken}");
        assert_eq!(play(seed, plant, false), Err(broken), "it replays");
    }
}
