//! What can only be seen at the moment: memory, temperature, and space on a disk.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::MEBIBYTE;

/// Memory in use. It is looked at more often than anything else, so the file stays open, and only its first
/// lines are read; parsing all fifty of them costs more than the kernel's work.
#[derive(Debug)]
pub(crate) struct Memory(File);

impl Memory {
    /// `file`: `/proc/meminfo`.
    pub(crate) fn open(file: &Path) -> Option<Self> {
        File::open(file).ok().map(Self)
    }

    /// Used and available memory in MiB. What is available can be had without swapping; the rest is used.
    pub(crate) fn read(&self) -> Option<[f64; 2]> {
        // Total, free and available come first.
        let mut start = [0; 256];
        let length = self.0.read_at(&mut start, 0).ok()?;
        let text = std::str::from_utf8(&start[..length]).ok()?;
        let bytes = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
            Some(kibibytes.saturating_mul(1024))
        };
        let available = bytes("MemAvailable:")?;
        let used = bytes("MemTotal:")?.saturating_sub(available);
        Some([used, available].map(mebibytes))
    }
}

/// Free space as a percentage of what users can have, which is less than the whole.
pub(crate) fn disk_free(folder: &Path) -> Option<f64> {
    let space = rustix::fs::statvfs(folder).ok()?;
    let used = space.f_blocks.saturating_sub(space.f_bfree);
    free_percent(used, space.f_bavail)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a percentage needs no more than 53 bits"
)]
fn free_percent(used: u64, available: u64) -> Option<f64> {
    let whole = used.checked_add(available).filter(|whole| *whole > 0)?;
    Some(available as f64 * 100.0 / whole as f64)
}

#[expect(clippy::cast_precision_loss, reason = "exact up to eight petabytes")]
pub(crate) fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / MEBIBYTE
}

/// The sensors inside the processors, as the driver `coretemp` shows them.
#[derive(Debug, Default)]
pub(crate) struct Thermometers(Vec<PathBuf>);

impl Thermometers {
    /// Looks for them once; processors do not come and go. `folder`: `/sys/class/hwmon`.
    pub(crate) fn find(folder: &Path) -> Self {
        let chips = entries(folder)
            .into_iter()
            .filter(|chip| fs::read_to_string(chip.join("name")).is_ok_and(|name| name.trim() == "coretemp"));
        let sensors = chips.flat_map(|chip| entries(&chip)).filter(|sensor| {
            let name = sensor.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("temp") && name.ends_with("_input")
        });
        Self(sensors.collect())
    }

    /// The hottest, in degrees Celsius.
    pub(crate) fn hottest(&self) -> Option<f64> {
        let read = |sensor: &PathBuf| fs::read_to_string(sensor).ok()?.trim().parse::<f64>().ok();
        self.0
            .iter()
            .filter_map(read)
            .map(|thousandths| thousandths / 1000.0)
            .reduce(f64::max)
    }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against another reader of the same file.
    #[test]
    fn memory_is_what_the_kernel_says() {
        use procfs::Current as _;
        let memory = Memory::open(Path::new("/proc/meminfo")).unwrap();
        let [used, available] = memory.read().unwrap();
        let kernel = procfs::Meminfo::current().unwrap();
        let total = mebibytes(kernel.mem_total);
        assert!(
            (used + available - total).abs() < 0.001,
            "{used} {available} {total}"
        );
        let expected = mebibytes(kernel.mem_available.unwrap());
        assert!(
            (available - expected).abs() < total / 5.0,
            "{available} {expected}"
        );
        // The file is read anew each time.
        let block = std::hint::black_box(vec![1_u8; 256 << 20]);
        let [more, _] = memory.read().unwrap();
        assert!(
            block.len() == 256 << 20 && (more - used).abs() > 0.001,
            "{used} {more}"
        );
    }

    #[test]
    fn space_reserved_for_root_is_not_counted() {
        assert_eq!(free_percent(75, 25), Some(25.0));
        assert_eq!(free_percent(0, 0), None);
        assert!((0.0..=100.0).contains(&disk_free(Path::new("/")).unwrap()));
        assert_eq!(disk_free(Path::new("/nowhere/at/all")), None);
    }

    #[test]
    fn the_hottest_sensor_of_the_processor_counts() {
        let folder = tempfile::tempdir().unwrap();
        for (chip, name, sensors) in [
            (
                "hwmon0",
                "nvme\n",
                [("temp1_input", "99000\n"), ("temp2_input", "98000\n")],
            ),
            (
                "hwmon1",
                "coretemp\n",
                [("temp1_input", "41000\n"), ("temp3_input", "47500\n")],
            ),
            (
                "hwmon2",
                "coretemp\n",
                [("temp1_crit", "100000\n"), ("temp2_input", "garbage")],
            ),
        ] {
            let chip = folder.path().join(chip);
            fs::create_dir(&chip).unwrap();
            fs::write(chip.join("name"), name).unwrap();
            for (sensor, value) in sensors {
                fs::write(chip.join(sensor), value).unwrap();
            }
        }
        assert_eq!(Thermometers::find(folder.path()).hottest(), Some(47.5));
        assert_eq!(Thermometers::find(Path::new("/nowhere")).hottest(), None);
    }
}
