//! Every way of bringing a tree, and lists that lead elsewhere.

use std::os::unix::fs::{PermissionsExt, symlink};

use clearml_support::command::CancelToken;

use super::*;
use crate::request::LinkMode;

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
