//! The processes below the shim: reaping and signalling them.

use clearml_support::process::descendants;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, WaitStatus, pidfd_open, pidfd_send_signal, wait,
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

/// Sends a signal to every living descendant of `root`.
///
/// A pid may be given to a stranger between listing and signalling. A pidfd names one process for
/// ever, so: list, open, list again, and signal only who is still in the list.
pub(super) fn signal_descendants(root: i32, signal: Signal) {
    let handles: Vec<_> = descendants(root)
        .into_iter()
        .filter_map(|pid| Some((pid, pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?)))
        .collect();
    let still = descendants(root);
    for (pid, handle) in handles {
        if still.contains(&pid) {
            // The process may end at this moment, which is what we want.
            let _gone = pidfd_send_signal(&handle, signal);
        }
    }
}
