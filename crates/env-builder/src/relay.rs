//! A host between a part of a build and the host of the whole: with a wish to stop of its own, and able to
//! keep what it hears until it is that part's turn.

use std::sync::{Mutex, MutexGuard, PoisonError};

use clearml_support::command::CancelToken;
use serde_json::Value;

use crate::host::{Host, Level, Phase, PhaseEvent};

/// What is kept of a part that has to wait; a server may say any number of lines while a clone is made.
const MAX_KEPT: usize = 10_000;

enum Event {
    Line(Level, String),
    Phase(Phase, PhaseEvent),
}

#[derive(Default)]
struct Kept {
    events: Vec<Event>,
    dropped: usize,
}

/// Passes everything on to `host`, at once or from [`Relay::release`] on.
pub(crate) struct Relay<'a> {
    host: &'a dyn Host,
    cancel: CancelToken,
    /// `None` once everything goes straight on.
    kept: Mutex<Option<Kept>>,
}

impl<'a> Relay<'a> {
    /// Passes on at once.
    pub(crate) fn new(host: &'a dyn Host, cancel: CancelToken) -> Self {
        Self {
            host,
            cancel,
            kept: Mutex::new(None),
        }
    }

    /// Keeps lines and phases until [`Relay::release`].
    pub(crate) fn keeping(host: &'a dyn Host) -> Self {
        Self {
            host,
            cancel: host.cancel().child(None),
            kept: Mutex::new(Some(Kept::default())),
        }
    }

    /// Passes on what was kept, and everything else from now on.
    pub(crate) fn release(&self) {
        let mut kept = self.lock();
        let Some(Kept { events, dropped }) = kept.take() else {
            return;
        };
        for event in events {
            match event {
                Event::Line(level, text) => self.host.line(level, &text),
                Event::Phase(phase, event) => self.host.phase(phase, event),
            }
        }
        if dropped > 0 {
            let text = format!("{dropped} more lines were left out");
            self.host.line(Level::Warning, &text);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Host for Relay<'_> {
    fn line(&self, level: Level, text: &str) {
        let mut kept = self.lock();
        match kept.as_mut() {
            None => self.host.line(level, text),
            Some(kept) if kept.events.len() < MAX_KEPT => {
                kept.events.push(Event::Line(level, text.to_owned()));
            }
            Some(kept) => kept.dropped += 1,
        }
    }

    fn phase(&self, phase: Phase, event: PhaseEvent) {
        let mut kept = self.lock();
        match kept.as_mut() {
            None => self.host.phase(phase, event),
            Some(kept) => kept.events.push(Event::Phase(phase, event)),
        }
    }

    fn report_packages(&self, freeze: &[String]) {
        self.host.report_packages(freeze);
    }

    fn report_conda(&self, packages: &[String], environment: Option<&Value>) {
        self.host.report_conda(packages, environment);
    }

    fn report_commit(&self, commit: &str) {
        self.host.report_commit(commit);
    }

    fn fetch(&self, url: &str) -> Result<Vec<u8>, String> {
        self.host.fetch(url)
    }

    fn cancel(&self) -> &CancelToken {
        &self.cancel
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[derive(Default)]
    struct Heard(Mutex<Vec<String>>, CancelToken);

    impl Host for Heard {
        fn line(&self, _: Level, text: &str) {
            self.0.lock().unwrap().push(text.to_owned());
        }
        fn phase(&self, phase: Phase, _: PhaseEvent) {
            self.0.lock().unwrap().push(phase.as_str().to_owned());
        }
        fn report_packages(&self, _: &[String]) {}
        fn report_commit(&self, _: &str) {}
        fn cancel(&self) -> &CancelToken {
            &self.1
        }
    }

    #[test]
    fn what_is_said_too_early_waits_for_its_turn_within_bounds() {
        let heard = Heard::default();
        let relay = Relay::keeping(&heard);
        for _ in 0..MAX_KEPT + 5 {
            relay.line(Level::Info, "x");
        }
        relay.phase(Phase::Clone, PhaseEvent::Finished(Duration::ZERO));
        assert!(heard.0.lock().unwrap().is_empty());
        relay.release();
        relay.line(Level::Info, "later");
        let lines = heard.0.lock().unwrap();
        assert_eq!(lines.len(), MAX_KEPT + 3);
        assert_eq!(
            lines[MAX_KEPT..],
            ["clone", "5 more lines were left out", "later"].map(str::to_owned)
        );
    }

    #[test]
    fn a_part_can_be_stopped_without_the_whole() {
        let heard = Heard::default();
        let relay = Relay::keeping(&heard);
        relay.cancel().cancel();
        assert!(relay.cancel().is_cancelled() && !heard.cancel().is_cancelled());
        let other = Relay::new(&heard, heard.cancel().child(None));
        heard.cancel().cancel();
        assert!(other.cancel().is_cancelled());
    }
}
