//! From what is installed back to what the list has called it. Pure.

use crate::packages::requirements::Requested;
use crate::packages::requirements::pep::normal_name;

/// Replaces addresses of our own caches by those of the lists, and chosen wheels by their versions.
#[must_use]
pub fn lines(freeze: Vec<String>, requested: &[Requested]) -> Vec<String> {
    freeze
        .into_iter()
        .map(|line| {
            let archives = requested.iter().flat_map(|list| &list.archives);
            let line = archives.fold(line, |line, (here, there)| line.replace(here, there));
            let wheels = requested.iter().flat_map(|list| &list.wheels);
            let chosen = line.split_once(" @ ").and_then(|(name, _)| {
                let mut wheels = wheels.filter(|wheel| normal_name(&wheel.name) == normal_name(name));
                let wheel = wheels.next()?;
                Some(format!("{name} == {} # {}", wheel.version, wheel.url))
            });
            chosen.unwrap_or(line)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packages::requirements::torch::Wheel;

    #[test]
    fn caches_and_chosen_wheels() {
        let requested = Requested {
            archives: vec![("file:///c/p-1.whl".into(), "https://h/p-1.whl".into())],
            wheels: vec![Wheel {
                name: "torch".into(),
                version: "2.1.0+cu118".into(),
                url: "https://h/torch.whl".into(),
            }],
            ..Requested::default()
        };
        let freeze = [
            "p @ file:///c/p-1.whl#sha256=aa",
            "Torch @ https://h/torch.whl#sha256=b",
            "six==1",
        ];
        let expected = [
            "p @ https://h/p-1.whl#sha256=aa",
            "Torch == 2.1.0+cu118 # https://h/torch.whl",
            "six==1",
        ];
        assert_eq!(lines(freeze.map(str::to_owned).to_vec(), &[requested]), expected);
    }
}
