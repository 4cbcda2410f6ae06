//! What an unquoted text means, and what a backslash means, in `clearml.conf`.

/// Characters that an unquoted value may only contain after a backslash.
pub(super) const FORBIDDEN: &[char] = &[
    '`', '^', '+', '?', '!', '@', '*', '&', '"', '[', ']', '{', '}', '#', ',', '=', '$',
];

/// An unquoted value that stands alone, in strict JSON notation.
pub(super) fn literal(text: &str) -> String {
    for word in ["true", "false", "null"] {
        if text.eq_ignore_ascii_case(word) {
            return word.to_owned();
        }
    }
    number(text).unwrap_or_else(|| quote(text))
}

/// A string in JSON notation.
pub(super) fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The JSON notation of a number: integer, decimal (also `.5`), exponent, sign, leading zeros.
pub(super) fn number(text: &str) -> Option<String> {
    let (sign, rest) = match text.as_bytes().first()? {
        b'-' => ("-", &text[1..]),
        b'+' => ("", &text[1..]),
        _ => ("", text),
    };
    let (mantissa, exponent) = match rest.find(['e', 'E']) {
        Some(at) => (&rest[..at], &rest[at..]),
        None => (rest, ""),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let exponent_digits = exponent
        .get(1..)
        .map(|part| part.strip_prefix(['+', '-']).unwrap_or(part));
    if !digits(whole)
        || (whole.is_empty() && fraction.is_none())
        || fraction.is_some_and(|part| part.is_empty() || !digits(part))
        || exponent_digits.is_some_and(|part| part.is_empty() || !digits(part))
    {
        return None;
    }
    let whole = match whole.trim_start_matches('0') {
        "" => "0",
        stripped => stripped,
    };
    let fraction = fraction.map(|part| format!(".{part}")).unwrap_or_default();
    let canonical = format!("{sign}{whole}{fraction}{}", exponent.replace('+', ""));
    // A number that does not fit stays the text that it was.
    canonical
        .parse::<serde_json::Number>()
        .is_ok()
        .then_some(canonical)
}

/// Decodes the escape that follows a backslash: appends what it stands for and returns how many
/// bytes of `rest` (the text after the backslash) it took.
///
/// A backslash before any other character stays, as does the character.
pub(super) fn unescape(rest: &str, out: &mut String) -> usize {
    let Some(next) = rest.chars().next() else {
        out.push('\\');
        return 0;
    };
    let plain = match next {
        '\n' => return 1,
        '\r' if rest.starts_with("\r\n") => return 2,
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'b' => '\u{8}',
        'f' => '\u{c}',
        '\\' | '"' | '/' | '=' | '#' | '!' => next,
        'u' => return unescape_unicode(rest, out),
        _ => {
            out.push('\\');
            return 0;
        }
    };
    out.push(plain);
    next.len_utf8()
}

/// `\uXXXX`, also as a surrogate pair; anything else keeps its backslash.
fn unescape_unicode(rest: &str, out: &mut String) -> usize {
    let unit = |text: Option<&str>| {
        let text = text.filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
        u16::from_str_radix(text, 16).ok()
    };
    let first = unit(rest.get(1..5));
    let second = rest
        .get(5..7)
        .filter(|text| *text == "\\u")
        .and_then(|_| unit(rest.get(7..11)));
    let pair = |units: &[u16]| {
        char::decode_utf16(units.iter().copied())
            .next()
            .and_then(Result::ok)
    };
    if let Some(first) = first {
        if let Some(decoded) = pair(&[first]) {
            out.push(decoded);
            return 5;
        }
        if let Some(decoded) = second.and_then(|second| pair(&[first, second])) {
            out.push(decoded);
            return 11;
        }
    }
    out.push('\\');
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_recognised_as_the_reference_does() {
        for (text, expected) in [
            ("1", Some("1")),
            ("007", Some("7")),
            ("-0.50", Some("-0.50")),
            (".5", Some("0.5")),
            ("+3", Some("3")),
            ("1e+5", Some("1e5")),
            ("000", Some("0")),
            ("5.", None),
            ("1.2.3", None),
            ("0x10", None),
            ("10GB", None),
            ("5m", None),
            ("-", None),
            (".", None),
            ("e5", None),
            ("1e", None),
            ("1e999", None),
        ] {
            assert_eq!(number(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn escapes() {
        for (text, expected, used) in [
            ("n", "\n", 1),
            ("=x", "=", 1),
            ("\nx", "", 1),
            ("-e", "\\", 0),
            ("u0041", "A", 5),
            ("ud83d\\ude00", "😀", 11),
            ("ud83d", "\\", 0),
            ("", "\\", 0),
            ("u+041", "\\", 0),
        ] {
            let mut out = String::new();
            assert_eq!(
                (unescape(text, &mut out), out.as_str()),
                (used, expected),
                "{text:?}"
            );
        }
    }
}
