//! A service manager that starts what the unit in `dist/` says, and listens to what the service tells it.

use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use xtask::workbench::{Agent, AgentOptions};

use crate::scene::{AGENT, LIMIT, QUEUE};

/// The unit as it is delivered.
pub(crate) struct Unit(String);

impl Unit {
    pub(crate) fn read() -> Self {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../dist/systemd/clearml-agent.service");
        Self(std::fs::read_to_string(path).unwrap())
    }

    /// The unit with another program.
    pub(crate) fn with_program(&self, program: &str) -> String {
        self.0.replace("/usr/bin/clearml-agent", program)
    }

    fn values(&self, key: &'static str) -> impl Iterator<Item = &str> {
        self.0
            .lines()
            .filter_map(move |line| line.strip_prefix(key)?.strip_prefix('='))
    }

    pub(crate) fn value(&self, key: &'static str) -> &str {
        self.values(key)
            .next()
            .unwrap_or_else(|| panic!("{key} is not in the unit"))
    }

    fn variables(&self) -> Vec<(String, String)> {
        self.values("Environment")
            .map(|line| line.split_once('=').unwrap())
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    /// The arguments of the program, variables replaced as systemd does it.
    fn arguments(&self) -> Vec<String> {
        let variables = self.variables();
        let value = |name: &str| {
            let found = variables.iter().find(|(other, _)| other == name);
            found.map(|(_, value)| value.clone()).unwrap_or_default()
        };
        let mut words = self.value("ExecStart").split(' ').skip(1);
        let mut arguments = Vec::new();
        for word in &mut words {
            match word.strip_prefix('$') {
                Some(name) => arguments.extend(value(name).split_whitespace().map(str::to_owned)),
                None => arguments.push(word.to_owned()),
            }
        }
        assert_eq!(arguments.pop().as_deref(), Some("default"), "the packaged queue");
        arguments.push(QUEUE.to_owned());
        arguments
    }
}

/// The manager: where the service tells it how it does.
pub(crate) struct Manager {
    heard: Receiver<String>,
}

impl Manager {
    /// Starts the service, with a watchdog of a second.
    pub(crate) fn start(unit: &Unit, options: AgentOptions, folder: &std::path::Path) -> (Self, Agent) {
        let address = folder.join("notify");
        let socket = UnixDatagram::bind(&address).unwrap();
        assert!(
            unit.value("ExecStart")
                .starts_with("/usr/bin/clearml-agent daemon ")
        );
        let mut options = options
            .variable("NOTIFY_SOCKET", address.to_str().unwrap())
            .variable("WATCHDOG_USEC", "1000000");
        for (name, value) in unit.variables() {
            options = options.variable(&name, value);
        }
        assert_eq!(options.executable, PathBuf::from(AGENT));
        let arguments = unit.arguments();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let agent = Agent::start(&options, &arguments).unwrap();
        let (sender, heard) = channel();
        // It listens all the time, as managers do: the kernel keeps only a few messages. The thread ends with
        // the test.
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count) = socket.recv(&mut buffer) {
                let message = String::from_utf8_lossy(&buffer[..count]).into_owned();
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        (Self { heard }, agent)
    }

    /// Waits for a message that begins with this, and returns those before it and itself.
    #[track_caller]
    pub(crate) fn hears(&self, wanted: &str) -> Vec<String> {
        let deadline = Instant::now() + LIMIT;
        let mut before = Vec::new();
        while let Ok(message) = self
            .heard
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            let found = message.starts_with(wanted);
            before.push(message);
            if found {
                return before;
            }
        }
        panic!("{wanted:?} was not heard, but {before:?}");
    }
}
