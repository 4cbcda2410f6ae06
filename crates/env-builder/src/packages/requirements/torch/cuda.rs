//! What this machine computes with: the version of CUDA or ROCm.
//!
//! `nvidia-smi` says the version that the driver supports, the very number that NVML gives, without loading a
//! library into this process.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::tools::Context;

/// What torch computes with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Accelerator {
    /// Nothing but the processor.
    Cpu,
    /// CUDA, as ten times the major plus the minor version.
    Cuda(u32),
    /// ROCm, major and minor version.
    Rocm(u32, u32),
}

/// ROCm of a machine that does not say which it has.
const USUAL_ROCM: Accelerator = Accelerator::Rocm(6, 4);
const TIMEOUT: Duration = Duration::from_secs(10);

/// Reads a version of CUDA in any of its spellings: `12.6.3`, `12.6`, `126`, the `12060` of the driver, and a
/// lone major version. `None` for what is none; 0 is no CUDA.
///
/// ```
/// use clearml_env_builder::packages::requirements::torch::cuda::normal;
/// assert_eq!(normal("12.6.3"), Some(126));
/// assert_eq!(normal("11020"), Some(112));
/// assert_eq!(normal("10"), Some(100));
/// ```
#[must_use]
pub fn normal(text: &str) -> Option<u32> {
    let text = text.trim();
    if text.len() > 16 {
        return None;
    }
    if let Some((major, rest)) = text.split_once('.') {
        let minor = rest.split('.').next().unwrap_or_default();
        let (major, minor) = (major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?);
        return major.checked_mul(10)?.checked_add(minor);
    }
    match text.parse::<u32>().ok()? {
        driver if driver >= 1000 => Some(driver / 1000 * 10 + driver % 1000 / 10),
        major if major < 20 => Some(major * 10),
        version => Some(version),
    }
}

/// The version behind a word in the output of a tool, as in `release 12.6, V12.6.20`.
#[must_use]
pub fn version_after(output: &str, word: &str) -> Option<u32> {
    let rest = output[output.find(word)? + word.len()..].trim_start();
    let end = rest
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(rest.len());
    normal(rest[..end].trim_end_matches('.')).filter(|_| end > 0)
}

/// The version of ROCm in a file that says `6.2.4-120` or the like.
#[must_use]
pub fn rocm(text: &str) -> Option<Accelerator> {
    let mut parts = text.trim().split(['.', '-']).map(str::parse::<u32>);
    match (parts.next()?, parts.next()?) {
        (Ok(major), Ok(minor)) => Some(Accelerator::Rocm(major, minor)),
        _ => None,
    }
}

/// What this machine has; `configured` wins over what can be found out.
pub(crate) fn detect(context: &Context<'_>) -> Accelerator {
    let settings = &context.settings.torch;
    if settings.cpu_only {
        return Accelerator::Cpu;
    }
    let cuda = match settings.cuda_version.as_deref().and_then(normal) {
        Some(version) => version,
        None if is_rocm(Path::new("/")) => return rocm_version(context, Path::new("/opt")),
        None => ask(context).unwrap_or(0),
    };
    match cuda {
        0 => Accelerator::Cpu,
        version => Accelerator::Cuda(version),
    }
}

fn ask(context: &Context<'_>) -> Option<u32> {
    let question = |tool: &str, arguments: &[&str], word: &str| {
        let program = context.find_program(tool)?;
        let command = context
            .command(&program)
            .args(arguments.iter().copied())
            .timeout(TIMEOUT);
        let output = command.check().ok()?;
        version_after(&String::from_utf8_lossy(&output.stdout), word)
    };
    question("nvidia-smi", &[], "CUDA Version:").or_else(|| question("nvcc", &["--version"], "release"))
}

/// Whether there is a GPU of AMD and none of NVIDIA.
fn is_rocm(root: &Path) -> bool {
    let there = |name: &str| root.join(name).exists();
    there("dev/kfd") && !there("dev/nvidia0") && !there("proc/driver/nvidia")
}

fn rocm_version(context: &Context<'_>, opt: &Path) -> Accelerator {
    let root = context
        .var("ROCM_PATH")
        .map_or_else(|| opt.join("rocm"), Into::into);
    let in_file = ["version", "version-dev", "version-utils"]
        .iter()
        .find_map(|name| {
            let text = fs::read_to_string(root.join(".info").join(name)).ok()?;
            rocm(&text)
        });
    let by_folder = || {
        let names = fs::read_dir(opt).ok()?.filter_map(Result::ok);
        names
            .filter_map(|entry| rocm(entry.file_name().to_str()?.strip_prefix("rocm-")?))
            .max()
    };
    in_file.or_else(by_folder).unwrap_or(USUAL_ROCM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_cuda() {
        for (text, expected) in [
            ("12.6.3", Some(126)),
            ("12.6", Some(126)),
            ("11.8", Some(118)),
            ("112", Some(112)),
            ("9.2", Some(92)),
            ("12060", Some(126)),
            ("11020", Some(112)),
            ("13000", Some(130)),
            ("10", Some(100)),
            ("0", Some(0)),
            ("", None),
            ("x.y", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(normal(text), expected, "{text}");
        }
    }

    #[test]
    fn what_tools_say() {
        let nvcc = "Cuda compilation tools, release 12.6, V12.6.20\nBuild cuda_12.6.r12.6/compiler";
        assert_eq!(version_after(nvcc, "release"), Some(126));
        let smi = "| NVIDIA-SMI 535.1   Driver Version: 535.1   CUDA Version: 12.2     |";
        assert_eq!(version_after(smi, "CUDA Version:"), Some(122));
        assert_eq!(version_after("CUDA Version: N/A", "CUDA Version:"), None);
        assert_eq!(rocm("6.2.4-120\n"), Some(Accelerator::Rocm(6, 2)));
        assert_eq!(rocm("6"), None);
    }

    #[test]
    fn machines_of_amd() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path();
        assert!(!is_rocm(root));
        fs::create_dir_all(root.join("dev/kfd")).unwrap();
        assert!(is_rocm(root));
        fs::create_dir_all(root.join("proc/driver/nvidia")).unwrap();
        assert!(!is_rocm(root));
    }
}
