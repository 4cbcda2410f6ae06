//! Reads what a daemon may be asked for, and shows what comes of it.
//!
//! `cargo run -p clearml-gpu-alloc --example read_request -- 0-3 training=2 notebooks=0.25`

use clearml_gpu_alloc::{Request, Surroundings};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let surroundings = Surroundings {
        containers: true,
        ..Surroundings::default()
    };
    let examples: [&[&str]; 3] = [
        &["0-7", "quad_gpu=4", "dual_gpu=2", "rest=-16"],
        &["0:0,0:1,1", "slices=1", "half=0.5"],
        &["0, 1", "third=0.3", "and_a_half=1.5", "none=0"],
    ];
    if let Some((gpus, queues)) = arguments.split_first() {
        show(gpus, queues, surroundings);
        return;
    }
    for example in examples {
        show(example[0], &example[1..], surroundings);
    }
}

fn show<Q: AsRef<str>>(gpus: &str, queues: &[Q], surroundings: Surroundings) {
    let words: Vec<&str> = queues.iter().map(AsRef::as_ref).collect();
    println!("--gpus {gpus:?} --queue {}", words.join(" "));
    match Request::parse(Some(gpus), queues, surroundings) {
        Ok(request) => {
            for queue in &request.queues {
                let (min, max) = (queue.min.eighths(), queue.max.eighths());
                println!(
                    "  {}: {} ({min} to {max} eighths of {})",
                    queue.queue,
                    queue.amounts(),
                    request.pool
                );
            }
            for warning in &request.warnings {
                println!("  warning: {warning}");
            }
        }
        Err(problems) => println!("  refused:\n{problems}"),
    }
}
