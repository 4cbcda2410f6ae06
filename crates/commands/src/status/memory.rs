//! How much memory a group of processes has, from `/proc/<pid>/statm`, which costs the kernel nothing. The
//! exact figure (`smaps_rollup`) would stop a program with a large memory for a noticeable time.

use std::fs;

/// Memory in bytes. What processes share is counted once: workers that were forked from one program share
/// most of it.
pub(super) fn of(pids: &[i32]) -> u64 {
    let pages: Vec<(u64, u64)> = pids
        .iter()
        .filter_map(|pid| parse(&fs::read_to_string(format!("/proc/{pid}/statm")).ok()?))
        .collect();
    pages_of(&pages).saturating_mul(rustix::param::page_size() as u64)
}

/// Resident and shared pages.
fn parse(statm: &str) -> Option<(u64, u64)> {
    let mut fields = statm.split_ascii_whitespace().skip(1);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

fn pages_of(processes: &[(u64, u64)]) -> u64 {
    let own: u64 = processes
        .iter()
        .map(|(resident, shared)| resident.saturating_sub(*shared))
        .sum();
    own + processes.iter().map(|(_, shared)| *shared).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_pages_are_counted_once() {
        assert_eq!(parse("100 50 20 1 0 30 0\n"), Some((50, 20)));
        assert_eq!(parse("100 50"), None);
        assert_eq!(pages_of(&[(50, 20), (30, 25), (1, 2)]), 30 + 5 + 25);
        assert_eq!(pages_of(&[]), 0);
        let me = i32::try_from(std::process::id()).unwrap();
        assert!(of(&[me]) > 100_000 && of(&[me, me]) < 2 * of(&[me]));
    }
}
