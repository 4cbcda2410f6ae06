//! A tree, written down.

use std::os::unix::ffi::OsStrExt;
use std::path::{Component, PathBuf};

use super::{Item, Kind, Stamp};

/// The items as bytes: fields with blanks between them, the path last, a zero byte at the end.
pub(crate) fn write_items(items: &[Item]) -> Vec<u8> {
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
