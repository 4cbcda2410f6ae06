//! Which stretch of the console goes out next. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use crate::console::Channel;
use crate::console::reader::Chunk;
use crate::console::render::{RenderOptions, Rendered, Tail, render};

/// Leaves room below 1 MiB for what JSON adds.
const BATCH: usize = 800 << 10;

/// What is known of a channel and not sent yet.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// In order, without gap.
    pub window: &'a VecDeque<Chunk>,
    /// Stream position of its first byte.
    pub position: u64,
    /// How long that byte has been waiting, by a clock that nobody can set.
    pub held: Duration,
    /// Nothing will be added.
    pub closed: bool,
}

/// A stretch of one channel, and what it looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The channel.
    pub channel: Channel,
    /// The messages, and where they end.
    pub rendered: Rendered,
}

/// The next batch, older output first; `None` while there is nothing but a line that may still be continued.
#[must_use]
pub fn next_batch(
    agent: View<'_>,
    task: View<'_>,
    options: RenderOptions,
    partial_max_age: Duration,
    now_ms: i64,
) -> Option<Batch> {
    let view = |channel| match channel {
        Channel::Agent => agent,
        Channel::Task => task,
    };
    let head = |channel| view(channel).window.front().map(|chunk| chunk.ms);
    let mut order = Channel::ALL;
    if head(Channel::Task).is_some_and(|task| head(Channel::Agent).is_some_and(|agent| task < agent)) {
        order.reverse();
    }
    let [first, second] = order;
    let until = head(second).unwrap_or(i64::MAX);
    // A first channel that only holds an unfinished line does not keep the other one waiting.
    [(first, until), (second, i64::MAX)]
        .into_iter()
        .find_map(|(channel, until)| {
            let View {
                window,
                position,
                held,
                closed,
            } = view(channel);
            let age = i64::try_from(partial_max_age.as_millis()).unwrap_or(i64::MAX);
            let tail = if closed {
                Tail::End
            } else if held >= partial_max_age {
                Tail::Flush {
                    older_than_ms: i64::MAX,
                }
            } else {
                Tail::Flush {
                    older_than_ms: now_ms.saturating_sub(age),
                }
            };
            let rendered = render(window, options, tail, BATCH, until);
            (rendered.end > position && !window.is_empty()).then_some(Batch { channel, rendered })
        })
}
