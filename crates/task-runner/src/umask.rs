//! What the agent keeps to itself: it works with the file mode mask 077, and its memory, which holds secrets, is not
//! in core dumps. The user's code gets back what it would have had.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::Mode;

/// The agent's own mask: nothing it creates is for others.
const PRIVATE: Mode = Mode::RWXG.union(Mode::RWXO);

static ORIGINAL: OnceLock<u32> = OnceLock::new();

/// Which parts of the memory are in a core dump, as a mask; see core(5).
const DUMPED: &str = "/proc/self/coredump_filter";
/// The kernel's own choice.
const USUALLY_DUMPED: &str = "0x33";

/// Sets the mask to 077 and remembers the one that was in force; from now on, a core dump of this process is empty. To
/// be called once, at the start of a program.
pub fn make_private() {
    let before = rustix::process::umask(PRIVATE);
    ORIGINAL.get_or_init(|| before.bits());
    dump("0");
}

/// Sets what is in core dumps of this process and its children. A kernel that makes none has no such file.
fn dump(what: &str) {
    let _no_dumps = std::fs::write(DUMPED, what);
}

/// For a process that becomes the user's code: with this mask.
pub(crate) fn make_public(umask: u32) {
    rustix::process::umask(Mode::from_bits_truncate(umask));
    dump(USUALLY_DUMPED);
}

/// Does something that starts the user's code, with this mask.
pub(crate) fn in_public<T>(umask: u32, start: impl FnOnce() -> T) -> T {
    let private = rustix::process::umask(Mode::from_bits_truncate(umask));
    dump(USUALLY_DUMPED);
    let result = start();
    dump("0");
    rustix::process::umask(private);
    result
}

/// The mask that was in force before [`make_private`], or the present one if that was never called.
#[must_use]
pub fn original() -> u32 {
    ORIGINAL.get().copied().or_else(present).unwrap_or(0o22)
}

/// Reads the mask without changing it, which the system call can't do.
fn present() -> Option<u32> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"))?;
    u32::from_str_radix(line.trim(), 8).ok()
}

const READABLE: Mode = Mode::WGRP.union(Mode::WOTH);
static SHARED: AtomicBool = AtomicBool::new(false);

/// From now on this process writes files of runs so that other users can read them: in a container, where the
/// agent outside is another user, and nobody else can get at the folder.
pub(crate) fn share() {
    rustix::process::umask(READABLE);
    SHARED.store(true, Ordering::Relaxed);
}

/// The mode of files of runs.
pub(crate) fn file_mode() -> u32 {
    if SHARED.load(Ordering::Relaxed) {
        0o644
    } else {
        0o600
    }
}
