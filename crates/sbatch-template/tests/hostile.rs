//! Arbitrary values in every place of a template: the script keeps its directives and its commands.
//!
//! The judge is the shell itself. The template prints every value from every kind of place; run by bash and dash,
//! it must print exactly the values and nothing else, and leave no trace of having run something.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod texts;

use std::process::{Command, Output};

use clearml_sbatch_template::{Options, Script, Setup, Template, Values, read_directives};
use proptest::prelude::*;
use serde_json::json;
use texts::{hostile, kept};

const TEMPLATE: &str = r#"#!/bin/bash
#SBATCH --job-name=clearml_task_${CLEARML_TASK.id}
#SBATCH --comment=${CLEARML_TASK.name:none} --nodes=2   # ${CLEARML_TASK.name}
#SBATCH --constraint="a-${CLEARML_TASK.name:none}-b" -J x${CLEARML_TASK.name:none}
#SBATCH -A ${CLEARML_TASK.name:none} --qos='${CLEARML_TASK.name:none}'
show() { for value; do printf '%s\n' "<$value>"; done; }
show plain ${CLEARML_TASK.name} pre${CLEARML_TASK.name}post "${CLEARML_TASK.name}" '${CLEARML_TASK.name}'
X=${CLEARML_TASK.name}
show "$X" "$(show ${CLEARML_TASK.name} "in ${CLEARML_TASK.name}")" {a,"${CLEARML_TASK.name}"}
Y="x${CLEARML_TASK.name}y" show "$X"
export Z='${CLEARML_TASK.name}' W=${CLEARML_TASK.name}
show "$Z" "$W"
case ${CLEARML_TASK.name} in "$X") show matches;; *) show other;; esac
for word in ${CLEARML_TASK.name} b; do show "$word"; done
if [ "${CLEARML_TASK.name}" = "$X" ]; then show equal; fi
(show ${CLEARML_TASK.name}; show end) | cat
cat <<CLEARML_EOF
open ${CLEARML_TASK.name} "${CLEARML_TASK.name}"
CLEARML_EOF
cat <<'CLEARML_EOF'
closed ${CLEARML_TASK.name} "${CLEARML_TASK.name}"
CLEARML_EOF
show $(show "${CLEARML_TASK.id}") done
exit 0
${CLEARML_AGENT_EXECUTE}
"#;

fn render(name: &str) -> Script {
    let template = Template::parse("t.sh", TEMPLATE, Options::default()).unwrap();
    let values = Values {
        task: json!({"id": "0123abcd", "name": name}),
        ..Values::default()
    };
    let setup = Setup {
        task: "0123abcd".to_owned(),
        ..Setup::default()
    };
    template.render(&values, &setup).unwrap()
}

fn run(shell: &str, script: &str, arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("script");
    std::fs::write(&file, script).unwrap();
    let output = Command::new(shell)
        .args(arguments)
        .arg(&file)
        .current_dir(folder.path())
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .output()
        .unwrap();
    let left: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(left, ["script"], "a value was run or redirected");
    output
}

fn check(name: &str, shells: &[&str]) -> Result<(), TestCaseError> {
    const HARMLESS: &str = "harmless";
    let script = render(name);
    let harmless = render(HARMLESS);
    let value = kept(name);

    let names = |script: &Script| {
        script
            .directives
            .iter()
            .map(|o| (o.name.clone(), o.line))
            .collect::<Vec<_>>()
    };
    prop_assert_eq!(names(&script), names(&harmless));
    let argument = if value.is_empty() { "none" } else { &value };
    for (option, reference) in script.directives.iter().zip(&harmless.directives) {
        let expected = reference
            .value
            .as_deref()
            .unwrap_or_default()
            .replace(HARMLESS, argument);
        prop_assert_eq!(option.value.as_deref().unwrap_or_default(), expected);
    }
    prop_assert_eq!(&read_directives(&script.text).unwrap(), &script.directives);

    for shell in shells {
        let parsed = run(shell, &script.text, &["-n"]);
        prop_assert!(
            parsed.status.success(),
            "{shell} -n: {}",
            String::from_utf8_lossy(&parsed.stderr)
        );
        let (got, reference) = (run(shell, &script.text, &[]), run(shell, &harmless.text, &[]));
        let expected = String::from_utf8_lossy(&reference.stdout).replace(HARMLESS, &value);
        // $(…) drops line ends at the end only, and there are none.
        prop_assert_eq!(String::from_utf8_lossy(&got.stdout), expected, "{}", shell);
        prop_assert!(
            got.status.success() && got.stderr.is_empty(),
            "{}",
            String::from_utf8_lossy(&got.stderr)
        );
    }
    Ok(())
}

proptest! {
    #![proptest_config(texts::cases(100))]

    #[test]
    fn values_never_become_directives_or_commands(name in hostile()) {
        check(&name, &["/bin/bash"])?;
    }
}

#[test]
fn known_attacks_fail_in_bash_and_dash() {
    let shells: Vec<&str> = ["/bin/bash", "/bin/dash"]
        .into_iter()
        .filter(|shell| std::path::Path::new(shell).exists())
        .collect();
    for name in [
        "",
        "'; touch bad; '",
        "\"; touch bad; \"",
        "$(touch bad)",
        "`touch bad`",
        "\\",
        "\\'",
        "a\\\nb",
        "' #",
        "2",
        "-n",
        "*",
        "~",
        "!!",
        "x\n#SBATCH --uid=0",
        "CLEARML_EOF",
        "a\" --qos=x",
        "#",
        "{a,b}",
        "é \u{a0}",
    ] {
        check(name, &shells).unwrap();
    }
}
