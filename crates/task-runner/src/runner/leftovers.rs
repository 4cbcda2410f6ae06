//! What a shim or a runner has left behind that did not end in order.

use std::time::Duration;

use clearml_support::process::{ProcessIdentity, descendants, session_members};
use rustix::process::Signal;

use super::RUN_ID;
use crate::record::ShimClaim;
use crate::run_dir::{RunDir, RunDirError};
use crate::shim::group::RunGroup;

/// How often to look, and how long to wait in between.
const LOOKS: u32 = 100;
const PAUSE: Duration = Duration::from_millis(20);

/// Kills what a run has left whose shim was killed, when no runner is there to do it. Returns whether nothing is left.
///
/// # Errors
///
/// When the run can't be read.
pub async fn kill_leftovers(run: &RunDir) -> Result<bool, RunDirError> {
    let Some(claim) = run.claim()? else {
        return Ok(true);
    };
    let run_id = run.record()?.run_id;
    Ok(Leftovers::of_shim(&claim, &run_id, false).kill().await)
}

/// Where the processes of a run are looked for: whoever carries the name of the run in its environment, all
/// members of its session, all members of its control group, and orphans that this process has inherited. Each of
/// these finds processes that the others miss.
pub(super) struct Leftovers<'a> {
    session: i32,
    run_id: &'a str,
    group: Option<RunGroup>,
    adopted: bool,
    /// What is below this process is left alone.
    spared: Option<i32>,
}

impl<'a> Leftovers<'a> {
    /// What a dead runner has left: tools of the builder.
    pub(super) fn of_runner(session: i32, run_id: &'a str) -> Self {
        Self {
            session,
            run_id,
            group: None,
            adopted: false,
            spared: None,
        }
    }

    /// An abort callback whose runner has died. What is below the shim is the program, which gets its own time.
    pub(super) fn of_callback(shim: i32, run_id: &'a str) -> Self {
        Self {
            spared: Some(shim),
            // Nobody's session.
            ..Self::of_runner(0, run_id)
        }
    }

    /// What a dead shim has left. `adopted` says that orphans among our descendants are those of this run.
    pub(super) fn of_shim(claim: &ShimClaim, run_id: &'a str, adopted: bool) -> Self {
        Self {
            group: claim.group.as_deref().and_then(RunGroup::open),
            adopted,
            ..Self::of_runner(claim.shim.pid, run_id)
        }
    }

    /// Kills until nobody is found, because processes may be starting others. Returns whether nobody is left.
    pub(super) async fn kill(&self) -> bool {
        for _ in 0..LOOKS {
            if let Some(group) = &self.group
                && !group.is_empty()
                && let Err(e) = group.kill()
            {
                tracing::warn!("killing the control group {}: {e}", group.path().display());
            }
            let found = self.found();
            if found.is_empty() && self.group.as_ref().is_none_or(RunGroup::is_empty) {
                if let Some(group) = &self.group {
                    group.remove();
                }
                return true;
            }
            for process in found {
                if let Err(e) = process.signal(Signal::KILL) {
                    tracing::warn!("killing process {} of run {}: {e}", process.pid, self.run_id);
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
        tracing::error!("processes of run {} can't be killed", self.run_id);
        false
    }

    fn found(&self) -> Vec<ProcessIdentity> {
        let me = rustix::process::getpid().as_raw_nonzero().get();
        let mut pids = marked(self.run_id);
        // The number of a session is not given away while the session has members. So one of ours in it proves
        // that all of them are ours; without one, the number may belong to strangers by now.
        let members = session_members(self.session);
        if members.iter().any(|member| pids.contains(member)) {
            pids.extend(members);
        }
        if self.adopted {
            pids.extend(descendants(me));
        }
        if let Some(spared) = self.spared {
            let below = descendants(spared);
            pids.retain(|pid| !below.contains(pid));
        }
        pids.sort_unstable();
        pids.dedup();
        pids.into_iter()
            .filter(|pid| *pid != me)
            .filter_map(|pid| ProcessIdentity::of(pid).ok().flatten())
            .filter(ProcessIdentity::is_alive)
            .collect()
    }
}

/// Processes whose environment names the run.
fn marked(run_id: &str) -> Vec<i32> {
    let wanted = format!("{RUN_ID}={run_id}");
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            // Not readable for processes of others, which are none of ours.
            std::fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environ| {
                environ
                    .split(|byte| *byte == 0)
                    .any(|entry| entry == wanted.as_bytes())
            })
        })
        .collect()
}
