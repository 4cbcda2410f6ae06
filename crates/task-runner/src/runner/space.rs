//! Whether a preparation has failed because the disk is full. The machine is to blame for that, and not the task.

use std::error::Error;
use std::io;

use super::setup::with_causes;
use crate::record::Failure;

/// How the system says so; tools, whose errors reach us as text, pass that on.
const SAYINGS: [&str; 2] = ["No space left on device", "Disk quota exceeded"];

/// Whether a line of output says so.
pub(super) fn says_full(text: &str) -> bool {
    SAYINGS.iter().any(|saying| text.contains(saying))
}

/// Whether an error, or one behind it, says so.
pub(super) fn is_full(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        if matches!(
            kind,
            Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        ) {
            return true;
        }
        next = error.source();
    }
    says_full(&with_causes(error))
}

/// The failure of a run whose preparation has found the disk full. Nothing of it is left that runs.
pub(super) fn disk_full(text: &str) -> Failure {
    Failure {
        over: true,
        ..Failure::infrastructure(format!(
            "the disk became full while the task was prepared (ENOSPC): {text}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("writing a file")]
    struct Outer(#[source] io::Error);

    #[test]
    fn a_full_disk_is_seen_behind_other_errors_and_in_what_tools_say() {
        assert!(is_full(&Outer(io::ErrorKind::StorageFull.into())));
        assert!(!is_full(&Outer(io::ErrorKind::NotFound.into())));
        assert!(is_full(&Outer(io::Error::other(
            "fatal: write error: No space left on device"
        ))));
    }
}
