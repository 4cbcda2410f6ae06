//! Which GPUs a worker and its tasks see, from the options and the variables of the process. Pure.

use clearml_gpu_alloc::visible::{CUDA, NVIDIA};
use clearml_gpu_alloc::{Pool, RequestError, VisibleDevices};

/// Variables whose presence means that a scheduler has chosen the GPUs of this pod already.
const IN_A_POD: [&str; 2] = ["KUBERNETES_SERVICE_HOST", "KUBERNETES_PORT"];

/// What the command line says about GPUs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GpuOptions<'a> {
    /// The value of `--gpus`; an empty one counts as not given.
    pub gpus: Option<&'a str>,
    /// `--cpu-only`, or something that implies it.
    pub cpu_only: bool,
    /// `--dynamic-gpus`: the value is a pool.
    pub dynamic: bool,
}

/// What follows from it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Visible {
    /// Variables for everything that is started: the value, or `None` where the variable must not be set.
    pub variables: Vec<(&'static str, Option<String>)>,
    /// The part of the worker id; `None` when nothing restricts the GPUs.
    pub shown: Option<String>,
    /// `--gpus` was given but this is a pod, whose GPUs are chosen already.
    pub ignored: bool,
}

/// Works out what is visible. `variable` reads the environment of the process.
///
/// # Errors
///
/// When `--gpus` can't be read.
pub fn visible(
    options: GpuOptions<'_>,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Visible, RequestError> {
    let given = options.gpus.map(str::trim).filter(|gpus| !gpus.is_empty());
    let pod = IN_A_POD.iter().any(|name| variable(name).is_some());
    let wanted = given.filter(|_| !pod);
    let mut result = Visible {
        ignored: given.is_some() && pod,
        ..Visible::default()
    };
    result
        .variables
        .push(("CUDA_DEVICE_ORDER", Some("PCI_BUS_ID".to_owned())));
    if let (Some(pool), true) = (wanted, options.dynamic) {
        // Each task gets its own part of the pool, so nothing is set for all.
        result.shown = Some(pool.parse::<Pool>()?.to_string());
        return Ok(result);
    }
    let chosen = match wanted {
        Some(gpus) => VisibleDevices::from_option(gpus)?,
        None if options.cpu_only => Some(VisibleDevices::Nothing),
        None => None,
    };
    if let Some(chosen) = chosen {
        result.variables.extend(chosen.variables());
        result.shown = Some(chosen.to_string());
        return Ok(result);
    }
    let (nvidia, cuda) = (variable(NVIDIA), variable(CUDA));
    let set = |value: &Option<String>| value.as_deref().is_some_and(|value| !value.trim().is_empty());
    if !set(&nvidia) && set(&cuda) {
        result.variables.push((NVIDIA, cuda.clone()));
    }
    result.shown = VisibleDevices::from_environment(nvidia.as_deref(), cuda.as_deref())
        .map(|devices| devices.to_string());
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(gpus: Option<&str>, cpu_only: bool, environment: &[(&str, &str)]) -> Visible {
        let options = GpuOptions {
            gpus,
            cpu_only,
            dynamic: false,
        };
        let find = |name: &str| {
            let (_, value) = environment.iter().find(|(known, _)| *known == name)?;
            Some((*value).to_owned())
        };
        visible(options, find).unwrap()
    }

    /// `--gpus`, `--cpu-only`, environment, summary.
    type Case = (
        Option<&'static str>,
        bool,
        &'static [(&'static str, &'static str)],
        [&'static str; 3],
    );

    /// `NVIDIA_VISIBLE_DEVICES`, `CUDA_VISIBLE_DEVICES` (`-`: untouched, `unset`: removed), part of the id.
    fn summary(result: &Visible) -> [String; 3] {
        let of = |name: &str| match result.variables.iter().find(|(known, _)| *known == name) {
            Some((_, Some(value))) => value.clone(),
            Some((_, None)) => "unset".to_owned(),
            None => "-".to_owned(),
        };
        let shown = result.shown.clone().unwrap_or_else(|| "-".to_owned());
        [of(NVIDIA), of(CUDA), shown]
    }

    #[test]
    fn options_decide_over_variables_and_order_of_devices_is_always_set() {
        const POD: &[(&str, &str)] = &[("KUBERNETES_PORT", "tcp://10.0.0.1:443")];
        const BOTH: &[(&str, &str)] = &[(NVIDIA, "3"), (CUDA, "4")];
        let cases: [Case; 17] = [
            (Some("0"), false, &[], ["0", "0", "0"]),
            (Some("0,1,2"), false, BOTH, ["0,1,2", "0,1,2", "0,1,2"]),
            (Some("0:0,0:1"), false, &[], ["0:0,0:1", "0:0,0:1", "0.0,0.1"]),
            (Some("0.0,0.1"), false, &[], ["0:0,0:1", "0:0,0:1", "0.0,0.1"]),
            (Some("0-3"), false, &[], ["0,1,2,3", "0,1,2,3", "0,1,2,3"]),
            (Some("all"), false, BOTH, ["all", "unset", "all"]),
            (Some("none"), false, BOTH, ["none", "none", "none"]),
            (
                Some("GPU-8f2e1a34"),
                false,
                &[],
                ["GPU-8f2e1a34", "GPU-8f2e1a34", "GPU-8f2e1a34"],
            ),
            (
                Some("/var/run/gpus"),
                false,
                &[],
                ["/var/run/gpus", "/var/run/gpus", "/var/run/gpus"],
            ),
            (Some(""), false, BOTH, ["-", "-", "3"]),
            (None, true, BOTH, ["none", "none", "none"]),
            (Some("1"), true, &[], ["1", "1", "1"]),
            (None, false, &[], ["-", "-", "-"]),
            (None, false, &[(CUDA, "2")], ["2", "-", "2"]),
            (None, false, &[(NVIDIA, "0:1")], ["-", "-", "0.1"]),
            (Some("1"), false, POD, ["-", "-", "-"]),
            (Some("1"), true, POD, ["none", "none", "none"]),
        ];
        for (gpus, cpu_only, environment, expected) in cases {
            let result = choose(gpus, cpu_only, environment);
            assert_eq!(summary(&result), expected, "{gpus:?} {cpu_only} {environment:?}");
            assert!(
                result
                    .variables
                    .contains(&("CUDA_DEVICE_ORDER", Some("PCI_BUS_ID".to_owned())))
            );
        }
        assert!(choose(Some("1"), false, POD).ignored && !choose(None, false, POD).ignored);
    }

    #[test]
    fn a_pool_names_the_worker_as_it_was_written_and_sets_nothing_for_all_tasks() {
        let pool = |gpus| {
            let options = GpuOptions {
                gpus: Some(gpus),
                cpu_only: false,
                dynamic: true,
            };
            visible(options, |_| None)
        };
        assert_eq!(summary(&pool("0-3").unwrap()), ["-", "-", "0-3"]);
        assert_eq!(summary(&pool("0,1:0").unwrap()), ["-", "-", "0,1.0"]);
        assert!(pool("all").is_err());
    }
}
