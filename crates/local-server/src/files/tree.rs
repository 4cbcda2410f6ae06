//! One folder and everything below it, addressed by relative names that cannot lead out of it.
//!
//! Names are resolved one component at a time from the descriptor of the root, never following a symbolic link, so
//! neither `..` nor a link that somebody put into the folder reaches anything outside, whatever happens meanwhile.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use clearml_support::fs::create_private_dir;
use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

/// Longest accepted name, all components together.
const MAX_NAME: usize = 4096;
/// Deepest folder that is removed with its contents.
const MAX_DEPTH: usize = 200;

/// A relative name with at least one component, none of which is special.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    folders: Vec<OsString>,
    name: OsString,
}

impl Target {
    /// Leading and doubled separators and `.` say nothing; `..` and NUL name nothing here.
    pub(super) fn parse(path: &OsStr) -> Option<Self> {
        if path.len() > MAX_NAME || path.as_bytes().contains(&0) {
            return None;
        }
        let mut folders = Vec::new();
        for part in path.as_bytes().split(|byte| *byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." => return None,
                part => folders.push(OsStr::from_bytes(part).to_owned()),
            }
        }
        let name = folders.pop()?;
        Some(Self { folders, name })
    }

    /// The name with single separators, without a leading one.
    pub(super) fn relative(&self) -> String {
        let path: PathBuf = self.folders.iter().chain([&self.name]).collect();
        path.to_string_lossy().into_owned()
    }

    pub(super) fn file_name(&self) -> &OsStr {
        &self.name
    }
}

/// The root folder, and the staging folder beside it.
#[derive(Debug)]
pub(super) struct Tree {
    root: OwnedFd,
    staging: OwnedFd,
}

impl Tree {
    /// Opens both folders, creating them if needed, and empties the staging folder.
    pub(super) fn open(root: PathBuf, staging: PathBuf) -> io::Result<Self> {
        create_private_dir(&root)?;
        create_private_dir(&staging)?;
        let tree = Self {
            root: fs::open(
                &root,
                OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
            )?,
            staging: fs::open(
                &staging,
                OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
            )?,
        };
        remove_contents(&tree.staging, 0)?;
        Ok(tree)
    }

    /// Opens a regular file for reading.
    pub(super) fn read(&self, target: &Target) -> io::Result<File> {
        let folder = self.folder_of(target)?;
        // Opening a pipe must not wait for a writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(fs::openat(&folder, &target.name, flags, Mode::empty()).map_err(hide_links)?);
        if file.metadata()?.is_file() {
            Ok(file)
        } else {
            Err(io::ErrorKind::NotFound.into())
        }
    }

    /// Starts a file that nobody can see yet.
    pub(super) fn stage(self: &std::sync::Arc<Self>) -> io::Result<(Staged, File)> {
        let name = OsString::from(clearml_support::id::hex32());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = fs::openat(&self.staging, &name, flags, Mode::RUSR | Mode::WUSR)?;
        Ok((
            Staged {
                tree: std::sync::Arc::clone(self),
                name: Some(name),
            },
            File::from(file),
        ))
    }

    /// Deletes a file; a folder counts as missing.
    pub(super) fn delete_file(&self, target: &Target) -> io::Result<()> {
        let folder = self.folder_of(target)?;
        match fs::unlinkat(&folder, &target.name, AtFlags::empty()) {
            Err(Errno::ISDIR | Errno::PERM) => Err(io::ErrorKind::NotFound.into()),
            other => Ok(other?),
        }
    }

    /// Deletes a file, or a folder with everything below it.
    pub(super) fn delete_any(&self, target: &Target) -> io::Result<()> {
        remove_entry(&self.folder_of(target)?, &target.name, 0)
    }

    fn folder_of(&self, target: &Target) -> io::Result<OwnedFd> {
        let mut folder = self.root.try_clone()?;
        for name in &target.folders {
            folder = open_folder(&folder, name).map_err(hide_links)?;
        }
        Ok(folder)
    }

    fn make_folder_of(&self, target: &Target) -> io::Result<OwnedFd> {
        let mut folder = self.root.try_clone()?;
        for name in &target.folders {
            match fs::mkdirat(&folder, name, Mode::RWXU) {
                Ok(()) => fs::fsync(&folder)?,
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            folder = open_folder(&folder, name).map_err(hide_links)?;
        }
        Ok(folder)
    }
}

/// A file in the staging folder; removed when it is dropped before it was published.
#[derive(Debug)]
pub(super) struct Staged {
    tree: std::sync::Arc<Tree>,
    name: Option<OsString>,
}

impl Staged {
    /// Moves the file to its place, over whatever file is there, durably. Its contents must be synced already.
    pub(super) fn publish(mut self, target: &Target) -> io::Result<()> {
        let folder = self.tree.make_folder_of(target)?;
        if let Some(name) = self.name.take() {
            if let Err(error) = fs::renameat(&self.tree.staging, &name, &folder, &target.name) {
                self.name = Some(name);
                return Err(error.into());
            }
            fs::fsync(&folder)?;
        }
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            // What cannot be removed now is removed at the next start.
            let _ = fs::unlinkat(&self.tree.staging, name, AtFlags::empty());
        }
    }
}

fn open_folder(parent: &OwnedFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat(parent, name, flags, Mode::empty())
}

/// A symbolic link is as good as nothing. With `O_DIRECTORY` the kernel reports it as "not a directory", which is also
/// what a file in place of a folder gives; a reader may know no more than that nothing is there.
fn hide_links(error: Errno) -> io::Error {
    match error {
        Errno::LOOP => io::ErrorKind::NotFound.into(),
        other => other.into(),
    }
}

fn remove_entry(folder: &OwnedFd, name: &OsStr, depth: usize) -> io::Result<()> {
    match fs::unlinkat(folder, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => {}
        other => return Ok(other?),
    }
    if depth > MAX_DEPTH {
        return Err(io::Error::other("folders are nested too deeply"));
    }
    remove_contents(&open_folder(folder, name)?, depth + 1)?;
    Ok(fs::unlinkat(folder, name, AtFlags::REMOVEDIR)?)
}

fn remove_contents(folder: &OwnedFd, depth: usize) -> io::Result<()> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            names.push((name.to_owned(), entry.file_type()));
        }
    }
    for (name, kind) in names {
        if kind == FileType::Directory {
            remove_entry(folder, &name, depth)?;
        } else {
            fs::unlinkat(folder, &name, AtFlags::empty())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::{Read as _, Write as _};
    use std::os::unix::fs::symlink;
    use std::path::Path;
    use std::sync::Arc;

    fn tree(folder: &Path) -> Arc<Tree> {
        Arc::new(Tree::open(folder.join("files"), folder.join("uploads")).unwrap())
    }

    fn target(path: &str) -> Target {
        Target::parse(OsStr::new(path)).unwrap()
    }

    fn put(tree: &Arc<Tree>, path: &str, bytes: &[u8]) -> io::Result<()> {
        let (staged, mut file) = tree.stage()?;
        file.write_all(bytes)?;
        staged.publish(&target(path))
    }

    fn get(tree: &Tree, path: &str) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        tree.read(&target(path))?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    #[test]
    fn a_file_appears_whole_and_replaces_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let tree = tree(folder.path());
        put(&tree, "/a b//./c", b"one").unwrap();
        put(&tree, "a b/c", b"two").unwrap();
        assert_eq!(get(&tree, "a b/c").unwrap(), b"two");
        assert_eq!(
            std::fs::read_dir(folder.path().join("uploads")).unwrap().count(),
            0
        );
    }

    #[test]
    fn an_abandoned_upload_leaves_nothing_and_a_killed_one_only_until_the_next_start() {
        let folder = tempfile::tempdir().unwrap();
        let uploads = || std::fs::read_dir(folder.path().join("uploads")).unwrap().count();
        let first = tree(folder.path());
        drop(first.stage().unwrap());
        assert_eq!(uploads(), 0);
        std::mem::forget(first.stage().unwrap().0);
        assert_eq!(uploads(), 1);
        drop(tree(folder.path()));
        assert_eq!(uploads(), 0);
    }

    #[test]
    fn links_lead_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        let tree = tree(folder.path());
        let outside = folder.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("secret"), b"s").unwrap();
        let root = folder.path().join("files");
        symlink(&outside, root.join("door")).unwrap();
        symlink(outside.join("secret"), root.join("window")).unwrap();
        assert!(get(&tree, "door/secret").is_err());
        assert!(get(&tree, "window").is_err());
        assert!(put(&tree, "door/new", b"x").is_err());
        assert!(tree.delete_any(&target("door/secret")).is_err());
        put(&tree, "window", b"replaced").unwrap();
        tree.delete_any(&target("door")).unwrap();
        assert_eq!(std::fs::read(outside.join("secret")).unwrap(), b"s");
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1);
    }

    #[test]
    fn folders_are_removed_whole_but_only_by_the_call_that_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let tree = tree(folder.path());
        put(&tree, "d/e/f", b"1").unwrap();
        put(&tree, "d/g", b"1").unwrap();
        let missing = tree.delete_file(&target("d")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        tree.delete_any(&target("d")).unwrap();
        assert!(!folder.path().join("files/d").exists());
        assert_eq!(
            tree.delete_any(&target("d")).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }

    #[test]
    fn a_pipe_does_not_hang_a_reader() {
        let folder = tempfile::tempdir().unwrap();
        let tree = tree(folder.path());
        let pipe = folder.path().join("files/pipe");
        fs::mknodat(fs::CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        assert_eq!(get(&tree, "pipe").unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn special_names_are_refused() {
        for bad in ["..", "../x", "a/../b", "a/..", "", "/", "./", "a\0b"] {
            assert_eq!(Target::parse(OsStr::new(bad)), None, "{bad:?}");
        }
        assert_eq!(target("//a/./b c%20").relative(), "a/b c%20");
    }

    proptest! {
        #[test]
        fn a_target_never_has_a_special_component(path in "[a./%\\\\ ]{0,12}") {
            if let Some(target) = Target::parse(OsStr::new(&path)) {
                for part in target.relative().split('/') {
                    prop_assert!(!matches!(part, "" | "." | ".."));
                }
            }
        }
    }
}
