//! What has to be sent of one batch, after each answer of the server. Pure; the shell is in [`super::deliver`].
//!
//! The server appends what it gets, so what may have arrived is looked for first, and only what is missing is
//! sent.

use clearml_api_client::LogEvent;

use super::pending::missing;

/// What to do next for a batch.
#[derive(Debug, PartialEq)]
pub enum Next<'a> {
    /// Ask the server for a page of the task's log, oldest first, behind this time stamp. The `first` page comes
    /// after a while, because a server makes new events findable with a delay.
    ReadBack {
        /// See there.
        from: i64,
        /// See there.
        first: bool,
    },
    /// Send these.
    Send(&'a [LogEvent]),
    /// The server has every event once, as far as it takes them.
    Delivered,
    /// The server takes nothing of this task any more.
    Refused(&'a str),
}

/// What the server has said to a batch.
#[derive(Debug, Clone)]
pub enum SendAnswer {
    /// It has it.
    Taken,
    /// There is no such task any more, or it is locked.
    TaskGone(String),
    /// Something about these events is wrong; sending them again will never help.
    Refused,
    /// Certainly not applied, and worth another attempt.
    NotApplied,
    /// Perhaps applied.
    Unclear,
}

/// What the server has said to the question what it has.
#[derive(Debug, Clone)]
pub enum ReadAnswer {
    /// A page of its events, in any order.
    Page(Vec<LogEvent>),
    /// There is no such task any more.
    TaskGone(String),
    /// It can't say at the moment.
    Later,
    /// It will never say. What it may have is sent again.
    Never,
}

/// One batch on its way.
#[derive(Debug)]
pub struct Delivery {
    /// What is to be sent.
    events: Vec<LogEvent>,
    /// How many of them are done, when each goes by itself.
    singly: Option<usize>,
    reading: Option<Reading>,
    refused: Option<String>,
}

#[derive(Debug)]
struct Reading {
    from: i64,
    first: bool,
    found: Vec<LogEvent>,
}

impl Delivery {
    /// A batch. `maybe_sent` = an earlier runner may have sent it.
    #[must_use]
    pub fn new(events: Vec<LogEvent>, maybe_sent: bool) -> Self {
        let mut delivery = Self {
            events,
            singly: None,
            reading: None,
            refused: None,
        };
        if maybe_sent {
            delivery.read_back();
        }
        delivery
    }

    /// The next thing to do.
    #[must_use]
    pub fn next(&self) -> Next<'_> {
        if let Some(reason) = &self.refused {
            return Next::Refused(reason);
        }
        match (&self.reading, self.singly) {
            (Some(reading), _) => Next::ReadBack {
                from: reading.from,
                first: reading.first,
            },
            (None, _) if self.events.is_empty() => Next::Delivered,
            // The server refuses something about the batch, so each event goes by itself, and the one that
            // it can't take is left out instead of blocking all others.
            (None, Some(done)) => Next::Send(&self.events[done..=done]),
            (None, None) => Next::Send(&self.events),
        }
    }

    /// The answer to [`Next::Send`].
    pub fn sent(&mut self, answer: SendAnswer) {
        let done = self.singly.unwrap_or(0);
        match answer {
            SendAnswer::Taken | SendAnswer::Refused if self.singly.is_some() => {
                self.singly = Some(done + 1);
                if done + 1 == self.events.len() {
                    self.events.clear();
                }
            }
            SendAnswer::Taken => self.events.clear(),
            SendAnswer::Refused => self.singly = Some(0),
            SendAnswer::TaskGone(reason) => self.refused = Some(reason),
            SendAnswer::NotApplied | SendAnswer::Unclear => {
                self.events.drain(..done);
                self.singly = None;
                if matches!(answer, SendAnswer::Unclear) {
                    self.read_back();
                }
            }
        }
    }

    fn read_back(&mut self) {
        self.reading = self.events.first().map(|first| Reading {
            from: first.timestamp - 1,
            first: true,
            found: Vec::new(),
        });
    }

    /// The answer to [`Next::ReadBack`].
    pub fn read(&mut self, answer: ReadAnswer) {
        let (Some(reading), Some(first), Some(last)) =
            (&mut self.reading, self.events.first(), self.events.last())
        else {
            return;
        };
        let (first, last) = (first.timestamp, last.timestamp);
        reading.first = false;
        match answer {
            ReadAnswer::Page(page) => {
                let newest = page.iter().map(|event| event.timestamp).max();
                let inside = |event: &LogEvent| (first..=last).contains(&event.timestamp);
                reading.found.extend(page.into_iter().filter(inside));
                match newest {
                    Some(newest) if newest > reading.from && newest < last => reading.from = newest,
                    _ => self.has_been_read(),
                }
            }
            ReadAnswer::TaskGone(reason) => self.refused = Some(reason),
            ReadAnswer::Later => {}
            ReadAnswer::Never => self.has_been_read(),
        }
    }

    fn has_been_read(&mut self) {
        if let Some(reading) = self.reading.take() {
            self.events = missing(std::mem::take(&mut self.events), &reading.found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(timestamp: i64) -> LogEvent {
        LogEvent::new(&"t".into(), "DEBUG", "w", timestamp.to_string(), timestamp)
    }

    fn stamps(delivery: &Delivery) -> Vec<i64> {
        match delivery.next() {
            Next::Send(events) => events.iter().map(|event| event.timestamp).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn after_an_unclear_answer_only_what_is_missing_is_sent() {
        let mut delivery = Delivery::new((1..=4).map(event).collect(), false);
        assert_eq!(stamps(&delivery), [1, 2, 3, 4]);
        delivery.sent(SendAnswer::Unclear);
        assert_eq!(delivery.next(), Next::ReadBack { from: 0, first: true });
        delivery.read(ReadAnswer::Later);
        delivery.read(ReadAnswer::Page(vec![event(1), event(2)]));
        assert_eq!(
            delivery.next(),
            Next::ReadBack {
                from: 2,
                first: false
            }
        );
        delivery.read(ReadAnswer::Page(vec![event(9)]));
        assert_eq!(stamps(&delivery), [3, 4]);
        delivery.sent(SendAnswer::NotApplied);
        assert_eq!(stamps(&delivery), [3, 4]);
        delivery.sent(SendAnswer::Taken);
        assert_eq!(delivery.next(), Next::Delivered);
    }

    #[test]
    fn one_bad_event_does_not_keep_the_others_back() {
        let mut delivery = Delivery::new((1..=3).map(event).collect(), false);
        delivery.sent(SendAnswer::Refused);
        assert_eq!(stamps(&delivery), [1]);
        delivery.sent(SendAnswer::Taken);
        delivery.sent(SendAnswer::Refused);
        assert_eq!(stamps(&delivery), [3]);
        delivery.sent(SendAnswer::Unclear);
        assert_eq!(delivery.next(), Next::ReadBack { from: 2, first: true });
        delivery.read(ReadAnswer::Page(Vec::new()));
        assert_eq!(stamps(&delivery), [3]);
        delivery.sent(SendAnswer::TaskGone("gone".into()));
        assert_eq!(delivery.next(), Next::Refused("gone"));
    }
}
