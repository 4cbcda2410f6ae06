//! Published ports that are taken, or not allowed, on this machine.

use std::ops::RangeInclusive;

use bollard::models::PortMap;

/// Where free ports are looked for if nothing is configured.
pub const DEFAULT_SEARCH: RangeInclusive<u16> = 10_000..=59_999;

/// A published port that could not be given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoPort {
    /// Port of the container, with its protocol.
    pub container: String,
    /// The port of this machine that was asked for.
    pub host: u16,
}

/// What became of the ports of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mapped {
    /// `host:container` of all TCP ports with a fixed port of this machine, in the order of the container's ports.
    pub mapping: Vec<(u16, u16)>,
    /// Ports for which none was free.
    pub missing: Vec<NoPort>,
}

/// Moves ports of TCP that are in use or outside `allowed` to free ones. Ports that belong together (one after
/// the other on both sides) stay together.
///
/// `in_use` says whether somebody on this machine has a port. It is asked now; the engine is the one who decides
/// when the container starts.
pub fn remap(
    ports: &mut PortMap,
    allowed: Option<RangeInclusive<u16>>,
    in_use: &dyn Fn(u16) -> bool,
) -> Mapped {
    let mut result = Mapped::default();
    let mut taken: Vec<u16> = Vec::new();
    for run in runs(ports) {
        let fits = |port: u16| allowed.as_ref().is_none_or(|range| range.contains(&port));
        let free = |port: u16, taken: &[u16]| !in_use(port) && !taken.contains(&port);
        let stays = run.iter().all(|one| fits(one.host) && free(one.host, &taken));
        let search = allowed.clone().unwrap_or(DEFAULT_SEARCH);
        let length = u16::try_from(run.len()).unwrap_or(u16::MAX);
        let first = if stays {
            run.first().map(|one| one.host)
        } else {
            search.clone().find(|first| {
                let last = first.checked_add(length - 1);
                last.is_some_and(|last| {
                    search.contains(&last) && (*first..=last).all(|port| free(port, &taken))
                })
            })
        };
        for (offset, one) in (0..).zip(&run) {
            let Some(first) = first else {
                result.missing.push(NoPort {
                    container: format!("{}/tcp", one.container),
                    host: one.host,
                });
                continue;
            };
            let host = first + offset;
            taken.push(host);
            result.mapping.push((host, one.container));
            let bindings = ports
                .get_mut(&format!("{}/tcp", one.container))
                .and_then(Option::as_mut);
            if let Some(binding) = bindings.and_then(|bindings| bindings.get_mut(one.binding)) {
                binding.host_port = Some(host.to_string());
            }
        }
    }
    result
}

struct One {
    container: u16,
    host: u16,
    binding: usize,
}

/// Ports with a fixed port of this machine, grouped by ranges.
fn runs(ports: &PortMap) -> Vec<Vec<One>> {
    let mut all: Vec<One> = ports
        .iter()
        .filter_map(|(key, bindings)| {
            Some((key.strip_suffix("/tcp")?.parse::<u16>().ok()?, bindings.as_ref()?))
        })
        .flat_map(|(container, bindings)| {
            bindings.iter().enumerate().filter_map(move |(binding, entry)| {
                let host = entry.host_port.as_deref()?.parse().ok()?;
                Some(One {
                    container,
                    host,
                    binding,
                })
            })
        })
        .collect();
    all.sort_by_key(|one| (one.binding, one.container, one.host));
    let mut runs: Vec<Vec<One>> = Vec::new();
    for one in all {
        let continues = runs.last().and_then(|run| run.last()).is_some_and(|last| {
            last.binding == one.binding
                && last.container.checked_add(1) == Some(one.container)
                && last.host.checked_add(1) == Some(one.host)
        });
        match runs.last_mut().filter(|_| continues) {
            Some(run) => run.push(one),
            None => runs.push(vec![one]),
        }
    }
    runs
}

/// The value of the task's runtime field `_external_host_tcp_port_mapping`.
#[must_use]
pub fn mapping_text(mapping: &[(u16, u16)]) -> String {
    mapping
        .iter()
        .map(|(host, container)| format!("{host}:{container}"))
        .collect::<Vec<_>>()
        .join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(words: &[&str]) -> PortMap {
        let words: Vec<String> = words
            .iter()
            .flat_map(|word| ["-p".to_owned(), (*word).to_owned()])
            .collect();
        let spec = crate::flags::parse(&words, &|_| None).unwrap();
        spec.body.host_config.unwrap().port_bindings.unwrap()
    }

    fn text(result: &Mapped) -> String {
        mapping_text(&result.mapping)
    }

    #[test]
    fn ports_move_together_and_others_stay() {
        let busy = |port: u16| [8081, 10_001].contains(&port);
        let mut map = ports(&["8080-8082:8080-8082/tcp", "9000:90", "53:53/udp", "70"]);
        let result = remap(&mut map, None, &busy);
        assert_eq!(text(&result), "9000:90,10002:8080,10003:8081,10004:8082");
        assert_eq!(
            map["8081/tcp"].as_ref().unwrap()[0].host_port.as_deref(),
            Some("10003")
        );
        assert_eq!(
            map["53/udp"].as_ref().unwrap()[0].host_port.as_deref(),
            Some("53")
        );
        assert_eq!(map["70/tcp"].as_ref().unwrap()[0].host_port.as_deref(), Some(""));

        let mut map = ports(&["9000:90", "9001:91"]);
        let result = remap(&mut map, Some(20_000..=20_001), &|_| false);
        assert_eq!(text(&result), "20000:90,20001:91");

        let mut map = ports(&["9000-9002:90-92"]);
        let result = remap(&mut map, Some(20_000..=20_001), &|_| false);
        assert_eq!(result.missing.len(), 3);
        assert_eq!(
            map["90/tcp"].as_ref().unwrap()[0].host_port.as_deref(),
            Some("9000")
        );
    }

    #[test]
    fn no_port_is_given_twice() {
        let mut map = ports(&["80:1", "81:2", "65535:3"]);
        let result = remap(&mut map, None, &|port| port < 10_000);
        assert_eq!(text(&result), "10000:1,10001:2,65535:3");
    }
}
