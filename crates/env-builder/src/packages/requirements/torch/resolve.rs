//! Choosing the index, or the wheels, for the torch of a list.

use std::path::Path;
use std::str::FromStr;

use pep440_rs::VersionSpecifiers;

use crate::packages::PackageError;
use crate::packages::requirements::line::{Requirement, Target};
use crate::packages::requirements::list::Entry;
use crate::packages::requirements::pep::normal_name;
use crate::packages::requirements::torch::cuda::{Accelerator, detect};
use crate::packages::requirements::torch::fetch::{Answer, BUDGET, BUDGET_IN_TURN, Fetcher};
use crate::packages::requirements::torch::wheels::{self, Platform};
use crate::packages::requirements::torch::{Mode, index, line, pinned, series};
use crate::python::probe::Interpreter;
use crate::tools::Context;

/// The most indexes of one's own that are asked.
const MAX_PROBES: usize = 15;

/// What torch is installed from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Choice {
    /// The index to add.
    pub(crate) index: Option<String>,
    /// New lines by their position in the list.
    pub(crate) lines: Vec<(usize, String)>,
    /// What uv calls the accelerator.
    pub(crate) uv_backend: Option<String>,
}

/// Why there is no choice.
enum Miss {
    /// Nobody has answered.
    Silent,
    /// No index has it.
    Nowhere,
}

/// The packages of the family that a list asks for.
struct Wanted<'a> {
    entries: &'a [Entry],
    positions: &'a [usize],
}

impl<'a> Wanted<'a> {
    fn requirements(&self) -> impl Iterator<Item = (usize, &'a Requirement)> {
        let entries = self.entries;
        self.positions
            .iter()
            .map(move |position| (*position, &entries[*position].requirement))
    }

    fn lines(&self, nightly: bool) -> Vec<(usize, String)> {
        self.requirements()
            .map(|(position, requirement)| (position, line(requirement, nightly)))
            .collect()
    }

    fn names(&self) -> String {
        let names: Vec<String> = self.requirements().map(|(_, r)| r.to_string()).collect();
        names.join(", ")
    }
}

/// Chooses for the requirements at `positions`. Without a choice the lines stay, and nothing fails but what is
/// configured to (`pytorch_resolve_legacy`).
pub(crate) fn resolve(
    context: &Context<'_>,
    interpreter: &Interpreter,
    python: &Path,
    entries: &[Entry],
    positions: &[usize],
) -> Result<Choice, PackageError> {
    let settings = &context.settings.torch;
    let named = context
        .var("CLEARML_AGENT_PACKAGE_PYTORCH_RESOLVE")
        .unwrap_or(&settings.resolve);
    let mode = Mode::named(named).unwrap_or_else(|| {
        context.warn(&format!(
            "pytorch_resolve {named:?} is not known; it is taken for pip"
        ));
        Mode::Index
    });
    if mode == Mode::Off || positions.is_empty() {
        return Ok(Choice::default());
    }
    let wanted = Wanted { entries, positions };
    let accelerator = detect(context);
    let budget = if settings.legacy { BUDGET_IN_TURN } else { BUDGET };
    let mut fetcher = Fetcher::new(context, python, budget);
    let platform = platform(interpreter);
    if mode == Mode::Direct
        && let Some(choice) = direct(context, &wanted, accelerator, &platform, &mut fetcher)
    {
        return Ok(choice);
    }
    if settings.legacy {
        return in_turn(context, &wanted, accelerator, &mut fetcher)
            .or_else(|| direct(context, &wanted, accelerator, &platform, &mut fetcher))
            .ok_or_else(|| PackageError::NoTorch {
                wanted: wanted.names(),
                machine: words(accelerator),
            });
    }
    Ok(match by_index(context, &wanted, accelerator, &mut fetcher) {
        Ok(choice) => choice,
        Err(Miss::Silent) => {
            context.warn(&format!(
                "no index of torch answers; {} is left to the other indexes",
                wanted.names()
            ));
            Choice::default()
        }
        Err(Miss::Nowhere) => {
            context.info(&format!(
                "no index of torch for {} has {}; it is left to the other indexes",
                words(accelerator),
                wanted.names()
            ));
            Choice::default()
        }
    })
}

/// The first index that answers, asked one after the other as the Python agent does.
fn in_turn(
    context: &Context<'_>,
    wanted: &Wanted<'_>,
    accelerator: Accelerator,
    fetcher: &mut Fetcher<'_>,
) -> Option<Choice> {
    let settings = &context.settings.torch;
    let url = index::in_turn(accelerator)
        .into_iter()
        .map(|candidate| settings.templates.index(candidate, false))
        .find(|url| matches!(fetcher.probe(std::slice::from_ref(url))[..], [Answer::Found(_)]))?;
    context.info(&format!("{}: from {url}", wanted.names()));
    Some(Choice {
        lines: wanted.lines(settings.nightly),
        index: Some(url),
        uv_backend: None,
    })
}

fn words(accelerator: Accelerator) -> String {
    match accelerator {
        Accelerator::Cpu => "machines without GPU".to_owned(),
        Accelerator::Cuda(version) => format!("CUDA {}.{} and older", version / 10, version % 10),
        Accelerator::Rocm(major, minor) => format!("ROCm {major}.{minor} and older"),
    }
}

fn by_index(
    context: &Context<'_>,
    wanted: &Wanted<'_>,
    accelerator: Accelerator,
    fetcher: &mut Fetcher<'_>,
) -> Result<Choice, Miss> {
    let settings = &context.settings.torch;
    let nightly = settings.nightly
        && wanted
            .requirements()
            .any(|(_, requirement)| pinned(requirement).is_some_and(|version| version.is_dev()));
    let candidates = index::candidates(accelerator, &settings.index_versions);
    let templates = &settings.templates;
    let usual = templates.are_usual(accelerator);
    let chosen = if nightly {
        candidates.first().copied().ok_or(Miss::Nowhere)?
    } else if usual {
        by_content(wanted, &candidates, templates, fetcher)?
    } else {
        by_answer(&candidates, templates, fetcher)?
    };
    let url = templates.index(chosen, nightly);
    context.info(&format!("{}: from {url}", wanted.names()));
    Ok(Choice {
        lines: wanted.lines(settings.nightly),
        index: Some(url),
        uv_backend: index::uv_backend(chosen).filter(|_| usual && !nightly),
    })
}

/// The best index that has all pinned versions, where it is known which indexes there are.
fn by_content(
    wanted: &Wanted<'_>,
    candidates: &[Accelerator],
    templates: &index::Templates,
    fetcher: &mut Fetcher<'_>,
) -> Result<Accelerator, Miss> {
    let pins: Vec<_> = wanted
        .requirements()
        .filter_map(|(_, requirement)| {
            let name = normal_name(requirement.name.as_deref()?);
            Some((name, pinned(requirement)?))
        })
        .collect();
    for candidate in candidates {
        let mut all = true;
        for (name, version) in &pins {
            let published = match index::is_published(name, &series(version), *candidate) {
                Some(published) => published,
                None => {
                    let page = format!(
                        "{}/{name}/",
                        templates.index(*candidate, false).trim_end_matches('/')
                    );
                    match fetcher.page(&page) {
                        Answer::Found(links) => is_there(&links, name, version),
                        Answer::Missing => false,
                        Answer::Silent => return Err(Miss::Silent),
                    }
                }
            };
            all &= published;
            if !all {
                break;
            }
        }
        if all {
            return Ok(*candidate);
        }
    }
    Err(Miss::Nowhere)
}

/// Whether a page has a version of a package, in any build.
fn is_there(links: &[String], name: &str, version: &pep440_rs::Version) -> bool {
    let release: Vec<String> = version.release().iter().map(u64::to_string).collect();
    let start = format!("{}-{}", name.replace('-', "_"), release.join("."));
    links.iter().any(|link| {
        let file = link.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
        file.strip_prefix(&start)
            .is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
    })
}

/// The best index that answers, where everything may be.
fn by_answer(
    candidates: &[Accelerator],
    templates: &index::Templates,
    fetcher: &mut Fetcher<'_>,
) -> Result<Accelerator, Miss> {
    let candidates = &candidates[..candidates.len().min(MAX_PROBES)];
    let urls: Vec<String> = candidates
        .iter()
        .map(|candidate| templates.index(*candidate, false))
        .collect();
    let answers = fetcher.probe(&urls);
    let found = answers
        .iter()
        .position(|answer| matches!(answer, Answer::Found(_)));
    match found {
        Some(position) => Ok(candidates[position]),
        None if answers.contains(&Answer::Silent) => Err(Miss::Silent),
        None => Err(Miss::Nowhere),
    }
}

fn platform(interpreter: &Interpreter) -> Platform {
    Platform {
        python: format!("cp{}{}", interpreter.version[0], interpreter.version[1]),
        machine: rustix::system::uname().machine().to_string_lossy().into_owned(),
    }
}

/// Wheels for all that is wanted, from pages with links. `None`, after a line, when one of them is missing.
fn direct(
    context: &Context<'_>,
    wanted: &Wanted<'_>,
    accelerator: Accelerator,
    platform: &Platform,
    fetcher: &mut Fetcher<'_>,
) -> Option<Choice> {
    let settings = &context.settings.torch;
    let candidates = index::candidates(accelerator, &settings.index_versions);
    let mut pages: Vec<String> = Vec::new();
    for candidate in candidates {
        pages.extend(settings.templates.page(candidate, false));
        if settings.nightly {
            pages.extend(settings.templates.page(candidate, true));
        }
    }
    let mut choice = Choice::default();
    for (position, requirement) in wanted.requirements() {
        let name = requirement.name.as_deref()?;
        let Target::Index(conditions) = &requirement.target else {
            return None;
        };
        let conditions = VersionSpecifiers::from_str(conditions).ok()?;
        let found = pages.iter().find_map(|page| match fetcher.page(page) {
            Answer::Found(links) => {
                let link = wheels::best(&links, name, &conditions, platform)?;
                Some(wheels::resolve(page, link))
            }
            _ => None,
        });
        let Some(url) = found else {
            context.warn(&format!(
                "there is no wheel for {requirement}; an index is tried instead"
            ));
            return None;
        };
        let resolved = Requirement {
            target: Target::Url(url),
            ..requirement.clone()
        };
        choice.lines.push((position, resolved.to_string()));
    }
    Some(choice)
}
