//! The cache on the disk.
//!
//! ```text
//! <path>.v2/keys/<key>          the id of the entry that has this key
//!           entries/<id>/env    the environment
//!           entries/<id>/items  what is in it, and what changes when it is changed
//!           entries/<id>/meta.json
//!           locks/<id>          held, shared, while the entry is restored; alone while it is removed
//!           builds/<key>        held by whoever builds that key
//!           tmp/<id>            an entry that is being made, or removed; its lock is locks/<id>
//! ```
//!
//! An entry comes into being by one renaming of a folder, and ends by one. So whoever is killed leaves
//! nothing half but below `tmp`, and there the lock tells that nobody is at it any more. What a failing
//! machine may leave half in an entry shows when it is compared with `items`.

use std::fs::{self, File, FileTimes};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clearml_support::fs::{create_private_dir, read_json, read_limited, remove_tree};
use clearml_support::id::hex32;
use clearml_support::lock::FileLock;
use clearml_support::time::now_ms;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::caches::key::{Python, SCHEMA, hex};
use crate::caches::tree::{Item, read_items, write_items};
use crate::error::{FileError, at};

/// Things without a lock are other people's, or older than that.
const FORGOTTEN: Duration = Duration::from_secs(24 * 3600);
const MAX_ITEMS: u64 = 1 << 30;

/// What an entry says about itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Meta {
    pub(crate) schema: u32,
    pub(crate) keys: Vec<String>,
    pub(crate) created_ms: i64,
    /// Where the environment was made.
    pub(crate) base: PathBuf,
    pub(crate) python: Python,
    /// Whether all requirements have one exact version.
    pub(crate) pinned: bool,
    /// SHA-256 of `items`.
    pub(crate) items: String,
}

/// The folders of the cache.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    root: PathBuf,
}

/// An entry that is being made. Dropped before it is published, it is gone.
pub(crate) struct Draft<'s> {
    store: &'s Store,
    id: String,
    pub(crate) env: PathBuf,
    folder: PathBuf,
    lock: Option<FileLock>,
}

/// The folder with the environments that are kept for `agent.venvs_cache.path`.
#[must_use]
pub fn kept_environments(configured: &Path) -> PathBuf {
    let mut name = configured.as_os_str().to_owned();
    name.push(".v2");
    name.into()
}

impl Store {
    /// Beside the folder that the Python agent uses, which removes what it does not know.
    pub(crate) fn open(configured: &Path) -> Result<Self, FileError> {
        let root = kept_environments(configured);
        for folder in ["keys", "entries", "locks", "builds", "tmp"] {
            let folder = root.join(folder);
            create_private_dir(&folder).map_err(at("creating", &folder))?;
        }
        Ok(Self { root })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn build_lock(&self, key: &str) -> PathBuf {
        self.root.join("builds").join(key)
    }

    pub(crate) fn entry_lock(&self, id: &str) -> PathBuf {
        self.root.join("locks").join(id)
    }

    pub(crate) fn entry(&self, id: &str) -> PathBuf {
        self.root.join("entries").join(id)
    }

    /// The entry of a key, if there is one.
    pub(crate) fn find(&self, key: &str) -> Option<String> {
        let file = self.root.join("keys").join(key);
        let id = String::from_utf8(read_limited(&file, 64).ok()?).ok()?;
        (is_id(&id) && self.entry(&id).is_dir()).then_some(id)
    }

    /// Lets a key lead to an entry. Whoever comes last wins.
    pub(crate) fn point(&self, key: &str, id: &str) -> Result<(), FileError> {
        let temporary = self.root.join("tmp").join(format!("key-{}", hex32()));
        let file = self.root.join("keys").join(key);
        fs::write(&temporary, id)
            .and_then(|()| fs::rename(&temporary, &file))
            .map_err(at("writing", &file))
    }

    /// What is in an entry. `None` when that is not as it was written.
    pub(crate) fn read(&self, id: &str) -> Option<(Meta, Vec<Item>)> {
        let folder = self.entry(id);
        let meta: Meta = read_json(&folder.join("meta.json")).ok()?;
        let items = read_limited(&folder.join("items"), MAX_ITEMS).ok()?;
        let intact = meta.schema == SCHEMA && meta.items == hex(&Sha256::digest(&items));
        Some((meta, read_items(&items).filter(|_| intact)?))
    }

    /// Notes that an entry was used.
    pub(crate) fn touch(&self, id: &str) -> io::Result<()> {
        let file = File::open(self.entry(id).join("meta.json"))?;
        file.set_times(FileTimes::new().set_modified(SystemTime::now()))
    }

    /// Begins a new entry.
    pub(crate) fn draft(&self) -> Result<Draft<'_>, FileError> {
        let id = hex32();
        // The lock first: what has none, or one that is free, may be removed by anybody.
        let path = self.entry_lock(&id);
        let lock = FileLock::try_acquire(&path).map_err(at("locking", &path))?;
        let folder = self.root.join("tmp").join(&id);
        let env = folder.join("env");
        create_private_dir(&env).map_err(at("creating", &env))?;
        Ok(Draft {
            store: self,
            id,
            env,
            folder,
            lock,
        })
    }

    /// Ids of the entries, that which was used longest ago first.
    pub(crate) fn by_use(&self) -> io::Result<Vec<String>> {
        let mut entries: Vec<(SystemTime, String)> = Vec::new();
        for name in names(&self.root.join("entries"))?
            .into_iter()
            .filter(|name| is_id(name))
        {
            let used = fs::metadata(self.entry(&name).join("meta.json")).and_then(|meta| meta.modified());
            entries.push((used.unwrap_or(SystemTime::UNIX_EPOCH), name));
        }
        entries.sort();
        Ok(entries.into_iter().map(|(_, id)| id).collect())
    }

    /// Removes an entry unless somebody is restoring it. Whether it is gone.
    pub(crate) fn remove(&self, id: &str) -> io::Result<bool> {
        let Some(_lock) = FileLock::try_acquire(&self.entry_lock(id))? else {
            return Ok(false);
        };
        let doomed = self.root.join("tmp").join(id);
        match fs::rename(self.entry(id), &doomed) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        remove_tree(&doomed)?;
        fs::remove_file(self.entry_lock(id))?;
        Ok(true)
    }

    /// Removes what killed builds have left, and names that lead nowhere.
    pub(crate) fn sweep(&self) -> io::Result<()> {
        for name in names(&self.root.join("tmp"))? {
            let path = self.root.join("tmp").join(&name);
            if !is_id(&name) {
                if is_old(&path) {
                    remove_tree(&path)?;
                }
            } else if let Some(_lock) = FileLock::try_acquire(&self.entry_lock(&name))? {
                remove_tree(&path)?;
                fs::remove_file(self.entry_lock(&name))?;
            }
        }
        Ok(())
    }

    /// Removes locks and keys that nobody needs. Only with every new entry: there may be many.
    pub(crate) fn sweep_names(&self) -> io::Result<()> {
        for name in names(&self.root.join("keys"))? {
            if self.find(&name).is_none() {
                let path = self.root.join("keys").join(&name);
                // Just written by somebody whose entry is about to appear? They write it afterwards.
                remove_if_there(&path)?;
            }
        }
        for folder in ["builds", "locks"] {
            for name in names(&self.root.join(folder))? {
                let path = self.root.join(folder).join(&name);
                let is_free =
                    !self.entry(&name).exists() && is_old(&path) && FileLock::try_acquire(&path)?.is_some();
                if is_free {
                    remove_if_there(&path)?;
                }
            }
        }
        Ok(())
    }

    /// Bytes that the file system of the cache has left for us.
    pub(crate) fn free_bytes(&self) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(&self.root)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

impl Draft<'_> {
    /// Makes it an entry, of which nothing was to be seen before.
    pub(crate) fn publish(mut self, mut meta: Meta, items: &[Item]) -> Result<String, FileError> {
        let bytes = write_items(items);
        meta.items = hex(&Sha256::digest(&bytes));
        let file = self.folder.join("items");
        fs::write(&file, &bytes).map_err(at("writing", &file))?;
        let file = self.folder.join("meta.json");
        let text = serde_json::to_vec(&meta)
            .map_err(io::Error::from)
            .map_err(at("writing", &file))?;
        fs::write(&file, text).map_err(at("writing", &file))?;
        let entry = self.store.entry(&self.id);
        fs::rename(&self.folder, &entry).map_err(at("creating", &entry))?;
        self.lock = None;
        for key in &meta.keys {
            self.store.point(key, &self.id)?;
        }
        Ok(self.id.clone())
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        if self.lock.is_some() {
            let removed =
                remove_tree(&self.folder).and_then(|()| remove_if_there(&self.store.entry_lock(&self.id)));
            if let Err(error) = removed {
                // The next build tries again.
                tracing::warn!(%error, "an unfinished cached environment can't be removed");
            }
        }
    }
}

/// Whether a name is one that we give to entries.
fn is_id(name: &str) -> bool {
    name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_old(path: &Path) -> bool {
    let modified = fs::symlink_metadata(path).and_then(|meta| meta.modified());
    modified.is_ok_and(|time| time.elapsed().is_ok_and(|age| age > FORGOTTEN))
}

fn names(folder: &Path) -> io::Result<Vec<String>> {
    let names = fs::read_dir(folder)?
        .filter_map(Result::ok)
        .map(|entry| entry.file_name());
    Ok(names.filter_map(|name| name.into_string().ok()).collect())
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

impl Meta {
    pub(crate) fn new(keys: Vec<String>, base: &Path, python: Python, pinned: bool) -> Self {
        Self {
            schema: SCHEMA,
            keys,
            created_ms: now_ms(),
            base: base.to_owned(),
            python,
            pinned,
            items: String::new(),
        }
    }

    /// Whether it was made longer ago than that.
    pub(crate) fn is_older_than(&self, age: Duration) -> bool {
        now_ms().saturating_sub(self.created_ms) > i64::try_from(age.as_millis()).unwrap_or(i64::MAX)
    }
}

/// Removes entries until there are fewer than `most` (0 for any number) and at least `min_free` bytes free,
/// those that were used longest ago first. `false` when the room can't be made.
pub(crate) fn make_room(
    store: &Store,
    most: u64,
    min_free: Option<u64>,
    free: &dyn Fn() -> io::Result<u64>,
) -> io::Result<bool> {
    let mut entries = store.by_use()?.into_iter();
    let mut count = entries.len() as u64;
    let lacks_room = || -> io::Result<bool> {
        Ok(match min_free {
            Some(least) => free()? < least,
            None => false,
        })
    };
    loop {
        let too_many = most > 0 && count >= most;
        if !too_many && !lacks_room()? {
            return Ok(true);
        }
        let Some(oldest) = entries.next() else {
            // All that are left are being restored, which is no reason to go without one more.
            return Ok(!lacks_room()?);
        };
        if store.remove(&oldest)? {
            count -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn entry(store: &Store, number: u64) -> String {
        let draft = store.draft().unwrap();
        fs::write(draft.env.join("file"), "x").unwrap();
        let meta = Meta::new(
            vec![format!("{number:064}")],
            Path::new("/x"),
            Python::default(),
            true,
        );
        let id = draft.publish(meta, &[]).unwrap();
        let file = File::open(store.entry(&id).join("meta.json")).unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + number);
        file.set_times(FileTimes::new().set_modified(time)).unwrap();
        id
    }

    #[test]
    fn entries_that_were_used_longest_ago_make_room_one_by_one() {
        let temp = tempfile::tempdir().unwrap();
        let store = Store::open(&temp.path().join("c")).unwrap();
        let ids: Vec<String> = (0..4).map(|number| entry(&store, number)).collect();
        let there = || -> Vec<bool> { ids.iter().map(|id| store.entry(id).exists()).collect() };
        let room =
            |most, least, free: &dyn Fn() -> io::Result<u64>| make_room(&store, most, least, free).unwrap();
        assert!(room(0, None, &|| Ok(0)) && room(5, Some(10), &|| Ok(10)));
        assert_eq!(there(), [true; 4]);
        store.touch(&ids[0]).unwrap();
        assert!(room(4, None, &|| Ok(0)));
        assert_eq!(there(), [true, false, true, true], "the one that was used stays");

        // Each removal frees five bytes.
        let free = Cell::new(0);
        let grows = || -> io::Result<u64> {
            free.set(free.get() + 5);
            Ok(free.get())
        };
        assert!(room(0, Some(10), &grows));
        assert_eq!(there(), [true, false, false, true], "not more than needed");
        let held = shared_lock(&store, &ids[3]);
        assert!(
            !room(0, Some(10), &|| Ok(1)),
            "there is no room, so nothing is kept"
        );
        assert_eq!(
            there(),
            [false, false, false, true],
            "what is being restored stays"
        );
        drop(held);
        assert!(store.find(&format!("{:064}", 3)).is_some() && store.find(&format!("{:064}", 0)).is_none());
        store.sweep_names().unwrap();
        assert_eq!(names(&store.root.join("keys")).unwrap().len(), 1);
        assert_eq!(names(&store.root.join("locks")).unwrap(), [ids[3].clone()]);
    }

    fn shared_lock(store: &Store, id: &str) -> File {
        let file = File::open(store.entry_lock(id)).unwrap();
        file.lock_shared().unwrap();
        file
    }

    #[test]
    fn what_killed_builds_leave_is_removed_and_what_lives_is_not() {
        let temp = tempfile::tempdir().unwrap();
        let store = Store::open(&temp.path().join("c")).unwrap();
        let alive = store.draft().unwrap();
        let mut killed = store.draft().unwrap();
        let remains = killed.folder.clone();
        killed.lock = None;
        drop(killed);
        let foreign = store.root.join("tmp/key-x");
        fs::write(&foreign, "").unwrap();
        store.sweep().unwrap();
        assert!(alive.env.exists() && !remains.exists() && foreign.exists());
        let old = FileTimes::new().set_modified(SystemTime::now() - 2 * FORGOTTEN);
        File::open(&foreign).unwrap().set_times(old).unwrap();
        store.sweep().unwrap();
        assert!(!foreign.exists());
        let folder = alive.folder.clone();
        drop(alive);
        assert!(!folder.exists());
    }

    #[test]
    fn damage_is_seen() {
        let temp = tempfile::tempdir().unwrap();
        let store = Store::open(&temp.path().join("c")).unwrap();
        let id = entry(&store, 1);
        assert!(store.read(&id).is_some());
        fs::write(store.entry(&id).join("items"), "f 644 1 1 1 1 x\0").unwrap();
        assert!(store.read(&id).is_none());
        fs::write(store.entry(&id).join("meta.json"), "{}").unwrap();
        assert!(store.read(&id).is_none());
        fs::write(store.root.join("keys").join("k"), "../../etc").unwrap();
        assert!(store.find("k").is_none());
    }
}
