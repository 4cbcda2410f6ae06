//! What is stuck, and what to do about it. Pure.

use clearml_task_runner::Phase;

use super::text::{bytes, clock, span};
use super::{Details, Overview, Task, Trouble, TroubleKind, Worker};

/// A runner that has just ended is replaced within moments; the console is sent about once a second.
const NORMAL_MS: i64 = 30_000;
/// A task gets this long to end, if nothing else is configured for it.
const STOP_MS: i64 = 60_000;

/// Everything that a person should know, the gravest first.
pub(super) fn find(overview: &Overview) -> Vec<Trouble> {
    let mut found = Vec::new();
    for task in overview.tasks.iter().filter(|task| task.elsewhere.is_none()) {
        found.extend(unattended(task, overview));
    }
    found.extend(disk_full(overview));
    for worker in &overview.workers {
        if let Some(details) = &worker.details {
            of_worker(worker, details, overview.now_ms, &mut found);
        }
    }
    for task in overview.tasks.iter().filter(|task| task.elsewhere.is_none()) {
        // With a full disk it is not the server that holds the console up.
        if !overview.state_dir_full {
            found.extend(console_waits(task, overview.now_ms));
        }
        found.extend(slow_stop(task, overview.now_ms));
    }
    found
}

/// Nothing is forgotten, and so nothing goes on, while what happens can't be written down.
fn disk_full(overview: &Overview) -> Option<Trouble> {
    overview.state_dir_full.then(|| Trouble {
        kind: TroubleKind::DiskFull,
        about: overview.state_dir.clone(),
        what: format!(
            "The disk of {} is full: no task is taken, consoles are not sent, and ends are not reported; what is shown \
             here may be old.",
            overview.state_dir
        ),
        advice: "Make room; everything goes on by itself then. Or set agent.state_dir to another disk.".to_owned(),
    })
}

/// Nobody has the task in hand.
fn unattended(task: &Task, overview: &Overview) -> Option<Trouble> {
    if task.runner_pid.is_some() {
        return None;
    }
    let container = task.container.as_ref();
    let program = match (task.program_pid, task.phase) {
        (Some(pid), _) => format!("its program goes on as process {pid}"),
        (None, Phase::Launching | Phase::Running) if container.is_some() => {
            let name = container.map_or("", |container| &container.name);
            format!("its container {name} may go on")
        }
        (None, Phase::Popping | Phase::Popped | Phase::Claimed | Phase::Preparing) => {
            "its program has not been started".to_owned()
        }
        (None, _) => "its program has ended, and the server may not know how".to_owned(),
    };
    let daemon = overview
        .workers
        .iter()
        .find(|worker| worker.worker == task.worker);
    if let Some(daemon) = daemon {
        // Before a runner has it, and for a moment after one has died, that is as it should be.
        let since = task.station_ms.unwrap_or(task.created_ms);
        if task.phase < Phase::Preparing || overview.now_ms - since < NORMAL_MS {
            return None;
        }
        return Some(Trouble {
            kind: TroubleKind::RunnerDead,
            about: task.task.to_string(),
            what: format!(
                "The process that looks after task {} has ended; {program}.",
                task.task
            ),
            advice: format!(
                "The daemon (process {}) starts another one by itself. If this stays, see runner.log in {}/runs/{}.",
                daemon.pid, overview.state_dir, task.run
            ),
        });
    }
    let before = if task.earlier_boot {
        " since this machine was started again"
    } else {
        ""
    };
    let adopter = overview.workers.iter().find_map(|worker| {
        let seconds = worker.details.as_ref()?.adopts_after_sec?;
        Some((&worker.worker, seconds))
    });
    let advice = match adopter {
        Some((worker, seconds)) => format!(
            "Start the daemon of {} again. Otherwise worker {worker} takes the task over when it is free and {} have passed.",
            task.worker,
            span(seconds_ms(seconds))
        ),
        None => format!(
            "Start the daemon of {} again, or any other one on this machine: it takes the task up.",
            task.worker
        ),
    };
    Some(Trouble {
        kind: TroubleKind::Orphan,
        about: task.task.to_string(),
        what: format!("Nobody looks after task {}{before}; {program}.", task.task),
        advice,
    })
}

#[expect(clippy::cast_possible_truncation, reason = "saturates")]
fn seconds_ms(seconds: f64) -> i64 {
    (seconds * 1000.0) as i64
}

fn of_worker(worker: &Worker, details: &Details, now_ms: i64, found: &mut Vec<Trouble>) {
    if let Some(since) = details.server_away_since_ms {
        found.push(Trouble {
            kind: TroubleKind::ServerAway,
            about: worker.worker.to_string(),
            what: format!(
                "The server {} has had trouble since {} ({}).",
                details.server,
                clock(since, now_ms),
                span(now_ms - since)
            ),
            advice: "Running tasks go on and their console is kept on disk; nothing is lost. `clearml-agent doctor` \
                     says what is wrong with the server or the way to it."
                .to_owned(),
        });
    }
    if let Some(pause) = details.paused.as_ref().filter(|pause| pause.until_ms > now_ms) {
        found.push(Trouble {
            kind: TroubleKind::Paused,
            about: worker.worker.to_string(),
            what: format!(
                "{} takes no tasks for another {}: {}",
                worker.worker,
                span(pause.until_ms - now_ms),
                pause.reason
            ),
            advice: "Remove the cause, often a full disk; it tries again by itself. `clearml-agent doctor` examines \
                     the machine."
                .to_owned(),
        });
    }
    for queue in details.queues.iter().filter(|queue| queue.resting) {
        if let Some(waiting @ 1..) = queue.waiting {
            found.push(Trouble {
                kind: TroubleKind::QueueRests,
                about: worker.worker.to_string(),
                what: format!(
                    "{waiting} task(s) wait in queue {}, which is not served now.",
                    queue.name
                ),
                advice: "`clearml-agent daemon --status` with the options of this daemon says why: its working hours, a tag \
                         of the queue, or a property of the worker. The tag force_workers:on of the queue overrides \
                         the others."
                    .to_owned(),
            });
        }
    }
}

/// The server has not taken the console for a while.
fn console_waits(task: &Task, now_ms: i64) -> Option<Trouble> {
    if task.console_waiting_bytes == 0 || task.runner_pid.is_none() {
        return None;
    }
    let since = task.console_taken_ms.unwrap_or(task.created_ms);
    // A console that was silent has nothing to wait with.
    let waits = now_ms - since.max(task.station_ms.unwrap_or(since));
    if waits < NORMAL_MS {
        return None;
    }
    Some(Trouble {
        kind: TroubleKind::ConsoleWaits,
        about: task.task.to_string(),
        what: format!(
            "{} of the console of task {} wait on disk since {}: the server does not take them.",
            bytes(task.console_waiting_bytes),
            task.task,
            clock(since, now_ms)
        ),
        advice: "They are sent as soon as it does. `clearml-agent doctor` says what is wrong with the server or the \
                 way to it."
            .to_owned(),
    })
}

fn slow_stop(task: &Task, now_ms: i64) -> Option<Trouble> {
    let since = task.stopping_since_ms?;
    let look = match (&task.container, task.program_pid) {
        (Some(container), _) if task.phase == Phase::Running => format!("docker top {}", container.name),
        (_, Some(pid)) => format!("ps -o stat,wchan -p {pid}"),
        (_, None) => return None,
    };
    if now_ms - since < STOP_MS {
        return None;
    }
    Some(Trouble {
        kind: TroubleKind::SlowStop,
        about: task.task.to_string(),
        what: format!(
            "Task {} was told to stop {} ago and still runs.",
            task.task,
            span(now_ms - since)
        ),
        advice: format!(
            "It is killed after agent.abort_grace_sec. A process that waits for a device or a lost mount can't be \
             killed; see `{look}`."
        ),
    })
}

#[cfg(test)]
mod tests {
    use clearml_intake::{Pause, QueuePresence};

    use super::*;

    const NOW: i64 = 1_000_000_000;

    fn task(change: fn(&mut Task)) -> Task {
        let mut task = Task {
            task: "t".into(),
            run: "r".to_owned(),
            worker: "host:0".into(),
            queue: None,
            queue_name: None,
            phase: Phase::Running,
            station: None,
            station_ms: Some(NOW - 600_000),
            created_ms: NOW - 700_000,
            elsewhere: None,
            earlier_boot: false,
            runner_pid: Some(2),
            program_pid: Some(3),
            container: None,
            processes: 1,
            memory_bytes: 0,
            console_waiting_bytes: 0,
            console_taken_ms: Some(NOW - 1_000),
            console_written_ms: None,
            last_line: None,
            stopping: None,
            stopping_since_ms: None,
        };
        change(&mut task);
        task
    }

    fn worker(id: &str, change: fn(&mut Details)) -> Worker {
        let mut details = Details {
            version: "1".to_owned(),
            started_ms: 0,
            server: "http://server".to_owned(),
            server_away_since_ms: None,
            queues: Vec::new(),
            looked_ms: None,
            gpus: None,
            paused: None,
            adopts_after_sec: Some(60.0),
        };
        change(&mut details);
        Worker {
            worker: id.into(),
            pid: 1,
            details: Some(details),
        }
    }

    #[track_caller]
    fn finds(workers: Vec<Worker>, task: Option<Task>, expected: &[(TroubleKind, &str)]) {
        compare(&overview(workers, task), expected);
    }

    fn overview(workers: Vec<Worker>, task: Option<Task>) -> Overview {
        Overview {
            schema: 1,
            now_ms: NOW,
            host: "h".to_owned(),
            state_dir: "/s".to_owned(),
            state_dir_full: false,
            workers,
            tasks: task.into_iter().collect(),
            ended: Vec::new(),
            trouble: Vec::new(),
        }
    }

    #[track_caller]
    fn compare(overview: &Overview, expected: &[(TroubleKind, &str)]) {
        let found = find(overview);
        let kinds: Vec<_> = found.iter().map(|trouble| trouble.kind).collect();
        let wanted: Vec<_> = expected.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, wanted, "{found:?}");
        for (trouble, (_, part)) in found.iter().zip(expected) {
            let text = format!("{} {}", trouble.what, trouble.advice);
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn what_goes_well_is_no_trouble() {
        let idle = || worker("host:0", |_| {});
        finds(vec![idle()], Some(task(|_| {})), &[]);
        // Taken a moment ago; a runner that has just died; a run of another machine.
        let taken =
            task(|task| (task.phase, task.runner_pid, task.program_pid) = (Phase::Claimed, None, None));
        finds(vec![idle()], Some(taken), &[]);
        let just = task(|task| (task.runner_pid, task.station_ms) = (None, Some(NOW - 1_000)));
        finds(vec![idle()], Some(just), &[]);
        let elsewhere = task(|task| (task.runner_pid, task.elsewhere) = (None, Some("other".to_owned())));
        finds(vec![], Some(elsewhere), &[]);
    }

    #[test]
    fn a_full_disk_is_blamed_and_not_the_server() {
        let waits = || {
            task(|task| {
                (task.console_waiting_bytes, task.console_taken_ms) = (10, Some(NOW - 90_000));
                task.station_ms = Some(NOW - 90_000);
            })
        };
        let mut seen = overview(vec![], Some(waits()));
        compare(
            &seen,
            &[(TroubleKind::ConsoleWaits, "the server does not take them")],
        );
        seen.state_dir_full = true;
        compare(&seen, &[(TroubleKind::DiskFull, "The disk of /s is full")]);
    }

    #[test]
    fn a_task_that_nobody_looks_after_has_a_way_out() {
        let left = || task(|task| task.runner_pid = None);
        finds(
            vec![],
            Some(left()),
            &[(
                TroubleKind::Orphan,
                "goes on as process 3. Start the daemon of host:0",
            )],
        );
        let other = worker("host:1", |_| {});
        finds(
            vec![other],
            Some(left()),
            &[(
                TroubleKind::Orphan,
                "worker host:1 takes the task over when it is free and 1 min",
            )],
        );
        let own = worker("host:0", |_| {});
        finds(
            vec![own],
            Some(left()),
            &[(TroubleKind::RunnerDead, "runner.log in /s/runs/r")],
        );
        let rebooted = task(|task| {
            (task.runner_pid, task.program_pid, task.earlier_boot) = (None, None, true);
        });
        finds(
            vec![],
            Some(rebooted),
            &[(
                TroubleKind::Orphan,
                "since this machine was started again; its program has ended",
            )],
        );
    }

    #[test]
    fn what_holds_up_queues_console_and_stops_is_named() {
        let stuck = worker("host:0", |details| {
            details.server_away_since_ms = Some(NOW - 90_000);
            details.paused = Some(Pause {
                until_ms: NOW + 5_000,
                reason: "disk full".to_owned(),
            });
            details.queues = vec![QueuePresence {
                id: "q".into(),
                name: "night".to_owned(),
                waiting: Some(2),
                or_more: false,
                resting: true,
            }];
        });
        let slow = task(|task| {
            task.console_waiting_bytes = 12_345;
            task.console_taken_ms = Some(NOW - 40_000);
            task.stopping_since_ms = Some(NOW - 120_000);
        });
        finds(
            vec![stuck],
            Some(slow),
            &[
                (TroubleKind::ServerAway, "(1 min 30 s)"),
                (TroubleKind::Paused, "another 5 s: disk full"),
                (TroubleKind::QueueRests, "2 task(s) wait in queue night"),
                (TroubleKind::ConsoleWaits, "12 kB of the console"),
                (TroubleKind::SlowStop, "2 min ago and still runs"),
            ],
        );
        let over = worker("host:0", |details| {
            details.paused = Some(Pause {
                until_ms: NOW - 1,
                reason: String::new(),
            });
        });
        finds(vec![over], None, &[]);
    }

    #[test]
    fn sizes_and_spans_are_short() {
        for (size, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.0 kB"),
            (12_345, "12 kB"),
            (999_600, "1.0 MB"),
            (3 << 40, "3.3 TB"),
        ] {
            assert_eq!(bytes(size), text);
        }
        for (ms, text) in [
            (-5, "0 s"),
            (59_999, "59 s"),
            (3_600_000, "1 h"),
            (90_061_000, "1 d 1 h"),
            (125_000, "2 min 5 s"),
        ] {
            assert_eq!(span(ms), text);
        }
    }
}
