//! Watching for a secret where everybody could read it.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// Does something while a thread looks at the arguments and variables of all processes, over and over.
/// Panics when one of the secrets was among them.
pub(crate) fn watched<T>(secrets: &[&str], work: impl FnOnce() -> T) -> T {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut found = Vec::new();
            let mut rounds = 0;
            while !done.load(Ordering::Relaxed) {
                rounds += 1;
                look(secrets, &mut found);
                std::thread::sleep(std::time::Duration::from_millis(4));
            }
            (rounds, found)
        });
        let ends = Ends(&done);
        let result = work();
        drop(ends);
        let (rounds, found) = watch.join().unwrap();
        assert!(rounds > 2, "nothing was looked at");
        assert!(found.is_empty(), "secrets were seen in {found:?}");
        result
    })
}

/// Ends the watch, also when the work panics.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn look(secrets: &[&str], found: &mut Vec<String>) {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let own = std::process::id().to_string();
    for process in processes {
        let name = process.file_name().to_string_lossy().into_owned();
        if name == own || !name.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        for file in ["cmdline", "environ"] {
            let bytes = fs::read(process.path().join(file)).unwrap_or_default();
            let text = String::from_utf8_lossy(&bytes);
            if secrets.iter().any(|secret| text.contains(secret)) {
                found.push(format!("{name}/{file}: {}", text.replace('\0', " ")));
            }
        }
    }
}

/// Panics when a file below `folder` contains one of the secrets.
pub(crate) fn assert_no_file_has(secrets: &[&str], folder: &Path) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        if kind.is_dir() {
            assert_no_file_has(secrets, &path);
        } else if kind.is_file() && !kind.is_socket() {
            let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
            for secret in secrets {
                assert!(!text.contains(secret), "{} contains {secret}", path.display());
            }
        }
    }
}
