//! Bringing a whole tree to another place, with several threads.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use clearml_support::command::CancelToken;

use super::{Item, Kind, Means, Stamp, TreeError};
use crate::error::at;

/// How many threads pay; more only wait for the directory locks of the file system.
const MAX_THREADS: usize = 8;
/// Files that a thread takes at once.
const BATCH: usize = 64;

/// What [`transfer`] does beside transferring.
pub(crate) struct Orders<'a> {
    /// The source must still be as the items say.
    pub(crate) check: bool,
    /// The target is an entry: what is there is looked at again, and shared files are made read-only, unless
    /// somebody else shares them already.
    pub(crate) record: bool,
    pub(crate) cancel: &'a CancelToken,
}

/// Brings the items from one folder to another, which exists and is empty. Returns them as they are there, if
/// that is to be recorded.
pub(crate) fn transfer(
    items: &[Item],
    from: &Path,
    to: &Path,
    means: &Means,
    orders: &Orders<'_>,
) -> Result<Vec<Item>, TreeError> {
    for item in items.iter().filter(|item| item.kind == Kind::Folder) {
        let target = to.join(&item.path);
        fs::create_dir(&target).map_err(at("creating", &target))?;
    }
    let one = |item: &Item| bring_one(item, from, to, means, orders);
    let arrived = in_parallel(items, orders.cancel, &one)?;
    // Only now, as a folder may be one that nobody can write to.
    for item in items.iter().rev().filter(|item| item.kind == Kind::Folder) {
        let target = to.join(&item.path);
        fs::set_permissions(&target, fs::Permissions::from_mode(item.mode | 0o700))
            .map_err(at("changing", &target))?;
    }
    Ok(arrived)
}

fn bring_one(
    item: &Item,
    from: &Path,
    to: &Path,
    means: &Means,
    orders: &Orders<'_>,
) -> Result<Item, TreeError> {
    let (source, target) = (from.join(&item.path), to.join(&item.path));
    if item.kind == Kind::Folder {
        return Ok(item.clone());
    }
    let meta = match fs::symlink_metadata(&source) {
        Err(e) if orders.check && e.kind() == io::ErrorKind::NotFound => {
            return Err(TreeError::Changed(source));
        }
        meta => meta.map_err(at("reading", &source))?,
    };
    if orders.check && (meta.is_symlink() != (item.kind == Kind::Link) || Stamp::of(&meta) != item.stamp) {
        return Err(TreeError::Changed(source));
    }
    if item.kind == Kind::Link {
        let goal = fs::read_link(&source).map_err(at("reading", &source))?;
        symlink(&goal, &target).map_err(at("creating", &target))?;
    } else {
        means.bring(&source, &target, item)?;
    }
    if !orders.record {
        return Ok(item.clone());
    }
    let arrived = fs::symlink_metadata(&target).map_err(at("reading", &target))?;
    let is_shared = item.kind == Kind::File && means.shares();
    if is_shared && meta.nlink() == 1 && arrived.mode() & 0o222 != 0 {
        let mode = fs::Permissions::from_mode(arrived.mode() & 0o7555);
        fs::set_permissions(&target, mode).map_err(at("changing", &target))?;
    }
    Ok(Item {
        stamp: Stamp::of(&arrived),
        ..item.clone()
    })
}

/// Does the work for each item; the results keep their order. The first error ends it.
fn in_parallel(
    items: &[Item],
    cancel: &CancelToken,
    work: &(dyn Fn(&Item) -> Result<Item, TreeError> + Sync),
) -> Result<Vec<Item>, TreeError> {
    let next = AtomicUsize::new(0);
    let batches: Mutex<Vec<(usize, Vec<Item>)>> = Mutex::default();
    let run = || -> Result<(), TreeError> {
        loop {
            let begin = next.fetch_add(BATCH, Ordering::Relaxed);
            if begin >= items.len() {
                return Ok(());
            }
            if cancel.is_cancelled() {
                return Err(TreeError::Cancelled);
            }
            let batch = &items[begin..items.len().min(begin + BATCH)];
            let done = batch.iter().map(work).collect::<Result<Vec<Item>, _>>();
            if done.is_err() {
                // The others stop at their next batch.
                next.store(items.len(), Ordering::Relaxed);
            }
            let mut batches = batches.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            batches.push((begin, done?));
        }
    };
    let available = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = available.min(MAX_THREADS).min(items.len().div_ceil(BATCH)).max(1);
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(run)).collect();
        let own = run();
        let ends: Vec<_> = others
            .into_iter()
            .map(|other| other.join().unwrap_or(Err(TreeError::Cancelled)))
            .collect();
        ends.into_iter().fold(own, Result::and)
    })?;
    let mut batches = batches
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    batches.sort_by_key(|(begin, _)| *begin);
    Ok(batches.into_iter().flat_map(|(_, items)| items).collect())
}
