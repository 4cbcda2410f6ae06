//! Shows the console of a run on the terminal while it is being written.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clearml_support::secret::Secret;
use tokio::sync::{mpsc, oneshot, watch};

use crate::console::Channel;
use crate::console::reader::ChannelReader;
use crate::console::render::{RenderOptions, Tail, render};
use crate::shipper::mask;
use crate::shipper::watch::FolderWatch;

const WINDOW: usize = 1 << 20;
const TICK: Duration = Duration::from_secs(1);
/// So many messages may wait to be written.
const WAITING: usize = 16;

/// A second reader of the console beside the shipper.
pub(crate) struct Follower {
    agent: ChannelReader,
    task: ChannelReader,
    watch: FolderWatch,
    task_watch: FolderWatch,
    render: RenderOptions,
    secrets: Vec<Secret>,
    screen: Output,
    /// The task's own output goes here as well.
    log: Option<Output>,
    position: Arc<AtomicU64>,
}

/// Somewhere to write to until that fails. One that has gone away, or is full, is no reason to write less to the
/// others; and one that takes nothing for a while, such as a terminal that was stopped, holds up nobody but us.
struct Output {
    to: Option<mpsc::Sender<String>>,
    ended: oneshot::Receiver<()>,
}

impl Output {
    fn new(name: String, mut to: impl Write + Send + 'static) -> Self {
        let (sender, mut texts) = mpsc::channel::<String>(WAITING);
        let (end, ended) = oneshot::channel();
        std::thread::spawn(move || {
            while let Some(text) = texts.blocking_recv() {
                if let Err(e) = to.write_all(text.as_bytes()).and_then(|()| to.flush()) {
                    tracing::warn!("writing to {name}: {e}; the rest of the output is missing there");
                    break;
                }
            }
            drop(end);
        });
        Self {
            to: Some(sender),
            ended,
        }
    }

    async fn write(&mut self, text: &str) {
        if let Some(to) = &self.to
            && to.send(text.to_owned()).await.is_err()
        {
            self.to = None;
        }
    }

    /// Returns when everything is written.
    async fn finish(self) {
        drop(self.to);
        // An error is how the end is told.
        let _ended = self.ended.await;
    }
}

impl Follower {
    pub(crate) fn new(
        (folder, task_folder): (&Path, &Path),
        render: RenderOptions,
        secrets: Vec<Secret>,
        log: Option<(&Path, File)>,
        position: Arc<AtomicU64>,
    ) -> Self {
        Self {
            agent: ChannelReader::new(folder, Channel::Agent, 0),
            task: ChannelReader::new(task_folder, Channel::Task, 0),
            watch: FolderWatch::new(folder),
            task_watch: FolderWatch::new(task_folder),
            render,
            secrets,
            screen: Output::new("standard output".to_owned(), io::stdout()),
            log: log.map(|(path, file)| Output::new(path.display().to_string(), file)),
            position,
        }
    }

    /// Shows everything on standard error where `aside` is true, because standard output is data.
    pub(crate) fn aside(self, aside: bool) -> Self {
        if !aside {
            return self;
        }
        Self {
            screen: Output::new("standard error".to_owned(), io::stderr()),
            ..self
        }
    }

    /// Shows everything until `done` is true and nothing is left.
    pub(crate) async fn run(mut self, done: watch::Receiver<bool>) -> io::Result<()> {
        let result = self.follow(done).await;
        self.screen.finish().await;
        if let Some(log) = self.log {
            log.finish().await;
        }
        result
    }

    async fn follow(&mut self, mut done: watch::Receiver<bool>) -> io::Result<()> {
        loop {
            // Asked before reading, so that "done" covers what is read.
            let last = *done.borrow_and_update();
            while self.show(if last { Tail::End } else { Tail::Hold }).await? {}
            if last {
                return Ok(());
            }
            tokio::select! {
                () = self.watch.changed(TICK) => {}
                () = self.task_watch.changed(TICK) => {}
                // An error means that the run is over, too.
                result = done.changed() => if result.is_err() { return Ok(()) },
            }
        }
    }

    async fn show(&mut self, tail: Tail) -> io::Result<bool> {
        self.agent.fill(WINDOW)?;
        self.task.fill(WINDOW)?;
        let head = |reader: &ChannelReader| reader.window().front().map(|chunk| chunk.ms);
        let (agent, task) = (head(&self.agent), head(&self.task));
        let agent_first = agent.is_some_and(|agent| task.is_none_or(|task| agent <= task));
        // Up to the next line of the other channel, so that the order is that of the events. But a first
        // channel that only holds an unfinished line does not keep the other one waiting.
        let until = if agent_first { task } else { agent }.unwrap_or(i64::MAX);
        Ok(self.show_channel(agent_first, tail, until).await?
            || self.show_channel(!agent_first, tail, i64::MAX).await?)
    }

    async fn show_channel(&mut self, is_agent: bool, tail: Tail, until: i64) -> io::Result<bool> {
        let reader = if is_agent { &mut self.agent } else { &mut self.task };
        if reader.window().is_empty() {
            return Ok(false);
        }
        let rendered = render(reader.window(), self.render, tail, WINDOW, until);
        let progress = rendered.end > reader.position();
        reader.consume(rendered.end);
        for message in rendered.messages {
            let text = mask(message.text, &self.secrets);
            self.screen.write(&text).await;
            if let Some(log) = self.log.as_mut().filter(|_| !is_agent) {
                log.write(&text).await;
            }
        }
        if !is_agent {
            self.position.store(self.task.position(), Ordering::Relaxed);
        }
        Ok(progress)
    }
}
