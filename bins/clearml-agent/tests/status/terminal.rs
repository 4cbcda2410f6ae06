//! `status --watch` in a real terminal.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use xtask::workbench::{Agent, TaskSpec, wait_for};

use crate::scene::{LIMIT, QUEUE, Scene, finish};

/// A terminal of tmux, with a server of its own that ends with it.
struct Terminal {
    socket: String,
}

impl Terminal {
    /// Runs this text as a script.
    fn open(folder: &Path, script: &Path, text: &str) -> Self {
        std::fs::write(script, text).unwrap();
        Command::new("chmod").arg("+x").arg(script).status().unwrap();
        let socket = folder.join("tmux").to_str().unwrap().to_owned();
        let terminal = Self { socket };
        let script = script.to_str().unwrap();
        terminal.tmux(&[
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            "100",
            "-y",
            "30",
            script,
        ]);
        terminal
    }

    fn tmux(&self, arguments: &[&str]) -> String {
        let output = Command::new("tmux")
            .args(["-S", &self.socket])
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "tmux {arguments:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// Waits until the screen has all of these.
    #[track_caller]
    fn shows(&self, parts: &[&str]) -> String {
        let mut last = String::new();
        let found = wait_for(
            &format!("a screen with {parts:?}"),
            LIMIT,
            Duration::from_millis(50),
            || {
                last = self.screen();
                Ok(parts.iter().all(|part| last.contains(part)).then(|| last.clone()))
            },
        );
        found.unwrap_or_else(|e| panic!("{e:#}\n{last}"))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _gone = Command::new("tmux")
            .args(["-S", &self.socket, "kill-server"])
            .output();
    }
}

/// A command as a shell reads it.
fn line(command: &Command) -> String {
    let quoted = |text: &std::ffi::OsStr| format!("'{}'", text.to_str().unwrap());
    let assignments = command
        .get_envs()
        .filter_map(|(name, value)| Some(format!("{}={}", name.to_str()?, quoted(value?))));
    let words = std::iter::once(quoted(command.get_program())).chain(command.get_args().map(quoted));
    let parts: Vec<String> = assignments.chain(words).collect();
    format!("env {}", parts.join(" "))
}

fn has_tmux(test: &str) -> bool {
    let found = Command::new("tmux").arg("-V").output().is_ok();
    if !found {
        eprintln!("SKIPPED {test}: tmux is not installed");
    }
    found
}

#[test]
fn a_daemon_ends_with_the_terminal_that_it_was_started_on_unless_nohup_was_meant() {
    if !has_tmux("a_daemon_ends_with_the_terminal_that_it_was_started_on_unless_nohup_was_meant") {
        return;
    }
    let scene = Scene::new();
    let options = crate::options(&scene);
    let workers = || {
        let overview = crate::overview::status(&options);
        let ids = overview["workers"].as_array().unwrap().iter();
        ids.map(|worker| worker["worker"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let wait = |wanted: &[&str]| {
        wait_for(
            &format!("the workers {wanted:?}"),
            LIMIT,
            Duration::from_millis(100),
            || Ok((workers() == wanted).then_some(())),
        )
        .unwrap();
    };
    let daemon = |id: &str| {
        let options = options.clone().variable("CLEARML_WORKER_ID", id);
        line(&options.command(&["daemon", "--foreground", "--queue", QUEUE]))
    };
    let text = format!(
        "#!/bin/sh\nnohup {} >/dev/null 2>&1 &\nexec {}\n",
        daemon("stays"),
        daemon("goes")
    );
    let terminal = Terminal::open(scene.folder.path(), &scene.folder.path().join("two.sh"), &text);
    wait(&["goes", "stays"]);
    drop(terminal);
    wait(&["stays"]);
    let (code, stdout, _) = finish(options.command(&["daemon", "--stop", "stays"]));
    assert_eq!(code, 0, "{stdout}");
    wait(&[]);
}

#[test]
fn a_terminal_shows_the_present_and_is_left_as_it_was() {
    if !has_tmux("a_terminal_shows_the_present_and_is_left_as_it_was") {
        return;
    }
    let scene = Scene::new();
    let options = crate::options(&scene);
    let command = line(&options.command(&["status", "--watch", "--interval", "0.3"]));
    let script = scene.folder.path().join("watch.sh");
    let text = format!(
        "#!/bin/sh\n# As with a shell that a person uses.\ntrap : INT\necho before\n{command}\necho \"ended with $?\"\nread answer\necho \"typed <$answer>\"\nsleep 60\n"
    );
    let terminal = Terminal::open(scene.folder.path(), &script, &text);
    let empty = terminal.shows(&[
        "WORKERS",
        "No agent waits for tasks here",
        "No task runs",
        "Ctrl-C ends",
    ]);
    assert!(!empty.contains("before"), "{empty}");

    let _daemon = Agent::daemon(&options, QUEUE).unwrap();
    terminal.shows(&["tester:0", "queue work: empty"]);
    let code = "import time\nfor i in range(3000): print(f'step {i} \\x1b[2J', 'x' * 300, flush=True); time.sleep(0.1)";
    let task = scene.submit("steps", &TaskSpec::script(code));
    let first = terminal.shows(&[&task, "running", "ago: step "]);
    let step = |screen: &str| {
        screen
            .lines()
            .find(|line| line.contains("step "))
            .map(str::to_owned)
    };
    wait_for("a later step", LIMIT, Duration::from_millis(50), || {
        Ok((step(&terminal.screen()) != step(&first)).then_some(()))
    })
    .unwrap();
    // Nothing wraps, and a smaller window is filled anew.
    assert!(
        !terminal.screen().lines().any(|line| line.starts_with("xxx")),
        "{}",
        terminal.screen()
    );
    terminal.tmux(&["resize-window", "-x", "60", "-y", "8"]);
    terminal.shows(&["more lines", "Ctrl-C ends"]);
    terminal.tmux(&["resize-window", "-x", "100", "-y", "30"]);
    terminal.shows(&[&task, "TASKS"]);

    // What is typed meanwhile is neither shown nor left to the shell.
    terminal.tmux(&["send-keys", "ls -l"]);
    assert!(!terminal.screen().contains("ls -l"));
    terminal.tmux(&["send-keys", "C-c"]);
    let left = terminal.shows(&["before", "ended with 0"]);
    assert!(!left.contains("WORKERS"), "{left}");
    assert_eq!(
        terminal
            .tmux(&["display-message", "-p", "#{cursor_flag} #{alternate_on}"])
            .trim(),
        "1 0"
    );
    terminal.tmux(&["send-keys", "echo", "Enter"]);
    terminal.shows(&["echo", "typed <echo>"]);
}
