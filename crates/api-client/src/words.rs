//! Errors and foreign texts in words for a message.

use std::error::Error as _;

/// How much of a foreign text goes into a message.
const EXCERPT: usize = 160;

/// Whether the handshake failed, as opposed to the connection. An [`std::io::Error`] leaves the error it
/// wraps out of its `source`, so wrapped ones are opened by hand.
pub(crate) fn has_tls_cause(error: &(dyn std::error::Error + 'static)) -> bool {
    tls_cause(error).is_some()
}

/// Whether the other side answered a TLS greeting with something that is no TLS, as an http server does.
pub(crate) fn is_plain_answer(error: &(dyn std::error::Error + 'static)) -> bool {
    matches!(
        tls_cause(error),
        Some(rustls::Error::InvalidMessage(
            rustls::InvalidMessage::InvalidContentType
        ))
    )
}

fn tls_cause<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    let wrapped = error
        .downcast_ref::<std::io::Error>()
        .and_then(std::io::Error::get_ref);
    error
        .downcast_ref::<rustls::Error>()
        .or_else(|| wrapped.and_then(|inner| tls_cause(inner)))
        .or_else(|| error.source().and_then(tls_cause))
}

/// The causes from the outside in, without the layers that only repeat that a request failed.
pub(crate) fn chain(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut parts = vec![error.to_string()];
    let mut cause = error.source();
    while let Some(current) = cause {
        let text = current.to_string();
        if parts.last().is_some_and(|last| !last.ends_with(&text)) {
            parts.push(text);
        }
        cause = current.source();
    }
    let says_nothing = |part: &String| part == "error sending request" || part.starts_with("client error (");
    let first = parts.iter().position(|part| !says_nothing(part)).unwrap_or(0);
    parts[first..].join(": ")
}

/// The beginning of a foreign text on one line, without markup noise.
pub(crate) fn excerpt(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(4 * EXCERPT)]);
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.is_empty() {
        return "an empty body".to_owned();
    }
    match line.char_indices().nth(EXCERPT) {
        Some((end, _)) => format!("\"{}…\"", &line[..end]),
        None => format!("\"{line}\""),
    }
}
