//! How much of a GPU, or how many: whole numbers, and eighths below one. No floating point.

use std::fmt;
use std::num::NonZeroU32;

/// Decimals of one to seven eighths, by number of eighths less one.
const DECIMALS: [&str; 7] = ["125", "25", "375", "5", "625", "75", "875"];

/// A part of one GPU: one to seven eighths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Eighths(u8);

impl Eighths {
    /// `count` eighths of a GPU. `None` unless it is 1 to 7.
    #[must_use]
    pub fn new(count: u8) -> Option<Self> {
        (1..=7).contains(&count).then_some(Self(count))
    }

    /// How many eighths.
    #[must_use]
    pub fn count(self) -> u8 {
        self.0
    }

    /// The decimals after `0.`, such as `375`.
    #[must_use]
    pub fn decimals(self) -> &'static str {
        DECIMALS[usize::from(self.0 - 1)]
    }
}

/// An amount of GPUs that a queue asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Amount {
    /// Whole GPUs.
    Whole(NonZeroU32),
    /// A part of one GPU.
    Fraction(Eighths),
}

/// One GPU.
pub const ONE: Amount = Amount::Whole(NonZeroU32::MIN);

impl Amount {
    /// The amount in eighths of a GPU.
    #[must_use]
    pub fn eighths(self) -> u64 {
        match self {
            Self::Whole(gpus) => u64::from(gpus.get()) * 8,
            Self::Fraction(part) => u64::from(part.count()),
        }
    }

    /// Whether it is a part of one GPU.
    #[must_use]
    pub fn is_fraction(self) -> bool {
        matches!(self, Self::Fraction(_))
    }
}

impl PartialOrd for Amount {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Amount {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.eighths().cmp(&other.eighths())
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(gpus) => gpus.fmt(f),
            Self::Fraction(part) => write!(f, "0.{}", part.decimals()),
        }
    }
}

/// Why a text is no [`Amount`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Not decimal digits with at most one dot, or more GPUs than can be counted.
    NotANumber,
    /// Nothing at all.
    Zero,
    /// More than one GPU, and not a whole number.
    BrokenAboveOne,
    /// Below one, and no multiple of an eighth; the nearest amounts that are.
    NotEighths(String),
}

/// Reads decimal digits with at most one dot; `.5` and `2.` are numbers, `1e0` and `+1` are not.
pub(crate) fn read(text: &str) -> Result<Amount, Refusal> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if (whole.is_empty() && part.is_empty()) || !digits(whole) || !digits(part) {
        return Err(Refusal::NotANumber);
    }
    let whole = match whole.trim_start_matches('0') {
        "" => 0,
        digits => digits.parse().map_err(|_| Refusal::NotANumber)?,
    };
    let part = part.trim_end_matches('0');
    match (NonZeroU32::new(whole), part) {
        (None, "") => Err(Refusal::Zero),
        (Some(gpus), "") => Ok(Amount::Whole(gpus)),
        (Some(_), _) => Err(Refusal::BrokenAboveOne),
        (None, part) => fraction(part),
    }
}

fn fraction(decimals: &str) -> Result<Amount, Refusal> {
    if let Some(index) = DECIMALS.iter().position(|known| *known == decimals) {
        let count = u8::try_from(index + 1).unwrap_or(u8::MAX);
        return Eighths::new(count)
            .map(Amount::Fraction)
            .ok_or(Refusal::NotANumber);
    }
    // Eighths begin at whole thousandths, so three digits decide between which two the number lies.
    let thousandths = decimals
        .bytes()
        .chain(std::iter::repeat(b'0'))
        .take(3)
        .fold(0u16, |value, digit| value * 10 + u16::from(digit - b'0'));
    let below = u8::try_from(thousandths / 125).unwrap_or(7);
    let above = Eighths::new(below + 1).map_or(ONE, Amount::Fraction);
    Err(Refusal::NotEighths(match Eighths::new(below) {
        Some(below) => format!("{}, {above}", Amount::Fraction(below)),
        None => above.to_string(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_without_rounding() {
        let shown = |text| read(text).map(|amount| amount.to_string());
        for (text, amount) in [
            ("1", "1"),
            ("1.0", "1"),
            ("2.", "2"),
            ("007", "7"),
            (".5", "0.5"),
            ("0.50", "0.5"),
            ("0.875", "0.875"),
            ("0.12500000000000000000000000000", "0.125"),
            ("4294967295", "4294967295"),
        ] {
            assert_eq!(shown(text), Ok(amount.to_owned()), "{text}");
        }
        for text in [
            "",
            ".",
            "1e0",
            "+1",
            "-1",
            "nan",
            "inf",
            "½",
            "0x1",
            "1.2.3",
            " 1",
            "٣",
            "4294967296",
        ] {
            assert_eq!(shown(text), Err(Refusal::NotANumber), "{text}");
        }
        for text in ["0", "0.0", ".0", "000."] {
            assert_eq!(shown(text), Err(Refusal::Zero), "{text}");
        }
        assert_eq!(shown("1.00000000000000000001"), Err(Refusal::BrokenAboveOne));
        for (text, nearest) in [
            ("0.3", "0.25, 0.375"),
            ("0.1", "0.125"),
            ("0.9375", "0.875, 1"),
            ("0.12499999999999999999", "0.125"),
            ("0.12500000000000000001", "0.125, 0.25"),
        ] {
            assert_eq!(
                shown(text),
                Err(Refusal::NotEighths(nearest.to_owned())),
                "{text}"
            );
        }
    }
}
