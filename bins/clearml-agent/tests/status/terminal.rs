//! `status --watch` in a real terminal.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use xtask::workbench::{Agent, TaskSpec, wait_for};

use crate::scene::{LIMIT, QUEUE, Scene};

/// A terminal of tmux, with a server of its own that ends with it.
struct Terminal {
    socket: String,
}

impl Terminal {
    fn open(folder: &Path, script: &Path) -> Self {
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

#[test]
fn a_terminal_shows_the_present_and_is_left_as_it_was() {
    if Command::new("tmux").arg("-V").output().is_err() {
        eprintln!("SKIPPED a_terminal_shows_the_present_and_is_left_as_it_was: tmux is not installed");
        return;
    }
    let scene = Scene::new();
    let options = crate::options(&scene);
    let quoted = |text: &std::ffi::OsStr| format!("'{}'", text.to_str().unwrap());
    let command = options.command(&["status", "--watch", "--interval", "0.3"]);
    let assignments: Vec<String> = command
        .get_envs()
        .filter_map(|(name, value)| Some(format!("{}={}", name.to_str()?, quoted(value?))))
        .collect();
    let words: Vec<String> = command.get_args().map(quoted).collect();
    let script = scene.folder.path().join("watch.sh");
    let text = format!(
        "#!/bin/sh\n# As with a shell that a person uses.\ntrap : INT\necho before\nenv {} {} {}\necho \"ended with $?\"\nread answer\necho \"typed <$answer>\"\nsleep 60\n",
        assignments.join(" "),
        quoted(command.get_program()),
        words.join(" ")
    );
    std::fs::write(&script, text).unwrap();
    Command::new("chmod").arg("+x").arg(&script).status().unwrap();

    let terminal = Terminal::open(scene.folder.path(), &script);
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
