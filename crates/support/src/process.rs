//! Recognising processes across restarts, and finding what a process has started.
//!
//! A pid alone means nothing after its process has ended: the number is given out again. Pid, start
//! time and boot id together name one process for ever (`proc_pid_stat(5)`, field 22, and
//! `/proc/sys/kernel/random/boot_id`). Signals go through a pidfd, so that one can't hit a successor.

use std::fs;
use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Once};

use rustix::process::{Pid, PidfdFlags, Signal};
use serde::{Deserialize, Serialize};

/// One process, for ever.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessIdentity {
    /// Process id.
    pub pid: i32,
    /// Start time in clock ticks since boot.
    pub start_ticks: u64,
    /// The boot this belongs to.
    pub boot_id: String,
}

impl ProcessIdentity {
    /// The calling process.
    ///
    /// # Errors
    ///
    /// When `/proc` is not there or not readable.
    pub fn current() -> io::Result<Self> {
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        Self::of(pid)?.ok_or_else(|| io::Error::other("this process is missing from /proc"))
    }

    /// The process that has this pid now, or `None` when there is none.
    ///
    /// # Errors
    ///
    /// When `/proc` is not there or not readable.
    pub fn of(pid: i32) -> io::Result<Option<Self>> {
        match Stat::read(pid)? {
            Some(stat) => Ok(Some(Self {
                pid,
                start_ticks: stat.start_ticks,
                boot_id: boot_id()?,
            })),
            None => Ok(None),
        }
    }

    /// Whether this very process still runs. A zombie, which runs no more, counts as gone.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        let same = matches!(Stat::read(self.pid),
            Ok(Some(stat)) if stat.start_ticks == self.start_ticks && !matches!(stat.state, 'Z' | 'X'));
        same && boot_id().is_ok_and(|boot| boot == self.boot_id)
    }

    /// Sends a signal to this very process. `false` when it is gone.
    ///
    /// # Errors
    ///
    /// When we may not signal it, or the kernel (before 5.3) has no pidfd.
    pub fn signal(&self, signal: Signal) -> io::Result<bool> {
        let Some(pid) = Pid::from_raw(self.pid) else {
            return Ok(false);
        };
        // Open first, compare then: the descriptor keeps naming the process that was compared.
        let handle = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Ok(handle) => handle,
            Err(rustix::io::Errno::SRCH) => return Ok(false),
            Err(e) => return Err(e.into()),
        };
        if !self.is_alive() {
            return Ok(false);
        }
        match rustix::process::pidfd_send_signal(&handle, signal) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::SRCH) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }
}

/// Whether this process ignores the signal, and has not listened to it yet: what `nohup` asks for.
#[must_use]
pub fn ignores_signal(signal: Signal) -> bool {
    ignores(
        &fs::read_to_string("/proc/self/status").unwrap_or_default(),
        signal,
    )
}

/// The same of a process with this `/proc/<pid>/status`.
fn ignores(status: &str, signal: Signal) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask >> (signal.as_raw() - 1) & 1 == 1)
}

/// The kernel's name for the time since this machine was started.
///
/// # Errors
///
/// When `/proc` is not mounted.
pub fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?
        .trim()
        .to_owned())
}

/// Makes the calling process the leader of a new session without a terminal, so that nothing that
/// happens to its starter reaches it. Does nothing when it leads its session already.
///
/// # Errors
///
/// When the process leads a process group of an older session.
pub fn detach_session() -> io::Result<()> {
    match rustix::process::setsid() {
        Ok(_) => Ok(()),
        // From /proc and not by getsid(2), which says 0, no valid id, where the session began outside of
        // the container that this process runs in.
        Err(rustix::io::Errno::PERM) if leads_its_session()? => Ok(()),
        Err(e) => Err(e.into()),
    }
}

fn leads_its_session() -> io::Result<bool> {
    let me = rustix::process::getpid().as_raw_nonzero().get();
    Ok(Stat::read(me)?.is_some_and(|stat| stat.session == me))
}

/// The living processes of this machine at one moment.
#[derive(Debug)]
pub struct Processes(Vec<(i32, Stat)>);

impl Processes {
    /// Those of now.
    #[must_use]
    pub fn now() -> Self {
        Self(snapshot())
    }

    /// All that descend from `pid`, nearest first, `pid` itself excluded. A process whose ancestors have
    /// died belongs to its reaper, so call it on a subreaper to see orphans.
    #[must_use]
    pub fn below(&self, pid: i32) -> Vec<i32> {
        let mut found = Vec::new();
        let mut wave = vec![pid];
        while !wave.is_empty() {
            let next: Vec<i32> = self
                .0
                .iter()
                .filter(|(child, stat)| wave.contains(&stat.parent) && !found.contains(child))
                .map(|(child, _)| *child)
                .collect();
            found.extend(&next);
            wave = next;
        }
        found
    }
}

/// All living processes that descend from `pid`, as [`Processes::below`] has them now.
#[must_use]
pub fn descendants(pid: i32) -> Vec<i32> {
    Processes::now().below(pid)
}

/// As [`descendants`], at a cost that does not grow with the number of processes of the machine. A process whose
/// brother ends at the same moment may be missing; `None` where the kernel does not keep such lists.
#[must_use]
pub fn descendants_by_lists(pid: i32) -> Option<Vec<i32>> {
    let mut found = Vec::new();
    let mut next = vec![pid];
    while let Some(parent) = next.pop() {
        // One that has ended meanwhile has no children any more.
        let Ok(threads) = fs::read_dir(format!("/proc/{parent}/task")) else {
            continue;
        };
        for thread in threads.flatten() {
            match fs::read_to_string(thread.path().join("children")) {
                Ok(list) => next.extend(list.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok())),
                Err(e) if e.kind() == io::ErrorKind::NotFound && thread.path().exists() => return None,
                Err(_) => {}
            }
        }
        if parent != pid {
            found.push(parent);
        }
    }
    Some(found)
}

/// All living processes of a session.
#[must_use]
pub fn session_members(session: i32) -> Vec<i32> {
    snapshot()
        .into_iter()
        .filter(|(_, stat)| stat.session == session)
        .map(|(pid, _)| pid)
        .collect()
}

fn snapshot() -> Vec<(i32, Stat)> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, Stat::read(pid).ok()??)))
        .filter(|(_, stat)| !matches!(stat.state, 'Z' | 'X'))
        .collect()
}

/// The fields of `/proc/<pid>/stat` that matter here.
#[derive(Debug, PartialEq)]
struct Stat {
    state: char,
    parent: i32,
    session: i32,
    start_ticks: u64,
}

impl Stat {
    fn read(pid: i32) -> io::Result<Option<Self>> {
        match fs::read(format!("/proc/{pid}/stat")) {
            // The name of a process is any bytes; only what follows it matters.
            Ok(bytes) => Self::parse(&String::from_utf8_lossy(&bytes))
                .map(Some)
                .ok_or_else(|| {
                    io::Error::new(
                        io::ErrorKind::InvalidData,
                        format!("/proc/{pid}/stat has an unknown form"),
                    )
                }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            // The process ended between opening and reading.
            Err(e) if e.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The name in field 2 may contain anything, so fields are counted from its last bracket.
    fn parse(text: &str) -> Option<Self> {
        let mut fields = text[text.rfind(')')? + 1..].split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        let parent = fields.next()?.parse().ok()?;
        let session = fields.nth(1)?.parse().ok()?;
        let start_ticks = fields.nth(15)?.parse().ok()?;
        Some(Self {
            state,
            parent,
            session,
            start_ticks,
        })
    }
}

/// Sees to it that programs which this process starts begin with the default for the signals by which they are asked to
/// end. Whoever starts an agent in the background of a script has some of them ignored, and a program inherits that: a
/// tool that is asked to stop would not hear it. A handler that does nothing is the same to us, and exec sets it back
/// to the default.
pub(crate) fn end_inheritance_of_ignored_signals() {
    static DONE: Once = Once::new();
    DONE.call_once(|| {
        for signal in [Signal::INT, Signal::QUIT, Signal::TERM] {
            if ignores_signal(signal) {
                // It fails only for signals that nobody may handle.
                let _handled = signal_hook::flag::register(signal.as_raw(), Arc::new(AtomicBool::new(false)));
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn what_nohup_does_is_seen() {
        let output = |program: &str, arguments: &[&str]| {
            let output = Command::new(program).args(arguments).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        assert!(!ignores(&output("cat", &["/proc/self/status"]), Signal::HUP));
        let ignoring = output("sh", &["-c", "trap '' HUP; exec cat /proc/self/status"]);
        assert!(ignores(&ignoring, Signal::HUP) && !ignores(&ignoring, Signal::TERM));
    }

    #[test]
    fn stat_survives_a_hostile_process_name() {
        let text = "42 (a) R 1 2 (x) S 7 8 9 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 123456 1 2";
        assert_eq!(
            Stat::parse(text),
            Some(Stat {
                state: 'S',
                parent: 7,
                session: 9,
                start_ticks: 123_456
            })
        );
    }

    #[test]
    fn an_ended_process_is_not_alive_and_takes_no_signal() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let identity = ProcessIdentity::of(child.id().cast_signed()).unwrap().unwrap();
        assert!(identity.is_alive());
        let me = rustix::process::getpid().as_raw_nonzero().get();
        assert!(descendants(me).contains(&identity.pid));
        assert!(descendants_by_lists(me).is_none_or(|found| found.contains(&identity.pid)));
        assert!(identity.signal(Signal::KILL).unwrap());
        child.wait().unwrap();
        assert!(!identity.is_alive());
        assert!(!identity.signal(Signal::KILL).unwrap());
    }

    #[test]
    fn the_same_pid_with_another_start_or_boot_is_another_process() {
        let me = ProcessIdentity::current().unwrap();
        assert!(me.is_alive());
        assert!(
            !ProcessIdentity {
                start_ticks: me.start_ticks + 1,
                ..me.clone()
            }
            .is_alive()
        );
        assert!(
            !ProcessIdentity {
                boot_id: "other".into(),
                ..me
            }
            .is_alive()
        );
    }
}
