//! How busy the machine was, for status reports.
//!
//! What can only be seen at the moment is looked at by two threads: memory every half second, space and
//! temperature every five seconds; and GPUs every half second, in a thread of their own, because a driver in
//! trouble may hold a call for ever and must hold up nothing else. What the kernel counts is read when a
//! report is made; over equal intervals the difference of the counters is the average of the rates. The
//! threads keep sums only, so that nothing grows however long the server is away.

mod average;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{io, mem, thread};

use clearml_agent_config::Settings;
use clearml_gpu_alloc::VisibleDevices;
use clearml_gpu_alloc::visible::{CUDA, NVIDIA};
use serde_json::Value;

use crate::machine::counters::Counters;
use crate::machine::gauges::{Memory, Thermometers, disk_free};
use crate::machine::gpu::{Selection, open_library, sample, trouble};
use average::{Gauges, Window};

/// Between samples.
const EVERY: Duration = Duration::from_millis(500);
/// Samples of memory to one of temperature and space: these change slowly, and reading a sensor of a processor
/// wakes its cores.
const SLOW_EVERY: u32 = 10;
/// Failures in a row after which GPUs are left alone.
const GPU_FAILURES: u32 = 3;
/// Until they are tried again; the driver may come up later than we do.
const GPU_PAUSE: Duration = Duration::from_secs(300);
/// Reading small files needs little.
const STACK: usize = 128 << 10;

/// What is measured.
#[derive(Debug, Clone, Default)]
pub struct MonitorOptions {
    /// A folder of the disk whose free space is reported.
    pub disk: Option<PathBuf>,
    /// Which GPUs are reported; all when `None`.
    pub gpus: Option<VisibleDevices>,
    /// Percentage reported for GPUs that do not tell their utilisation, such as MIG slices; `None`: none.
    pub default_gpu_usage: Option<f64>,
    /// The library of the GPU driver; where it usually is when `None`.
    pub nvml: Option<PathBuf>,
}

impl MonitorOptions {
    /// As configured. `variable` reads the environment that tasks get.
    #[must_use]
    pub fn new(settings: &Settings, variable: impl Fn(&str) -> Option<String>) -> Self {
        let configured = |key: &str| settings.get(&format!("agent.resource_monitoring.{key}"));
        let home = variable("HOME")
            .filter(|home| !home.is_empty())
            .map(PathBuf::from);
        let disk = configured("disk_use_path").and_then(Value::as_str);
        let disk = disk.filter(|path| !path.is_empty()).map(|path| {
            let below = path.strip_prefix('~').map(|rest| rest.trim_start_matches('/'));
            below
                .zip(home.as_deref())
                .map_or_else(|| PathBuf::from(path), |(below, home)| home.join(below))
        });
        Self {
            disk: disk.or(home),
            gpus: VisibleDevices::from_environment(variable(NVIDIA).as_deref(), variable(CUDA).as_deref()),
            default_gpu_usage: match configured("default_gpu_utilization") {
                Some(value) => value.as_f64(),
                None => Some(100.0),
            },
            nvml: None,
        }
    }
}

/// Measures the machine as long as it lives.
#[derive(Debug)]
pub struct Monitor {
    /// Last reading of the counters, and what no report has brought to the server yet.
    state: Mutex<(Counters, Window)>,
    gauges: Arc<Mutex<Gauges>>,
    default_gpu_usage: Option<f64>,
    /// The threads end with their senders.
    _running: Vec<Sender<()>>,
}

impl Monitor {
    /// Begins to measure as configured. `variables` are those that tasks get, on top of the environment.
    /// Without it everything else goes on, so that a failure is only logged.
    #[must_use]
    pub fn of_worker(
        settings: &Settings,
        variables: &[(String, Option<String>)],
        environment: &BTreeMap<String, String>,
    ) -> Option<Self> {
        let options = MonitorOptions::new(settings, |name| {
            let given = variables.iter().find(|(known, _)| known == name);
            given.map_or_else(|| environment.get(name).cloned(), |(_, value)| value.clone())
        });
        Self::start(options)
            .inspect_err(|e| tracing::warn!("status reports will not say how busy the machine is: {e}"))
            .ok()
    }

    /// Begins to measure.
    ///
    /// # Errors
    ///
    /// When no thread can be started.
    pub fn start(options: MonitorOptions) -> io::Result<Self> {
        let gauges = Arc::<Mutex<Gauges>>::default();
        let mut running = Vec::new();
        let (stop, stopped) = channel();
        running.push(stop);
        let machine = thread::Builder::new()
            .name("metrics".to_owned())
            .stack_size(STACK);
        let (shared, disk) = (Arc::clone(&gauges), options.disk);
        machine.spawn(move || watch_machine(&shared, disk.as_deref(), &stopped))?;

        let selection = Selection::from(options.gpus);
        if selection != Selection::Nothing {
            let (stop, stopped) = channel();
            running.push(stop);
            let (shared, library) = (Arc::clone(&gauges), options.nvml);
            let gpus = thread::Builder::new().name("gpu-metrics".to_owned());
            gpus.spawn(move || watch_gpus(&shared, library.as_deref(), &selection, &stopped))?;
        }
        Ok(Self {
            state: Mutex::new((Counters::read(), Window::default())),
            gauges,
            default_gpu_usage: options.default_gpu_usage,
            _running: running,
        })
    }

    /// `machine_stats` of a status report: averages since the last report that was accepted. `None` when
    /// nothing is known.
    #[must_use]
    pub fn stats(&self) -> Option<Value> {
        let now = Counters::read();
        let sampled = mem::take(&mut *locked(&self.gauges));
        let mut state = locked(&self.state);
        let (last, window) = &mut *state;
        window.add(now.since(last), sampled);
        *last = now;
        window.stats(self.default_gpu_usage)
    }

    /// The last [`Monitor::stats`] have reached the server, so that the next averages begin there.
    pub fn accepted(&self) {
        locked(&self.state).1 = Window::default();
    }
}

/// Sums are right at every moment, so that a panic elsewhere breaks nothing.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits, and tells whether it is time to end.
fn ended(stopped: &Receiver<()>, wait: Duration) -> bool {
    stopped.recv_timeout(wait) != Err(RecvTimeoutError::Timeout)
}

fn watch_machine(gauges: &Mutex<Gauges>, disk: Option<&Path>, stopped: &Receiver<()>) {
    let thermometers = Thermometers::find(Path::new("/sys/class/hwmon"));
    let meminfo = Memory::open(Path::new("/proc/meminfo"));
    let mut number = 0_u32;
    loop {
        let memory = meminfo.as_ref().and_then(Memory::read);
        let slow = number.is_multiple_of(SLOW_EVERY);
        let temperature = slow.then(|| thermometers.hottest()).flatten();
        // Not under the lock: a lost file system may never answer.
        let space = disk.filter(|_| slow).and_then(disk_free);
        {
            let mut gauges = locked(gauges);
            for (mean, part) in gauges.memory.iter_mut().zip([0, 1]) {
                mean.add(memory.map(|memory| memory[part]));
            }
            gauges.temperature.add(temperature);
            gauges.disk_free.add(space);
        }
        number = number.wrapping_add(1);
        if ended(stopped, EVERY) {
            return;
        }
    }
}

fn watch_gpus(gauges: &Mutex<Gauges>, library: Option<&Path>, selection: &Selection, stopped: &Receiver<()>) {
    let mut told = false;
    loop {
        match open_library(library) {
            Ok(nvml) => {
                let mut failures = 0;
                while failures < GPU_FAILURES {
                    match sample(&nvml, selection) {
                        // The driver without a GPU.
                        Ok(gpus) if gpus.is_empty() => break,
                        Ok(gpus) => {
                            failures = 0;
                            locked(gauges).add_gpus(&gpus);
                        }
                        Err(error) => {
                            failures += 1;
                            tracing::warn!(
                                "reading GPU metrics: {error} ({failures} of {GPU_FAILURES} in a row)"
                            );
                        }
                    }
                    if ended(stopped, EVERY) {
                        return;
                    }
                }
                if failures > 0 {
                    tracing::warn!("GPU metrics are off for {GPU_PAUSE:?}");
                }
            }
            Err(error) => {
                if let Some(trouble) = trouble(&error).filter(|_| !told) {
                    told = true;
                    tracing::warn!("no GPU metrics: the NVIDIA driver is there, but {trouble}: {error}");
                }
            }
        }
        if ended(stopped, GPU_PAUSE) {
            return;
        }
    }
}
