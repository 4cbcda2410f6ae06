//! Metrics in the text format of Prometheus, on an address that was asked for.
//!
//! Reading costs a look at the run directories. No label has values that grow with the number of tasks, so
//! that a collector is never flooded: what a single task does is for `clearml-agent status`.

use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clearml_support::time::now_ms;
use clearml_task_runner::Phase;
use clearml_task_runner::glance::{ConsoleGlance, Runs};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::observe::{Observer, Seen};

/// So many are answered at the same time; others wait.
const MOST_CONNECTIONS: usize = 8;
/// A request and its answer take no longer.
const PATIENCE: Duration = Duration::from_secs(5);
/// A request of a collector is far smaller.
const MAX_REQUEST: usize = 8 << 10;
/// After a failure to accept, such as a lack of descriptors.
const PAUSE: Duration = Duration::from_millis(200);

/// Answers as long as it lives.
#[derive(Debug)]
pub(crate) struct Metrics {
    address: SocketAddr,
    serving: JoinHandle<()>,
}

impl Metrics {
    /// Begins to answer on `address`.
    pub(crate) async fn serve(address: SocketAddr, observer: Observer) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok(Self {
            address,
            serving: tokio::spawn(accept(listener, address, observer)),
        })
    }

    /// Where it answers: the port, too, if none was chosen.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Metrics {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn accept(listener: TcpListener, address: SocketAddr, observer: Observer) {
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let observer = observer.clone();
                tokio::spawn(async move {
                    // Whoever is too slow, or goes away, gets nothing.
                    let _gone = timeout(PATIENCE, answer(stream, address.ip(), observer)).await;
                    drop(place);
                });
            }
            Err(e) => {
                tracing::debug!("accepting a reader of metrics: {e}");
                sleep(PAUSE).await;
            }
        }
    }
}

async fn answer(mut stream: TcpStream, listening_on: IpAddr, observer: Observer) -> io::Result<()> {
    let mut request = Vec::new();
    let head = loop {
        if let Some(end) = request.windows(4).position(|window| window == b"\r\n\r\n") {
            break Some(String::from_utf8_lossy(&request[..end]).into_owned());
        }
        let mut piece = [0; 1024];
        let count = stream.read(&mut piece).await?;
        if count == 0 {
            return Ok(());
        }
        request.extend_from_slice(&piece[..count]);
        if request.len() > MAX_REQUEST {
            break None;
        }
    };
    let verdict = head.map_or(Verdict::TooLarge, |head| judge(&head, listening_on));
    let (body, with_body) = match verdict {
        Verdict::Metrics { with_body } => (text(observer).await, with_body),
        _ => (format!("{}\n", verdict.status()), true),
    };
    let mut reply = format!(
        "HTTP/1.1 {}\r\ncontent-type: text/plain; version=0.0.4; charset=utf-8\r\ncontent-length: {}\r\n\
         connection: close\r\nx-content-type-options: nosniff\r\n\r\n",
        verdict.status(),
        body.len()
    );
    if with_body {
        reply.push_str(&body);
    }
    stream.write_all(reply.as_bytes()).await?;
    stream.shutdown().await
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Metrics { with_body: bool },
    NotFound,
    WrongMethod,
    WrongHost,
    TooLarge,
    Nonsense,
}

impl Verdict {
    fn status(self) -> &'static str {
        match self {
            Self::Metrics { .. } => "200 OK",
            Self::NotFound => "404 Not Found",
            Self::WrongMethod => "405 Method Not Allowed",
            Self::WrongHost => "421 Misdirected Request",
            Self::TooLarge => "431 Request Header Fields Too Large",
            Self::Nonsense => "400 Bad Request",
        }
    }
}

/// What a request gets. On a loopback address the host must be one, too: a page in somebody's browser can
/// have a name of its own point to this machine, and then read what stands here.
fn judge(head: &str, listening_on: IpAddr) -> Verdict {
    let mut lines = head.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(target), Some(version)) = (words.next(), words.next(), words.next()) else {
        return Verdict::Nonsense;
    };
    if !version.starts_with("HTTP/1.") {
        return Verdict::Nonsense;
    }
    let host = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("host"))
        .map(|(_, value)| value.trim());
    if listening_on.is_loopback() && !host.is_none_or(is_loopback) {
        return Verdict::WrongHost;
    }
    match (method, target.split('?').next()) {
        ("GET" | "HEAD", Some("/metrics")) => Verdict::Metrics {
            with_body: method == "GET",
        },
        ("GET" | "HEAD", _) => Verdict::NotFound,
        _ => Verdict::WrongMethod,
    }
}

fn is_loopback(host: &str) -> bool {
    if let Ok(address) = host.parse::<SocketAddr>() {
        return address.ip().is_loopback();
    }
    let name = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(name) => name,
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

async fn text(observer: Observer) -> String {
    let seen = observer.seen();
    let state_dir = observer.state_dir().to_owned();
    let worker = seen.presence.worker.clone();
    // Other files of a run may be on a slow disk.
    let runs = tokio::task::spawn_blocking(move || RunsSeen::of(state_dir, &worker)).await;
    render(&seen, &runs.unwrap_or_default(), now_ms())
}

/// The runs of this worker.
#[derive(Debug, Default)]
struct RunsSeen {
    phases: Vec<Phase>,
    oldest_ms: Option<i64>,
    waiting_bytes: u64,
}

impl RunsSeen {
    fn of(state_dir: PathBuf, worker: &clearml_task_model::WorkerId) -> Self {
        let mut seen = Self::default();
        let runs = Runs::of(&state_dir).unwrap_or_default();
        for (run, record) in runs
            .unfinished()
            .filter(|(_, record)| record.identity.worker == *worker)
        {
            seen.phases.push(record.phase);
            seen.oldest_ms = Some(
                seen.oldest_ms
                    .map_or(record.created_ms, |ms| ms.min(record.created_ms)),
            );
            seen.waiting_bytes += ConsoleGlance::of(run, None).map_or(0, |glance| glance.waiting_bytes);
        }
        seen
    }
}

/// The metrics as text. Pure.
fn render(seen: &Seen, runs: &RunsSeen, now_ms: i64) -> String {
    let mut out = String::new();
    let presence = &seen.presence;
    let mut family = |name: &str, kind: &str, help: &str, samples: &[(String, f64)]| {
        let _infallible = writeln!(
            out,
            "# HELP clearml_agent_{name} {help}\n# TYPE clearml_agent_{name} {kind}"
        );
        for (labels, value) in samples {
            let _infallible = writeln!(out, "clearml_agent_{name}{labels} {value}");
        }
    };
    let one = |value: f64| [(String::new(), value)];
    let about = labels(&[
        ("version", &presence.version),
        ("worker", presence.worker.as_str()),
    ]);
    family("info", "gauge", "Always 1; which agent this is.", &[(about, 1.0)]);
    family(
        "start_time_seconds",
        "gauge",
        "When the daemon began to serve, in seconds since the epoch.",
        &one(seconds(presence.started_ms)),
    );
    queues(&mut family, seen);
    tasks(&mut family, seen, runs, now_ms);
    family(
        "console_waiting_bytes",
        "gauge",
        "Bytes of console on disk that the server does not have yet.",
        &one(count(runs.waiting_bytes)),
    );
    family(
        "server_away_seconds",
        "gauge",
        "For how long the server has had trouble; 0 when it is well.",
        &one(seen.health.away_for.unwrap_or_default().as_secs_f64()),
    );
    family(
        "server_outage_seconds_total",
        "counter",
        "How long the server has had trouble altogether.",
        &one(seen.health.away_total.as_secs_f64()),
    );
    let requests: Vec<_> = seen
        .health
        .requests
        .iter()
        .map(|(service, requests)| (labels(&[("service", service)]), count(*requests)))
        .collect();
    family(
        "requests_total",
        "counter",
        "Requests of the daemon to the API server, by service. Those of tasks are not among them.",
        &requests,
    );
    out
}

type Family<'a> = &'a mut dyn FnMut(&str, &str, &str, &[(String, f64)]);

fn queues(family: Family<'_>, seen: &Seen) {
    let queues = &seen.presence.queues;
    let label = |name: &str| labels(&[("queue", name)]);
    let waiting: Vec<_> = queues
        .iter()
        .filter_map(|queue| Some((label(&queue.name), count(queue.waiting?))))
        .collect();
    family(
        "queue_waiting_tasks",
        "gauge",
        "Tasks that waited in the queue at the last look.",
        &waiting,
    );
    let resting: Vec<_> = queues
        .iter()
        .map(|queue| (label(&queue.name), f64::from(u8::from(queue.resting))))
        .collect();
    family(
        "queue_resting",
        "gauge",
        "1 while working hours keep the queue from being served.",
        &resting,
    );
    let looked: Vec<_> = seen
        .presence
        .looked_ms
        .map(|ms| (String::new(), seconds(ms)))
        .into_iter()
        .collect();
    family(
        "last_look_time_seconds",
        "gauge",
        "When the queues were last read, in seconds since the epoch.",
        &looked,
    );
}

fn tasks(family: Family<'_>, seen: &Seen, runs: &RunsSeen, now_ms: i64) {
    let totals = &seen.totals;
    family(
        "tasks_started_total",
        "counter",
        "Tasks that this daemon has taken in hand.",
        &[(String::new(), count(totals.started))],
    );
    let ends = [
        ("completed", totals.completed),
        ("failed", totals.failed),
        ("aborted", totals.aborted),
        ("infrastructure", totals.infrastructure),
        ("other", totals.other),
    ]
    .map(|(end, number)| (labels(&[("end", end)]), count(number)));
    family(
        "tasks_ended_total",
        "counter",
        "Tasks that have ended; infrastructure: failed for a reason that is not in their code.",
        &ends,
    );
    let phases: Vec<_> = Phase::ALL
        .into_iter()
        .filter(|phase| !phase.is_final())
        .map(|phase| {
            let number = runs.phases.iter().filter(|other| **other == phase).count();
            (labels(&[("phase", phase.as_str())]), count(number as u64))
        })
        .collect();
    family("tasks", "gauge", "Tasks in hand, by phase.", &phases);
    let age = runs.oldest_ms.map_or(0, |ms| (now_ms - ms).max(0));
    family(
        "oldest_task_age_seconds",
        "gauge",
        "Age of the task that has been in hand longest.",
        &[(String::new(), seconds(age))],
    );
}

#[expect(clippy::cast_precision_loss, reason = "the format knows no other numbers")]
fn count(number: u64) -> f64 {
    number as f64
}

#[expect(
    clippy::cast_precision_loss,
    reason = "milliseconds of a few thousand years fit"
)]
fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

fn labels(pairs: &[(&str, &str)]) -> String {
    let pairs: Vec<String> = pairs
        .iter()
        .map(|(name, value)| {
            let value = value
                .replace('\\', r"\\")
                .replace('"', "\\\"")
                .replace('\n', r"\n");
            format!("{name}=\"{value}\"")
        })
        .collect();
    format!("{{{}}}", pairs.join(","))
}

#[cfg(test)]
mod tests {
    use clearml_api_client::Health;
    use clearml_intake::{Presence, QueuePresence};

    use super::*;
    use crate::observe::Totals;

    #[test]
    fn names_of_queues_cannot_break_the_format() {
        let mut presence = Presence::of_this_process("host:0".into(), "1.2", 3_000).unwrap();
        presence.looked_ms = Some(9_000);
        presence.queues = vec![QueuePresence {
            id: "q".into(),
            name: "a \"b\"\\\nx 1".to_owned(),
            waiting: Some(3),
            or_more: false,
            resting: true,
        }];
        let seen = Seen {
            presence,
            totals: Totals {
                started: 2,
                aborted: 1,
                ..Totals::default()
            },
            health: Health {
                away_for: Some(Duration::from_millis(1500)),
                away_total: Duration::from_secs(4),
                requests: vec![("tasks", 7)],
            },
        };
        let runs = RunsSeen {
            phases: vec![Phase::Running],
            oldest_ms: Some(4_000),
            waiting_bytes: 10,
        };
        let text = render(&seen, &runs, 10_500);
        for line in [
            r#"clearml_agent_info{version="1.2",worker="host:0"} 1"#,
            "clearml_agent_start_time_seconds 3",
            r#"clearml_agent_queue_waiting_tasks{queue="a \"b\"\\\nx 1"} 3"#,
            r#"clearml_agent_queue_resting{queue="a \"b\"\\\nx 1"} 1"#,
            "clearml_agent_last_look_time_seconds 9",
            "clearml_agent_tasks_started_total 2",
            r#"clearml_agent_tasks_ended_total{end="aborted"} 1"#,
            r#"clearml_agent_tasks{phase="running"} 1"#,
            r#"clearml_agent_tasks{phase="preparing"} 0"#,
            "clearml_agent_oldest_task_age_seconds 6.5",
            "clearml_agent_console_waiting_bytes 10",
            "clearml_agent_server_away_seconds 1.5",
            "clearml_agent_server_outage_seconds_total 4",
            r#"clearml_agent_requests_total{service="tasks"} 7"#,
        ] {
            assert!(text.lines().any(|other| other == line), "{line}:\n{text}");
        }
    }

    #[test]
    fn only_readers_of_this_machine_are_answered_on_a_loopback_address() {
        let loopback: IpAddr = [127, 0, 0, 1].into();
        let ask = |line: &str, host: &str| judge(&format!("{line}\r\nHost: {host}\r\nx: y"), loopback);
        let get = "GET /metrics HTTP/1.1";
        for host in ["127.0.0.1:9101", "localhost", "localhost:1", "[::1]:9", "[::1]"] {
            assert_eq!(ask(get, host), Verdict::Metrics { with_body: true }, "{host}");
        }
        for host in ["evil.example:9101", "127.0.0.1.evil.example", "192.168.0.1", ""] {
            assert_eq!(ask(get, host), Verdict::WrongHost, "{host}");
        }
        assert_eq!(
            judge(&format!("{get}\r\nhost: agent.example"), [0, 0, 0, 0].into()),
            Verdict::Metrics { with_body: true }
        );
        assert_eq!(
            ask("HEAD /metrics?x HTTP/1.0", "localhost"),
            Verdict::Metrics { with_body: false }
        );
        assert_eq!(ask("GET / HTTP/1.1", "localhost"), Verdict::NotFound);
        assert_eq!(ask("POST /metrics HTTP/1.1", "localhost"), Verdict::WrongMethod);
        assert_eq!(ask("\u{1}", "localhost"), Verdict::Nonsense);
    }
}
