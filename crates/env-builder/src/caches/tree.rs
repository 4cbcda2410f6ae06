//! Trees of files: what is in one, written down so that any later change shows, and bringing one to another
//! place by reflinks, hard links or copies, with several threads.

use std::fs::{self, File, FileTimes};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use clearml_support::command::CancelToken;

use crate::error::{FileError, at};
use crate::request::LinkMode;

/// How many threads pay; more only wait for the directory locks of the file system.
const MAX_THREADS: usize = 8;
/// Files that a thread takes at once.
const BATCH: usize = 64;

/// What something in a tree is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Folder,
    Link,
    /// A file that nobody changes.
    File,
    /// A file that installers or we do change, so that it is never shared.
    Own,
    /// Likewise, and it names the place of its environment.
    Placed,
}

/// One thing in a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) path: PathBuf,
    pub(crate) kind: Kind,
    pub(crate) mode: u32,
    pub(crate) stamp: Stamp,
}

/// What changes when a file is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Stamp {
    pub(crate) size: u64,
    pub(crate) mtime: i64,
    pub(crate) nanos: i64,
    pub(crate) inode: u64,
}

impl Stamp {
    fn of(meta: &fs::Metadata) -> Self {
        Self {
            size: meta.size(),
            mtime: meta.mtime(),
            nanos: meta.mtime_nsec(),
            inode: meta.ino(),
        }
    }

    fn modified(&self) -> SystemTime {
        let nanos = Duration::from_nanos(u64::try_from(self.nanos).unwrap_or(0));
        let whole = Duration::from_secs(self.mtime.unsigned_abs());
        let seconds = if self.mtime < 0 {
            SystemTime::UNIX_EPOCH - whole
        } else {
            SystemTime::UNIX_EPOCH + whole
        };
        seconds + nanos
    }
}

/// Why a tree could not be transferred.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TreeError {
    #[error(transparent)]
    File(#[from] FileError),
    /// The source is not what was written down.
    #[error("{} has changed", _0.display())]
    Changed(PathBuf),
    #[error("the build was cancelled")]
    Cancelled,
}

/// Lists a tree, parents first. `leave_out` says what does not belong to it; folders that hold nothing else
/// are left out as well.
pub(crate) fn list(
    root: &Path,
    leave_out: &dyn Fn(&Path) -> bool,
    kind_of: &dyn Fn(&Path) -> Kind,
) -> Result<Vec<Item>, FileError> {
    let mut items = Vec::new();
    list_folder(root, Path::new(""), leave_out, kind_of, &mut items)?;
    Ok(items)
}

/// Whether something was left out.
fn list_folder(
    root: &Path,
    folder: &Path,
    leave_out: &dyn Fn(&Path) -> bool,
    kind_of: &dyn Fn(&Path) -> Kind,
    items: &mut Vec<Item>,
) -> Result<bool, FileError> {
    let mut incomplete = false;
    let here = root.join(folder);
    for entry in fs::read_dir(&here).map_err(at("reading", &here))? {
        let entry = entry.map_err(at("reading", &here))?;
        let path = folder.join(entry.file_name());
        if leave_out(&path) {
            incomplete = true;
            continue;
        }
        let whole = entry.path();
        let meta = entry.metadata().map_err(at("reading", &whole))?;
        let kind = match meta.file_type() {
            t if t.is_dir() => Kind::Folder,
            t if t.is_symlink() => Kind::Link,
            t if t.is_file() => kind_of(&path),
            // Pipes and sockets belong to running programs.
            _ => continue,
        };
        let index = items.len();
        items.push(Item {
            path: path.clone(),
            kind,
            mode: meta.mode() & 0o7777,
            stamp: Stamp::of(&meta),
        });
        if kind == Kind::Folder && list_folder(root, &path, leave_out, kind_of, items)? {
            incomplete = true;
            if items.len() == index + 1 {
                items.pop();
            }
        }
    }
    Ok(incomplete)
}

/// How files come from one place to the other. Each way that turns out not to work gives way to the next.
pub(crate) struct Means(AtomicU8);

const REFLINK: u8 = 0;
const REFLINK_OR_COPY: u8 = 1;
const HARD_LINK: u8 = 2;
const COPY: u8 = 3;

impl Means {
    pub(crate) fn new(mode: LinkMode, allow_hard_links: bool) -> Self {
        Self(AtomicU8::new(match mode {
            LinkMode::Auto if allow_hard_links => REFLINK,
            LinkMode::Auto | LinkMode::Reflink => REFLINK_OR_COPY,
            LinkMode::HardLink => HARD_LINK,
            LinkMode::Copy => COPY,
        }))
    }

    /// What has been used, for people.
    pub(crate) fn name(&self) -> &'static str {
        match self.0.load(Ordering::Relaxed) {
            REFLINK | REFLINK_OR_COPY => "reflinks",
            HARD_LINK => "hard links",
            _ => "copies",
        }
    }

    /// Whether both places share their files now.
    pub(crate) fn shares(&self) -> bool {
        self.0.load(Ordering::Relaxed) == HARD_LINK
    }

    fn bring(&self, from: &Path, to: &Path, item: &Item) -> Result<(), FileError> {
        loop {
            let means = self.0.load(Ordering::Relaxed);
            let next = match means {
                REFLINK | REFLINK_OR_COPY => match reflink(from, to) {
                    Ok(()) => return finish(to, item),
                    Err(e) if is_unsupported(&e) => {
                        if means == REFLINK {
                            HARD_LINK
                        } else {
                            COPY
                        }
                    }
                    Err(e) => return Err(at("copying", from)(e)),
                },
                HARD_LINK if item.kind == Kind::File => match fs::hard_link(from, to) {
                    Ok(()) => return Ok(()),
                    // This one file has too many links, or belongs to somebody else.
                    Err(e) if !is_unsupported(&e) && cannot_link(&e) => return copy(from, to, item),
                    Err(e) if is_unsupported(&e) => COPY,
                    Err(e) => return Err(at("linking", from)(e)),
                },
                _ => return copy(from, to, item),
            };
            // Threads that find out at the same time find out the same.
            self.0.store(next, Ordering::Relaxed);
        }
    }
}

fn reflink(from: &Path, to: &Path) -> io::Result<()> {
    let source = File::open(from)?;
    let target = File::create_new(to)?;
    let result = rustix::fs::ioctl_ficlone(&target, &source);
    if result.is_err() {
        fs::remove_file(to)?;
    }
    Ok(result?)
}

fn copy(from: &Path, to: &Path, item: &Item) -> Result<(), FileError> {
    fs::copy(from, to).map_err(at("copying", from))?;
    finish(to, item)
}

/// Compiled modules belong to sources of one time, so copies keep the times.
fn finish(to: &Path, item: &Item) -> Result<(), FileError> {
    let file = File::open(to).map_err(at("opening", to))?;
    file.set_permissions(fs::Permissions::from_mode(item.mode))
        .and_then(|()| file.set_times(FileTimes::new().set_modified(item.stamp.modified())))
        .map_err(at("changing", to))
}

fn is_unsupported(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let known = [
        Errno::OPNOTSUPP,
        Errno::NOTTY,
        Errno::INVAL,
        Errno::XDEV,
        Errno::NOSYS,
    ];
    error
        .raw_os_error()
        .is_some_and(|code| known.iter().any(|errno| errno.raw_os_error() == code))
}

fn cannot_link(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::PermissionDenied | io::ErrorKind::TooManyLinks
    )
}

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

/// The items as bytes: fields with blanks between them, the path last, a zero byte at the end.
pub(crate) fn write_items(items: &[Item]) -> Vec<u8> {
    use std::os::unix::ffi::OsStrExt;
    let mut bytes = Vec::with_capacity(items.len() * 96);
    for item in items {
        let kind = match item.kind {
            Kind::Folder => 'd',
            Kind::Link => 'l',
            Kind::File => 'f',
            Kind::Own => 'o',
            Kind::Placed => 'p',
        };
        let Stamp {
            size,
            mtime,
            nanos,
            inode,
        } = item.stamp;
        let fields = format!("{kind} {:o} {size} {mtime} {nanos} {inode} ", item.mode);
        bytes.extend_from_slice(fields.as_bytes());
        bytes.extend_from_slice(item.path.as_os_str().as_bytes());
        bytes.push(0);
    }
    bytes
}

/// The reverse of [`write_items`]; `None` for anything else, and for paths that lead out of the tree.
pub(crate) fn read_items(bytes: &[u8]) -> Option<Vec<Item>> {
    if bytes.is_empty() {
        return Some(Vec::new());
    }
    bytes
        .strip_suffix(b"\0")?
        .split(|byte| *byte == 0)
        .map(read_item)
        .collect()
}

fn read_item(record: &[u8]) -> Option<Item> {
    use std::os::unix::ffi::OsStrExt;
    let mut fields = record.splitn(7, |byte| *byte == b' ');
    let mut text = || std::str::from_utf8(fields.next()?).ok();
    let kind = match text()? {
        "d" => Kind::Folder,
        "l" => Kind::Link,
        "f" => Kind::File,
        "o" => Kind::Own,
        "p" => Kind::Placed,
        _ => return None,
    };
    let mode = u32::from_str_radix(text()?, 8).ok()?;
    let stamp = Stamp {
        size: text()?.parse().ok()?,
        mtime: text()?.parse().ok()?,
        nanos: text()?.parse().ok()?,
        inode: text()?.parse().ok()?,
    };
    let path = PathBuf::from(std::ffi::OsStr::from_bytes(fields.next()?));
    let inside = path.components().all(|part| matches!(part, Component::Normal(_)));
    (inside && !path.as_os_str().is_empty()).then_some(Item {
        path,
        kind,
        mode,
        stamp,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind_of(path: &Path) -> Kind {
        if path.starts_with("bin") {
            Kind::Own
        } else {
            Kind::File
        }
    }

    fn sample(root: &Path) -> Vec<Item> {
        fs::create_dir_all(root.join("lib/deep er/empty")).unwrap();
        fs::create_dir_all(root.join("bin")).unwrap();
        fs::create_dir_all(root.join("left/out")).unwrap();
        for number in 0..300 {
            fs::write(root.join(format!("lib/deep er/é\n{number}")), vec![b'x'; number]).unwrap();
        }
        fs::write(root.join("left/out/file"), "1").unwrap();
        fs::write(root.join("bin/run"), "run").unwrap();
        fs::set_permissions(root.join("bin/run"), fs::Permissions::from_mode(0o751)).unwrap();
        symlink("lib", root.join("lib64")).unwrap();
        list(root, &|path| path.ends_with("left/out/file"), &kind_of).unwrap()
    }

    fn contents(root: &Path, items: &[Item]) -> Vec<(PathBuf, u32, Vec<u8>, i64)> {
        items
            .iter()
            .filter(|item| !matches!(item.kind, Kind::Folder | Kind::Link))
            .map(|item| {
                let path = root.join(&item.path);
                let meta = fs::metadata(&path).unwrap();
                let nanos = meta.mtime() * 1_000_000_000 + meta.mtime_nsec();
                (
                    item.path.clone(),
                    meta.mode() & 0o555,
                    fs::read(path).unwrap(),
                    nanos,
                )
            })
            .collect()
    }

    #[test]
    fn every_way_brings_the_same_and_a_change_is_noticed() {
        let temp = tempfile::tempdir().unwrap();
        let from = temp.path().join("from");
        let items = sample(&from);
        assert!(
            !items.iter().any(|item| item.path.starts_with("left")),
            "emptied folders go"
        );
        let cancel = CancelToken::default();
        let mut orders = Orders {
            check: true,
            record: true,
            cancel: &cancel,
        };
        let expected = contents(&from, &items);
        for (number, (mode, allow)) in [
            (LinkMode::Copy, true),
            (LinkMode::Reflink, true),
            (LinkMode::Auto, false),
            (LinkMode::Auto, true),
            (LinkMode::HardLink, true),
        ]
        .into_iter()
        .enumerate()
        {
            let to = temp.path().join(number.to_string());
            fs::create_dir(&to).unwrap();
            let means = Means::new(mode, allow);
            let arrived = transfer(&items, &from, &to, &means, &orders).unwrap();
            assert_eq!(contents(&to, &items), expected, "{mode:?} {}", means.name());
            assert_eq!(fs::read_link(to.join("lib64")).unwrap(), Path::new("lib"));
            assert!(to.join("lib/deep er/empty").is_dir());
            let shared = |path: &str| {
                let inode = |root: &Path| fs::metadata(root.join(path)).unwrap().ino();
                inode(&from) == inode(&to)
            };
            assert_eq!(shared("lib/deep er/é\n7"), means.shares(), "{mode:?}");
            assert!(!shared("bin/run"), "what is changed is never shared");
            assert_eq!(read_items(&write_items(&arrived)).unwrap(), arrived);
        }
        assert_eq!(
            fs::metadata(from.join("lib/deep er/é\n7")).unwrap().mode() & 0o222,
            0,
            "shared files are protected"
        );
        fs::remove_file(from.join("lib/deep er/é\n200")).unwrap();
        fs::write(from.join("lib/deep er/é\n200"), vec![b'y'; 200]).unwrap();
        let to = temp.path().join("changed");
        fs::create_dir(&to).unwrap();
        let means = Means::new(LinkMode::Copy, true);
        let error = transfer(&items, &from, &to, &means, &orders).unwrap_err();
        assert!(
            matches!(&error, TreeError::Changed(path) if path.ends_with("é\n200")),
            "{error}"
        );
        orders.check = false;
        cancel.cancel();
        let to = temp.path().join("cancelled");
        fs::create_dir(&to).unwrap();
        assert!(matches!(
            transfer(&items, &from, &to, &means, &orders),
            Err(TreeError::Cancelled)
        ));
    }

    #[test]
    fn lists_of_items_that_lead_elsewhere_are_refused() {
        for text in [
            "f 644 1 1 1 1 ../x\0",
            "f 644 1 1 1 1 /x\0",
            "f 644 1 1 1 1 \0",
            "f 644 1 1 1 x",
            "q 1 1 1 1 1 x\0",
            "\0",
        ] {
            assert_eq!(read_items(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(read_items(b""), Some(Vec::new()));
        assert_eq!(
            read_items(b"f 644 1 -5 1 1 a b\0").unwrap()[0].path,
            Path::new("a b")
        );
    }
}
