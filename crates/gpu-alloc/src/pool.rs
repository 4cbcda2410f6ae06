//! The GPUs that may be used: `0-7`, `0,1,2`, slices `0:1`, and unique identifiers.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use crate::error::RequestError;

/// How many devices one value may name. More than any machine has, and few enough to be held.
pub const MAX_DEVICES: usize = 1024;

/// How a GPU or a slice of one is named.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Device {
    /// By number, in the order of the PCI bus.
    Index {
        /// The GPU.
        index: u32,
        /// The slice of it (MIG instance), if not the whole.
        slice: Option<u32>,
    },
    /// By unique identifier.
    Uuid(DeviceUuid),
}

impl Device {
    /// Whether it is a slice of a GPU and can't be divided further.
    #[must_use]
    pub fn is_slice(&self) -> bool {
        match self {
            Self::Index { slice, .. } => slice.is_some(),
            Self::Uuid(uuid) => uuid.0.starts_with("MIG-"),
        }
    }

    pub(crate) fn read(text: &str) -> Option<Self> {
        if let Some(uuid) = DeviceUuid::read(text) {
            return Some(Self::Uuid(uuid));
        }
        let (index, slice) = match text.split_once([':', '.']) {
            Some((index, slice)) => (index, Some(number(slice)?)),
            None => (text, None),
        };
        let index = number(index)?;
        Some(Self::Index { index, slice })
    }
}

/// As in worker ids: a slice is written `0.1`.
impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index { index, slice: None } => index.fmt(f),
            Self::Index {
                index,
                slice: Some(slice),
            } => write!(f, "{index}.{slice}"),
            Self::Uuid(uuid) => f.write_str(&uuid.0),
        }
    }
}

/// An identifier as the driver writes it: `GPU-…` or `MIG-…`, in full or its first eight digits or more.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceUuid(String);

impl DeviceUuid {
    /// Reads an identifier. Digits are kept in lower case, which is how the driver compares them.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let (kind, rest) = text
            .strip_prefix("GPU-")
            .map(|rest| ("GPU-", rest))
            .or_else(|| text.strip_prefix("MIG-GPU-").map(|rest| ("MIG-GPU-", rest)))
            .or_else(|| text.strip_prefix("MIG-").map(|rest| ("MIG-", rest)))?;
        let slashes = rest.bytes().filter(|byte| *byte == b'/').count();
        let fits = rest.len() <= 64
            && rest
                .bytes()
                .all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b'-' | b'/'))
            && rest.bytes().filter(u8::is_ascii_hexdigit).count() >= 8
            && (slashes == 0 || (kind == "MIG-GPU-" && slashes <= 2));
        fits.then(|| Self(format!("{kind}{}", rest.to_ascii_lowercase())))
    }

    /// The identifier.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The devices of `--gpus` under `--dynamic-gpus`, in the order in which they are used. Never empty, none twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    devices: Vec<Device>,
    /// First and last, where a range was given: the worker's name repeats it as such.
    range: Option<(u32, u32)>,
}

impl Pool {
    /// The devices in order.
    #[must_use]
    pub fn devices(&self) -> &[Device] {
        &self.devices
    }

    fn from_range(gpus: &str, range: &str, first: &str, last: &str) -> Result<Self, RequestError> {
        let (first, last) = match (number(first.trim()), number(last.trim())) {
            (Some(first), Some(last)) if first <= last => (first, last),
            _ => return Err(bad_item(gpus, range)),
        };
        if last - first >= u32::try_from(MAX_DEVICES).unwrap_or(u32::MAX) {
            return Err(RequestError::TooMany {
                gpus: gpus.to_owned(),
                item: range.to_owned(),
            });
        }
        Ok(Self {
            devices: (first..=last)
                .map(|index| Device::Index { index, slice: None })
                .collect(),
            range: Some((first, last)),
        })
    }

    fn from_list(gpus: &str) -> Result<Self, RequestError> {
        let mut devices = Vec::new();
        let mut seen = BTreeSet::new();
        for item in gpus.split(',').map(str::trim) {
            let device = Device::read(item).ok_or_else(|| bad_item(gpus, item))?;
            if !seen.insert(device.clone()) {
                return Err(RequestError::Twice {
                    item: item.to_owned(),
                });
            }
            if devices.len() == MAX_DEVICES {
                return Err(RequestError::TooMany {
                    gpus: gpus.to_owned(),
                    item: item.to_owned(),
                });
            }
            devices.push(device);
        }
        for device in &devices {
            if let Device::Index {
                index,
                slice: Some(_),
            } = device
                && seen.contains(&Device::Index {
                    index: *index,
                    slice: None,
                })
            {
                return Err(RequestError::WithItsSlice {
                    item: index.to_string(),
                    slice: device.to_string(),
                });
            }
        }
        Ok(Self { devices, range: None })
    }
}

/// Reads a comma list, or one range. Blanks around items are ignored.
///
/// # Errors
///
/// The codes E-GPU-02 to E-GPU-05 of [`RequestError`], as far as they need no look at the machine.
impl FromStr for Pool {
    type Err = RequestError;

    fn from_str(text: &str) -> Result<Self, RequestError> {
        let gpus = text.trim();
        let not_explicit = || RequestError::NotExplicit {
            gpus: text.to_owned(),
        };
        if gpus.is_empty() || gpus.eq_ignore_ascii_case("all") {
            return Err(not_explicit());
        }
        let mut spans = gpus
            .split(',')
            .map(str::trim)
            .filter(|item| item.contains('-') && DeviceUuid::read(item).is_none())
            .peekable();
        let Some(&range) = spans.peek() else {
            return Self::from_list(gpus);
        };
        // A dash in front is a negative number rather than a range.
        if let Some(item) = spans
            .clone()
            .find(|item| item.strip_prefix('-').is_some_and(|rest| number(rest).is_some()))
        {
            return Err(bad_item(gpus, item));
        }
        match range.split_once('-') {
            Some((first, last)) if !last.contains('-') && range.len() == gpus.len() => {
                Self::from_range(gpus, range, first, last)
            }
            _ => Err(not_explicit()),
        }
    }
}

/// As in worker ids: devices separated by commas, a range as it was given.
impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((first, last)) = self.range {
            return write!(f, "{first}-{last}");
        }
        for (index, device) in self.devices.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            device.fmt(f)?;
        }
        Ok(())
    }
}

/// A number of decimal digits only: `parse` alone would take a sign.
pub(crate) fn number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

fn bad_item(gpus: &str, item: &str) -> RequestError {
    RequestError::BadItem {
        gpus: gpus.to_owned(),
        item: item.to_owned(),
    }
}
