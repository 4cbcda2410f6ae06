//! A control group for the processes of one run, where we may have one.
//!
//! A process can leave its session and clean its environment, but not its control group, so a group finds and
//! kills what nothing else finds: also when the shim, whose descendants they are, has been killed itself.
//!
//! A group is made only where groups are ours to make: below a group that systemd has delegated (`Delegate=yes` of
//! the unit, which the unit in `dist/` has), or on a system without systemd, such as a container, where our own group
//! can be written. Other groups belong to systemd, and root is no exception. There, session, environment and
//! reaper have to do.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What names of our groups begin with.
const PREFIX: &str = "clearml-run-";
/// How systemd marks groups that it leaves to others.
const DELEGATED: [&str; 2] = ["user.delegate", "trusted.delegate"];

/// The group of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RunGroup(PathBuf);

impl RunGroup {
    /// A new group below our own, or `None` where that is not ours to make or the kernel can't kill it as a
    /// whole (before 5.14).
    pub(crate) fn create(run_id: &str) -> Option<Self> {
        let own = own_group()?;
        if !is_ours(&own) {
            return None;
        }
        let me = rustix::process::getpid().as_raw_nonzero();
        let group = Self(own.join(format!("{PREFIX}{run_id}-{me}")));
        fs::create_dir(&group.0).ok()?;
        if !group.0.join("cgroup.kill").exists() {
            group.remove();
            return None;
        }
        Some(group)
    }

    /// The group that a claim names, if it is one of ours and exists.
    pub(crate) fn open(path: &Path) -> Option<Self> {
        let ours = path.file_name()?.to_str()?.starts_with(PREFIX);
        (ours && path.join("cgroup.procs").is_file()).then(|| Self(path.to_owned()))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Does something as a member of the group, so that what it starts is born there, and comes back. An error
    /// means that nothing was done.
    pub(crate) fn inside<T>(&self, what: impl FnOnce() -> T) -> io::Result<T> {
        let outside = self.0.parent().unwrap_or(&self.0);
        move_to(&self.0)?;
        // A way back that is closed must be known before there is anybody to kill.
        move_to(outside)?;
        move_to(&self.0)?;
        let result = what();
        if let Err(e) = move_to(outside) {
            eprintln!("leaving the control group {}: {e}", self.0.display());
        }
        Ok(result)
    }

    /// SIGKILL to all members at once, however fast they have children.
    pub(crate) fn kill(&self) -> io::Result<()> {
        fs::write(self.0.join("cgroup.kill"), "1")
    }

    /// Whether no process is in it or below it. One that is gone has none.
    pub(crate) fn is_empty(&self) -> bool {
        fs::read_to_string(self.0.join("cgroup.events"))
            .map_or(true, |events| events.lines().any(|line| line == "populated 0"))
    }

    /// Removes the group, and those that its members may have made in it. Not possible while it has members.
    pub(crate) fn remove(&self) {
        remove_tree(&self.0);
    }
}

fn remove_tree(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    // Whoever still has members stays; it is empty folders that nobody sees.
    let _busy = fs::remove_dir(group);
}

fn move_to(group: &Path) -> io::Result<()> {
    // 0 = whoever writes it.
    fs::write(group.join("cgroup.procs"), "0")
}

fn is_ours(group: &Path) -> bool {
    let delegated = DELEGATED.iter().any(|name| {
        let mut value = [0; 1];
        rustix::fs::getxattr(group, *name, &mut value[..]).is_ok_and(|length| value[..length] == *b"1")
    });
    delegated || !Path::new("/run/systemd/system").exists()
}

/// The folder of the group that this process is in.
fn own_group() -> Option<PathBuf> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    folder_of(&groups, &mounts)
}

/// Where the group of the second version is mounted. Pure; see cgroups(7) and proc_pid_mountinfo(5).
fn folder_of(groups: &str, mounts: &str) -> Option<PathBuf> {
    let group = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    mounts.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, folder) = (fields.next()?, fields.next()?);
        let below = Path::new(group).strip_prefix(root).ok()?;
        kind.starts_with("cgroup2 ")
            .then(|| Path::new(folder).join(below))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_found_where_it_is_mounted() {
        let unified = "30 25 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n";
        let hybrid = "31 25 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      32 25 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let part = "30 25 0:26 /docker/x /sys/fs/cgroup ro - cgroup2 cgroup2 rw\n";
        let found = |groups: &str, mounts: &str| folder_of(groups, mounts).map(|p| p.display().to_string());
        assert_eq!(
            found("0::/system.slice/agent.service\n", unified).as_deref(),
            Some("/sys/fs/cgroup/system.slice/agent.service")
        );
        assert_eq!(
            found("4:memory:/a\n0::/b\n", hybrid).as_deref(),
            Some("/sys/fs/cgroup/unified/b")
        );
        assert_eq!(
            found("0::/docker/x/y\n", part).as_deref(),
            Some("/sys/fs/cgroup/y")
        );
        assert_eq!(found("0::/elsewhere\n", part), None);
        assert_eq!(found("4:memory:/a\n", unified), None);
    }

    #[test]
    fn only_groups_of_runs_are_opened() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["clearml-run-1-2", "user.slice"] {
            fs::create_dir(folder.path().join(name)).unwrap();
            fs::write(folder.path().join(name).join("cgroup.procs"), "").unwrap();
        }
        assert!(RunGroup::open(&folder.path().join("clearml-run-1-2")).is_some());
        assert!(RunGroup::open(&folder.path().join("user.slice")).is_none());
        assert!(RunGroup::open(&folder.path().join("clearml-run-gone")).is_none());
    }
}
