//! The generated parts, run by real shells as a job would run them, with a program in the agent's place.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use clearml_sbatch_template::{JobFile, Options, Setup, Template, Values};
use serde_json::json;
use tempfile::TempDir;

/// Prints how it was called, and ends with the code that it is told.
const AGENT: &str = r#"#!/bin/sh
printf 'agent:'; printf ' %s' "$@"; echo
echo "worker: $CLEARML_WORKER_ID"
echo "mine: ${MINE:-}"
echo "steps: $SLURM_EXPORT_ENV"
echo "token: ${CLEARML_AUTH_TOKEN:-}"
ls "$CLEARML_SLURM_JOB_DIR"
stat -c 'mode: %a' "$CLEARML_CONFIG_FILE" "$CLEARML_SLURM_JOB_DIR"
cat "$CLEARML_CONFIG_FILE"; echo
echo "first: ${MASTER_ADDR:-} ${NODE_RANK:-}"
exit "${AGENT_ENDS_WITH:-0}"
"#;

struct Job {
    folder: TempDir,
    output: Output,
}

impl Job {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }

    fn errors(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    /// What is left in the folder for temporary files.
    fn left(&self) -> usize {
        std::fs::read_dir(self.folder.path().join("tmp")).unwrap().count()
    }
}

fn run(shell: &str, body: &str, variables: &[(&str, &str)]) -> Option<Job> {
    run_beside(shell, body, variables, None)
}

/// The same with a folder that all nodes see.
fn run_beside(shell: &str, body: &str, variables: &[(&str, &str)], shared: Option<&Path>) -> Option<Job> {
    if !Path::new(shell).exists() {
        eprintln!("SKIPPED: there is no {shell}");
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let agent = folder.path().join("agent");
    std::fs::write(&agent, AGENT).unwrap();
    std::fs::set_permissions(&agent, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::create_dir(folder.path().join("tmp")).unwrap();
    let token = folder.path().join("it's a token");
    std::fs::write(&token, "secret.of.the.owner").unwrap();
    let text = format!("#!{shell}\n{body}\n");
    let template = Template::parse("t.sh", &text, Options::default()).unwrap();
    let values = Values {
        task: json!({"id": "0123abcd"}),
        ..Values::default()
    };
    let setup = Setup {
        task: "0123abcd".to_owned(),
        queue: "it's a queue".to_owned(),
        worker: "login:slurm:0123abcd".to_owned(),
        agent: Some(agent.to_string_lossy().into_owned()),
        configuration: Some(JobFile::Inline("secret of the server".to_owned())),
        token: Some(JobFile::File(token.to_string_lossy().into_owned())),
        require_queue: true,
        shared_dir: shared.map(|folder| folder.to_string_lossy().into_owned()),
        ..Setup::default()
    };
    let script = folder.path().join("script");
    std::fs::write(&script, template.render(&values, &setup).unwrap().text).unwrap();
    let output = Command::new(shell)
        .arg(&script)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("USER", "somebody")
        .env("TMPDIR", folder.path().join("tmp"))
        .env("SLURM_JOB_ID", "42")
        .env("SLURM_JOB_NUM_NODES", "1")
        .env("SLURM_EXPORT_ENV", "NONE")
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    Some(Job { folder, output })
}

const BODY: &str =
    "${CLEARML_PRE_SETUP}\nexport MINE=yes\n${CLEARML_AGENT_EXECUTE}\n${CLEARML_POST_SETUP}\necho after";

#[test]
fn the_agent_is_started_with_what_it_needs_and_nothing_is_left() {
    for shell in ["/bin/bash", "/bin/dash"] {
        for options in ["", "set -euo pipefail\nset -x", "set -eu"] {
            if shell == "/bin/dash" && options.contains("pipefail") {
                continue;
            }
            let Some(job) = run(shell, &format!("{options}\n{BODY}"), &[]) else {
                continue;
            };
            let text = job.text();
            assert!(job.output.status.success(), "{shell} {options}: {}", job.errors());
            for part in [
                "agent: execute --full-monitoring --require-queue --id 0123abcd\n",
                "worker: login:slurm:0123abcd\n",
                "mine: yes\n",
                "steps: ALL\n",
                "mode: 600\nmode: 700\n",
                "secret of the server\n",
                "token: secret.of.the.owner\nclearml.conf\nrun\n",
                "after\n",
            ] {
                assert!(
                    text.contains(part),
                    "{shell} {options}: {part:?} is missing in\n{text}{}",
                    job.errors()
                );
            }
            let encoded = "c2VjcmV0IG9mIHRoZSBzZXJ2ZXI";
            assert!(
                !job.errors().contains(encoded) && !job.errors().contains("secret"),
                "{}",
                job.errors()
            );
            assert_eq!(job.left(), 0, "{shell} {options}");
        }
    }
}

#[test]
fn the_script_ends_with_the_code_of_the_agent() {
    for shell in ["/bin/bash", "/bin/dash"] {
        for (options, after) in [("", true), ("set -e", false)] {
            let Some(job) = run(shell, &format!("{options}\n{BODY}"), &[("AGENT_ENDS_WITH", "5")]) else {
                continue;
            };
            assert_eq!(
                job.output.status.code(),
                Some(5),
                "{shell} {options}: {}",
                job.errors()
            );
            assert_eq!(job.text().contains("after"), after);
            assert_eq!(job.left(), 0);
        }
    }
}

#[test]
fn the_agent_can_be_the_last_word_or_come_without_preparation() {
    let Some(job) = run(
        "/bin/bash",
        "${CLEARML_AGENT_EXECUTE}",
        &[
            ("CLEARML_CONFIG_FILE", "/dev/null"),
            ("CLEARML_SLURM_JOB_DIR", "/"),
        ],
    ) else {
        return;
    };
    assert!(job.text().contains("agent: execute"), "{}", job.errors());
    let Some(job) = run(
        "/bin/bash",
        "${CLEARML_PRE_SETUP}\nexec ${CLEARML_AGENT_EXECUTE}",
        &[("AGENT_ENDS_WITH", "7")],
    ) else {
        return;
    };
    assert_eq!(job.output.status.code(), Some(7), "{}", job.errors());
}

#[test]
fn what_can_not_work_is_said_in_one_line() {
    // A batch script is in no step, whatever newer Slurm says of it.
    for step in ["", "-5"] {
        let several = [("SLURM_JOB_NUM_NODES", "2"), ("SLURM_STEP_ID", step)];
        let Some(job) = run("/bin/bash", BODY, &several) else {
            return;
        };
        assert_eq!(job.output.status.code(), Some(126));
        assert!(job.errors().contains("clearml: "), "{}", job.errors());
    }
    let hidden = "${CLEARML_PRE_SETUP}\nexport CLEARML_SLURM_AGENT=/nowhere\n${CLEARML_AGENT_EXECUTE}";
    let Some(job) = run("/bin/bash", hidden, &[]) else {
        return;
    };
    assert_eq!(job.output.status.code(), Some(127));
    assert!(
        job.errors().contains("agent.slurm.agent_binary"),
        "{}",
        job.errors()
    );
    assert_eq!(job.left(), 0);
}

#[test]
fn the_folder_of_a_job_on_several_nodes_is_in_one_of_the_user() {
    for shell in ["/bin/bash", "/bin/dash"] {
        let shared = tempfile::tempdir().unwrap();
        let step = [
            ("SLURM_JOB_NUM_NODES", "2"),
            ("SLURM_STEP_ID", "0"),
            ("SLURM_PROCID", "0"),
            ("SLURM_JOB_NODELIST", "a,b"),
        ];
        let run = || run_beside(shell, BODY, &step, Some(shared.path()));
        let Some(job) = run() else { continue };
        assert!(job.output.status.success(), "{}", job.errors());
        let own = shared.path().join("somebody");
        assert_eq!(
            std::fs::metadata(&own).unwrap().permissions().mode() & 0o7777,
            0o700
        );

        // Somebody else was there first.
        std::fs::remove_dir(&own).unwrap();
        let elsewhere = shared.path().join("elsewhere");
        std::fs::create_dir(&elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &own).unwrap();
        let job = run().unwrap();
        assert_eq!(job.output.status.code(), Some(73), "{}", job.text());
        assert!(
            job.errors().contains("not a folder of your own"),
            "{}",
            job.errors()
        );
        assert!(!job.text().contains("agent:"), "{}", job.text());
        assert_eq!(std::fs::read_dir(&elsewhere).unwrap().count(), 0);
    }
}

#[test]
fn ranks_and_the_first_node_are_worked_out() {
    let step = |rank| {
        [
            ("SLURM_JOB_NUM_NODES", "2"),
            ("SLURM_STEP_ID", "0"),
            ("SLURM_PROCID", rank),
            ("SLURM_NODEID", rank),
            ("SLURM_JOB_NODELIST", "node[07-08,11]"),
        ]
    };
    let Some(job) = run("/bin/bash", BODY, &step("1")) else {
        return;
    };
    let text = job.text();
    assert!(
        text.contains("agent: execute --full-monitoring --id 0123abcd"),
        "only one takes it from the queue: {text}"
    );
    assert!(text.contains("worker: login:slurm:0123abcd:1"), "{text}");
    assert!(text.contains("first: node07 1"), "{text}");

    let Some(job) = run("/bin/dash", BODY, &step("0")) else {
        return;
    };
    let text = job.text();
    assert!(text.contains("--require-queue"), "{text}");
    assert!(text.contains("worker: login:slurm:0123abcd\n"), "{text}");
}
