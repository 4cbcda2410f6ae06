//! The processes below the shim: reaping and signalling them.

use clearml_support::process::{descendants, descendants_by_lists};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitOptions, WaitStatus, pidfd_open, pidfd_send_signal,
    wait, waitid,
};

/// Collects all children that have ended, our own and those we have inherited.
pub(super) fn reap() -> Vec<(Pid, WaitStatus)> {
    let mut ended = Vec::new();
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some(child)) => ended.push(child),
            Err(rustix::io::Errno::INTR) => {}
            // No child has ended, or there is none.
            Ok(None) | Err(_) => return ended,
        }
    }
}

/// Whether any process is left below us. Orphans come to us, so one without children has no descendants.
pub(super) fn has_children() -> bool {
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    !matches!(waitid(WaitId::All, look), Err(rustix::io::Errno::CHILD))
}

/// Asks every living descendant of `root` to end. A stopped process does not see that before it goes on.
/// Cheap, because a thousand of us may do it at the same moment; who is missed is killed later.
pub(super) fn ask_to_end(root: i32) {
    let list = || descendants_by_lists(root).unwrap_or_else(|| descendants(root));
    signal_listed(list, &[Signal::TERM, Signal::CONT]);
}

/// Sends a signal to every living descendant of `root`.
///
/// A pid may be given to a stranger between listing and signalling. A pidfd names one process for
/// ever, so: list, open, list again, and signal only who is still in the list.
pub(super) fn signal_descendants(root: i32, signal: Signal) {
    signal_listed(|| descendants(root), &[signal]);
}

fn signal_listed(list: impl Fn() -> Vec<i32>, signals: &[Signal]) {
    let handles: Vec<_> = list()
        .into_iter()
        .filter_map(|pid| Some((pid, pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?)))
        .collect();
    let still = list();
    for (pid, handle) in handles {
        if still.contains(&pid) {
            // The process may end at this moment, which is what we want.
            for signal in signals {
                let _gone = pidfd_send_signal(&handle, *signal);
            }
        }
    }
}
