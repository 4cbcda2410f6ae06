//! What the program writes about itself.

use std::fs;
use std::process::Command;

use crate::stage::{Home, finish};

#[test]
fn completions_are_scripts_of_their_shells() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ended = home.run(&["completions", shell]);
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        for wanted in ["daemon", "doctor", "polling-interval"] {
            assert!(ended.stdout.contains(wanted), "{shell} does not know {wanted}");
        }
        assert!(!ended.stdout.contains("shim"), "{shell} offers a private command");
        let script = home.path(shell);
        fs::write(&script, &ended.stdout).unwrap();
        if !matches!(shell, "bash" | "zsh" | "fish") {
            continue;
        }
        let mut check = Command::new(shell);
        check
            .arg(if shell == "fish" { "--no-execute" } else { "-n" })
            .arg(&script);
        match check.output() {
            Ok(output) => assert!(output.status.success(), "{shell}: {output:?}"),
            Err(_) => {
                eprintln!("SKIPPED completions_are_scripts_of_their_shells: no {shell} on this machine")
            }
        }
    }
    assert_eq!(home.run(&["completions", "tcsh"]).code, 2);
}

#[test]
fn completing_a_command_in_bash_offers_its_options() {
    let home = Home::new();
    let script = home.run(&["completions", "bash"]).stdout;
    let ask = "COMP_WORDS=(clearml-agent doctor --rep); COMP_CWORD=2; \
               $(complete -p clearml-agent | sed 's/.*-F \\([^ ]*\\).*/\\1/') clearml-agent --rep doctor\n\
               echo \"${COMPREPLY[@]}\"";
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-c"]).arg(format!("{script}\n{ask}"));
    let ended = finish(bash, "");
    assert_eq!(ended.stdout.trim(), "--repository", "{}", ended.stderr);
}

#[test]
fn reference_pages_and_manual_pages_know_every_command_and_nothing_of_this_machine() {
    let homes = [Home::new(), Home::new()];
    let mut texts = Vec::new();
    for home in &homes {
        let (pages, man) = (home.path("pages"), home.path("man"));
        let ended = home.run(&[
            "reference",
            "--output",
            pages.to_str().unwrap(),
            "--man",
            man.to_str().unwrap(),
        ]);
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        let read = |name: &str| fs::read_to_string(pages.join(name)).unwrap();
        texts.push(["cli.md", "config.md", "environment.md"].map(read));
        for page in [
            "clearml-agent.1",
            "clearml-agent-daemon.1",
            "clearml-agent-init.1",
        ] {
            assert!(man.join(page).is_file(), "no {page}");
        }
        assert!(
            !man.join("clearml-agent-shim.1").exists(),
            "a private command has a page"
        );
    }
    assert_eq!(texts[0], texts[1]);
    let [cli, config, environment] = &texts[0];
    for (text, wanted) in [
        (cli, "## `clearml-agent doctor`"),
        (cli, "| `--polling-interval` |"),
        (cli, "`clearml-agent completions"),
        (config, "| `agent.git_pass` |"),
        (config, "`CLEARML_API_HOST`"),
        // Nobody shall look for the effect of what has none.
        (config, "*No effect yet: comes with dynamic GPUs.*"),
        (environment, "*No effect: language models are not metered.*"),
        (environment, "| `CLEARML_API_SECRET_KEY` |"),
    ] {
        assert!(text.contains(wanted), "no {wanted}");
    }
    assert!(!cli.contains("shim"), "a private command is documented");
    for text in [cli, config, environment] {
        assert!(!text.contains(homes[1].folder.path().to_str().unwrap()));
        assert!(!text.contains("clearml-agent-test-"));
    }
}
