use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, SystemTime};

use super::*;

const LOCK: &str = "_.clearmlagent_global.lock";

fn named(name: &str) -> Identity {
    Identity {
        name: name.to_owned(),
        ..Identity::default()
    }
}

fn with_id(id: &str) -> Identity {
    Identity {
        explicit: Some(id.to_owned()),
        ..named("host")
    }
}

fn take(folder: &Path, identity: &Identity) -> Result<Slot, SlotError> {
    take_from(&Register::at(folder), identity, &[])
}

fn take_from(register: &Register, identity: &Identity, listed: &[WorkerId]) -> Result<Slot, SlotError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    runtime.unwrap().block_on(take_slot(register, identity, listed))
}

fn plant(folder: &Path, pid: i32, worker: &str, slot: u32) -> PathBuf {
    let file = folder.join(format!(".clearmlagent_{pid}_abcd1234.tmp"));
    fs::write(&file, format!("{worker}\n{slot}")).unwrap();
    file
}

fn date(file: &Path, ago: Duration) {
    let file = File::options().write(true).open(file).unwrap();
    file.set_modified(SystemTime::now() - ago).unwrap();
}

/// The pid of a process that has ended.
fn dead_pid() -> i32 {
    let mut child = Command::new("true").spawn().unwrap();
    child.wait().unwrap();
    child.id().cast_signed()
}

struct Sleeper(Child);

impl Sleeper {
    /// A process whose command line has these words.
    fn start(words: &[&str]) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 60 & wait"]).args(words);
        let child = command.spawn().unwrap();
        // Until then it still looks like this test.
        let shown = format!("/proc/{}/cmdline", child.id());
        while !fs::read_to_string(&shown)
            .unwrap()
            .ends_with(&format!("{}\0", words[words.len() - 1]))
        {
            std::thread::sleep(Duration::from_millis(2));
        }
        Self(child)
    }

    fn pid(&self) -> i32 {
        self.0.id().cast_signed()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn ids_follow_what_is_configured_then_the_gpus_then_the_slot() {
    let identity = |explicit: Option<&str>, visible: Option<&str>, dynamic| Identity {
        name: "host".to_owned(),
        explicit: explicit.map(str::to_owned),
        visible: visible.map(str::to_owned),
        dynamic,
    };
    let cases = [
        (identity(Some("mine"), Some("0"), false), "mine", true),
        (identity(Some(""), Some("0,1"), false), "host:gpu0,1", true),
        (identity(None, Some("all"), false), "host:gpuall", true),
        (identity(None, Some("0.1"), false), "host:gpu0.1", true),
        (identity(None, Some("0-3"), true), "host:dgpu0-3", true),
        (identity(None, Some("none"), false), "host:cpu:2", false),
        (identity(None, Some(""), false), "host:2", false),
        (identity(None, None, false), "host:2", false),
    ];
    for (identity, expected, fixed) in cases {
        assert_eq!(identity.at_slot(2).as_str(), expected);
        assert_eq!(identity.fixed().is_some(), fixed, "{expected}");
        assert!(fixed || expected.starts_with(&identity.prefix()), "{expected}");
    }
    let pid = std::process::id();
    assert_eq!(
        identity(None, Some("0"), false).of_process().as_str(),
        format!("host:{pid}")
    );
    assert_eq!(identity(Some("mine"), None, false).of_process().as_str(), "mine");
}

#[test]
fn slots_are_the_smallest_free_numbers_and_the_file_is_what_the_python_agent_reads() {
    let folder = tempfile::tempdir().unwrap();
    let first = take(folder.path(), &named("host")).unwrap();
    let second = take(folder.path(), &named("host")).unwrap();
    assert_eq!(
        (first.worker().as_str(), second.worker().as_str()),
        ("host:0", "host:1")
    );
    assert_eq!(fs::read_to_string(&second.path).unwrap(), "host:1\n1");
    assert_eq!(
        second.path.metadata().unwrap().permissions().mode() & 0o777,
        0o600
    );
    // An id of one's own takes a slot as well.
    let third = take(folder.path(), &with_id("mine")).unwrap();
    assert_eq!((third.worker().as_str(), third.number()), ("mine", 2));
    drop(first);
    assert_eq!(take(folder.path(), &named("host")).unwrap().number(), 0);
    drop((second, third));
    assert!(Register::at(folder.path()).instances().unwrap().is_empty());
    assert!(!folder.path().join(LOCK).exists());
}

#[test]
fn agents_of_the_other_kind_are_seen_and_dead_ones_are_swept() {
    let folder = tempfile::tempdir().unwrap();
    plant(folder.path(), 1, "host:0", 0);
    let dead = plant(folder.path(), dead_pid(), "host:1", 1);
    let seen = Register::at(folder.path()).instances().unwrap();
    assert_eq!(seen.len(), 1);
    assert!(dead.exists(), "looking changes nothing");
    assert_eq!(take(folder.path(), &named("host")).unwrap().number(), 1);
    assert!(!dead.exists());
    assert_eq!(
        (seen[0].pid, seen[0].worker.as_str(), seen[0].slot),
        (1, "host:0", 0)
    );
    let error = take(folder.path(), &with_id("host:0")).unwrap_err().to_string();
    assert!(error.contains("WORKER_ID [host:0] is already running"), "{error}");
}

#[test]
fn a_file_from_before_the_process_that_has_its_pid_now_takes_nobodys_id() {
    let folder = tempfile::tempdir().unwrap();
    let stranger = Sleeper::start(&["stranger"]);
    for pid in [stranger.pid(), std::process::id().cast_signed()] {
        let file = plant(folder.path(), pid, "host:0", 0);
        date(&file, Duration::from_secs(100_000_000));
        let slot = take(folder.path(), &with_id("host:0")).unwrap();
        assert!(!file.exists());
        drop(slot);
    }
    // A new file of a living process counts, whatever the process is called.
    plant(folder.path(), stranger.pid(), "host:0", 0);
    assert!(take(folder.path(), &with_id("host:0")).is_err());
}

#[test]
fn only_the_process_that_wrote_the_file_may_be_signalled() {
    let folder = tempfile::tempdir().unwrap();
    let register = Register::at(folder.path());
    let (agent, stranger) = (
        Sleeper::start(&["clearml-agent", "daemon"]),
        Sleeper::start(&["something", "else"]),
    );
    let file = plant(folder.path(), agent.pid(), "a:0", 0);
    plant(folder.path(), stranger.pid(), "b:0", 1);
    let process = |index: usize| register.instances().unwrap()[index].process();
    assert_eq!(process(0).unwrap().pid, agent.pid());
    assert_eq!(process(1), None, "it is no agent");
    // Older than the process: the pid was given out again, or the clock was set. The process is too new to
    // tell.
    date(&file, Duration::from_secs(3600));
    assert_eq!(process(0), None);
}

#[test]
fn containers_that_share_a_register_keep_each_others_files() {
    let folder = tempfile::tempdir().unwrap();
    let register = Register {
        shared: true,
        ..Register::at(folder.path())
    };
    let file = plant(folder.path(), dead_pid(), "host:0", 0);
    let listed = [WorkerId::from("host:0")];
    let slot = take_from(&register, &named("host"), &listed).unwrap();
    assert_eq!(slot.number(), 1);
    // The same id only gets a warning.
    assert_eq!(
        take_from(&register, &with_id("host:0"), &listed)
            .unwrap()
            .number(),
        2
    );
    drop(take_from(&register, &named("host"), &[]).unwrap());
    assert!(!file.exists(), "the server does not know it any more");
}

#[test]
fn nonsense_in_a_shared_folder_is_ignored() {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [
        (".clearmlagent_1_x.tmp", ""),
        (".clearmlagent_1_y.tmp", "host:0"),
        (".clearmlagent_1_z.tmp", "host:0\nzero"),
        (".clearmlagent_-5_x.tmp", "host:0\n0"),
        (".clearmlagent_x_x.tmp", "host:0\n0"),
    ] {
        fs::write(folder.path().join(name), text).unwrap();
    }
    std::os::unix::fs::symlink("/etc/hostname", folder.path().join(".clearmlagent_1_l.tmp")).unwrap();
    assert_eq!(take(folder.path(), &named("host")).unwrap().number(), 0);
    let error = take(folder.path(), &with_id("two\nlines"))
        .unwrap_err()
        .to_string();
    assert!(error.contains("agent.worker_id"), "{error}");
}

#[test]
fn a_lock_that_the_python_agent_forgot_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(LOCK);
    File::create(&path).unwrap();
    date(&path, Duration::from_secs(60));
    take(folder.path(), &named("host")).unwrap();
    assert!(!path.exists());
}

#[tokio::test]
async fn the_wait_for_another_agent_can_be_ended() {
    let folder = tempfile::tempdir().unwrap();
    let python = folder.path().join(LOCK);
    File::create(&python).unwrap();
    let register = Register::at(folder.path());
    let identity = named("host");
    let short = Duration::from_millis(300);
    let begin = std::time::Instant::now();
    let waiting = tokio::time::timeout(short, take_slot(&register, &identity, &[]));
    assert!(waiting.await.is_err(), "it does not wait");
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
    // The other one's lock is still there, and ours is free again.
    fs::remove_file(&python).unwrap();
    let taken = tokio::time::timeout(short, take_slot(&register, &identity, &[]));
    assert_eq!(taken.await.unwrap().unwrap().number(), 0);
}
