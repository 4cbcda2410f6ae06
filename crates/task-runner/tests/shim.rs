//! The shim as a process of its own, with real programs below it. The program under test is the
//! example `run_program`, which becomes a shim when it is started as one.

mod common;

use std::ffi::OsStr;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use clearml_support::process::ProcessIdentity;
use clearml_task_runner::console::Channel;
use clearml_task_runner::console::reader::ChannelReader;
use clearml_task_runner::console::segment::Kind;
use clearml_task_runner::shim::{EXIT_CLAIMED, EXIT_DONE};
use common::{Setup, eventually, is_running, kept_bytes, launch_of};
use rustix::process::Signal;

#[test]
fn exit_codes_and_signals_are_told_apart() {
    for (script, expected) in [
        ("exit 0", 0),
        ("exit 7", 7),
        ("kill -9 $$", -9),
        ("kill -TERM $$", -15),
    ] {
        let setup = Setup::new(script);
        assert_eq!(setup.run_to_end().code(), Some(expected), "{script}");
    }
}

#[test]
fn a_session_that_began_outside_of_the_container_is_no_obstacle() {
    let setup = Setup::new("exit 7");
    setup.run.write_launch(&setup.launch).unwrap();
    // What a container is to a process that was put into it without a session of its own.
    let inside = |arguments: &[&OsStr]| {
        let flags = ["--user", "--map-root-user", "--pid", "--fork", "--mount-proc"];
        Command::new("unshare").args(flags).args(arguments).output()
    };
    if !inside(&["true".as_ref()]).is_ok_and(|output| output.status.success()) {
        eprintln!(
            "SKIPPED a_session_that_began_outside_of_the_container_is_no_obstacle: \
             this machine permits no process namespaces"
        );
        return;
    }
    let program = common::program();
    let shim = inside(&[
        program.as_ref(),
        "shim".as_ref(),
        "--run".as_ref(),
        setup.run.path().as_ref(),
    ]);
    let verdict = setup.run.verdict().unwrap();
    assert_eq!(verdict.and_then(|verdict| verdict.code()), Some(7), "{shim:?}");
}

#[test]
fn bytes_arrive_unchanged_whatever_they_are() {
    let setup = Setup::new(
        r"printf 'a\377\376\000b\r'; printf err >&2; head -c 10000000 /dev/zero | tr '\0' x; printf '\nend'",
    );
    assert_eq!(setup.run_to_end().code(), Some(0));
    let bytes = kept_bytes(&setup.run);
    let mut expected = b"a\xff\xfe\x00b\rerr".to_vec();
    expected.extend(std::iter::repeat_n(b'x', 10_000_000));
    expected.extend_from_slice(b"\nend");
    assert_eq!(bytes.len(), expected.len());
    assert!(bytes == expected, "the bytes differ");
    assert!(
        fs::read_dir(setup.run.console_dir()).unwrap().count() > 3,
        "the console is cut into segments"
    );
}

#[test]
fn a_program_that_writes_in_small_pieces_does_not_wake_the_shim_for_each() {
    let setup = Setup::new("i=0; while [ $i -lt 20000 ]; do echo $i; i=$((i+1)); done");
    assert_eq!(setup.run_to_end().code(), Some(0));
    let expected: String = (0..20_000).map(|number| format!("{number}\n")).collect();
    assert!(kept_bytes(&setup.run) == expected.as_bytes(), "the lines differ");
    let mut reader = ChannelReader::new(&setup.run.console_dir(), Channel::Task, 0);
    reader.fill(usize::MAX).unwrap();
    let verdict = setup.run.verdict().unwrap().unwrap();
    let took = usize::try_from(verdict.finished_ms - verdict.started_ms).unwrap();
    let most = took / 2 + 10;
    let records = reader.window().len();
    assert!(records <= most, "{records} records in {took} ms");
}

#[test]
fn a_program_that_handles_sigterm_gets_time_and_its_last_words_are_kept() {
    let setup = Setup::new("trap 'echo goodbye; exit 5' TERM; echo ready; while :; do sleep 0.05; done");
    let shim = setup.spawn();
    setup.wait_for_output("ready");
    setup.shim().signal(Signal::TERM).unwrap();
    let verdict = setup.end_of(shim);
    assert_eq!((verdict.code(), verdict.aborted), (Some(5), true));
    // The shell may mention that its own child was terminated.
    let text = String::from_utf8(kept_bytes(&setup.run)).unwrap();
    assert!(
        text.starts_with("ready\n") && text.ends_with("goodbye\n"),
        "{text}"
    );
}

#[test]
fn a_program_that_ignores_sigterm_is_killed_after_the_grace() {
    let setup = Setup::new("trap '' TERM; echo ready; while :; do sleep 0.05; done");
    let shim = setup.spawn();
    setup.wait_for_output("ready");
    let start = Instant::now();
    setup.shim().signal(Signal::TERM).unwrap();
    let verdict = setup.end_of(shim);
    assert_eq!(
        (verdict.code(), verdict.aborted, verdict.survivors),
        (Some(-9), true, 0)
    );
    assert!(
        start.elapsed() >= Duration::from_millis(300),
        "grace was {:?}",
        start.elapsed()
    );
}

#[test]
fn a_daemonised_grandchild_does_not_survive() {
    let script = "sh -c 'setsid sh -c \"trap : TERM; echo $$ >pid; exec sleep 600\" </dev/null >/dev/null 2>&1 &'; \
                  while ! [ -s pid ]; do sleep 0.01; done";
    let setup = Setup::new(script);
    assert_eq!(setup.run_to_end().code(), Some(0));
    let sessions = clearml_support::process::session_members(setup.shim().pid);
    assert!(sessions.is_empty(), "{sessions:?}");
    let pid: i32 = fs::read_to_string(setup.folder().join("pid"))
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    assert!(!is_running(pid), "process {pid} got away");
}

#[test]
fn a_background_process_that_holds_the_output_open_does_not_keep_the_run_alive() {
    let setup = Setup::new("sleep 600 & echo done; exit 4");
    let start = Instant::now();
    assert_eq!(setup.run_to_end().code(), Some(4));
    assert!(start.elapsed() < Duration::from_secs(10));
    assert_eq!(kept_bytes(&setup.run), b"done\n");
}

#[test]
fn what_cannot_be_started_is_said_in_the_verdict() {
    let mut setup = Setup::new("");
    setup.launch.argv = vec!["/no/such/program".into()];
    let error = setup.run_to_end().launch_error.unwrap();
    assert!(
        error.contains("/no/such/program") && error.contains("No such file"),
        "{error}"
    );

    let mut setup = Setup::new("");
    setup.launch.cwd = "/no/such/folder".into();
    let error = setup.run_to_end().launch_error.unwrap();
    assert!(
        error.contains("working folder /no/such/folder does not exist"),
        "{error}"
    );
}

#[test]
fn of_two_shims_exactly_one_runs_the_program() {
    let setup = Setup::new("echo once");
    setup.run.write_launch(&setup.launch).unwrap();
    let mut shims = [setup.spawn_only(), setup.spawn_only()];
    let mut codes = shims.each_mut().map(|shim| shim.wait().unwrap().code().unwrap());
    codes.sort_unstable();
    assert_eq!(codes, [EXIT_DONE, EXIT_CLAIMED]);
    assert_eq!(kept_bytes(&setup.run), b"once\n");
}

#[test]
fn the_program_gets_a_clean_start() {
    let mut setup =
        Setup::new("umask; ls /proc/self/fd | wc -l; grep -E '^Sig(Blk|Ign)' /proc/self/status; env");
    setup.launch.umask = 0o027;
    setup.launch.env = vec![
        ("PATH".into(), "/usr/bin:/bin".into()),
        ("ONLY".into(), "this".into()),
    ];
    assert_eq!(setup.run_to_end().code(), Some(0));
    let text = String::from_utf8(kept_bytes(&setup.run)).unwrap();
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("0027"), "{text}");
    // 0, 1, 2 and the folder that ls itself has open.
    assert_eq!(lines.next(), Some("4"), "{text}");
    assert_eq!(lines.next(), Some("SigBlk:\t0000000000000000"), "{text}");
    // Of the real-time signals the C library keeps two for itself.
    let ignored = lines.next().unwrap().strip_prefix("SigIgn:\t").unwrap();
    assert_eq!(
        u64::from_str_radix(ignored, 16).unwrap() & 0x7fff_ffff,
        0,
        "{text}"
    );
    let rest: Vec<&str> = lines
        .filter(|l| !l.starts_with("PWD=") && !l.starts_with("_=") && !l.starts_with("SHLVL="))
        .collect();
    assert!(rest.contains(&"ONLY=this") && rest.len() == 2, "{text}");
}

#[test]
fn a_full_console_drops_the_newest_output_counts_it_and_says_where() {
    let script = "for i in $(seq 200); do printf '%1000s' a; sleep 0.001; done; touch full; while [ -e full ]; do sleep 0.01; done; sleep 0.3; printf last";
    let mut setup = Setup::new(script);
    setup.launch.segment_bytes = 20_000;
    setup.launch.console_max_bytes = 100_000;
    let shim = setup.spawn();
    eventually("the program has filled the console", || {
        setup.folder().join("full").exists()
    });
    std::thread::sleep(Duration::from_millis(100));
    let mut reader = ChannelReader::new(&setup.run.console_dir(), Channel::Task, 0);
    reader.fill(usize::MAX).unwrap();
    let kept: usize = reader.window().iter().map(|c| c.payload.len()).sum();
    assert!(kept > 20_000 && kept < 100_000, "{kept}");
    // The shipper has sent everything and makes room.
    let end = reader.window().back().unwrap().end();
    reader.delete_before(end).unwrap();
    reader.consume(end);
    fs::remove_file(setup.folder().join("full")).unwrap();

    let verdict = setup.end_of(shim);
    assert_eq!(verdict.code(), Some(0));
    assert_eq!(verdict.dropped_bytes, 200_000 - kept as u64);
    reader.fill(usize::MAX).unwrap();
    let kinds: Vec<Kind> = reader.window().iter().map(|c| c.kind).collect();
    assert_eq!(kinds, [Kind::Dropped, Kind::Output]);
    assert_eq!(reader.window()[1].payload, b"last");
}

#[test]
fn a_killed_shim_is_seen_as_dead_and_leaves_no_verdict() {
    let setup = Setup::new("echo ready; exec sleep 600");
    let mut shim = setup.spawn();
    setup.wait_for_output("ready");
    let identity: ProcessIdentity = setup.shim();
    assert!(identity.is_alive());
    identity.signal(Signal::KILL).unwrap();
    shim.wait().unwrap();
    assert!(!identity.is_alive());
    assert!(setup.run.verdict().unwrap().is_none());
    for pid in clearml_support::process::session_members(identity.pid) {
        ProcessIdentity::of(pid)
            .unwrap()
            .unwrap()
            .signal(Signal::KILL)
            .unwrap();
    }
}

#[test]
fn a_missing_launch_file_is_an_error_and_not_a_claim() {
    let setup = Setup::new("true");
    let code = setup.spawn_only().wait().unwrap().code();
    assert_eq!(code, Some(1));
    assert!(setup.run.claim().unwrap().is_none());
    let log = fs::read_to_string(setup.run.path().join("shim.log")).unwrap();
    assert!(log.contains("launch.json"), "{log}");
    assert_eq!(launch_of("true").argv.len(), 3);
}

/// A real full disk, which needs the right to mount one.
#[test]
fn a_full_disk_takes_neither_the_program_nor_its_exit_code_with_it() {
    let setup = Setup::new("for i in $(seq 2000); do printf '%1000s' a; done; exit 6");
    let console = setup.run.console_dir();
    let mount = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=256k", "none"])
        .arg(&console)
        .output();
    if !mount.is_ok_and(|output| output.status.success()) {
        eprintln!(
            "SKIPPED a_full_disk_takes_neither_the_program_nor_its_exit_code_with_it: no right to mount a disk"
        );
        return;
    }
    let verdict = setup.run_to_end();
    let kept = kept_bytes(&setup.run).len() as u64;
    let unmount = Command::new("umount").arg(&console).status();
    assert!(unmount.is_ok_and(|status| status.success()));
    assert_eq!(verdict.code(), Some(6));
    assert!(kept > 100_000, "{kept}");
    assert_eq!(kept + verdict.dropped_bytes, 2_000_000);
}
