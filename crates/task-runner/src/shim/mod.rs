//! The shim: the small process between the agent and the user's code.
//!
//! It is synchronous, has one thread, and does the same few things until the end: read what the user's
//! processes print and append it to the console on disk, wait for them, and write down how they ended.
//! It needs neither runner nor daemon nor server, and outlives them all.
//!
//! It is the reaper of everything below it, so that no descendant, daemonised or not, can get away: a
//! process whose parent dies becomes a child of the shim. Where it may, it also puts them into a control group of
//! their own, which finds them when the shim has been killed itself.

pub(crate) mod group;
mod sink;
mod tree;

use std::fs::Permissions;
use std::io::{self, PipeReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clearml_support::fs;
use clearml_support::process::{ProcessIdentity, detach_session};
use clearml_support::time::now_ms;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal};

use crate::record::{Launch, SCHEMA, ShimClaim, Verdict};
use crate::run_dir::RunDir;
use crate::runner::many::restore_open_files;
use group::RunGroup;
use sink::Sink;

/// Exit code of a shim that has done its work; what became of the user's code is in the verdict.
pub const EXIT_DONE: i32 = 0;
/// Exit code of a shim that could not do its work and says why on stderr.
pub const EXIT_ERROR: i32 = 1;
/// Exit code of a shim that found the run claimed by another one.
pub const EXIT_CLAIMED: i32 = 3;

/// How long descendants may go on by themselves after the main process has ended.
const LINGER: Duration = Duration::from_millis(200);
/// How long to wait for processes to vanish after SIGKILL. Only a process stuck in the kernel, such as
/// on a dead network mount, stays that long.
const KILL_PATIENCE: Duration = Duration::from_secs(30);
/// How long output may gather in the pipe after some of it was read. Programs write their lines in pieces; to
/// be woken for each of them would cost them and us far more than the lines themselves.
const GATHER: Duration = Duration::from_millis(2);
/// Whoever has filled that much of the pipe meanwhile is not kept waiting: a pipe may hold no more than 64 KiB.
const MUCH: usize = 32 << 10;
/// How often to look for descendants while they are being stopped.
const STOP_POLL: Duration = Duration::from_millis(20);

/// The whole of `clearml-agent shim --run DIR`: runs what `launch.json` says, if no other shim does.
/// Returns the exit code for the process. To be called before any thread exists.
#[must_use]
pub fn shim_main(run_dir: &Path) -> i32 {
    match supervise(run_dir) {
        Ok(code) => code,
        Err(e) => {
            // Nobody reads this but the runner, which quotes it.
            let _unwritable = writeln!(
                io::stderr(),
                "the process supervisor for {} failed: {e}",
                run_dir.display()
            );
            EXIT_ERROR
        }
    }
}

fn supervise(run_dir: &Path) -> io::Result<i32> {
    let run = RunDir::unchecked(run_dir)?;
    crate::umask::make_private();
    close_fds::set_fds_cloexec(3, &[]);
    // Fails only for the leader of a process group, which a terminal can't reach by accident either.
    let _group_leader = detach_session();
    let folder = std::env::current_dir();
    std::env::set_current_dir("/")?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;

    let mut launch = run.launch().map_err(io::Error::other)?;
    if launch.contained {
        crate::umask::share();
        if launch.cwd.as_os_str().is_empty() {
            launch.cwd = folder.unwrap_or_else(|_| "/".into());
        }
    }
    let signals = Signals::register()?;
    let name = run.path().file_name().unwrap_or_default().to_string_lossy();
    let group = RunGroup::create(&name);
    if !claim(&run, group.as_ref())? && !run.begins_again(&launch)? {
        if let Some(group) = group {
            group.remove();
        }
        return Ok(EXIT_CLAIMED);
    }
    let mut sink = Sink::open(&run, &launch)?;
    let reserve = Reserve::make(&run);
    let started_ms = now_ms();
    let mut verdict = match start_in(group.as_ref(), &launch) {
        Ok((main, pipe)) => {
            protect_from_oom_killer();
            Supervisor::new(main, pipe, &launch, (signals, group))?.run(&mut sink)?
        }
        Err(e) => Verdict {
            launch_error: Some(launch_error(&launch, &e)),
            ..Verdict::of(None)
        },
    };
    let dropped = sink.finish();
    verdict.started_ms = started_ms;
    verdict.finished_ms = now_ms().max(started_ms);
    verdict.dropped_lines = dropped.lines;
    verdict.dropped_bytes = dropped.bytes;
    reserve.release();
    write_verdict(&run, &verdict)?;
    // Whoever restarts the container asks how it has ended.
    let code = verdict
        .code()
        .map_or(EXIT_ERROR, |code| if code < 0 { 128 - code } else { code });
    Ok(if launch.restarts { code } else { EXIT_DONE })
}

/// A little space on the disk that is given back right before the verdict is written, so that a task
/// that has filled the disk does not take its exit code with it.
struct Reserve(std::path::PathBuf);

impl Reserve {
    const BYTES: [u8; 16 << 10] = [b' '; 16 << 10];

    fn make(run: &RunDir) -> Self {
        let path = run.path().join("reserve");
        // A disk that is full already has nothing to reserve.
        let _full = std::fs::write(&path, Self::BYTES);
        Self(path)
    }

    fn release(self) {
        let _never_made = std::fs::remove_file(self.0);
    }
}

/// The exit code must not be lost to a disk that is full for a moment.
fn write_verdict(run: &RunDir, verdict: &Verdict) -> io::Result<()> {
    let mut pause = Duration::from_millis(100);
    let deadline = Instant::now() + Duration::from_secs(600);
    loop {
        match run.write_verdict(verdict) {
            Ok(()) => return Ok(()),
            // Nobody would ever find it in a folder that is gone.
            Err(e) if Instant::now() >= deadline || !run.path().is_dir() => return Err(io::Error::other(e)),
            Err(_) => std::thread::sleep(pause),
        }
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}

/// Makes this process the one shim of the run. The claim appears complete or not at all: it is written
/// aside and linked into place, which fails if the name is taken.
pub(crate) fn claim(run: &RunDir, group: Option<&RunGroup>) -> io::Result<bool> {
    let claim = ShimClaim {
        schema: SCHEMA,
        shim: ProcessIdentity::current()?,
        group: group.map(|group| group.path().to_owned()),
        claimed_ms: now_ms(),
    };
    let path = run.claim_path();
    let aside = path.with_file_name(format!(".claim-{}-{}", claim.shim.pid, claim.shim.start_ticks));
    let mut file = fs::create_private_file(&aside)?;
    file.set_permissions(Permissions::from_mode(crate::umask::file_mode()))?;
    file.write_all(&serde_json::to_vec(&claim)?)?;
    file.sync_all()?;
    let linked = std::fs::hard_link(&aside, &path);
    std::fs::remove_file(&aside)?;
    match linked {
        Ok(()) => {
            fs::sync_folder(run.path())?;
            Ok(true)
        }
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(e) => Err(e),
    }
}

/// Starts the user's program as a member of the group, if there is one that lets processes in.
fn start_in(group: Option<&RunGroup>, launch: &Launch) -> io::Result<(Pid, PipeReader)> {
    let started = group.map(|group| group.inside(|| start(launch)));
    match started {
        Some(Ok(result)) => result,
        // Nothing was started.
        Some(Err(_)) | None => start(launch),
    }
}

/// Starts the user's program with its output on one pipe, so that stdout and stderr keep their order.
fn start(launch: &Launch) -> io::Result<(Pid, PipeReader)> {
    let Some((program, arguments)) = launch.argv.split_first() else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the command is empty",
        ));
    };
    let (reader, writer) = io::pipe()?;
    // A larger pipe lets a burst of output pass without the program waiting for us. Not every system
    // permits it, and it is only a convenience.
    let _refused = rustix::pipe::fcntl_setpipe_size(&reader, 1 << 20);
    let flags = rustix::fs::fcntl_getfl(&reader)?;
    rustix::fs::fcntl_setfl(&reader, flags | rustix::fs::OFlags::NONBLOCK)?;

    let mut command = Command::new(&program.0);
    if !launch.contained {
        command.env_clear();
    }
    command
        .args(arguments.iter().map(|argument| &argument.0))
        .envs(launch.env.iter().map(|(name, value)| (&name.0, &value.0)))
        .current_dir(&launch.cwd)
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .process_group(0);
    if let Some(before) = launch.open_files {
        restore_open_files(before)?;
    }
    let child = crate::umask::in_public(launch.umask, || command.spawn());
    let pid = child?.id().cast_signed();
    let pid = Pid::from_raw(pid).ok_or_else(|| io::Error::other("the new process has no pid"))?;
    Ok((pid, reader))
}

fn launch_error(launch: &Launch, error: &io::Error) -> String {
    let program = launch
        .argv
        .first()
        .map(|p| p.0.to_string_lossy())
        .unwrap_or_default();
    if launch.cwd.is_dir() {
        format!("starting {program:?} failed: {error}; check that the program exists and is executable")
    } else {
        format!(
            "starting {program:?} failed: its working folder {} does not exist",
            launch.cwd.display()
        )
    }
}

/// The user's program may use up the memory; the one who has to tell about it should not be the victim.
/// Done after the program was started, because it is inherited.
fn protect_from_oom_killer() {
    // Needs a privilege that an ordinary user does not have.
    let _not_permitted = std::fs::write("/proc/self/oom_score_adj", "-900");
}

/// SIGTERM and SIGCHLD, as a flag and as something to poll.
struct Signals {
    terminate: Arc<AtomicBool>,
    child: Arc<AtomicBool>,
    wake: OwnedFd,
}

impl Signals {
    fn register() -> io::Result<Self> {
        use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM};
        let (terminate, child) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        signal_hook::flag::register(SIGTERM, Arc::clone(&terminate))?;
        signal_hook::flag::register(SIGCHLD, Arc::clone(&child))?;
        // Meant for a terminal's foreground, where we are not. A handler, and not "ignore", because
        // exec resets handlers to the default for the user's program.
        for signal in [SIGHUP, SIGINT, SIGQUIT] {
            signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)))?;
        }
        let (reader, writer) = std::os::unix::net::UnixStream::pair()?;
        reader.set_nonblocking(true)?;
        for signal in [SIGTERM, SIGCHLD] {
            signal_hook::low_level::pipe::register(signal, writer.try_clone()?)?;
        }
        Ok(Self {
            terminate,
            child,
            wake: reader.into(),
        })
    }

    fn poll_fd(&self) -> PollFd<'_> {
        PollFd::new(&self.wake, PollFlags::IN)
    }

    fn clear_wake(&self) {
        let mut bytes = [0; 64];
        while rustix::io::read(&self.wake, &mut bytes).is_ok_and(|count| count > 0) {}
    }
}

/// Where the supervision stands.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Stage {
    /// The main process runs.
    Running,
    /// The main process has ended by itself; others may finish what they do.
    Linger { until: Instant },
    /// Everybody has got SIGTERM.
    Terminating { until: Instant },
    /// Everybody gets SIGKILL, until nobody is left.
    Killing { until: Instant },
}

impl Stage {
    fn until(self) -> Option<Instant> {
        match self {
            Self::Running => None,
            Self::Linger { until } | Self::Terminating { until } | Self::Killing { until } => Some(until),
        }
    }
}

struct Supervisor {
    me: i32,
    main: Pid,
    pipe: Option<PipeReader>,
    signals: Signals,
    group: Option<RunGroup>,
    stage: Stage,
    grace: Duration,
    leftover_grace: Duration,
    verdict: Verdict,
    main_ended: bool,
}

impl Supervisor {
    fn new(
        main: Pid,
        pipe: PipeReader,
        launch: &Launch,
        (signals, group): (Signals, Option<RunGroup>),
    ) -> io::Result<Self> {
        Ok(Self {
            me: ProcessIdentity::current()?.pid,
            main,
            pipe: Some(pipe),
            signals,
            group,
            stage: Stage::Running,
            grace: Duration::from_millis(launch.grace_ms),
            leftover_grace: Duration::from_millis(launch.leftover_grace_ms),
            verdict: Verdict::of(None),
            main_ended: false,
        })
    }

    fn run(mut self, sink: &mut Sink) -> io::Result<Verdict> {
        // The program may have ended before its SIGCHLD had a handler.
        self.signals.child.store(true, Ordering::SeqCst);
        loop {
            let count = self.drain_once(sink)?;
            if self.signals.child.swap(false, Ordering::SeqCst) {
                self.reap();
            }
            if self.signals.terminate.load(Ordering::SeqCst) && !self.verdict.aborted {
                self.verdict.aborted = true;
                if matches!(self.stage, Stage::Running | Stage::Linger { .. }) {
                    self.terminate(self.grace);
                }
            }
            if self.advance() {
                break;
            }
            match count {
                0 => self.wait()?,
                1..MUCH => self.gather()?,
                MUCH.. => {}
            }
        }
        // Every writer is gone, so what the pipe holds now is all there will be.
        while self.drain_once(sink)? > 0 {}
        if let Some(group) = &self.group {
            group.remove();
        }
        Ok(self.verdict)
    }

    /// Reads the pipe once, so that a program that prints without end can't keep us from the rest. Returns the
    /// number of bytes.
    fn drain_once(&mut self, sink: &mut Sink) -> io::Result<usize> {
        let Some(pipe) = &self.pipe else { return Ok(0) };
        match sink.read_from(pipe) {
            Ok(0) => {
                self.pipe = None;
                Ok(0)
            }
            Ok(count) => Ok(count),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(0),
            Err(e) => Err(e),
        }
    }

    fn reap(&mut self) {
        for (pid, status) in tree::reap() {
            if pid == self.main {
                self.main_ended = true;
                self.verdict.exit_code = status.exit_status();
                self.verdict.signal = status.terminating_signal();
                if self.stage == Stage::Running {
                    self.stage = Stage::Linger {
                        until: Instant::now() + LINGER,
                    };
                }
            }
        }
    }

    fn terminate(&mut self, grace: Duration) {
        tree::ask_to_end(self.me);
        self.stage = Stage::Terminating {
            until: Instant::now() + grace,
        };
    }

    fn kill(&self) {
        if let Some(group) = &self.group {
            // What it does not reach is reached as a descendant.
            let _unreached = group.kill();
        }
        tree::signal_descendants(self.me, Signal::KILL);
    }

    /// Takes the next step when it is due. Returns whether nothing is left to supervise.
    fn advance(&mut self) -> bool {
        if self.stage == Stage::Running {
            return false;
        }
        self.reap();
        if !tree::has_children() {
            return self.main_ended;
        }
        let due = self.stage.until().is_some_and(|until| Instant::now() >= until);
        match self.stage {
            Stage::Linger { .. } if due => self.terminate(self.leftover_grace),
            Stage::Terminating { .. } if due => {
                self.stage = Stage::Killing {
                    until: Instant::now() + KILL_PATIENCE,
                };
                self.kill();
            }
            Stage::Killing { .. } if due => {
                let left = clearml_support::process::descendants(self.me).len();
                self.verdict.survivors = u32::try_from(left).unwrap_or(u32::MAX);
                return true;
            }
            // Again and again: a process may have had a child between listing and killing.
            Stage::Killing { .. } => self.kill(),
            _ => {}
        }
        false
    }

    /// Waits for output, a signal, or the next time to look for descendants.
    fn wait(&self) -> io::Result<()> {
        let timeout = (self.stage != Stage::Running).then_some(STOP_POLL);
        match &self.pipe {
            Some(pipe) => {
                let pipe = PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::IN);
                self.poll(&mut [self.signals.poll_fd(), pipe], timeout)
            }
            None => self.poll(&mut [self.signals.poll_fd()], timeout),
        }
    }

    /// Lets output gather, unless there is a signal.
    fn gather(&self) -> io::Result<()> {
        self.poll(&mut [self.signals.poll_fd()], Some(GATHER))
    }

    fn poll(&self, ends: &mut [PollFd<'_>], timeout: Option<Duration>) -> io::Result<()> {
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: 0,
            tv_nsec: i64::from(timeout.subsec_nanos()),
        });
        let result = poll(ends, timeout.as_ref());
        if ends.first().is_some_and(|wake| !wake.revents().is_empty()) {
            self.signals.clear_wake();
        }
        match result {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }
}
