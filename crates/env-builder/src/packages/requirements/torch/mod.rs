//! torch and what belongs to it: from which index, for the GPU of this machine.
//!
//! With the usual addresses nobody is asked: which indexes there are, and which series of torch each has, is in
//! `indexes.json`. Only for a version that is newer than that file the page of the package is looked at, one
//! request for each index from the best one downwards, and remembered for a day. With addresses of one's own
//! all that may exist are asked at once. All questions together take at most twenty seconds, and if nobody
//! answers, the lines of the list stay as they are. `pytorch_resolve_legacy` goes back to asking for one index
//! after the other and to failing without one.

use std::str::FromStr;

use pep440_rs::{Operator, Version, VersionSpecifiers};

use crate::packages::requirements::compare::intersects;
use crate::packages::requirements::line::{Requirement, Target};
use crate::packages::requirements::list::Entry;
use crate::packages::requirements::pep::{Surroundings, normal_name};

pub mod cuda;
pub mod index;
pub mod wheels;

pub(crate) mod fetch;
pub(crate) mod resolve;

pub use index::Templates;

/// The packages that are published there.
pub const FAMILY: [&str; 5] = ["torch", "torchvision", "torchaudio", "torchcsprng", "torchtext"];
/// What torch before 1.11 needs to be built against.
const OLD_SETUPTOOLS: &str = "setuptools<59";

/// How the index is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// The installer chooses from the index for this machine.
    #[default]
    Index,
    /// The wheel is chosen here, from a page with links.
    Direct,
    /// torch is a package like any other.
    Off,
}

impl Mode {
    /// The mode of that name (`pip`, `direct`, `none`), or `None`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name.trim().to_ascii_lowercase().as_str() {
            "" | "pip" => Some(Self::Index),
            "direct" => Some(Self::Direct),
            "none" => Some(Self::Off),
            _ => None,
        }
    }
}

/// The configuration of torch. Names follow the keys of `agent.package_manager`.
#[derive(Debug, Clone, Default)]
pub struct TorchSettings {
    /// `pytorch_resolve`; names that are not known mean `pip`.
    pub resolve: String,
    /// `pytorch_resolve_legacy`: one index after the other is asked, and without one the build fails.
    pub legacy: bool,
    /// `torch_nightly`.
    pub nightly: bool,
    /// `agent.cuda_version` in any spelling; without it, the machine is asked.
    pub cuda_version: Option<String>,
    /// `agent.cpu_only`.
    pub cpu_only: bool,
    /// `pytorch_index_versions`: versions of CUDA for which there are indexes, instead of the built-in list.
    pub index_versions: Vec<u32>,
    /// Where the indexes are.
    pub templates: Templates,
}

/// Whether a requirement is handled here: by name, from an index.
#[must_use]
pub fn is_torch(requirement: &Requirement) -> bool {
    let name = requirement.name.as_deref().map(normal_name);
    matches!(requirement.target, Target::Index(_)) && name.is_some_and(|name| FAMILY.contains(&name.as_str()))
}

/// The only version that a requirement allows, by a single `==`.
#[must_use]
pub fn pinned(requirement: &Requirement) -> Option<Version> {
    let Target::Index(conditions) = &requirement.target else {
        return None;
    };
    let conditions = VersionSpecifiers::from_str(conditions).ok()?;
    let [only] = &conditions[..] else { return None };
    (*only.operator() == Operator::Equal).then(|| only.version().clone())
}

/// `2.1` of `2.1.0+cu118`.
#[must_use]
pub fn series(version: &Version) -> String {
    let mut parts = version.release().iter();
    let mut next = || parts.next().copied().unwrap_or(0);
    format!("{}.{}", next(), next())
}

/// The line for the installer: a pinned version allows all builds of it, as those for one version of CUDA or
/// by the makers of images have names of their own. Anything else stays as it is.
#[must_use]
pub fn line(requirement: &Requirement, nightly: bool) -> String {
    let hashed = requirement
        .options
        .iter()
        .any(|option| option.starts_with("--hash="));
    let Some(version) = pinned(requirement).filter(|_| !hashed) else {
        return requirement.to_string();
    };
    if version.is_dev() && nightly {
        return requirement.to_string();
    }
    let release: Vec<String> = version.release().iter().map(u64::to_string).collect();
    let any_build = if release.len() >= 3 { ".*" } else { "" };
    let name = requirement.name.as_deref().unwrap_or_default();
    let marker = requirement
        .marker
        .as_ref()
        .map_or(String::new(), |marker| format!(" ; {marker}"));
    format!(
        "{name}{} =={}{any_build}{marker}",
        requirement.extras,
        release.join(".")
    )
}

/// A line that an old torch needs, unless the list says something about it itself.
#[must_use]
pub fn companion(entries: &[Entry]) -> Option<String> {
    let named = |entry: &Entry, wanted: &str| {
        let name = entry.requirement.name.as_deref();
        name.is_some_and(|name| normal_name(name) == wanted)
    };
    let old = entries.iter().any(|entry| match &entry.requirement.target {
        Target::Index(conditions) => named(entry, "torch") && !intersects(conditions, ">=1.11.0"),
        _ => false,
    });
    let listed = entries.iter().any(|entry| named(entry, "setuptools"));
    (old && !listed).then(|| OLD_SETUPTOOLS.to_owned())
}

/// What of a list is to be resolved: positions of the requirements whose condition may hold.
#[must_use]
pub fn positions(entries: &[Entry], here: &Surroundings) -> Vec<usize> {
    let counts = |entry: &Entry| {
        let marker = entry.requirement.marker.as_deref();
        let holds = marker.is_none_or(|marker| here.satisfy(marker) != Some(false));
        holds && is_torch(&entry.requirement)
    };
    let positions = entries.iter().enumerate();
    positions
        .filter(|(_, entry)| counts(entry))
        .map(|(position, _)| position)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;
    use crate::packages::requirements::{RequirementSet, list};

    fn entries(text: &str) -> Vec<Entry> {
        let set = RequirementSet::new("l", text, Path::new("/r"));
        list::read(&set, &BTreeMap::new()).entries
    }

    #[test]
    fn lines_for_all_builds() {
        for (text, expected) in [
            ("torch==2.1.0", "torch ==2.1.0.*"),
            ("torch==2.1", "torch ==2.1"),
            ("torch==2.1.0+cu121", "torch ==2.1.0.*"),
            ("torch[opt]==2.1.0.post1", "torch[opt] ==2.1.0.*"),
            (
                "Torch == 2.1.0rc1 ; os_name=='posix'",
                "Torch ==2.1.0.* ; os_name=='posix'",
            ),
            ("torchvision>=0.15", "torchvision>=0.15"),
            ("torch>=2,<3", "torch>=2,<3"),
            ("torch==2.1.*", "torch==2.1.*"),
            ("torch", "torch"),
            ("torch==2.1.0.dev20230401", "torch ==2.1.0.*"),
            ("torch==2.1.0 --hash=sha256:aa", "torch==2.1.0 --hash=sha256:aa"),
        ] {
            assert_eq!(line(&entries(text)[0].requirement, false), expected, "{text}");
        }
        let nightly = &entries("torch==2.1.0.dev20230401")[0].requirement;
        assert_eq!(line(nightly, true), "torch==2.1.0.dev20230401");
    }

    #[test]
    fn old_versions_bring_an_old_setuptools() {
        for (text, expected) in [
            ("torch==1.10.0", true),
            ("torch<1.11", true),
            ("torch==1.11.0", false),
            ("torch", false),
            ("torchvision==0.9", false),
            ("torch==1.10.0\nSetuptools<60", false),
            ("torch @ https://h/torch-1.10.0-cp39-cp39-linux_x86_64.whl", false),
        ] {
            assert_eq!(companion(&entries(text)).is_some(), expected, "{text}");
        }
    }

    #[test]
    fn modes() {
        assert_eq!(Mode::named(" Direct "), Some(Mode::Direct));
        assert_eq!(Mode::named("none"), Some(Mode::Off));
        assert_eq!(Mode::named(""), Some(Mode::Index));
        assert_eq!(Mode::named("bogus"), None);
    }
}
