//! Timestamps as the API writes them. Stored text has a fixed width, so that text order is time order.

use jiff::Timestamp;
use jiff::civil::DateTime;

/// `2026-01-31T10:20:30.123000+00:00` for milliseconds since the epoch.
pub(crate) fn iso(ms: i64) -> String {
    let timestamp = Timestamp::from_millisecond(ms).unwrap_or(Timestamp::UNIX_EPOCH);
    timestamp.strftime("%Y-%m-%dT%H:%M:%S.%6f+00:00").to_string()
}

/// Milliseconds since the epoch of an ISO 8601 text; without an offset it is UTC, and the fraction may be missing.
pub(crate) fn parse(text: &str) -> Option<i64> {
    let text = text.trim();
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        return Some(timestamp.as_millisecond());
    }
    let civil: DateTime = text.parse().ok()?;
    let zoned = civil.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    Some(zoned.timestamp().as_millisecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_microseconds_and_offset_and_reads_every_usual_form() {
        let ms = 1_700_000_000_123;
        assert_eq!(iso(ms), "2023-11-14T22:13:20.123000+00:00");
        for text in [
            "2023-11-14T22:13:20.123Z",
            "2023-11-14T22:13:20.123000",
            "2023-11-14 23:13:20.123+01:00",
        ] {
            assert_eq!(parse(text), Some(ms), "{text}");
        }
        assert_eq!(parse("2023-11-14T22:13:20"), Some(1_700_000_000_000));
        assert_eq!(parse("yesterday"), None);
    }
}
