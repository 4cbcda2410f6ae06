//! Which GPUs a process sees: the value of `--gpus` without `--dynamic-gpus`, and the two variables.

use std::fmt;

use crate::error::RequestError;
use crate::pool::{Device, DeviceUuid, MAX_DEVICES, number};

/// The variable that the container runtime reads.
pub const NVIDIA: &str = "NVIDIA_VISIBLE_DEVICES";

/// The variable that CUDA reads.
pub const CUDA: &str = "CUDA_VISIBLE_DEVICES";

/// Which GPUs may be seen.
///
/// Displayed as in worker ids, with `.` between a GPU and its slice; the variables have `:`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VisibleDevices {
    /// Every one.
    All,
    /// None.
    Nothing,
    /// These: numbers, slices, identifiers, or what else the runtime understands. Slices with `.`.
    Listed(Vec<String>),
    /// Those whose names are the entries of this folder.
    Folder(String),
}

impl VisibleDevices {
    /// Reads the value of `--gpus`. Ranges are expanded, so that `0-3` means the same with and without
    /// `--dynamic-gpus`; an empty value is none.
    ///
    /// # Errors
    ///
    /// [`RequestError::BadItem`] for an item that is no number, slice, range or identifier, and for a range that runs
    /// backwards; [`RequestError::TooMany`] beyond [`MAX_DEVICES`].
    pub fn from_option(value: &str) -> Result<Option<Self>, RequestError> {
        let value = value.trim();
        match Self::known(value) {
            Some(Self::Listed(_)) => {}
            other => return Ok(other),
        }
        let bad_item = |item: &str| RequestError::BadItem {
            gpus: value.to_owned(),
            item: item.to_owned(),
        };
        let mut devices = Vec::new();
        for item in value.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            if is_device(item) {
                devices.push(separated(item, ':', '.'));
                continue;
            }
            let (first, last) = item
                .split_once('-')
                .and_then(|(first, last)| Some((number(first.trim())?, number(last.trim())?)))
                .filter(|(first, last)| first <= last)
                .ok_or_else(|| bad_item(item))?;
            let room = MAX_DEVICES.saturating_sub(devices.len()) as u64;
            if u64::from(last - first) >= room {
                return Err(RequestError::TooMany {
                    gpus: value.to_owned(),
                    item: item.to_owned(),
                });
            }
            devices.extend((first..=last).map(|index| index.to_string()));
        }
        Ok(Some(Self::Listed(devices)))
    }

    /// What the two variables of a process say; the container runtime's comes first. `None`: no restriction.
    #[must_use]
    pub fn from_environment(nvidia: Option<&str>, cuda: Option<&str>) -> Option<Self> {
        [nvidia, cuda].into_iter().flatten().find_map(Self::known)
    }

    /// The variables for a child: name, and value or `None` where the variable must not be set.
    #[must_use]
    pub fn variables(&self) -> [(&'static str, Option<String>); 2] {
        let value = match self {
            Self::All => return [(NVIDIA, Some("all".to_owned())), (CUDA, None)],
            Self::Nothing => "none".to_owned(),
            Self::Folder(path) => path.clone(),
            Self::Listed(items) => {
                let items: Vec<String> = items.iter().map(|item| separated(item, '.', ':')).collect();
                items.join(",")
            }
        };
        [(NVIDIA, Some(value.clone())), (CUDA, Some(value))]
    }

    fn known(value: &str) -> Option<Self> {
        let value = value.trim_matches(|c: char| c == ',' || c.is_whitespace());
        if value.is_empty() {
            return None;
        }
        Some(if value.eq_ignore_ascii_case("all") {
            Self::All
        } else if value.eq_ignore_ascii_case("none") {
            Self::Nothing
        } else if value.starts_with('/') {
            Self::Folder(value.to_owned())
        } else {
            let items = value.split(',').map(str::trim).filter(|item| !item.is_empty());
            Self::Listed(items.map(|item| separated(item, ':', '.')).collect())
        })
    }
}

impl fmt::Display for VisibleDevices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Nothing => f.write_str("none"),
            Self::Folder(path) => f.write_str(path),
            Self::Listed(items) => f.write_str(&items.join(",")),
        }
    }
}

/// A number, a slice, or an identifier, of which the container runtime knows how few digits are enough.
fn is_device(item: &str) -> bool {
    let is_identifier = ["GPU-", "MIG-GPU-", "MIG-"]
        .into_iter()
        .find_map(|kind| item.strip_prefix(kind))
        .is_some_and(|rest| {
            rest.starts_with(|c: char| c.is_ascii_hexdigit())
                && rest
                    .bytes()
                    .all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b'-' | b'/'))
        });
    is_identifier || Device::read(item).is_some()
}

/// Exchanges the sign between a GPU and its slice. Identifiers stay as they are.
fn separated(item: &str, from: char, to: char) -> String {
    if DeviceUuid::read(item).is_some() {
        item.to_owned()
    } else {
        item.replace(from, &to.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variables_follow_the_option() {
        let both = |value: &str| {
            let visible = VisibleDevices::from_option(value).unwrap().unwrap();
            let [(_, nvidia), (_, cuda)] = visible.variables();
            (visible.to_string(), nvidia.unwrap(), cuda)
        };
        let listed = |shown: &str, value: &str| (shown.to_owned(), value.to_owned(), Some(value.to_owned()));
        assert_eq!(both("0"), listed("0", "0"));
        assert_eq!(both("0, 1,"), listed("0,1", "0,1"));
        assert_eq!(both("0:0,0.1"), listed("0.0,0.1", "0:0,0:1"));
        assert_eq!(both("5,0-3"), listed("5,0,1,2,3", "5,0,1,2,3"));
        assert_eq!(both("none"), listed("none", "none"));
        assert_eq!(
            both("GPU-8f2e1a34-1111-2222"),
            listed("GPU-8f2e1a34-1111-2222", "GPU-8f2e1a34-1111-2222")
        );
        assert_eq!(both("/var/run/a.b"), listed("/var/run/a.b", "/var/run/a.b"));
        assert_eq!(both("all"), ("all".to_owned(), "all".to_owned(), None));
        assert_eq!(VisibleDevices::from_option(" "), Ok(None));
        for value in ["3-1", "0-4294967295", "0-1022,7,8"] {
            assert!(
                VisibleDevices::from_option(value).is_err() || value.ends_with("7,8"),
                "{value}"
            );
        }
    }

    #[test]
    fn what_names_no_device_is_refused_and_named() {
        for (value, item) in [
            ("x", "x"),
            ("0-", "0-"),
            ("0, 1:", "1:"),
            ("all,0", "all"),
            ("0,none", "none"),
            ("0,-1", "-1"),
            ("0:1:2", "0:1:2"),
            ("GPU-", "GPU-"),
            ("3-1", "3-1"),
            ("0,/dev", "/dev"),
        ] {
            let error = VisibleDevices::from_option(value).unwrap_err().to_string();
            assert!(
                error.contains(&format!("--gpus \"{value}\": bad item \"{item}\"")),
                "{error}"
            );
        }
        for value in [
            "0 - 2",
            "MIG-GPU-8f2e1a34/1/0",
            "MIG-8f2e1a34-1111",
            "GPU-8f2e",
            "ALL",
            "None",
        ] {
            assert!(VisibleDevices::from_option(value).is_ok(), "{value}");
        }
    }

    #[test]
    fn the_container_variable_comes_first_and_empty_ones_say_nothing() {
        let shown =
            |nvidia, cuda| VisibleDevices::from_environment(nvidia, cuda).map(|visible| visible.to_string());
        assert_eq!(shown(Some("0:1"), Some("3")).as_deref(), Some("0.1"));
        assert_eq!(shown(Some(""), Some("3")).as_deref(), Some("3"));
        assert_eq!(shown(None, None), None);
    }
}
