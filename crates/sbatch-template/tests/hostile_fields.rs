//! Arbitrary values in every field of a task, in every mode: the script has the directives and runs the commands that
//! it has and runs with harmless values.
//!
//! Directives are read as sbatch reads them. Commands are judged by the shell: it parses the script, and runs it with
//! programs in place of `srun`, `singularity` and the agent that print their arguments.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod texts;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use clearml_sbatch_template::{Container, Mode, Options, Script, Setup, Template, Values, read_directives};
use proptest::prelude::*;
use serde_json::json;
use texts::{hostile, kept};

const HEAD: &str = r#"#!/bin/bash
#SBATCH --job-name=clearml_task_${CLEARML_TASK.id}
#SBATCH --comment=${CLEARML_TASK.name:none} --account=${CLEARML_TASK.hyperparams.properties.account.value:none}
#SBATCH --constraint="${CLEARML_TASK.tags:none}" --wckey='${CLEARML_PROJECT_NAME:none}'
#SBATCH --reservation=${CLEARML_USER.name:none} -L ${CLEARML_QUEUE_NAME:none} # ${CLEARML_TASK.nothing}
"#;

const BODY: &str = r#"
${CLEARML_PRE_SETUP}
say() { printf '<%s>' "$@"; echo; }
say task ${CLEARML_TASK.name} "${CLEARML_TASK.comment}" '${CLEARML_TASK.project}' ${CLEARML_PROJECT_NAME}
say owner ${CLEARML_USER.name} "$(say ${CLEARML_USER.name})" queue ${CLEARML_QUEUE_NAME}
say tags ${CLEARML_TASK.tags} account "${CLEARML_TASK.hyperparams.properties.account.value}"
say code ${CLEARML_TASK.script.repository} ${CLEARML_TASK.script.entry_point} "${CLEARML_TASK.runtime.note}"
say more ${CLEARML_TASK.configuration.model.value} ${CLEARML_TASK.models.input.0.model}
export PASSED=${CLEARML_TASK.name}
cat <<END_OF_TEXT
${CLEARML_TASK.comment} ${CLEARML_TASK.hyperparams.properties.account.value}
END_OF_TEXT
AGENT
${CLEARML_POST_SETUP}
say over
"#;

/// The modes, each with directives and lines of its own.
const MODES: [(Mode, &str, &str, &str); 4] = [
    (Mode::Native, "", "", "${CLEARML_AGENT_EXECUTE}"),
    (
        Mode::Native,
        "#SBATCH --container-image=${CLEARML_TASK.container.image} --container-remap-root\n",
        "",
        "say ${CLEARML_TASK.container.arguments}\n${CLEARML_AGENT_EXECUTE}",
    ),
    (
        Mode::Singularity,
        "",
        "",
        "srun singularity exec --uts ${CLEARML_AGENT_EXECUTE}",
    ),
    (
        Mode::SrunDelegation,
        "",
        "srun() { command srun --container-image=${CLEARML_TASK.container.image} \"$@\"; }\n",
        "",
    ),
];

/// The fields of a task, its owner and its queue that somebody writes.
const FIELDS: [&str; 15] = [
    "name",
    "comment",
    "project",
    "folder",
    "owner",
    "queue",
    "tag",
    "account",
    "repository",
    "entry",
    "note",
    "model",
    "input",
    "image",
    "variable",
];

fn harmless() -> Vec<String> {
    FIELDS.map(|field| format!("harmless{field}word")).to_vec()
}

fn render(mode: usize, texts: &[String], agent: &Path) -> Script {
    let (kind, directives, functions, run) = MODES[mode];
    let text = format!("{HEAD}{directives}{functions}{}", BODY.replace("AGENT", run));
    let options = Options {
        mode: kind,
        ..Options::default()
    };
    let template = Template::parse("t.sh", &text, options).unwrap();
    let field = |name: &str| &texts[FIELDS.iter().position(|field| *field == name).unwrap()];
    let image = format!("docker://{}", field("image"));
    let arguments = format!("-e {}", single(&format!("A={}", field("variable"))));
    let task = json!({
        "id": "0123abcd", "name": field("name"), "comment": field("comment"), "project": field("project"),
        "tags": [field("tag")],
        "hyperparams": {
            "properties": {"account": {"section": "properties", "name": "account", "value": field("account")}},
            // Names are nobody's to choose, but a task has whatever it was given.
            field("name"): {field("comment"): {"value": field("note")}},
        },
        "configuration": {"model": {"name": "model", "value": field("model")}},
        "models": {"input": [{"name": field("name"), "model": field("input")}]},
        "script": {"repository": field("repository"), "entry_point": field("entry")},
        "runtime": {"note": field("note")},
        "container": {"image": image, "arguments": arguments},
    });
    let values = Values {
        task,
        user: json!({"id": "u1", "name": field("owner")}),
        project_name: Some(field("folder").clone()),
        queue_name: field("queue").clone(),
        ..Values::default()
    };
    let setup = Setup {
        task: "0123abcd".to_owned(),
        queue: field("queue").clone(),
        worker: "login:slurm:0123abcd".to_owned(),
        agent: Some(agent.to_string_lossy().into_owned()),
        container: Container {
            image: Some(image),
            arguments,
            setup_script: Some(field("note").clone()),
        },
        require_queue: true,
        ..Setup::default()
    };
    template.render(&values, &setup).unwrap()
}

fn single(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// Programs that print what they are given.
struct Stage(tempfile::TempDir);

impl Stage {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["srun", "singularity", "clearml-agent"] {
            let file = folder.path().join(name);
            let text = format!(
                "#!/bin/sh\nprintf '{name}: '; printf '<%s>' \"$@\" queue \"$CLEARML_SLURM_QUEUE\" passed \"$PASSED\"; echo\n"
            );
            fs::write(&file, text).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        }
        Self(folder)
    }

    fn run(&self, script: &str, parse_only: bool) -> Output {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("script"), script).unwrap();
        let output = Command::new("/bin/bash")
            .args(parse_only.then_some("-n"))
            .arg("script")
            .current_dir(folder.path())
            .env_clear()
            .env("PATH", format!("{}:/usr/bin:/bin", self.0.path().display()))
            // So that the job's folder has the same name in every run.
            .env("TMPDIR", ".")
            .env("SLURM_JOB_ID", "7")
            .output()
            .unwrap();
        let left: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left, ["script"], "a value was run or redirected");
        output
    }
}

fn check(mode: usize, texts: &[String]) -> Result<(), TestCaseError> {
    let stage = Stage::new();
    let agent = stage.0.path().join("clearml-agent");
    let (script, reference) = (render(mode, texts, &agent), render(mode, &harmless(), &agent));
    let expected = |text: &str, empty: &str| {
        let mut text = text.to_owned();
        for (word, value) in harmless().iter().zip(texts) {
            let value = kept(value);
            text = text.replace(word, if value.is_empty() { empty } else { &value });
        }
        text
    };

    prop_assert_eq!(script.directives.len(), reference.directives.len());
    for (option, reference) in script.directives.iter().zip(&reference.directives) {
        prop_assert_eq!((&option.name, option.line), (&reference.name, reference.line));
        let value = |text: &Option<String>| text.clone().unwrap_or_default();
        let default = if option.name == "container-image" {
            ""
        } else {
            "none"
        };
        prop_assert_eq!(value(&option.value), expected(&value(&reference.value), default));
    }
    prop_assert_eq!(&read_directives(&script.text).unwrap(), &script.directives);

    let parsed = stage.run(&script.text, true);
    prop_assert!(
        parsed.status.success() && parsed.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&parsed.stderr)
    );
    let (got, reference) = (stage.run(&script.text, false), stage.run(&reference.text, false));
    prop_assert!(
        got.status.success() && got.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&got.stderr)
    );
    let text = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();
    prop_assert!(text(&reference).contains("<over>"));
    prop_assert_eq!(text(&got), expected(&text(&reference), ""));
    Ok(())
}

proptest! {
    #![proptest_config(texts::cases(60))]

    #[test]
    fn no_field_of_a_task_changes_what_a_script_does(
        mode in 0..MODES.len(),
        texts in prop::collection::vec(hostile(), FIELDS.len()),
    ) {
        check(mode, &texts)?;
    }
}

#[test]
fn known_attacks_fail_in_every_field_and_mode() {
    for mode in 0..MODES.len() {
        for text in [
            "'; touch bad; '",
            "\"; touch bad; \"",
            "$(touch bad) `touch bad`",
            "\\",
            "x\n#SBATCH --uid=0\ntouch bad",
            "CLEARML_END\ntouch bad\nEND_OF_TEXT\ntouch bad",
            "a\" --qos=x '",
            "--env X=1 -n * ~ {a,b}",
            "a\0b\x1b\u{2028}c",
        ] {
            check(mode, &vec![text.to_owned(); FIELDS.len()]).unwrap();
        }
    }
}
