//! The shipper: a cursor over the console on disk, moved forward by the server's acceptance.
//!
//! Every line reaches the server once. `events.add_batch` can't be repeated blindly, because the server
//! appends what it gets; and its answer may be lost. So a batch is written down before it is sent, its
//! events have unique time stamps, and when it is unknown whether it has arrived, the shipper reads that
//! window of the task's log back and sends only what is missing. A server that can't be read back gets
//! the batch again: there, delivery is at least once.

pub(crate) mod batch;
mod deliver;
pub(crate) mod delivery;
pub(crate) mod pending;
pub(crate) mod watch;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clearml_api_client::Client;
use clearml_support::fs::JsonFileError;
use clearml_support::secret::{MASK, Secret};
use clearml_support::time::now_ms;
use clearml_task_model::TaskId;
use tokio::sync::watch as channel;
use tokio::time::Instant;

use crate::console::Channel;
use crate::console::reader::ChannelReader;
use crate::console::render::{Message, RenderOptions, Rendered};
use crate::run_dir::RunDir;
use batch::{Batch, View, next_batch};
use deliver::{Deliverer, Fate};
use pending::{Cursor, Pending, to_events};
use watch::FolderWatch;

/// Console kept in memory per channel, and the size of a batch of events.
const WINDOW: usize = 1 << 20;
/// How often to look, during a pause between two batches, whether the next one is full.
const LOOK: Duration = Duration::from_millis(100);

/// The console could not be shipped for a reason of our own.
#[derive(Debug, thiserror::Error)]
pub enum ShipError {
    /// The cursor can't be read or written.
    #[error("the shipper's position: {0}")]
    Cursor(#[from] JsonFileError),
    /// The console can't be read.
    #[error("reading the console in {folder}: {source}")]
    Console {
        /// Where.
        folder: String,
        /// Why it failed.
        source: std::io::Error,
    },
}

impl ShipError {
    /// Whether the disk is full, or for the moment not to be written to.
    pub(crate) fn is_lack_of_space(&self) -> bool {
        use std::io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
        let source = match self {
            Self::Cursor(JsonFileError::Io { source, .. }) | Self::Console { source, .. } => source,
            Self::Cursor(JsonFileError::Json { .. }) => return false,
        };
        matches!(source.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem)
    }
}

/// How to ship.
#[derive(Debug, Clone)]
pub(crate) struct ShipOptions {
    pub(crate) render: RenderOptions,
    /// Shortest time between two batches of a console that is written all the time.
    pub(crate) flush_interval: Duration,
    /// Age at which an unterminated line is sent as it is.
    pub(crate) partial_max_age: Duration,
    /// A server makes new events findable with a delay; reading back waits this long.
    pub(crate) readback_delay: Duration,
    /// The agent's own secrets, which the user's program may print but nobody shall read.
    pub(crate) secrets: Arc<Mutex<Vec<Secret>>>,
    /// A line before each batch, where several nodes write to the console of one task.
    pub(crate) heading: Option<String>,
    /// How far somebody else has read the task's channel; more is not deleted.
    pub(crate) reader: Option<Arc<AtomicU64>>,
}

impl ShipOptions {
    fn secrets(&self) -> Vec<Secret> {
        self.secrets
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// One more secret, for the shippers that are at work already as well.
    pub(crate) fn hide(&self, secret: &Secret) {
        let mut secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        if !secrets.contains(secret) {
            secrets.push(secret.clone());
        }
    }
}

/// The messages below a line that says whose they are. The same each time that a batch is made again.
fn headed(mut messages: Vec<Message>, heading: Option<&str>) -> Vec<Message> {
    if let (Some(heading), Some(first)) = (heading, messages.first()) {
        let head = Message {
            text: format!("{heading}\n"),
            ms: first.ms,
            level: first.level,
        };
        messages.insert(0, head);
    }
    messages
}

/// Which channels will get nothing more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Closed {
    pub(crate) agent: bool,
    pub(crate) task: bool,
}

/// See the module's text.
pub(crate) struct Shipper {
    client: Client,
    task: TaskId,
    worker: String,
    run: RunDir,
    options: ShipOptions,
    cursor: Cursor,
    /// The cursor in memory is ahead of the one on disk.
    unsaved: bool,
    agent: ChannelReader,
    output: ChannelReader,
    closed: channel::Receiver<Closed>,
    watch: FolderWatch,
    /// Where the task's channel has a folder of its own.
    output_watch: Option<FolderWatch>,
    pace: Pace,
    agent_held: Held,
    output_held: Held,
}

/// Lets a few batches go at once after a quiet time, so that first lines are seen immediately, and one
/// per interval after that.
struct Pace {
    interval: Duration,
    /// When the last of the batches that may go at once will have been earned.
    paid_until: Instant,
}

impl Pace {
    const BURST: u32 = 3;

    fn new(interval: Duration) -> Self {
        Self {
            interval,
            paid_until: Instant::now(),
        }
    }

    /// How long to wait before the next batch.
    fn pause(&self, now: Instant) -> Duration {
        self.paid_until
            .saturating_duration_since(now + self.interval * (Self::BURST - 1))
    }

    fn sent(&mut self, now: Instant) {
        // Full batches go without a pause; the one behind them does not pay for all of them.
        let most = now + self.interval * Self::BURST;
        self.paid_until = (self.paid_until.max(now) + self.interval).min(most);
    }
}

/// How long the oldest unsent byte of a channel has been waiting, by a clock that nobody can set: the
/// times of the records are those of a clock that may have been set back.
#[derive(Default)]
struct Held(Option<(u64, Instant)>);

impl Held {
    /// Notes where the oldest unsent byte is; `None` when there is none.
    fn note(&mut self, position: Option<u64>, now: Instant) {
        if self.0.map(|(known, _)| known) != position {
            self.0 = position.map(|position| (position, now));
        }
    }

    fn age(&self, now: Instant) -> Duration {
        self.0
            .map_or(Duration::ZERO, |(_, since)| now.duration_since(since))
    }
}

impl Shipper {
    pub(crate) fn new(
        client: Client,
        run: RunDir,
        (task, worker): (TaskId, String),
        options: ShipOptions,
        closed: channel::Receiver<Closed>,
    ) -> Result<Self, ShipError> {
        let cursor = Cursor::load(&run.cursor_path())?;
        let (folder, output) = (run.console_dir(), run.task_console_dir());
        Ok(Self {
            agent: ChannelReader::new(&folder, Channel::Agent, cursor.agent),
            output: ChannelReader::new(&output, Channel::Task, cursor.task),
            watch: FolderWatch::new(&folder),
            output_watch: (output != folder).then(|| FolderWatch::new(&output)),
            client,
            task,
            worker,
            run,
            cursor,
            unsaved: false,
            closed,
            pace: Pace::new(options.flush_interval),
            agent_held: Held::default(),
            output_held: Held::default(),
            options,
        })
    }

    /// Ships until both channels are closed and everything in them has been accepted, or the server
    /// says that it wants no more of this task.
    pub(crate) async fn run(mut self) -> Result<(), ShipError> {
        if let Some(pending) = self.cursor.pending.take() {
            let batch = self.replay(&pending)?;
            // Nobody knows whether this one was ever sent, let alone received.
            self.send(batch, true).await?;
        }
        loop {
            if let Some(reason) = &self.cursor.refused {
                tracing::warn!("the console of task {} is not sent any more: {reason}", self.task);
                return Ok(());
            }
            // Asked before reading: what a closed channel holds by now is all it will hold.
            let closed = *self.closed.borrow_and_update();
            self.fill()?;
            if let Some(pause) = self.pause_before(closed) {
                tokio::select! {
                    // Not in one piece: what is full by then does not wait any longer.
                    () = tokio::time::sleep(pause.min(LOOK)) => {}
                    _ = self.closed.changed() => {}
                }
                continue;
            }
            match self.next_batch(closed) {
                Some(batch) => self.send(batch, false).await?,
                None if closed.agent && closed.task => {
                    self.save()?;
                    return Ok(());
                }
                None => {
                    self.save()?;
                    self.wait().await;
                }
            }
        }
    }

    fn fill(&mut self) -> Result<(), ShipError> {
        let channels = [
            (&mut self.agent, &mut self.agent_held),
            (&mut self.output, &mut self.output_held),
        ];
        for (reader, held) in channels {
            reader.fill(WINDOW).map_err(|source| ShipError::Console {
                folder: self.run.console_dir().display().to_string(),
                source,
            })?;
            let waiting = !reader.window().is_empty();
            held.note(waiting.then(|| reader.position()), Instant::now());
        }
        Ok(())
    }

    /// A line after a quiet time goes out at once; a stream of them once per interval, or when a batch
    /// is full; the end of the task does not wait.
    fn pause_before(&self, closed: Closed) -> Option<Duration> {
        let full = [&self.agent, &self.output].iter().any(|reader| {
            reader
                .window()
                .iter()
                .map(|chunk| chunk.payload.len())
                .sum::<usize>()
                >= WINDOW
        });
        let empty = [&self.agent, &self.output]
            .iter()
            .all(|reader| reader.window().is_empty());
        if full || empty || (closed.agent && closed.task) {
            return None;
        }
        Some(self.pace.pause(Instant::now())).filter(|pause| !pause.is_zero())
    }

    async fn wait(&mut self) {
        // An unterminated line ages without any notice.
        let held = !self.agent.window().is_empty() || !self.output.window().is_empty();
        let limit = if held {
            self.options.flush_interval
        } else {
            Duration::from_secs(30)
        };
        let output = async {
            match &mut self.output_watch {
                Some(watch) => watch.changed(limit).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.watch.changed(limit) => {}
            () = output => {}
            _ = self.closed.changed() => {}
        }
    }

    fn next_batch(&self, closed: Closed) -> Option<Batch> {
        let now = Instant::now();
        let agent = View {
            window: self.agent.window(),
            position: self.agent.position(),
            held: self.agent_held.age(now),
            closed: closed.agent,
        };
        let task = View {
            window: self.output.window(),
            position: self.output.position(),
            held: self.output_held.age(now),
            closed: closed.task,
        };
        next_batch(
            agent,
            task,
            self.options.render,
            self.options.partial_max_age,
            now_ms(),
        )
    }

    /// Makes the events of a batch that an earlier runner was about to send.
    fn replay(&self, pending: &Pending) -> Result<Batch, ShipError> {
        let folder = match pending.channel {
            Channel::Agent => self.run.console_dir(),
            Channel::Task => self.run.task_console_dir(),
        };
        let mut reader = ChannelReader::new(&folder, pending.channel, pending.start);
        // One unit more than the batch, so that its last unit is decided as it was then.
        let wanted = usize::try_from(pending.end - pending.start).unwrap_or(WINDOW) + WINDOW;
        reader.fill(wanted).map_err(|source| ShipError::Console {
            folder: folder.display().to_string(),
            source,
        })?;
        let Batch { rendered, .. } = pending.again(reader.window(), self.options.render);
        if rendered.messages.len() != pending.count {
            tracing::warn!(
                "a batch of the console of task {} has changed on disk: {} of {} messages are left",
                self.task,
                rendered.messages.len(),
                pending.count
            );
        }
        Ok(Batch {
            channel: pending.channel,
            rendered,
        })
    }

    fn save(&mut self) -> Result<(), ShipError> {
        if self.unsaved {
            self.cursor.save(&self.run.cursor_path())?;
            self.unsaved = false;
        }
        Ok(())
    }

    /// Sends a batch until it is on the server or refused for good, and moves the cursor behind it.
    async fn send(&mut self, batch: Batch, maybe_sent: bool) -> Result<(), ShipError> {
        let Batch {
            channel,
            rendered:
                Rendered {
                    messages,
                    end,
                    ending,
                },
        } = batch;
        let secrets = self.options.secrets();
        let clean = |text: String| mask(text, &secrets);
        let messages = headed(messages, self.options.heading.as_deref());
        let events = to_events(messages, &self.task, &self.worker, self.cursor.last_ts, clean);
        if self.cursor.begin(channel, (end, ending), &events) {
            self.unsaved = true;
            self.save()?;
            self.delete_shipped();
            self.pace.sent(Instant::now());
            let deliverer = Deliverer {
                client: &self.client,
                task: &self.task,
                readback_delay: self.options.readback_delay,
            };
            if let Fate::Refused(reason) = deliverer.deliver(events, maybe_sent).await {
                self.cursor.refused = Some(reason);
            }
        }
        // Saved with the next batch, or when there is nothing more to do: until then the pending batch
        // on disk stands for it, and reading back shows that it has arrived.
        self.cursor.end(channel, end);
        self.unsaved = true;
        match channel {
            Channel::Agent => self.agent.consume(end),
            Channel::Task => self.output.consume(end),
        }
        Ok(())
    }

    /// Frees the space of output that the saved cursor has passed. The agent's own channel stays: it is
    /// small, and a replaced runner looks into it.
    fn delete_shipped(&self) {
        let read = self
            .options
            .reader
            .as_ref()
            .map_or(u64::MAX, |reader| reader.load(Ordering::Relaxed));
        if let Err(e) = self.output.delete_before(self.cursor.task.min(read)) {
            tracing::warn!("removing shipped console of {}: {e}", self.run.path().display());
        }
    }
}

pub(crate) fn mask(mut text: String, secrets: &[Secret]) -> String {
    for secret in secrets {
        // Replacing something short would destroy the text without hiding anything.
        if secret.expose().len() >= 6 && text.contains(secret.expose()) {
            text = text.replace(secret.expose(), MASK);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_batches_go_at_once_and_later_ones_once_per_interval() {
        let interval = Duration::from_secs(1);
        let mut pace = Pace::new(interval);
        let mut now = pace.paid_until;
        let mut pauses = Vec::new();
        for _ in 0..5 {
            let pause = pace.pause(now);
            now += pause;
            pace.sent(now);
            pauses.push(pause.as_millis());
        }
        assert_eq!(pauses, [0, 0, 0, 1000, 1000]);
        assert_eq!(pace.pause(now + interval * 3), Duration::ZERO);
    }

    #[test]
    fn what_comes_after_many_full_batches_waits_for_one_interval() {
        let interval = Duration::from_secs(1);
        let mut pace = Pace::new(interval);
        let now = pace.paid_until;
        for _ in 0..20 {
            pace.sent(now);
        }
        assert_eq!(pace.pause(now), interval);
    }

    #[test]
    fn an_unfinished_line_ages_whatever_the_clock_on_the_wall_does() {
        let (mut held, start) = (Held::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        held.note(None, at(0));
        assert_eq!(held.age(at(60)), Duration::ZERO, "nothing waits");
        held.note(Some(7), at(60));
        held.note(Some(7), at(64));
        assert_eq!(held.age(at(65)), Duration::from_secs(5));
        held.note(Some(9), at(65));
        assert_eq!(held.age(at(65)), Duration::ZERO, "the line was sent");
    }

    #[test]
    fn only_a_disk_that_refuses_is_waited_for_without_end() {
        let console = |kind: std::io::ErrorKind| ShipError::Console {
            folder: "console".to_owned(),
            source: kind.into(),
        };
        assert!(console(std::io::ErrorKind::StorageFull).is_lack_of_space());
        assert!(!console(std::io::ErrorKind::InvalidData).is_lack_of_space());
    }

    #[test]
    fn own_secrets_are_masked_and_short_ones_do_not_shred_the_text() {
        let secrets = [Secret::new("s3cr3t-key"), Secret::new("ab")];
        assert_eq!(mask("key=s3cr3t-key ab".to_owned(), &secrets), "key=**** ab");
    }
}
