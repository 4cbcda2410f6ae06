//! What the kernel counts since boot: time of the processors, bytes of disks and network.
//!
//! The average of rates taken at equal intervals is the difference of the counters over the whole time, so
//! two readings a report are as good as one every half second, and cost a sixtieth.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use procfs::{Current as _, CurrentSI as _, KernelStats};

/// Disk sectors are counted in units of this many bytes, whatever the disk has.
const SECTOR: u64 = 512;

/// One reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Counters {
    at: Instant,
    /// Ticks in use, and all.
    cpu: [u64; 2],
    /// Bytes read and written, by physical disk.
    disks: BTreeMap<String, [u64; 2]>,
    /// Bytes sent and received, by interface.
    interfaces: BTreeMap<String, [u64; 2]>,
}

/// What happened between two readings. Can be added up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) time: Duration,
    pub(crate) cpu: [u64; 2],
    pub(crate) disk: [u64; 2],
    pub(crate) network: [u64; 2],
}

impl Counters {
    /// Reads them. What the kernel does not show stays zero.
    pub(crate) fn read() -> Self {
        Self {
            at: Instant::now(),
            cpu: cpu().unwrap_or_default(),
            disks: disks(Path::new("/sys/block")).unwrap_or_default(),
            interfaces: interfaces().unwrap_or_default(),
        }
    }

    /// What happened since an earlier reading.
    pub(crate) fn since(&self, earlier: &Self) -> Progress {
        Progress {
            time: self.at.saturating_duration_since(earlier.at),
            cpu: difference(self.cpu, earlier.cpu),
            disk: by_name(&self.disks, &earlier.disks),
            network: by_name(&self.interfaces, &earlier.interfaces),
        }
    }
}

impl Progress {
    pub(crate) fn add(&mut self, more: Self) {
        self.time += more.time;
        self.cpu = sum(self.cpu, more.cpu);
        self.disk = sum(self.disk, more.disk);
        self.network = sum(self.network, more.network);
    }
}

fn sum(a: [u64; 2], b: [u64; 2]) -> [u64; 2] {
    [a[0].saturating_add(b[0]), a[1].saturating_add(b[1])]
}

fn difference(now: [u64; 2], earlier: [u64; 2]) -> [u64; 2] {
    [
        now[0].saturating_sub(earlier[0]),
        now[1].saturating_sub(earlier[1]),
    ]
}

/// Device by device, because one that comes or goes takes its counters along.
fn by_name(now: &BTreeMap<String, [u64; 2]>, earlier: &BTreeMap<String, [u64; 2]>) -> [u64; 2] {
    let both = now
        .iter()
        .filter_map(|(name, now)| Some(difference(*now, *earlier.get(name)?)));
    both.fold([0; 2], sum)
}

/// Waiting for a disk is not use. Time of guests is contained in that of their host.
fn cpu() -> Option<[u64; 2]> {
    let total = KernelStats::current().ok()?.total;
    let waited = total.idle + total.iowait.unwrap_or(0);
    let rest = [total.irq, total.softirq, total.steal].into_iter().flatten();
    let used = total.user + total.nice + total.system + rest.sum::<u64>();
    Some([used, used + waited])
}

/// Only what has a device behind it: partitions and stacked devices would count the same bytes again.
fn disks(blocks: &Path) -> Option<BTreeMap<String, [u64; 2]>> {
    let all = procfs::diskstats().ok()?.into_iter();
    let physical = all.filter(|disk| blocks.join(&disk.name).join("device").exists());
    let bytes = |sectors: u64| sectors.saturating_mul(SECTOR);
    Some(
        physical
            .map(|disk| {
                let counted = [bytes(disk.sectors_read), bytes(disk.sectors_written)];
                (disk.name, counted)
            })
            .collect(),
    )
}

/// Without the loopback: a machine that talks to itself uses no network.
fn interfaces() -> Option<BTreeMap<String, [u64; 2]>> {
    let all = procfs::net::InterfaceDeviceStatus::current().ok()?.0.into_iter();
    Some(
        all.filter(|(name, _)| name != "lo")
            .map(|(name, status)| (name, [status.sent_bytes, status.recv_bytes]))
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(at: Instant, cpu: [u64; 2], interfaces: &[(&str, [u64; 2])]) -> Counters {
        Counters {
            at,
            cpu,
            disks: BTreeMap::new(),
            interfaces: interfaces
                .iter()
                .map(|(name, bytes)| ((*name).to_owned(), *bytes))
                .collect(),
        }
    }

    #[test]
    fn devices_that_come_go_or_start_again_count_nothing() {
        let begin = Instant::now();
        let first = reading(
            begin,
            [100, 400],
            &[("eth0", [10, 20]), ("veth1", [900, 900]), ("wlan0", [50, 50])],
        );
        let second = reading(
            begin + Duration::from_secs(2),
            [150, 600],
            &[("eth0", [15, 120]), ("veth2", [7000, 7000]), ("wlan0", [1, 60])],
        );
        let progress = second.since(&first);
        assert_eq!(progress.network, [5, 110]);
        assert_eq!(progress.cpu, [50, 200]);
        assert_eq!(progress.time, Duration::from_secs(2));
    }

    #[test]
    fn the_whole_is_the_sum_of_its_parts() {
        let begin = Instant::now();
        let at = |second: u64, sent| {
            reading(
                begin + Duration::from_secs(second),
                [second * 10, second * 100],
                &[("eth0", [sent, 0])],
            )
        };
        let (first, second, third) = (at(0, 0), at(1, 3000), at(3, 3500));
        let mut parts = second.since(&first);
        parts.add(third.since(&second));
        assert_eq!(parts, third.since(&first));
    }

    /// Against the file itself, read in another way.
    #[test]
    fn processors_disks_and_interfaces_are_those_of_the_kernel() {
        let ours = Counters::read();
        let stat = std::fs::read_to_string("/proc/stat").unwrap();
        let ticks: Vec<u64> = stat
            .lines()
            .next()
            .unwrap()
            .split_ascii_whitespace()
            .skip(1)
            .map(|number| number.parse().unwrap())
            .collect();
        let all: u64 = ticks[..8].iter().sum();
        let used = all - ticks[3] - ticks[4];
        assert!(
            ours.cpu[1] <= all && all - ours.cpu[1] < 1000,
            "{} {all}",
            ours.cpu[1]
        );
        assert!(
            ours.cpu[0] <= used && used - ours.cpu[0] < 1000,
            "{} {used}",
            ours.cpu[0]
        );

        let net = std::fs::read_to_string("/proc/net/dev").unwrap();
        let names: Vec<&str> = net
            .lines()
            .skip(2)
            .filter_map(|line| line.split(':').next())
            .map(str::trim)
            .collect();
        for name in &names {
            assert_eq!(ours.interfaces.contains_key(*name), *name != "lo", "{name}");
        }
        for name in ours.disks.keys() {
            assert!(
                Path::new("/sys/block").join(name).exists(),
                "{name} is no whole disk"
            );
            assert!(!name.starts_with("loop") && !name.starts_with("dm-"), "{name}");
        }
    }
}
