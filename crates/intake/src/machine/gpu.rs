//! GPUs as NVML shows them: which there are, which of them count, and what they say at the moment.
//!
//! NVML is loaded when it is first asked for. A machine without the driver has no GPUs, which is no error.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use clearml_gpu_alloc::{MAX_DEVICES, VisibleDevices};
use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};

use super::gauges::mebibytes;

/// Where the library of the driver is: found by the loader, or where special systems put it.
const LIBRARIES: [&str; 7] = [
    "libnvidia-ml.so.1",
    "libnvidia-ml.so",
    "/usr/lib64/libnvidia-ml.so.1",
    "/usr/lib/wsl/lib/libnvidia-ml.so.1",
    "/run/nvidia/driver/usr/lib64/libnvidia-ml.so.1",
    "/run/nvidia/driver/usr/lib/libnvidia-ml.so.1",
    "/home/kubernetes/bin/nvidia/lib64/libnvidia-ml.so.1",
];
/// The shortest beginning of an identifier that counts: its kind and eight digits.
const SHORTEST_PREFIX: usize = "GPU-01234567".len();

/// Loads and starts NVML; `library` instead of the places where it usually is.
pub(crate) fn open_library(library: Option<&Path>) -> Result<Nvml, NvmlError> {
    let open = |path: &OsStr| Nvml::builder().lib_path(path).init();
    if let Some(path) = library {
        return open(path.as_os_str());
    }
    let mut last = open(OsStr::new(LIBRARIES[0]));
    for path in &LIBRARIES[1..] {
        // Any other answer is the library's own.
        if !matches!(last, Err(NvmlError::LibloadingError(_))) {
            break;
        }
        last = open(OsStr::new(path));
    }
    last
}

/// What is wrong with a driver that is there; `None` when there is none.
pub(crate) fn trouble(error: &NvmlError) -> Option<&'static str> {
    match error {
        NvmlError::LibloadingError(_) => None,
        NvmlError::DriverNotLoaded => Some("its kernel module is not loaded"),
        NvmlError::LibRmVersionMismatch => {
            Some("library and kernel module have different versions: reload the module, or boot again")
        }
        _ => Some("see the error"),
    }
}

/// Which GPUs are reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Selection {
    All,
    Nothing,
    /// Numbers, slices as `0.1`, identifiers.
    Listed(Vec<String>),
    /// Those named by the entries of a folder.
    Folder(PathBuf),
}

impl From<Option<VisibleDevices>> for Selection {
    fn from(visible: Option<VisibleDevices>) -> Self {
        match visible {
            None | Some(VisibleDevices::All) => Self::All,
            Some(VisibleDevices::Nothing) => Self::Nothing,
            Some(VisibleDevices::Listed(items)) => Self::Listed(items),
            Some(VisibleDevices::Folder(path)) => Self::Folder(path.into()),
        }
    }
}

impl Selection {
    /// The names that count; `None` for all.
    fn names(&self) -> Option<Vec<String>> {
        match self {
            Self::All | Self::Nothing => None,
            Self::Listed(items) => Some(items.clone()),
            Self::Folder(path) => {
                let entries = fs::read_dir(path)
                    .into_iter()
                    .flatten()
                    .flatten()
                    .take(MAX_DEVICES);
                Some(
                    entries
                        .map(|entry| entry.file_name().to_string_lossy().into_owned())
                        .collect(),
                )
            }
        }
    }
}

/// How a GPU or a slice of one can be called.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Names {
    index: u32,
    uuid: String,
    /// Number and identifier of the slice.
    slice: Option<(u32, String)>,
}

impl Names {
    fn is_called(&self, name: &str) -> bool {
        let prefix = |uuid: &str| name.len() >= SHORTEST_PREFIX && uuid.starts_with(name);
        let slice = self.slice.as_ref();
        name == self.index.to_string()
            || prefix(&self.uuid)
            || slice.is_some_and(|(number, uuid)| prefix(uuid) || name == format!("{}.{number}", self.index))
    }

    fn id(&self) -> &str {
        self.slice.as_ref().map_or(&self.uuid, |(_, uuid)| uuid)
    }
}

/// Keeps what is listed. A list that fits nothing was not meant for us, so that everything stays.
fn select<T>(all: Vec<(Names, T)>, listed: Option<&[String]>) -> Vec<(Names, T)> {
    let Some(listed) = listed else { return all };
    let wanted = |names: &Names| listed.iter().any(|name| names.is_called(name));
    if !all.iter().any(|(names, _)| wanted(names)) {
        return all;
    }
    all.into_iter().filter(|(names, _)| wanted(names)).collect()
}

/// What one GPU, or slice of one, says at the moment. `None`: it does not tell.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct GpuSample {
    /// Stays the same from sample to sample.
    pub(crate) id: String,
    /// Percent.
    pub(crate) usage: Option<f64>,
    /// Degrees Celsius.
    pub(crate) temperature: Option<f64>,
    /// Used and free, in MiB.
    pub(crate) memory: Option<[f64; 2]>,
}

/// The selected GPUs in the order of their numbers; slices stand for the GPU that they are of.
pub(crate) fn sample(nvml: &Nvml, selection: &Selection) -> Result<Vec<GpuSample>, NvmlError> {
    let mut all = Vec::new();
    for index in 0..nvml
        .device_count()?
        .min(u32::try_from(MAX_DEVICES).unwrap_or(u32::MAX))
    {
        // One that fell off the bus does not hide the others.
        let Ok(device) = nvml.device_by_index(index) else {
            continue;
        };
        let uuid = device.uuid().unwrap_or_else(|_| index.to_string());
        let mut slices = slices(&device);
        if slices.is_empty() {
            let names = Names {
                index,
                uuid,
                slice: None,
            };
            all.push((names, (device, None)));
            continue;
        }
        for (number, slice) in slices.drain(..) {
            let slice_uuid = slice.uuid().unwrap_or_else(|_| format!("{index}.{number}"));
            let names = Names {
                index,
                uuid: uuid.clone(),
                slice: Some((number, slice_uuid)),
            };
            let parent = nvml.device_by_index(index).ok();
            all.push((names, (slice, parent)));
        }
    }
    let selected = select(all, selection.names().as_deref());
    Ok(selected
        .iter()
        .map(|(names, (device, parent))| read(names, device, parent.as_ref()))
        .collect())
}

fn slices<'a>(device: &Device<'a>) -> Vec<(u32, Device<'a>)> {
    if device.mig_mode().is_ok_and(|mode| mode.current == 1) {
        let most = device.mig_device_count().unwrap_or(0);
        let found = (0..most).filter_map(|number| Some((number, device.mig_device_by_index(number).ok()?)));
        return found.collect();
    }
    Vec::new()
}

/// A slice has memory of its own, the temperature of its GPU, and mostly no utilisation.
fn read(names: &Names, device: &Device<'_>, parent: Option<&Device<'_>>) -> GpuSample {
    let whole = parent.unwrap_or(device);
    GpuSample {
        id: names.id().to_owned(),
        usage: device.utilization_rates().ok().map(|rates| rates.gpu.into()),
        temperature: whole.temperature(TemperatureSensor::Gpu).ok().map(f64::from),
        memory: device.memory_info().ok().map(|memory| {
            let free = memory.total.saturating_sub(memory.used);
            [memory.used, free].map(mebibytes)
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(index: u32, slice: Option<u32>) -> (Names, ()) {
        let slice = slice.map(|number| (number, format!("MIG-{index}{number}345678-aaaa")));
        let uuid = format!("GPU-{index}1234567-bbbb");
        (Names { index, uuid, slice }, ())
    }

    #[test]
    fn numbers_slices_and_identifiers_select_and_a_list_that_fits_nothing_selects_all() {
        let all = || {
            let whole = [0, 10, 11].map(|index| names(index, None));
            let slices = [names(2, Some(0)), names(2, Some(1))];
            whole.into_iter().chain(slices).collect::<Vec<_>>()
        };
        let chosen = |listed: &[&str]| {
            let listed: Vec<String> = listed.iter().map(|&item| item.to_owned()).collect();
            let kept = select(all(), Some(&listed)).into_iter();
            kept.map(|(names, ())| match names.slice {
                Some((number, _)) => format!("{}.{number}", names.index),
                None => names.index.to_string(),
            })
            .collect::<Vec<_>>()
        };
        assert_eq!(chosen(&["10", "0"]), ["0", "10"]);
        assert_eq!(chosen(&["1"]), ["0", "10", "11", "2.0", "2.1"]);
        assert_eq!(chosen(&["void"]).len(), 5);
        assert_eq!(chosen(&["2"]), ["2.0", "2.1"]);
        assert_eq!(chosen(&["2.1", "GPU-101234567-bbbb"]), ["10", "2.1"]);
        assert_eq!(chosen(&["MIG-20345678"]), ["2.0"]);
        // Too short to be an identifier.
        assert_eq!(chosen(&["GPU-", "11"]), ["11"]);
        assert_eq!(select(all(), None).len(), 5);
    }

    #[test]
    fn the_entries_of_a_folder_are_the_list() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("GPU-11234567-bbbb"), "").unwrap();
        let text = folder.path().to_str().unwrap();
        let selection = Selection::from(VisibleDevices::from_environment(Some(text), None));
        assert_eq!(selection.names(), Some(vec!["GPU-11234567-bbbb".to_owned()]));
    }

    #[test]
    fn a_machine_without_driver_is_no_trouble() {
        let error = open_library(Some(Path::new("/nowhere/libnvidia-ml.so.1"))).unwrap_err();
        assert_eq!(trouble(&error), None);
        assert!(trouble(&NvmlError::DriverNotLoaded).is_some());
    }
}
