//! Keeping the cache of clones within its limits, and removing what killed builds have left in it.
//!
//! Only what nobody has locked is removed, with its lock held; a clone is renamed first, so that a
//! removal that is interrupted leaves no half clone behind.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clearml_support::fs::remove_tree;
use clearml_support::id::hex32;
use clearml_support::lock::FileLock;

use crate::code::place::IN_USE;
use crate::tools::Context;

/// Temporary clones of other agents carry no lock; older than this, nobody uses them.
const FORGOTTEN: Duration = Duration::from_secs(24 * 3600);
/// Names of clones that are being removed.
const REMOVED: &str = ".removed.";

/// What a folder of the cache is.
enum Kind {
    /// A clone, with the id of its lock.
    Clone(String),
    /// A temporary clone.
    OneOff,
    /// The rest of a removal.
    Removed,
}

struct Entry {
    path: PathBuf,
    kind: Kind,
    used: SystemTime,
}

/// Tidies the cache. Trouble with it is no trouble of the task.
pub(crate) fn sweep(context: &Context<'_>) {
    match try_sweep(context) {
        Ok(0) => {}
        Ok(removed) => context.info(&format!(
            "removed {removed} cached repositories that were not used for long"
        )),
        Err(error) => tracing::warn!(%error, "the cache of repositories can't be tidied"),
    }
}

fn try_sweep(context: &Context<'_>) -> io::Result<usize> {
    let limits = &context.settings.vcs_cache;
    let cache = &limits.path;
    let mut clones = Vec::new();
    for entry in entries(cache)? {
        match &entry.kind {
            Kind::Removed => drop(remove_tree(&entry.path)),
            Kind::OneOff => remove_forgotten(&entry)?,
            Kind::Clone(id) if !has_clone(&entry.path) => drop(remove_clone(cache, &entry.path, id)?),
            Kind::Clone(_) => clones.push(entry),
        }
    }
    clones.sort_by_key(|entry| entry.used);
    let sizes: Vec<u64> = match limits.max_bytes {
        0 => vec![0; clones.len()],
        _ => clones.iter().map(|entry| size(&entry.path)).collect(),
    };
    let (mut count, mut bytes) = (clones.len() as u64, sizes.iter().sum::<u64>());
    let too_much = |count: u64, bytes: u64| {
        (limits.max_entries > 0 && count > limits.max_entries)
            || (limits.max_bytes > 0 && bytes > limits.max_bytes)
    };
    let mut removed = 0;
    // The last one is the one that this build has just used.
    let candidates = clones.iter().zip(&sizes).take(clones.len().saturating_sub(1));
    for (entry, size) in candidates {
        if !too_much(count, bytes) || context.host.cancel().is_cancelled() {
            break;
        }
        if let Kind::Clone(id) = &entry.kind
            && remove_clone(cache, &entry.path, id)?
        {
            count -= 1;
            bytes = bytes.saturating_sub(*size);
            removed += 1;
        }
    }
    Ok(removed)
}

fn entries(cache: &Path) -> io::Result<Vec<Entry>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(cache)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(kind) = kind_of(&name).filter(|_| entry.file_type().is_ok_and(|kind| kind.is_dir())) else {
            continue;
        };
        let path = entry.path();
        let used = last_use(&path).unwrap_or(SystemTime::UNIX_EPOCH);
        found.push(Entry { path, kind, used });
    }
    Ok(found)
}

/// Folders of any other name are not ours to judge.
fn kind_of(name: &str) -> Option<Kind> {
    if name.starts_with(REMOVED) {
        return Some(Kind::Removed);
    }
    let (_, suffix) = name.rsplit_once('.')?;
    let id = suffix.get(..32)?;
    let hex = id.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'));
    match suffix[32..].chars().next() {
        None if hex => Some(Kind::Clone(id.to_owned())),
        Some('_') if hex => Some(Kind::OneOff),
        _ => None,
    }
}

/// We note the use in the time of the folder; the Python agent leaves it in that of its last fetch.
fn last_use(outer: &Path) -> io::Result<SystemTime> {
    let fetched = clone_in(outer).and_then(|clone| fs::metadata(clone.join(".git/FETCH_HEAD")).ok());
    let own = fs::metadata(outer)?.modified()?;
    Ok(fetched
        .and_then(|file| file.modified().ok())
        .map_or(own, |fetched| fetched.max(own)))
}

fn clone_in(outer: &Path) -> Option<PathBuf> {
    let name = outer.file_name()?.to_str()?;
    Some(outer.join(&name[..name.rfind('.')?]))
}

fn has_clone(outer: &Path) -> bool {
    clone_in(outer).is_some_and(|clone| clone.is_dir())
}

/// Removes a clone that nobody uses; whether it was removed.
fn remove_clone(cache: &Path, outer: &Path, id: &str) -> io::Result<bool> {
    let Some(_lock) = FileLock::try_acquire(&cache.join(format!("{id}.lock")))? else {
        return Ok(false);
    };
    let aside = cache.join(format!("{REMOVED}{}", hex32()));
    fs::rename(outer, &aside)?;
    // A child of a builder that was killed may still write to it; then the rest goes another time.
    if let Err(error) = remove_tree(&aside) {
        tracing::debug!(%error, "the rest of a cached repository stays for now");
    }
    Ok(true)
}

fn remove_forgotten(entry: &Entry) -> io::Result<()> {
    let mark = entry.path.join(IN_USE);
    let ours = mark.exists();
    let old = entry.used.elapsed().is_ok_and(|age| age > FORGOTTEN);
    if (ours || old) && FileLock::try_acquire(&mark)?.is_some() {
        remove_tree(&entry.path)?;
    }
    Ok(())
}

/// What a tree takes on the disk.
fn size(path: &Path) -> u64 {
    let Ok(status) = fs::symlink_metadata(path) else {
        return 0;
    };
    let below = if status.is_dir() {
        fs::read_dir(path).map_or(0, |entries| {
            entries.flatten().map(|entry| size(&entry.path())).sum()
        })
    } else {
        0
    };
    status.blocks() * 512 + below
}

#[cfg(test)]
mod tests {
    use std::fs::{File, FileTimes};

    use clearml_support::redact::Redactor;

    use super::*;
    use crate::request::EnvSettings;
    use crate::tools::tests::Silent;

    fn age(path: &Path, hours: u64) {
        let time = SystemTime::now() - Duration::from_secs(hours * 3600);
        let folder = File::open(path).unwrap();
        folder.set_times(FileTimes::new().set_modified(time)).unwrap();
    }

    fn clone(cache: &Path, number: u8, hours: u64) -> PathBuf {
        let outer = cache.join(format!("r.git.{}", format!("{number:02x}").repeat(16)));
        fs::create_dir_all(outer.join("r.git/.git/objects")).unwrap();
        fs::write(outer.join("r.git/.git/objects/pack"), vec![1; 100_000]).unwrap();
        age(&outer, hours);
        outer
    }

    fn swept(change: impl FnOnce(&mut EnvSettings), cache: &Path) {
        let mut settings = EnvSettings::default();
        settings.vcs_cache.path = cache.to_owned();
        change(&mut settings);
        let (host, redactor) = (Silent::default(), Redactor::new());
        sweep(&Context {
            settings: &settings,
            host: &host,
            redactor: &redactor,
        });
    }

    #[test]
    fn clones_that_were_used_least_lately_go_first_and_locked_ones_stay() {
        let temp = tempfile::tempdir().unwrap();
        let cache = temp.path();
        let clones: Vec<PathBuf> = (0..5)
            .map(|number| clone(cache, number, 50 - u64::from(number)))
            .collect();
        let there = |expected: [bool; 5]| {
            let found: Vec<bool> = clones.iter().map(|clone| clone.exists()).collect();
            assert_eq!(found, expected);
        };
        swept(|_| {}, cache);
        there([true; 5]);
        // The Python agent's last fetch counts as a use.
        fs::write(clones[1].join("r.git/.git/FETCH_HEAD"), "").unwrap();
        swept(|settings| settings.vcs_cache.max_entries = 4, cache);
        there([false, true, true, true, true]);
        let lock = cache.join(format!("{}.lock", "02".repeat(16)));
        let held = FileLock::try_acquire(&lock).unwrap().unwrap();
        swept(|settings| settings.vcs_cache.max_bytes = 250_000, cache);
        there([false, true, true, false, false]);
        drop(held);
        swept(|settings| settings.vcs_cache.max_bytes = 1, cache);
        there([false, true, false, false, false]);
    }

    #[test]
    fn what_killed_builds_have_left_is_removed() {
        let temp = tempfile::tempdir().unwrap();
        let cache = temp.path();
        let name = |end: &str| cache.join(format!("r.git.{}{end}", "0a".repeat(16)));
        let (killed, abandoned, fresh, old) = (name(""), name("_1f"), name("_123"), name("_456"));
        for folder in [&killed, &abandoned, &fresh, &old] {
            fs::create_dir_all(folder.join(".staging/.git")).unwrap();
        }
        fs::write(abandoned.join(IN_USE), "").unwrap();
        age(&old, 25);
        let (half, foreign) = (cache.join(".removed.x"), cache.join("something.else"));
        fs::create_dir_all(&half).unwrap();
        fs::create_dir_all(&foreign).unwrap();
        swept(|_| {}, cache);
        for gone in [&killed, &abandoned, &old, &half] {
            assert!(!gone.exists(), "{}", gone.display());
        }
        assert!(fresh.exists() && foreign.exists());
    }
}
