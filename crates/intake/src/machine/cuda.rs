//! Which CUDA and cuDNN this machine has, where the configuration does not say it.
//!
//! The driver is asked first, and names the newest CUDA that it can run; then the compiler; then
//! `nvidia-smi`. Versions are numbers without a dot, as packages of Python are named: 12.6 is `126`.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clearml_agent_config::{ConfigError, Settings};
use clearml_support::command::Command;
use serde_json::Value;
use tokio::sync::oneshot;

use super::gpu::{open_library, trouble};

/// What stands for "none".
const NONE: &str = "0";
/// How long a tool may take to say its version.
const TOOL_LIMIT: Duration = Duration::from_secs(10);
/// How long all of it may take. A driver in trouble can hold a call for ever.
const LIMIT: Duration = Duration::from_secs(30);

/// Versions, each `0` when unknown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CudaVersions {
    /// CUDA.
    pub cuda: String,
    /// cuDNN.
    pub cudnn: String,
}

/// Where to look.
#[derive(Debug, Clone, Default)]
pub struct CudaSources {
    /// The library of the driver; where it usually is when `None`.
    pub nvml: Option<PathBuf>,
    /// Folders of programs; those of the process when `None`.
    pub path: Option<std::ffi::OsString>,
}

/// The same settings with `agent.cuda_version` and `agent.cudnn_version` filled in from the machine, where
/// nobody has set them. A machine that does not answer in time has none.
///
/// # Errors
///
/// None that the settings did not have before.
pub async fn with_cuda_versions(settings: Settings) -> Result<Settings, ConfigError> {
    let agent = &settings.agent;
    if agent.cuda_version.is_some() && agent.cudnn_version.is_some() {
        return Ok(settings);
    }
    let (tell, told) = oneshot::channel();
    // A thread of its own: the runtime would wait at its end for one that hangs.
    let begun = std::thread::Builder::new()
        .name("cuda".to_owned())
        .spawn(move || {
            let _nobody_waits = tell.send(cuda_versions(&CudaSources::default()));
        });
    let found = match begun {
        Ok(_detached) => tokio::time::timeout(LIMIT, told).await.ok().and_then(Result::ok),
        Err(_) => None,
    };
    let found = found.unwrap_or_else(|| {
        tracing::warn!(
            "the CUDA version of this machine could not be found out within {LIMIT:?}; \
             agent.cuda_version in the configuration says it without looking"
        );
        CudaVersions {
            cuda: NONE.to_owned(),
            cudnn: NONE.to_owned(),
        }
    });
    let mut overrides = Vec::new();
    for (key, set, value) in [
        ("agent.cuda_version", &agent.cuda_version, found.cuda),
        ("agent.cudnn_version", &agent.cudnn_version, found.cudnn),
    ] {
        if set.is_none() {
            overrides.push((
                key.to_owned(),
                Value::from(value),
                "found on this machine".to_owned(),
            ));
        }
    }
    settings.with_overrides(&overrides)
}

/// Looks at the machine: driver, then compiler, then `nvidia-smi`. Blocks for seconds where these are slow.
#[must_use]
pub fn cuda_versions(sources: &CudaSources) -> CudaVersions {
    let path = sources.path.clone().or_else(|| std::env::var_os("PATH"));
    let program = |name: &str| find(name, path.as_deref()?);
    let compiler = program("nvcc");
    let cuda = driver(sources.nvml.as_deref())
        .or_else(|| said(compiler.as_deref()?, &["--version"], "release"))
        .or_else(|| said(&program("nvidia-smi")?, &[], "CUDA Version:"));
    CudaVersions {
        cuda: cuda.unwrap_or_else(|| NONE.to_owned()),
        cudnn: compiler
            .and_then(|compiler| cudnn(&compiler))
            .unwrap_or_else(|| NONE.to_owned()),
    }
}

fn driver(library: Option<&Path>) -> Option<String> {
    let nvml = match open_library(library) {
        Ok(nvml) => nvml,
        Err(error) => {
            if let Some(trouble) = trouble(&error) {
                tracing::warn!("the NVIDIA driver can't be asked for its CUDA version: {error} ({trouble})");
            }
            return None;
        }
    };
    let version = u32::try_from(nvml.sys_cuda_driver_version().ok()?).ok()?;
    (version > 0).then(|| number(version / 1000, version % 1000 / 10))
}

/// A minor version above nine does not fit; nine is the newest that it can stand for.
fn number(major: u32, minor: u32) -> String {
    if minor > 9 {
        tracing::warn!("CUDA {major}.{minor} is treated as {major}.9");
    }
    (major.saturating_mul(10).saturating_add(minor.min(9))).to_string()
}

fn find(name: &str, path: &OsStr) -> Option<PathBuf> {
    std::env::split_paths(path)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
}

/// Runs a program and reads the version behind a word of its output.
fn said(program: &Path, arguments: &[&str], word: &str) -> Option<String> {
    let command = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C")
        .timeout(TOOL_LIMIT);
    match command.check() {
        Ok(output) => version_after(&String::from_utf8_lossy(&output.stdout), word),
        Err(error) => {
            tracing::warn!("looking for the CUDA version: {error}");
            None
        }
    }
}

fn version_after(text: &str, word: &str) -> Option<String> {
    let (_, rest) = text.split_once(word)?;
    let version = rest.trim_start();
    let end = version
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(version.len());
    let (major, minor) = version[..end].split_once('.')?;
    let minor = minor.split('.').next()?;
    Some(number(major.parse().ok()?, minor.parse().ok()?))
}

/// From the header files of the toolkit that the compiler belongs to.
fn cudnn(compiler: &Path) -> Option<String> {
    let compiler = fs::canonicalize(compiler).ok()?;
    let include = compiler.parent()?.parent()?.join("include");
    ["cudnn_version.h", "cudnn.h"].iter().find_map(|name| {
        let text = fs::read_to_string(include.join(name)).ok()?;
        Some(number(
            defined(&text, "CUDNN_MAJOR")?,
            defined(&text, "CUDNN_MINOR")?,
        ))
    })
}

fn defined(text: &str, name: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next() == Some("#define") && words.next() == Some(name)).then(|| words.next()?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_lose_their_dot_without_becoming_another_version() {
        for (text, word, expected) in [
            (
                "Cuda compilation tools, release 12.4, V12.4.131\n",
                "release",
                Some("124"),
            ),
            (
                "| NVIDIA-SMI 550.1  Driver Version: 550.1  CUDA Version: 13.0     |",
                "CUDA Version:",
                Some("130"),
            ),
            ("release 11.8", "release", Some("118")),
            ("release 12.10, V12.10.1", "release", Some("129")),
            ("CUDA Version: N/A", "CUDA Version:", None),
            ("release 12", "release", None),
            ("nothing", "release", None),
        ] {
            assert_eq!(version_after(text, word).as_deref(), expected, "{text}");
        }
    }
}
