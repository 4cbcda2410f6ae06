//! Pages with links to wheels, and which of them fits. Pure.

use std::str::FromStr;

use pep440_rs::{Version, VersionSpecifiers};
use percent_encoding::percent_decode_str;

use crate::packages::requirements::pep::normal_name;

/// A page has some thousand links; more are not looked at.
const MAX_LINKS: usize = 20_000;

/// What a wheel has to fit to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    /// For example `cp311`.
    pub python: String,
    /// For example `x86_64`.
    pub machine: String,
}

/// The targets of the links to wheels on a page.
#[must_use]
pub fn links(page: &str) -> Vec<String> {
    let mut links = Vec::new();
    let mut rest = page;
    while let Some(at) = rest.find("href=") {
        rest = &rest[at + 5..];
        let Some(quote) = rest.chars().next().filter(|c| matches!(c, '"' | '\'')) else {
            continue;
        };
        let Some(end) = rest[1..].find(quote) else { break };
        let link = rest[1..=end].split('#').next().unwrap_or_default();
        rest = &rest[end + 1..];
        if link.ends_with(".whl") && links.len() < MAX_LINKS {
            links.push(link.replace("&amp;", "&"));
        }
    }
    links
}

/// Name, version, and tags of a wheel by its link.
fn parts(link: &str) -> Option<(String, Version, String)> {
    let file = link.rsplit('/').next().unwrap_or(link);
    let file = percent_decode_str(file).decode_utf8().ok()?.into_owned();
    let mut parts = file.strip_suffix(".whl")?.splitn(3, '-');
    let (name, version, tags) = (parts.next()?, parts.next()?, parts.next()?);
    Some((
        normal_name(name),
        Version::from_str(version).ok()?,
        tags.to_owned(),
    ))
}

/// The version of a wheel by its link.
#[must_use]
pub fn version_of(link: &str) -> Option<String> {
    parts(link).map(|(_, version, _)| version.to_string())
}

fn fits(tags: &str, platform: &Platform) -> bool {
    let python = tags.split('-').any(|tag| {
        tag.split('.')
            .any(|one| one == platform.python || one == "py3" || one == "abi3")
    });
    let system = tags.ends_with("any") || (tags.contains("linux") && tags.contains(&platform.machine));
    python && system
}

/// The link to the newest wheel of a package that satisfies the conditions and fits.
///
/// Builds for one kind of machine (`2.1.0+cu118`) count as the version itself.
#[must_use]
pub fn best<'l>(
    links: &'l [String],
    name: &str,
    wanted: &VersionSpecifiers,
    platform: &Platform,
) -> Option<&'l str> {
    let name = normal_name(name);
    let fitting = links.iter().filter_map(|link| {
        let (found, version, tags) = parts(link)?;
        let right = found == name && fits(&tags, platform) && satisfies(&version, wanted);
        right.then_some((version, link.as_str()))
    });
    let (_, link) = fitting.max_by(|a, b| a.0.cmp(&b.0))?;
    Some(link)
}

fn satisfies(version: &Version, wanted: &VersionSpecifiers) -> bool {
    let asked_for = wanted.iter().any(|one| one.version().any_prerelease());
    (asked_for || !version.any_prerelease())
        && (wanted.contains(version) || wanted.contains(&version.clone().without_local()))
}

/// The address of a link on a page.
#[must_use]
pub fn resolve(page: &str, link: &str) -> String {
    if link.contains("://") {
        return link.to_owned();
    }
    let host_end = page
        .find("://")
        .and_then(|at| page[at + 3..].find('/').map(|slash| at + 3 + slash))
        .unwrap_or(page.len());
    if link.starts_with('/') {
        return format!("{}{link}", &page[..host_end]);
    }
    let mut base = page.rfind('/').map_or(page, |at| &page[..at.max(host_end)]);
    let mut link = link;
    while let Some(rest) = link.strip_prefix("../") {
        link = rest;
        base = base
            .rfind('/')
            .filter(|at| *at >= host_end)
            .map_or(base, |at| &base[..at]);
    }
    format!("{base}/{link}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PAGE: &str = r#"<a href="cu118/torch-2.1.0%2Bcu118-cp311-cp311-linux_x86_64.whl#sha256=aa">x</a>
<a href='cu118/torch-2.1.2%2Bcu118-cp310-cp310-linux_x86_64.whl'>x</a>
<a href="cu118/torch-2.2.0%2Bcu118-cp311-cp311-win_amd64.whl">x</a>
<a href="cu118/torch-2.0.1%2Bcu118-cp311-cp311-linux_x86_64.whl">x</a>
<a href="/whl/torch-2.3.0rc1-cp311-cp311-manylinux_2_28_x86_64.whl">x</a>
<a href="torchvision-0.16.0-cp311-cp311-linux_x86_64.whl">x</a><a href="index.html">x</a>"#;

    #[test]
    fn the_newest_wheel_that_fits() {
        let links = links(PAGE);
        assert_eq!(links.len(), 6);
        let platform = Platform {
            python: "cp311".into(),
            machine: "x86_64".into(),
        };
        let find = |name: &str, wanted: &str| {
            let wanted = VersionSpecifiers::from_str(wanted).unwrap();
            best(&links, name, &wanted, &platform).and_then(version_of)
        };
        assert_eq!(find("torch", "").as_deref(), Some("2.1.0+cu118"));
        assert_eq!(find("torch", "==2.0.1").as_deref(), Some("2.0.1+cu118"));
        assert_eq!(find("torch", "<2.1").as_deref(), Some("2.0.1+cu118"));
        assert_eq!(find("torch", "==2.1.2"), None, "for another Python");
        assert_eq!(find("torch", "==2.2.0"), None, "for another system");
        assert_eq!(find("torch", "==2.3.0rc1").as_deref(), Some("2.3.0rc1"));
        assert_eq!(find("TorchVision", ">=0.16").as_deref(), Some("0.16.0"));
    }

    #[test]
    fn addresses_of_links() {
        let page = "https://h/whl/cu118/torch_stable.html";
        for (link, expected) in [
            ("cu118/x.whl", "https://h/whl/cu118/cu118/x.whl"),
            ("/whl/x.whl", "https://h/whl/x.whl"),
            ("../x.whl", "https://h/whl/x.whl"),
            ("../../../../x.whl", "https://h/x.whl"),
            ("https://i/x.whl", "https://i/x.whl"),
        ] {
            assert_eq!(resolve(page, link), expected);
        }
    }

    proptest! {
        #[test]
        fn any_page_is_read(page in "(href=|\"|'|#|é|[a-z]{0,3}|\\.whl|-|<){0,24}", link in "\\PC{0,20}") {
            let platform = Platform { python: "cp311".into(), machine: "x86_64".into() };
            let wanted = VersionSpecifiers::empty();
            let _ = (best(&links(&page), "torch", &wanted, &platform), resolve(&page, &link));
            let _ = best(&[format!("{link}.whl")], "torch", &wanted, &platform);
        }
    }
}
