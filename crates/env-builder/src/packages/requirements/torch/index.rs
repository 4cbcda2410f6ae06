//! Which index of torch fits a machine. Pure; the knowledge is in `indexes.json`.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde::Deserialize;

use crate::packages::requirements::torch::cuda::Accelerator;

/// Where the indexes are, if the configuration does not say otherwise.
const HOME: &str = "https://download.pytorch.org/whl/";

/// Which indexes there are, and what is in them.
#[derive(Debug, Deserialize)]
struct Known {
    cuda: Vec<u32>,
    rocm: Vec<String>,
    uv_backends: Vec<String>,
    releases: Vec<Release>,
}

/// A series of torch with what belongs to it, and the versions of CUDA that all of it was published for.
#[derive(Debug, Deserialize)]
struct Release {
    cuda: Vec<u32>,
    #[serde(flatten)]
    series: BTreeMap<String, String>,
}

fn known() -> &'static Known {
    static KNOWN: OnceLock<Known> = OnceLock::new();
    KNOWN.get_or_init(|| {
        serde_json::from_str(include_str!("indexes.json")).expect("a test reads this constant")
    })
}

/// The indexes for an accelerator, the best first. `versions` replaces the built-in list of CUDA versions.
#[must_use]
pub fn candidates(accelerator: Accelerator, versions: &[u32]) -> Vec<Accelerator> {
    let mut list: Vec<Accelerator> = match accelerator {
        Accelerator::Cpu => vec![Accelerator::Cpu],
        Accelerator::Cuda(have) => {
            let built_in = &known().cuda;
            let versions = if versions.is_empty() { built_in } else { versions };
            let fitting = versions.iter().filter(|version| **version <= have);
            fitting.map(|version| Accelerator::Cuda(*version)).collect()
        }
        Accelerator::Rocm(..) => {
            let versions = known().rocm.iter().filter_map(|text| super::cuda::rocm(text));
            versions.filter(|version| *version <= accelerator).collect()
        }
    };
    list.sort_unstable();
    list.dedup();
    list.reverse();
    list
}

/// The indexes that the Python agent asks for in turn, whether there are such or not.
#[must_use]
pub fn in_turn(accelerator: Accelerator) -> Vec<Accelerator> {
    match accelerator {
        Accelerator::Cpu => vec![Accelerator::Cuda(0)],
        Accelerator::Cuda(have) => (0..15)
            .map_while(|step| have.checked_sub(step))
            .map(Accelerator::Cuda)
            .collect(),
        Accelerator::Rocm(major, minor) => {
            let lower = |(major, minor): (u32, u32)| match minor.checked_sub(1) {
                Some(minor) => Some((major, minor)),
                None => Some((major.checked_sub(1)?, 9)),
            };
            std::iter::successors(Some((major, minor)), |version| lower(*version))
                .take_while(|(major, _)| *major >= 4)
                .take(30)
                .map(|(major, minor)| Accelerator::Rocm(major, minor))
                .collect()
        }
    }
}

/// Whether a series (`2.1`) of a package was published for an accelerator; `None` where that is not known.
#[must_use]
pub fn is_published(name: &str, series: &str, accelerator: Accelerator) -> Option<bool> {
    let release = known()
        .releases
        .iter()
        .find(|release| release.series.get(name).is_some_and(|known| known == series))?;
    match accelerator {
        Accelerator::Cuda(version) => Some(release.cuda.contains(&version)),
        Accelerator::Cpu => Some(true),
        Accelerator::Rocm(..) => None,
    }
}

/// Addresses of indexes, with `{}` for the version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Templates {
    /// `extra_index_url_template`.
    pub cuda: String,
    /// `nightly_extra_index_url_template`.
    pub nightly_cuda: String,
    /// `rocm_extra_index_url_template`.
    pub rocm: String,
    /// `nightly_rocm_extra_index_url_template`.
    pub nightly_rocm: String,
    /// `torch_page`: a page with links to wheels.
    pub page: String,
    /// `torch_nightly_page`.
    pub nightly_page: String,
}

impl Default for Templates {
    fn default() -> Self {
        let below_home = |rest: &str| format!("{HOME}{rest}");
        Self {
            cuda: below_home("cu{}/"),
            nightly_cuda: below_home("nightly/cu{}/"),
            rocm: below_home("rocm{}.{}/"),
            nightly_rocm: below_home("nightly/rocm{}.{}/"),
            page: below_home("cu{}/torch_stable.html"),
            nightly_page: below_home("nightly/cu{}/torch_nightly.html"),
        }
    }
}

impl Templates {
    /// Whether the indexes for an accelerator are where everybody's are, so that it is known which there are.
    #[must_use]
    pub fn are_usual(&self, accelerator: Accelerator) -> bool {
        let usual = Self::default();
        match accelerator {
            Accelerator::Rocm(..) => self.rocm == usual.rocm,
            _ => self.cuda == usual.cuda,
        }
    }

    /// The address of an index.
    #[must_use]
    pub fn index(&self, accelerator: Accelerator, nightly: bool) -> String {
        let (cuda, rocm) = if nightly {
            (&self.nightly_cuda, &self.nightly_rocm)
        } else {
            (&self.cuda, &self.rocm)
        };
        match accelerator {
            Accelerator::Rocm(..) => filled(rocm, accelerator),
            Accelerator::Cpu => filled(cuda, accelerator).trim_end_matches('/').to_owned(),
            Accelerator::Cuda(_) => filled(cuda, accelerator),
        }
    }

    /// The address of a page with links to wheels, if there is one for the accelerator.
    #[must_use]
    pub fn page(&self, accelerator: Accelerator, nightly: bool) -> Option<String> {
        let template = if nightly { &self.nightly_page } else { &self.page };
        (!matches!(accelerator, Accelerator::Rocm(..))).then(|| filled(template, accelerator))
    }
}

fn filled(template: &str, accelerator: Accelerator) -> String {
    match accelerator {
        Accelerator::Cpu => template.replace("cu{}", "cpu"),
        Accelerator::Cuda(version) => template.replace("{}", &version.to_string()),
        Accelerator::Rocm(major, minor) => {
            template
                .replacen("{}", &major.to_string(), 1)
                .replacen("{}", &minor.to_string(), 1)
        }
    }
}

/// What uv calls an accelerator, where every uv that can be told knows it.
#[must_use]
pub fn uv_backend(accelerator: Accelerator) -> Option<String> {
    let name = match accelerator {
        Accelerator::Cpu => "cpu".to_owned(),
        Accelerator::Cuda(version) => format!("cu{version}"),
        Accelerator::Rocm(..) => return None,
    };
    known().uv_backends.contains(&name).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_index_comes_first() {
        let cuda = |have, versions: &[u32]| candidates(Accelerator::Cuda(have), versions);
        assert_eq!(
            cuda(118, &[])[..2],
            [Accelerator::Cuda(118), Accelerator::Cuda(117)]
        );
        assert_eq!(cuda(125, &[])[0], Accelerator::Cuda(124));
        assert_eq!(
            cuda(124, &[118, 121, 130]),
            [Accelerator::Cuda(121), Accelerator::Cuda(118)]
        );
        assert!(cuda(70, &[]).is_empty());
        assert_eq!(candidates(Accelerator::Cpu, &[]), [Accelerator::Cpu]);
        assert_eq!(
            candidates(Accelerator::Rocm(6, 5), &[])[0],
            Accelerator::Rocm(6, 4)
        );
        for index in candidates(Accelerator::Cuda(u32::MAX), &[]) {
            let Accelerator::Cuda(_) = index else {
                panic!("{index:?}")
            };
        }
    }

    #[test]
    fn the_python_agent_goes_down_step_by_step() {
        let cuda = in_turn(Accelerator::Cuda(118));
        assert_eq!((cuda.len(), cuda[0]), (15, Accelerator::Cuda(118)));
        assert_eq!(cuda[14], Accelerator::Cuda(104));
        assert_eq!(in_turn(Accelerator::Cuda(3)).len(), 4);
        assert_eq!(in_turn(Accelerator::Cpu), [Accelerator::Cuda(0)]);
        let rocm = in_turn(Accelerator::Rocm(6, 1));
        assert_eq!(
            rocm[..3],
            [(6, 1), (6, 0), (5, 9)].map(|(a, b)| Accelerator::Rocm(a, b))
        );
        assert_eq!((rocm.len(), rocm.last()), (22, Some(&Accelerator::Rocm(4, 0))));
    }

    #[test]
    fn what_was_published() {
        for (name, series, version, expected) in [
            ("torch", "2.1", 121, Some(true)),
            ("torch", "2.1", 124, Some(false)),
            ("torchvision", "0.16", 118, Some(true)),
            ("torchvision", "2.1", 118, None),
            ("torch", "99.1", 118, None),
            ("torchtext", "0.16", 118, None),
        ] {
            assert_eq!(
                is_published(name, series, Accelerator::Cuda(version)),
                expected,
                "{name} {series}"
            );
        }
        let all = &known().cuda;
        assert!(
            known()
                .releases
                .iter()
                .all(|r| r.cuda.iter().all(|version| all.contains(version)))
        );
        assert!(
            known()
                .rocm
                .iter()
                .all(|text| super::super::cuda::rocm(text).is_some())
        );
    }

    #[test]
    fn addresses() {
        let usual = Templates::default();
        for (accelerator, nightly, expected) in [
            (
                Accelerator::Cuda(118),
                false,
                "https://download.pytorch.org/whl/cu118/",
            ),
            (Accelerator::Cpu, false, "https://download.pytorch.org/whl/cpu"),
            (
                Accelerator::Rocm(6, 2),
                false,
                "https://download.pytorch.org/whl/rocm6.2/",
            ),
            (
                Accelerator::Cuda(121),
                true,
                "https://download.pytorch.org/whl/nightly/cu121/",
            ),
        ] {
            assert_eq!(usual.index(accelerator, nightly), expected);
        }
        let page = "https://download.pytorch.org/whl/cpu/torch_stable.html";
        assert_eq!(usual.page(Accelerator::Cpu, false).as_deref(), Some(page));
        assert_eq!(uv_backend(Accelerator::Cuda(118)).as_deref(), Some("cu118"));
        assert_eq!(uv_backend(Accelerator::Cuda(132)), None);
    }
}
