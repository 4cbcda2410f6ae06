//! Values that several options share.

use std::time::Duration;

/// Reads a switch with a value, as Go's `strconv.ParseBool` does, which the docker program uses.
pub(super) fn switch(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("true or false is expected".to_owned()),
    }
}

pub(super) fn integer<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| "a whole number is expected".to_owned())
}

/// An amount of memory: a number and a unit (b, k, m, g, t, p; powers of 1024).
pub(super) fn bytes(text: &str) -> Result<i64, String> {
    let wrong = || "an amount of memory is expected, such as 512m or 8g".to_owned();
    let lower = text.to_ascii_lowercase();
    let digits = lower
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(lower.len());
    let (number, unit) = lower.split_at(digits);
    let unit = unit.trim_start();
    let unit = unit
        .strip_suffix("ib")
        .or_else(|| unit.strip_suffix('b'))
        .unwrap_or(unit);
    let power = match unit {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(wrong()),
    };
    let factor = 1_i64 << (10 * power);
    if let Ok(whole) = number.parse::<i64>() {
        return whole
            .checked_mul(factor)
            .ok_or_else(|| "that is too much".to_owned());
    }
    let parts: f64 = number.parse().map_err(|_| wrong())?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "a fraction of a unit, checked below"
    )]
    let amount = (parts * factor as f64) as i64;
    if amount == i64::MAX {
        return Err("that is too much".to_owned());
    }
    Ok(amount)
}

/// The same, where -1 means no limit.
pub(super) fn bytes_or_unlimited(text: &str) -> Result<i64, String> {
    if text == "-1" { Ok(-1) } else { bytes(text) }
}

/// A duration as Go writes it: `1h30m`, `500ms`, `1.5s`; in nanoseconds, as the Engine API counts.
pub(super) fn nanoseconds(text: &str) -> Result<i64, String> {
    let wrong = || "a duration is expected, such as 30s or 1m30s".to_owned();
    if text == "0" {
        return Ok(0);
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(digits);
        let (seconds, length) = [
            ("ms", 1e-3),
            ("us", 1e-6),
            ("µs", 1e-6),
            ("ns", 1e-9),
            ("h", 3600.0),
            ("m", 60.0),
            ("s", 1.0),
        ]
        .into_iter()
        .find_map(|(unit, seconds)| tail.starts_with(unit).then_some((seconds, unit.len())))
        .ok_or_else(wrong)?;
        let number: f64 = number.parse().map_err(|_| wrong())?;
        let part = Duration::try_from_secs_f64(number * seconds).map_err(|_| wrong())?;
        total = total.checked_add(part).ok_or_else(wrong)?;
        rest = &tail[length..];
    }
    if text.is_empty() {
        return Err(wrong());
    }
    i64::try_from(total.as_nanos()).map_err(|_| wrong())
}

/// `key=value`; both are kept as they are.
pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("NAME=VALUE is expected".to_owned()),
    }
}

/// `PATH:VALUE`, for limits of devices.
pub(super) fn path_and(text: &str) -> Result<(&str, &str), String> {
    text.split_once(':')
        .filter(|(path, value)| path.starts_with("/dev/") && !value.is_empty())
        .ok_or_else(|| "/dev/NAME:VALUE is expected".to_owned())
}

/// One line of comma-separated values with quotes, as `--mount` and `--gpus` take them.
pub(super) fn comma_separated(text: &str) -> Result<Vec<String>, String> {
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .from_reader(text.as_bytes());
    let mut records = reader.records();
    let first = records
        .next()
        .ok_or_else(|| "it is empty".to_owned())?
        .map_err(|e| format!("it is not a comma-separated list: {e}"))?;
    if records.next().is_some() {
        return Err("it has more than one line".to_owned());
    }
    Ok(first.iter().map(str::to_owned).collect())
}
