//! `--publish` and `--expose`.

use bollard::models::PortBinding;

use super::draft::Draft;

/// The largest range that is expanded.
const MAX_RANGE: u32 = 65_536;

/// One published port of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Published {
    /// Address of this machine; empty for all.
    pub(crate) host_ip: String,
    /// Port of this machine; `None` leaves the choice to the engine.
    pub(crate) host: Option<(u16, u16)>,
    /// Ports of the container.
    pub(crate) container: (u16, u16),
    /// `tcp`, `udp` or `sctp`.
    pub(crate) protocol: String,
}

pub(super) fn publish(draft: &mut Draft<'_>, text: &str) -> Result<(), String> {
    let text = if text.contains('=') {
        long_form(text)?
    } else {
        text.to_owned()
    };
    let published = read(&text)?;
    let (from, to) = published.container;
    for (offset, port) in (from..=to).enumerate() {
        let key = format!("{port}/{}", published.protocol);
        expose_one(draft, key.clone());
        let host_port = published.host.map_or_else(String::new, |(first, last)| {
            let same_size = usize::from(last - first) == usize::from(to - from);
            match (same_size, first == last) {
                (true, _) => (usize::from(first) + offset).to_string(),
                (false, true) => first.to_string(),
                // One port of the container, any port of a range of the machine.
                (false, false) => format!("{first}-{last}"),
            }
        });
        draft
            .host
            .port_bindings
            .get_or_insert_default()
            .entry(key)
            .or_default()
            .get_or_insert_default()
            .push(PortBinding {
                host_ip: Some(published.host_ip.clone()),
                host_port: Some(host_port),
            });
    }
    Ok(())
}

pub(super) fn expose(draft: &mut Draft<'_>, text: &str) -> Result<(), String> {
    if text.contains(':') {
        return Err("a port or a range of ports is expected, without a port of this machine".to_owned());
    }
    let (ports, protocol) = with_protocol(text)?;
    let (from, to) = range(ports)?;
    for port in from..=to {
        expose_one(draft, format!("{port}/{protocol}"));
    }
    Ok(())
}

fn expose_one(draft: &mut Draft<'_>, key: String) {
    let exposed = draft.body.exposed_ports.get_or_insert_default();
    if !exposed.contains(&key) {
        exposed.push(key);
    }
}

/// `published=8080,target=80,protocol=tcp` as the short form.
fn long_form(text: &str) -> Result<String, String> {
    let (mut published, mut target, mut protocol) = (String::new(), String::new(), "tcp".to_owned());
    for field in super::values::comma_separated(text)? {
        let (key, value) = super::values::pair(&field)?;
        match key.as_str() {
            "published" => published = format!("{value}:"),
            "target" => target = value,
            "protocol" => protocol = value,
            "mode" if value == "host" || value == "ingress" => {}
            _ => return Err(format!("{field:?} is not known in it")),
        }
    }
    if target.is_empty() {
        return Err("target=PORT is missing in it".to_owned());
    }
    Ok(format!("{published}{target}/{protocol}"))
}

/// Reads `[[IP:]HOST:]CONTAINER[/PROTOCOL]`; both may be ranges.
pub(crate) fn read(text: &str) -> Result<Published, String> {
    let (text, protocol) = with_protocol(text)?;
    let (front, container) = text.rsplit_once(':').unwrap_or(("", text));
    let (host_ip, host) = match front.rsplit_once(':') {
        Some((ip, host)) => (ip, host),
        None => ("", front),
    };
    let host_ip = host_ip
        .strip_prefix('[')
        .and_then(|ip| ip.strip_suffix(']'))
        .unwrap_or(host_ip);
    if !host_ip.is_empty() && host_ip.parse::<std::net::IpAddr>().is_err() {
        return Err(format!("{host_ip:?} is not an IP address"));
    }
    let container = range(container)?;
    let host = if host.is_empty() { None } else { Some(range(host)?) };
    if let Some((first, last)) = host {
        let (wide, narrow) = (u32::from(last - first), u32::from(container.1 - container.0));
        if wide != narrow && narrow != 0 {
            return Err("the two ranges of ports differ in size".to_owned());
        }
    }
    Ok(Published {
        host_ip: host_ip.to_owned(),
        host,
        container,
        protocol: protocol.to_owned(),
    })
}

fn with_protocol(text: &str) -> Result<(&str, &str), String> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let known = ["tcp", "udp", "sctp"]
        .into_iter()
        .find(|known| protocol.eq_ignore_ascii_case(known));
    known
        .map(|known| (ports, known))
        .ok_or_else(|| format!("{protocol:?} is not tcp, udp or sctp"))
}

fn range(text: &str) -> Result<(u16, u16), String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let port = |text: &str| text.parse::<u16>().map_err(|_| format!("{text:?} is not a port"));
    let (first, last) = (port(first)?, port(last)?);
    if last < first || u32::from(last - first) >= MAX_RANGE {
        return Err(format!("{text:?} is not a range of ports"));
    }
    Ok((first, last))
}
