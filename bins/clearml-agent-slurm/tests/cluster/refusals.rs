//! What sbatch refuses, in its own words, and limits on the number of jobs.

use std::collections::HashSet;
use std::time::Duration;

use clearml_slurm_glue::core::refusal::Submission;
use clearml_slurm_glue::slurm::{Job, Slurm};

use crate::scene::{Scene, template};

/// Scripts, further arguments, and what Slurm says to them.
const REFUSED: [(&str, &[&str], &str); 20] = [
    ("#!/bin/sh\n", &["--partition=nope"], "nvalid partition"),
    ("#!/bin/sh\n", &["--nodelist=nope"], "nvalid node name"),
    (
        "#!/bin/sh\n",
        &["--gres=gpu:5"],
        "node configuration is not available",
    ),
    (
        "#!/bin/sh\n",
        &["--mem=99999999"],
        "emory specification can not be satisfied",
    ),
    ("#!/bin/sh\n", &["--gres=nope:1"], "nvalid generic resource"),
    ("#!/bin/sh\n", &["--reservation=nope"], "reservation is invalid"),
    ("#!/bin/sh\n", &["--account=nope"], "nvalid account"),
    ("#!/bin/sh\n", &["--qos=nope"], "nvalid qos"),
    ("#!/bin/sh\n", &["--time=soon"], "nvalid --time"),
    ("#!/bin/sh\n", &["--nodes=some"], "node count"),
    ("#!/bin/sh\n", &["--nope=1"], "unrecognized option"),
    ("#!/bin/sh\n#SBATCH --comment=a b\n", &[], "nvalid directive"),
    ("#!/bin/sh\n#SBATCH --comment=\"a\n", &[], "nmatched"),
    ("no interpreter\n", &[], "does not look like a batch script"),
    ("", &[], "script is empty"),
    ("#!/bin/sh\r\n", &[], "DOS line breaks"),
    ("#!/bin/sh\n", &["--uid=nope"], "nvalid --uid"),
    ("#!/bin/sh\n", &["--constraint=nope"], "nvalid feature"),
    (
        "#!/bin/sh\n",
        &["--constraint=forbidden"],
        "lab policy: this job is not allowed here",
    ),
    ("#!/bin/sh\n", &["--nodes=1 --uid=0"], "node count"),
];

#[test]
fn what_slurm_refuses_is_told_apart_and_limits_only_delay() {
    let queues = [("main", template("", "exit 0"))];
    let Some(mut scene) = Scene::new("what_slurm_refuses_is_told_apart_and_limits_only_delay", &queues)
    else {
        return;
    };
    scene.configure(|text| format!("{text}AccountingStorageEnforce=associations,limits,qos\n"));
    let configuration = scene.cluster.configuration().to_string_lossy().into_owned();
    let slurm = Slurm {
        bin_dir: None,
        environment: vec![("SLURM_CONF".to_owned(), configuration)],
        timeout: Duration::from_secs(30),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let submit = |job: Job| runtime.block_on(slurm.submit(&job));
    let job = |script: &str, extra: &[&str], name: &str| Job {
        script: script.to_owned(),
        name: name.to_owned(),
        extra: extra.iter().map(|&text| text.to_owned()).collect(),
        ..Job::default()
    };
    let mut unexpected = Vec::new();
    for (script, extra, words) in REFUSED {
        match submit(job(script, extra, "refused")) {
            Submission::Refused(text) if text.contains(words) => {}
            other => unexpected.push(format!("{script:?} {extra:?}: {other:?}")),
        }
    }
    let long = submit(job("#!/bin/sh\n", &[], &"x".repeat(1200)));
    if !matches!(&long, Submission::Refused(text) if text.contains("too long")) {
        unexpected.push(format!("{long:?}"));
    }
    assert_eq!(unexpected, [""; 0]);

    // Two jobs of a user at a time: the others wait in their queue, in their order.
    let limit = ["-i", "modify", "qos", "normal", "set", "MaxSubmitJobsPerUser=2"];
    scene.cluster.output("sacctmgr", &limit).unwrap();
    let again = |id: u64| scene.cluster.output("scancel", &[&id.to_string()]).unwrap();
    let sleeps = || job("#!/bin/sh\nsleep 60\n", &["--output=/dev/null"], "sleeps");
    scene.wait("the limit holds", 30, || {
        let outcomes: Vec<Submission> = (0..3).map(|_| submit(sleeps())).collect();
        for outcome in &outcomes {
            if let Submission::Accepted(id) = outcome {
                again(*id);
            }
        }
        matches!(outcomes[2], Submission::Full(_)).then_some(())
    });
    scene.wait("the jobs are gone", 30, || {
        let left = scene.cluster.output("squeue", &["-h", "-t", "PD,R,CG"]).unwrap();
        left.is_empty().then_some(())
    });
    let tasks: Vec<String> = (0..5).map(|_| scene.submit("main", "", &[])).collect();
    scene.start();
    scene.wait("the limit is met", 30, || {
        scene.glue_log().contains("takes no more jobs").then_some(())
    });
    let queue = scene.queue_id("main");
    scene.wait("the others are back, in their order", 20, || {
        (scene.api.waiting(&queue).unwrap() == tasks[2..]).then_some(())
    });
    assert_eq!(scene.task(&tasks[4])["status"], "queued");
    for task in &tasks {
        let reason = scene.until(task, "failed", 150);
        assert!(reason.contains("without starting the task"), "{reason}");
    }
    let ids: HashSet<u64> = tasks
        .iter()
        .map(|task| scene.job(task).parse().unwrap())
        .collect();
    assert_eq!(ids.len(), 5);
    for task in &tasks {
        assert_eq!(
            scene
                .glue_log()
                .matches(&format!("{task} of queue main is job"))
                .count(),
            1
        );
    }
    scene.stop_glue();
}
