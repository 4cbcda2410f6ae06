//! The overview as text. Pure, but for the time zone.

use std::fmt::Write as _;

use clearml_intake::QueuePresence;
use clearml_task_runner::Phase;
use clearml_task_runner::glance::plain;
use clearml_task_runner::record::End;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::{Container, Details, Ended, Overview, Task, Worker};

/// How the text is made.
#[derive(Debug, Clone, Copy, Default)]
pub struct Style {
    /// With colours.
    pub colours: bool,
    /// Lines are cut at so many characters.
    pub width: Option<usize>,
}

#[derive(Clone, Copy)]
enum Tone {
    Strong,
    Good,
    Busy,
    Bad,
    Dim,
}

/// The overview for a person, with a line feed after each line.
#[must_use]
pub fn render(overview: &Overview, style: Style) -> String {
    let mut page = Page {
        out: String::new(),
        style,
    };
    let now = overview.now_ms;
    page.line(&[
        ("ClearML agents on ", None),
        (&overview.host, Some(Tone::Strong)),
        (&format!(" at {}", clock(now, now)), None),
    ]);
    page.heading("WORKERS");
    for worker in &overview.workers {
        page.worker(worker, now);
    }
    if overview.workers.is_empty() {
        page.line(&[(
            "  No agent waits for tasks here. Start one: clearml-agent daemon --queue default",
            None,
        )]);
    }
    page.heading("TASKS");
    for task in &overview.tasks {
        page.task(task, now);
    }
    if overview.tasks.is_empty() {
        page.line(&[("  No task runs.", None)]);
    }
    if !overview.ended.is_empty() {
        page.heading("ENDED LAST");
        for task in &overview.ended {
            page.ended(task, now);
        }
    }
    if !overview.trouble.is_empty() {
        page.heading("WHAT TO LOOK AT");
        for trouble in &overview.trouble {
            page.line(&[("  ! ", Some(Tone::Bad)), (&trouble.what, None)]);
            page.line(&[("    ", None), (&trouble.advice, Some(Tone::Dim))]);
        }
    }
    page.out
}

struct Page {
    out: String,
    style: Style,
}

impl Page {
    fn heading(&mut self, text: &str) {
        self.out.push('\n');
        self.line(&[(text, Some(Tone::Strong))]);
    }

    /// A line of pieces. Names come from elsewhere, so what could steer a terminal is taken out; it is cut
    /// before it gets its colours.
    fn line(&mut self, pieces: &[(&str, Option<Tone>)]) {
        let mut left = self.style.width.unwrap_or(usize::MAX);
        for (text, tone) in pieces {
            let text: String = plain(text).chars().take(left).collect();
            left -= text.chars().count();
            let code = match tone.filter(|_| self.style.colours) {
                Some(Tone::Strong) => "1",
                Some(Tone::Good) => "32",
                Some(Tone::Busy) => "33",
                Some(Tone::Bad) => "31",
                Some(Tone::Dim) => "2",
                None => {
                    self.out.push_str(&text);
                    continue;
                }
            };
            let _infallible = write!(self.out, "\u{1b}[{code}m{text}\u{1b}[0m");
        }
        self.out.push('\n');
    }

    fn worker(&mut self, worker: &Worker, now: i64) {
        let id = worker.worker.to_string();
        let Some(details) = &worker.details else {
            let rest = format!(
                "  process {}; an agent that tells nothing about itself",
                worker.pid
            );
            return self.line(&[("  ", None), (&id, Some(Tone::Strong)), (&rest, None)]);
        };
        let mut rest = format!(
            "  process {}, version {}, for {}",
            worker.pid,
            details.version,
            span(now - details.started_ms)
        );
        if let Some(gpus) = &details.gpus {
            let _infallible = write!(rest, ", GPUs {gpus}");
        }
        self.line(&[("  ", None), (&id, Some(Tone::Strong)), (&rest, None)]);
        for queue in &details.queues {
            self.queue(queue);
        }
        self.server(details, now);
    }

    fn queue(&mut self, queue: &QueuePresence) {
        let (state, tone) = match (queue.resting, queue.waiting) {
            (true, _) => ("rests: not served now".to_owned(), Some(Tone::Busy)),
            (false, None) => ("not looked at lately".to_owned(), Some(Tone::Dim)),
            (false, Some(0)) => ("empty".to_owned(), Some(Tone::Dim)),
            (false, Some(count)) => {
                let more = if queue.or_more { " or more" } else { "" };
                (format!("{count}{more} waiting"), None)
            }
        };
        self.line(&[(&format!("    queue {}: ", queue.name), None), (&state, tone)]);
    }

    fn server(&mut self, details: &Details, now: i64) {
        let server = format!("    server {}: ", details.server);
        let (state, tone) = match (details.server_away_since_ms, details.looked_ms) {
            (Some(since), _) => (
                format!("trouble since {} ({})", clock(since, now), span(now - since)),
                Tone::Bad,
            ),
            (None, Some(looked)) => (format!("well; queues read at {}", clock(looked, now)), Tone::Dim),
            (None, None) => ("well".to_owned(), Tone::Dim),
        };
        self.line(&[(&server, None), (&state, Some(tone))]);
    }

    fn task(&mut self, task: &Task, now: i64) {
        let (state, tone) = state(task);
        let mut rest = format!(", for {}", span(now - task.created_ms));
        if task.processes > 0 {
            let _infallible = write!(
                rest,
                ", {} in {} process{}",
                bytes(task.memory_bytes),
                task.processes,
                if task.processes == 1 { "" } else { "es" }
            );
        }
        let _infallible = write!(rest, ", worker {}", task.worker);
        if let Some(Container { name, image }) = &task.container {
            let _infallible = write!(rest, ", container {name} of {image}");
        }
        if let Some(queue) = task
            .queue_name
            .as_deref()
            .or(task.queue.as_ref().map(|id| id.as_str()))
        {
            let _infallible = write!(rest, ", queue {queue}");
        }
        if let Some(host) = &task.elsewhere {
            let _infallible = write!(rest, ", on {host}");
        }
        let id = task.task.to_string();
        self.line(&[
            ("  ", None),
            (&id, Some(Tone::Strong)),
            ("  ", None),
            (&state, Some(tone)),
            (&rest, None),
        ]);
        if let Some(line) = &task.last_line {
            let age = task
                .console_written_ms
                .map_or_else(String::new, |ms| format!("    {} ago: ", span(now - ms)));
            self.line(&[(&age, Some(Tone::Dim)), (line, None)]);
        }
    }

    fn ended(&mut self, task: &Ended, now: i64) {
        let (state, tone) = match task.end {
            Some(End::Completed) => ("completed", Tone::Good),
            Some(End::Failed) => ("failed", Tone::Bad),
            Some(End::Stopped) => ("aborted", Tone::Busy),
            Some(End::Requeued) => ("put back", Tone::Bad),
            Some(End::LeftAlone) => ("ended by others", Tone::Dim),
            None => ("not run here", Tone::Dim),
        };
        let mut rest = String::new();
        if let Some(code) = task.exit_code {
            let _infallible = write!(rest, ", exit code {code}");
        }
        if let Some(ms) = task.ended_ms {
            let _infallible = write!(rest, ", {} ago", span(now - ms));
        }
        if let (Some(End::Failed), Some(reason)) = (task.end, &task.reason) {
            let _infallible = write!(rest, ": {reason}");
        }
        let id = task.task.to_string();
        self.line(&[
            ("  ", None),
            (&id, None),
            ("  ", None),
            (state, Some(tone)),
            (&rest, None),
        ]);
    }
}

/// What a task is doing.
fn state(task: &Task) -> (String, Tone) {
    if task.stopping.is_some() && task.phase <= Phase::Running {
        return ("being stopped".to_owned(), Tone::Busy);
    }
    match task.phase {
        Phase::Popping | Phase::Popped => ("being taken from its queue".to_owned(), Tone::Busy),
        Phase::Claimed => ("taken".to_owned(), Tone::Busy),
        Phase::Preparing => match task.station.as_deref() {
            Some(station @ ("clone" | "environment")) => (format!("being prepared ({station})"), Tone::Busy),
            _ => ("being prepared".to_owned(), Tone::Busy),
        },
        Phase::Launching => ("being started".to_owned(), Tone::Busy),
        Phase::Running => ("running".to_owned(), Tone::Good),
        Phase::Exited => ("ended; its console is being sent".to_owned(), Tone::Busy),
        Phase::Shipped => ("ended; being reported".to_owned(), Tone::Busy),
        Phase::Reported | Phase::Done | Phase::Abandoned => ("ended; being cleaned up".to_owned(), Tone::Dim),
    }
}

/// A duration in the two largest units that matter.
pub(super) fn span(ms: i64) -> String {
    let seconds = ms.max(0) / 1000;
    let two = |large: i64, large_unit: &str, small: i64, small_unit: &str| match small {
        0 => format!("{large} {large_unit}"),
        small => format!("{large} {large_unit} {small} {small_unit}"),
    };
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => two(seconds / 60, "min", seconds % 60, "s"),
        3600..86400 => two(seconds / 3600, "h", seconds % 3600 / 60, "min"),
        _ => two(seconds / 86400, "d", seconds % 86400 / 3600, "h"),
    }
}

/// The local time; with the day if that is not today.
pub(super) fn clock(ms: i64, now_ms: i64) -> String {
    let zone = TimeZone::system();
    let local = |ms| {
        let time = Timestamp::from_millisecond(ms).unwrap_or(Timestamp::UNIX_EPOCH);
        time.to_zoned(zone.clone())
    };
    let (time, now) = (local(ms), local(now_ms));
    if time.date() == now.date() {
        time.strftime("%H:%M:%S").to_string()
    } else {
        time.strftime("%Y-%m-%d %H:%M:%S").to_string()
    }
}

/// A size with three digits.
#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
pub(super) fn bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 999.5 {
            return match unit {
                "B" => format!("{bytes} B"),
                _ if value < 9.95 => format!("{value:.1} {unit}"),
                _ => format!("{value:.0} {unit}"),
            };
        }
        value /= 1000.0;
    }
    format!("{value:.1} TB")
}
