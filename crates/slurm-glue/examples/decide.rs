//! Shows what the end of a job means for its task.

use clearml_slurm_glue::core::jobs::read_sacct;
use clearml_slurm_glue::core::verdict::{OnPreemption, judge};

fn main() {
    let text = "7|TIMEOUT|0:0|0:0|TimeLimit|5|9|01:00:00|c1|alice||clearml_task_a\n\
                8|CANCELLED by 1001|0:15|0:0|None|5|9|01:00:00|c1|alice||clearml_task_b\n\
                9|COMPLETED|0:0|0:125|None|5|9|01:00:00|c1|alice||clearml_task_c\n";
    let jobs = read_sacct(text);
    for id in [7, 8, 9, 10] {
        println!("{id}: {:?}", judge(id, jobs.get(&id), true, OnPreemption::Stop));
    }
}
