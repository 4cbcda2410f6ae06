//! Averages, and the payload that is made of them. Pure.

use serde_json::{Map, Value, json};

use crate::machine::MEBIBYTE;
use crate::machine::counters::Progress;
use crate::machine::gpu::GpuSample;

/// A running average.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Mean {
    sum: f64,
    count: u32,
}

impl Mean {
    pub(crate) fn add(&mut self, value: Option<f64>) {
        if let Some(value) = value.filter(|value| value.is_finite()) {
            self.sum += value;
            self.count = self.count.saturating_add(1);
        }
    }

    fn merge(&mut self, later: Self) {
        self.sum += later.sum;
        self.count = self.count.saturating_add(later.count);
    }

    fn get(self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / f64::from(self.count))
    }
}

/// What was seen at the samples since the last report.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Gauges {
    /// Used and available.
    pub(crate) memory: [Mean; 2],
    pub(crate) temperature: Mean,
    pub(crate) disk_free: Mean,
    gpus: Vec<GpuGauges>,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct GpuGauges {
    id: String,
    usage: Mean,
    temperature: Mean,
    memory: [Mean; 2],
}

impl Gauges {
    /// Adds one sample of all GPUs. When these are others than before, their history ends.
    pub(crate) fn add_gpus(&mut self, samples: &[GpuSample]) {
        let same = self
            .gpus
            .iter()
            .map(|gpu| &gpu.id)
            .eq(samples.iter().map(|gpu| &gpu.id));
        if !same {
            let fresh = |sample: &GpuSample| GpuGauges {
                id: sample.id.clone(),
                ..GpuGauges::default()
            };
            self.gpus = samples.iter().map(fresh).collect();
        }
        for (gpu, sample) in self.gpus.iter_mut().zip(samples) {
            gpu.usage.add(sample.usage);
            gpu.temperature.add(sample.temperature);
            for (mean, part) in gpu.memory.iter_mut().zip([0, 1]) {
                mean.add(sample.memory.map(|memory| memory[part]));
            }
        }
    }

    fn merge(&mut self, later: Self) {
        let pair = |mine: &mut [Mean; 2], others: [Mean; 2]| {
            for (mine, other) in mine.iter_mut().zip(others) {
                mine.merge(other);
            }
        };
        pair(&mut self.memory, later.memory);
        self.temperature.merge(later.temperature);
        self.disk_free.merge(later.disk_free);
        let same = self
            .gpus
            .iter()
            .map(|gpu| &gpu.id)
            .eq(later.gpus.iter().map(|gpu| &gpu.id));
        if !same {
            // Nothing later means that they were not looked at, not that they are gone.
            if !later.gpus.is_empty() {
                self.gpus = later.gpus;
            }
            return;
        }
        for (mine, other) in self.gpus.iter_mut().zip(later.gpus) {
            mine.usage.merge(other.usage);
            mine.temperature.merge(other.temperature);
            pair(&mut mine.memory, other.memory);
        }
    }
}

/// Everything between two reports that arrived.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Window {
    progress: Progress,
    gauges: Gauges,
}

impl Window {
    pub(crate) fn add(&mut self, progress: Progress, gauges: Gauges) {
        self.progress.add(progress);
        self.gauges.merge(gauges);
    }

    /// `machine_stats` of a report; what is not known is left out, and `None` when nothing is known.
    pub(crate) fn stats(&self, default_gpu_usage: Option<f64>) -> Option<Value> {
        let mut stats = Map::new();
        self.counted(&mut stats);
        let mut put = |key: &str, value: Option<f64>| {
            if let Some(value) = value {
                stats.insert(key.to_owned(), rounded(value));
            }
        };
        let Gauges {
            memory, disk_free, ..
        } = &self.gauges;
        put("memory_used", memory[0].get());
        put("memory_free", memory[1].get());
        put("disk_free_home", disk_free.get());
        if let Some(value) = self.gauges.temperature.get() {
            stats.insert("cpu_temperature".to_owned(), json!([rounded(value)]));
        }
        self.devices(&mut stats, default_gpu_usage);
        (!stats.is_empty()).then_some(Value::Object(stats))
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "three decimals need no more than 53 bits"
    )]
    fn counted(&self, stats: &mut Map<String, Value>) {
        let Progress {
            time,
            cpu,
            disk,
            network,
        } = self.progress;
        if cpu[1] > 0 {
            let percent = cpu[0] as f64 * 100.0 / cpu[1] as f64;
            stats.insert("cpu_usage".to_owned(), json!([rounded(percent)]));
        }
        if time.is_zero() {
            return;
        }
        for (key, bytes) in [
            ("disk_read", disk[0]),
            ("disk_write", disk[1]),
            ("network_tx", network[0]),
            ("network_rx", network[1]),
        ] {
            let rate = bytes as f64 / MEBIBYTE / time.as_secs_f64();
            stats.insert(key.to_owned(), rounded(rate));
        }
    }

    fn devices(&self, stats: &mut Map<String, Value>, default_usage: Option<f64>) {
        let gpus = &self.gauges.gpus;
        let mut put = |key: &str, values: Vec<Option<f64>>| {
            if values.iter().any(Option::is_some) {
                // A place in the list is a GPU, so one without a value has a zero, which servers skip.
                let values: Vec<Value> = values
                    .into_iter()
                    .map(|value| rounded(value.unwrap_or(0.0)))
                    .collect();
                stats.insert(key.to_owned(), Value::Array(values));
            }
        };
        put(
            "gpu_usage",
            gpus.iter().map(|gpu| gpu.usage.get().or(default_usage)).collect(),
        );
        put(
            "gpu_temperature",
            gpus.iter().map(|gpu| gpu.temperature.get()).collect(),
        );
        put(
            "gpu_memory_used",
            gpus.iter().map(|gpu| gpu.memory[0].get()).collect(),
        );
        put(
            "gpu_memory_free",
            gpus.iter().map(|gpu| gpu.memory[1].get()).collect(),
        );
    }
}

/// Three decimals.
fn rounded(value: f64) -> Value {
    json!((value * 1000.0).round() / 1000.0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn gpu(id: &str, usage: Option<f64>, temperature: Option<f64>, memory: Option<[f64; 2]>) -> GpuSample {
        GpuSample {
            id: id.to_owned(),
            usage,
            temperature,
            memory,
        }
    }

    #[test]
    fn samples_are_averaged_and_counters_divided_by_the_time() {
        let mut gauges = Gauges::default();
        for (used, free) in [(100.0, 900.0), (200.0, 800.0), (200.0, 799.0)] {
            gauges.memory[0].add(Some(used));
            gauges.memory[1].add(Some(free));
            gauges.temperature.add(Some(40.0));
        }
        gauges.disk_free.add(Some(12.34567));
        gauges.disk_free.add(None);
        gauges.disk_free.add(Some(f64::NAN));
        let progress = Progress {
            time: Duration::from_secs(4),
            cpu: [100, 300],
            disk: [8 << 20, 1 << 20],
            network: [0, 1024],
        };
        let mut window = Window::default();
        window.add(progress, gauges);
        let expected = json!({
            "cpu_usage": [33.333],
            "disk_read": 2.0, "disk_write": 0.25,
            "network_tx": 0.0, "network_rx": 0.0,
            "memory_used": 166.667, "memory_free": 833.0,
            "disk_free_home": 12.346,
            "cpu_temperature": [40.0],
        });
        assert_eq!(window.stats(Some(100.0)), Some(expected));
        assert_eq!(Window::default().stats(Some(100.0)), None);
    }

    /// A report that did not arrive leaves its samples for the next.
    #[test]
    fn two_windows_make_the_average_of_all_their_samples() {
        let samples = |values: &[f64]| {
            let mut gauges = Gauges::default();
            for value in values {
                gauges.memory[0].add(Some(*value));
                gauges.add_gpus(&[gpu("a", Some(*value), None, None)]);
            }
            gauges
        };
        let mut window = Window::default();
        window.add(Progress::default(), samples(&[1.0]));
        window.add(Progress::default(), samples(&[4.0, 7.0]));
        window.add(Progress::default(), samples(&[]));
        let stats = window.stats(None).unwrap();
        assert_eq!(stats["memory_used"], 4.0);
        assert_eq!(stats["gpu_usage"], json!([4.0]));
    }

    #[test]
    fn every_gpu_has_its_place_in_every_list() {
        let mut gauges = Gauges::default();
        let twelve: Vec<GpuSample> = (0..12)
            .map(|index| {
                let temperature = (index != 3).then(|| f64::from(index) + 30.0);
                gpu(&format!("GPU-{index}"), Some(f64::from(index)), temperature, None)
            })
            .collect();
        gauges.add_gpus(&twelve);
        let mut window = Window::default();
        window.add(Progress::default(), gauges);
        let stats = window.stats(Some(100.0)).unwrap();
        let usage: Vec<f64> = (0..12).map(f64::from).collect();
        assert_eq!(stats["gpu_usage"], json!(usage));
        assert_eq!(stats["gpu_temperature"][2], 32.0);
        assert_eq!(stats["gpu_temperature"][3], 0.0);
        assert_eq!(stats["gpu_temperature"][11], 41.0);
        assert!(stats.get("gpu_memory_used").is_none(), "{stats}");
    }

    #[test]
    fn an_unknown_utilisation_is_the_configured_one_or_none() {
        let window = |samples: &[GpuSample]| {
            let mut gauges = Gauges::default();
            gauges.add_gpus(samples);
            let mut window = Window::default();
            window.add(Progress::default(), gauges);
            window
        };
        let slice = gpu("MIG-0", None, Some(50.0), Some([1024.0, 3072.5]));
        let alone = window(std::slice::from_ref(&slice));
        assert_eq!(alone.stats(Some(100.0)).unwrap()["gpu_usage"], json!([100.0]));
        let without = alone.stats(None).unwrap();
        assert_eq!(
            without,
            json!({"gpu_temperature": [50.0], "gpu_memory_used": [1024.0], "gpu_memory_free": [3072.5]})
        );
        let whole = gpu("GPU-1", Some(7.0), Some(40.0), None);
        assert_eq!(
            window(&[slice, whole]).stats(None).unwrap()["gpu_usage"],
            json!([0.0, 7.0])
        );
    }

    #[test]
    fn other_devices_begin_a_new_average() {
        let mut gauges = Gauges::default();
        gauges.add_gpus(&[gpu("MIG-a", Some(80.0), None, None)]);
        gauges.add_gpus(&[
            gpu("MIG-b", Some(10.0), None, None),
            gpu("MIG-c", Some(20.0), None, None),
        ]);
        let mut window = Window::default();
        window.add(Progress::default(), gauges);
        assert_eq!(window.stats(None).unwrap()["gpu_usage"], json!([10.0, 20.0]));
    }
}
