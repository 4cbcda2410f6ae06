//! Which C library our program needs, and which one an image has.
//!
//! Images are told from the loader of programs. Up to glibc 2.33 it is a link to a file with the version in its
//! name; later ones are new enough for every build that this is about.

use std::io::Read;
use std::sync::OnceLock;

/// The loader of programs, without which ours can't run.
#[cfg(target_arch = "x86_64")]
pub(super) const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";
#[cfg(not(target_arch = "x86_64"))]
pub(super) const LOADER: &str = "/lib/ld-linux-aarch64.so.1";

/// The names of versions stand near the beginning of a program.
const BEGINNING: u64 = 4 << 20;
const NAME: &[u8] = b"\0GLIBC_2.";

/// For an image without the loader.
pub(super) fn missing() -> String {
    format!(
        "has no GNU C library ({LOADER} is missing), which the agent needs there; images of Alpine Linux and others \
         with musl can't be used, take one that is based on Debian, Ubuntu, or a Red Hat system"
    )
}

/// Why our program can't run with the loader at this place; `None` where it can, or where nobody knows.
pub(super) fn too_old(loader: &str) -> Option<String> {
    let there = version_in(loader)?;
    older(there, needed()?)
}

fn older(there: u32, needed: u32) -> Option<String> {
    (there < needed).then(|| {
        format!(
            "has version 2.{there} of the GNU C library, and this build of the agent needs 2.{needed} or newer there; \
             take a newer image"
        )
    })
}

/// The 31 of `…/ld-2.31.so`.
fn version_in(loader: &str) -> Option<u32> {
    let name = loader.rsplit('/').next()?;
    let minor = name.strip_prefix("ld-2.")?.strip_suffix(".so")?;
    minor.split('.').next()?.parse().ok()
}

/// What our program asks the library for at most.
fn needed() -> Option<u32> {
    static NEEDED: OnceLock<Option<u32>> = OnceLock::new();
    *NEEDED.get_or_init(|| {
        let file = std::fs::File::open(crate::spawn::this_program()).ok()?;
        let mut bytes = Vec::new();
        file.take(BEGINNING).read_to_end(&mut bytes).ok()?;
        highest(&bytes)
    })
}

fn highest(bytes: &[u8]) -> Option<u32> {
    let names = bytes.windows(NAME.len()).enumerate();
    names
        .filter(|(_, window)| *window == NAME)
        .filter_map(|(at, _)| {
            let digits = bytes[at + NAME.len()..]
                .iter()
                .take_while(|byte| byte.is_ascii_digit());
            let text: String = digits.take(3).map(|byte| char::from(*byte)).collect();
            text.parse().ok()
        })
        .max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_programs_and_loaders() {
        assert_eq!(highest(b"x\0GLIBC_2.9\0GLIBC_2.17\0GLIBC_2.3.4\0"), Some(17));
        assert_eq!(highest(b"nothing"), None);
        // This test itself is such a program.
        let own = needed().unwrap();
        assert!((10..100).contains(&own), "{own}");
        assert_eq!(version_in("/usr/lib/x86_64-linux-gnu/ld-2.31.so"), Some(31));
        assert_eq!(version_in("/lib64/ld-2.2.5.so"), Some(2));
        assert_eq!(version_in(LOADER), None);
        let text = older(12, 17).unwrap();
        assert!(text.contains("2.12") && text.contains("2.17"), "{text}");
        assert_eq!(older(17, 17), None);
    }
}
