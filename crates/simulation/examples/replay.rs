//! Tells the history of a seed, step by step: `replay 17`, or `replay 17 PopRepeated` with a planted bug.

use clearml_simulation::{Plant, play};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let seed = arguments.next().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let name = arguments.next().unwrap_or_default();
    let plant = Plant::BUGS
        .into_iter()
        .find(|plant| format!("{plant:?}") == name)
        .unwrap_or(Plant::Nothing);
    match play(seed, plant, true) {
        Ok(told) => println!("{told:?}"),
        Err(broken) => {
            println!("broken:\n{broken}");
            std::process::exit(1);
        }
    }
}
