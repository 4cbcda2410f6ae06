//! From what is installed back to what the list has called it. Pure.

use crate::code::repo_url::without_login;
use crate::packages::requirements::Requested;
use crate::packages::requirements::pep::normal_name;
use crate::packages::requirements::torch::{FAMILY, wheels};

/// Replaces addresses of our own caches by those of the lists, without logins, and wheels of torch that were chosen here by
/// their versions.
#[must_use]
pub fn lines(freeze: Vec<String>, requested: &[Requested]) -> Vec<String> {
    freeze
        .into_iter()
        .map(|line| {
            let archives = requested.iter().flat_map(|list| &list.archives);
            let line = archives.fold(line, |line, (here, there)| {
                line.replace(here, &without_login(there))
            });
            chosen(&line, requested).unwrap_or(line)
        })
        .collect()
}

/// The line for a package of the family of torch that a list asks for by its name, but that has an address.
fn chosen(line: &str, requested: &[Requested]) -> Option<String> {
    let (name, url) = line.split_once(" @ ")?;
    let normal = normal_name(name);
    let mut names = requested.iter().flat_map(|list| &list.names);
    let by_name = names.any(|(known, asked)| *known == normal && !asked.contains(" @ "));
    if !by_name || !FAMILY.contains(&normal.as_str()) {
        return None;
    }
    let url = url.split('#').next().unwrap_or_default();
    Some(format!("{name} == {} # {url}", wheels::version_of(url)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_and_chosen_wheels() {
        let asked = |name: &str, line: &str| (name.to_owned(), line.to_owned());
        let requested = Requested {
            archives: vec![("file:///c/p-1.whl".into(), "https://u:p@h/p-1.whl".into())],
            names: vec![
                asked("torch", "torch<2.2"),
                asked("torchvision", "torchvision @ https://h/v-1-py3-none-any.whl"),
                asked("six", "six"),
            ],
            ..Requested::default()
        };
        for (line, expected) in [
            (
                "p @ file:///c/p-1.whl#sha256=aa",
                "p @ https://h/p-1.whl#sha256=aa",
            ),
            (
                "Torch @ https://h/torch-2.1.0%2Bcu118-cp311-cp311-linux_x86_64.whl#sha256=b",
                "Torch == 2.1.0+cu118 # https://h/torch-2.1.0%2Bcu118-cp311-cp311-linux_x86_64.whl",
            ),
            (
                "torchvision @ https://h/v-1-py3-none-any.whl",
                "torchvision @ https://h/v-1-py3-none-any.whl",
            ),
            (
                "six @ https://h/six-1-py3-none-any.whl",
                "six @ https://h/six-1-py3-none-any.whl",
            ),
            ("six==1", "six==1"),
        ] {
            let found = lines(vec![line.to_owned()], std::slice::from_ref(&requested));
            assert_eq!(found, [expected]);
        }
    }
}
