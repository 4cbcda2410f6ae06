//! What decides which environment a task gets, taken from its lists, the settings and the machine.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::caches::Wanted;
use crate::caches::key::{self, KeyInputs, Lists, Platform, Python};
use crate::packages::requirements::torch;
use crate::python::probe::Interpreter;
use crate::tools::Context;

/// The key of a task that asks for what is installed.
pub(crate) fn of_frozen(inputs: &KeyInputs, frozen: &[String], folder: &Path) -> Option<String> {
    let mut lists = Lists::default();
    let known = lists.add(&frozen.join("\n"), folder);
    known.then(|| {
        key::key(&KeyInputs {
            lists,
            ..inputs.clone()
        })
    })
}

/// The inputs of the key; `None` when they can't all be known.
pub(crate) fn of_task(context: &Context<'_>, wanted: &Wanted<'_>) -> Option<KeyInputs> {
    let interpreter = wanted.interpreter;
    let mut lists = Lists::default();
    for set in wanted.sets {
        if !lists.add(&set.text, &set.folder) {
            return None;
        }
    }
    // Asking the driver takes longer than all the rest.
    let cuda = match lists.have_any(&torch::FAMILY) {
        true => format!("{:?}", torch::cuda::detect(context)),
        false => String::new(),
    };
    Some(KeyInputs {
        manager: wanted.manager.to_owned(),
        python: Python {
            implementation: interpreter.implementation.clone(),
            version: interpreter.version,
            cache_tag: interpreter.cache_tag.clone(),
            executable: interpreter.executable.display().to_string(),
        },
        platform: Platform {
            os: std::env::consts::OS.to_owned(),
            arch: std::env::consts::ARCH.to_owned(),
            libc: libc().to_owned(),
        },
        cuda,
        image: wanted.image.unwrap_or_default().to_owned(),
        site: site(context, interpreter),
        options: options(context),
        lists,
        lock: wanted.lock.clone(),
    })
}

/// The interpreter's own packages, by the names of their folders, if environments see them.
fn site(context: &Context<'_>, interpreter: &Interpreter) -> Vec<String> {
    if !context.settings.package_manager.system_site_packages {
        return Vec::new();
    }
    let folders = interpreter.base_sites.iter();
    let entries = folders.filter_map(|folder| fs::read_dir(folder).ok()).flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.ends_with(".dist-info") || name.ends_with(".egg-info"))
        .collect();
    names.sort_unstable();
    names
}

/// Settings that reach the installer, and its own variables.
fn options(context: &Context<'_>) -> BTreeMap<String, String> {
    // Where things are kept, what is said, and how long is waited does not change what is installed.
    const NEUTRAL: [&str; 12] = [
        "PIP_CACHE_DIR",
        "PIP_NO_CACHE_DIR",
        "PIP_RETRIES",
        "PIP_TIMEOUT",
        "PIP_DEFAULT_TIMEOUT",
        "PIP_NO_INPUT",
        "PIP_PROGRESS_BAR",
        "PIP_DISABLE_PIP_VERSION_CHECK",
        "PIP_ROOT_USER_ACTION",
        "UV_CACHE_DIR",
        "UV_LINK_MODE",
        "UV_NO_PROGRESS",
    ];
    let settings = &context.settings.package_manager;
    let addresses = |list: &[String]| {
        list.iter()
            .map(|url| key::address(url))
            .collect::<Vec<_>>()
            .join("\n")
    };
    let mut options: BTreeMap<String, String> = [
        ("kind", format!("{:?}", settings.kind)),
        ("pip", settings.pip_version.join("\n")),
        ("flags", addresses(&settings.extra_pip_install_flags)),
        ("indexes", addresses(&settings.extra_index_url)),
        ("upgrade", settings.force_upgrade.to_string()),
        ("best-match", settings.uv_unsafe_best_match.to_string()),
        ("legacy", settings.pip_legacy_resolver.join("\n")),
        ("priority", settings.priority_packages.join("\n")),
        (
            "priority-optional",
            settings.priority_optional_packages.join("\n"),
        ),
        ("post", settings.post_packages.join("\n")),
        ("post-optional", settings.post_optional_packages.join("\n")),
        ("torch", format!("{:?}", context.settings.torch)),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    for (name, value) in &context.settings.env {
        let is_installers = name.starts_with("PIP_") || name.starts_with("UV_");
        if is_installers && !NEUTRAL.contains(&name.as_str()) {
            options.insert(name.clone(), key::address(value));
        }
    }
    options
}

/// Family and version of the C library that programs of this machine get.
fn libc() -> &'static str {
    static FOUND: OnceLock<String> = OnceLock::new();
    FOUND.get_or_init(|| {
        let arch = std::env::consts::ARCH;
        let glibc = [
            "/lib64",
            &format!("/lib/{arch}-linux-gnu"),
            "/lib",
            "/usr/lib",
            "/usr/lib64",
        ]
        .map(|folder| PathBuf::from(folder).join("libc.so.6"));
        for path in glibc {
            let Ok(bytes) = clearml_support::fs::read_limited(&path, 64 << 20) else {
                continue;
            };
            let mark = b"release version ";
            if let Some(begin) = bytes.windows(mark.len()).position(|window| window == mark) {
                let version = &bytes[begin + mark.len()..];
                let end = version
                    .iter()
                    .position(|byte| !byte.is_ascii_digit() && *byte != b'.');
                let version = String::from_utf8_lossy(&version[..end.unwrap_or(0)]);
                return format!("glibc {}", version.trim_end_matches('.'));
            }
        }
        if Path::new(&format!("/lib/ld-musl-{arch}.so.1")).exists() {
            return "musl".to_owned();
        }
        "unknown".to_owned()
    })
}
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_c_library_is_known() {
        assert!(libc().starts_with("glibc 2.") || libc() == "musl", "{}", libc());
    }
}
