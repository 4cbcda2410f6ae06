//! Request data: JSON, JSON lines or a form in the body, with the query string merged over it.
//!
//! What a body becomes in memory is bounded as well as its size: a list of empty objects takes a hundred times the
//! room that its text takes, and a name with a million dots would nest as deep.

use std::collections::HashMap;

use serde_json::{Map, Value};

use crate::api::ApiFault;

/// Values in a JSON body. A full batch of scalars, at the 15 MiB that clients send at most, has less than half of it.
const MOST_VALUES: usize = 2_000_000;
/// Fields of a form or a query string.
const MOST_FIELDS: usize = 10_000;
/// Parts of a name with dots in them, as deep as JSON may be nested.
const MOST_PARTS: usize = 127;

/// What a request carried.
#[derive(Debug, Default)]
pub(crate) struct RequestData {
    pub(crate) data: Map<String, Value>,
    /// Present for `application/json-lines`, and then empty for an empty body.
    pub(crate) lines: Option<Vec<Value>>,
}

/// Reads body and query string.
pub(crate) fn parse(
    content_type: Option<&str>,
    body: &[u8],
    query: Option<&str>,
) -> Result<RequestData, ApiFault> {
    let mut request = RequestData::default();
    match content_type {
        Some("application/json-lines") => request.lines = Some(json_lines(body)?),
        Some(form) if form.starts_with("application/x-www-form-urlencoded") => {
            request.data = form_data(body)?;
        }
        _ => request.data = json_object(body)?,
    }
    if let Some(query) = query {
        request.data.append(&mut form_data(query.as_bytes())?);
    }
    Ok(request)
}

/// Refuses (413/0) a JSON body that would become too large in memory, before it is read.
fn check_size(body: &[u8]) -> Result<(), ApiFault> {
    let (mut values, mut in_text, mut escaped) = (0, false, false);
    for byte in body {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b',' | b'{' | b'[' if !in_text => values += 1,
            _ => {}
        }
    }
    if values > MOST_VALUES {
        let msg = format!("The request body holds more than {MOST_VALUES} values; send it in parts");
        return Err(ApiFault::new(413, 0, msg));
    }
    Ok(())
}

fn json_object(body: &[u8]) -> Result<Map<String, Value>, ApiFault> {
    if body.trim_ascii().is_empty() {
        return Ok(Map::new());
    }
    check_size(body)?;
    match serde_json::from_slice(body) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(ApiFault::validation("the request body must be a JSON object")),
        Err(error) => Err(ApiFault::bad_request(format!(
            "Invalid JSON in the request body: {error}"
        ))),
    }
}

fn json_lines(body: &[u8]) -> Result<Vec<Value>, ApiFault> {
    let body = body.strip_suffix(b"\n").unwrap_or(body);
    if body.is_empty() {
        return Ok(Vec::new());
    }
    check_size(body)?;
    body.split(|byte| *byte == b'\n')
        .enumerate()
        .map(|(index, line)| match serde_json::from_slice(line) {
            Ok(value @ Value::Object(_)) => Ok(value),
            Ok(_) => Err(ApiFault::bad_request(format!(
                "json lines must contain objects, line {} does not",
                index + 1
            ))),
            Err(error) => Err(ApiFault::bad_request(format!(
                "Invalid JSON in line {}: {error}",
                index + 1
            ))),
        })
        .collect()
}

/// Names with dots nest, repeated names and names ending in `[]` become lists, texts become booleans and numbers.
fn form_data(encoded: &[u8]) -> Result<Map<String, Value>, ApiFault> {
    let mut values: Vec<(String, Vec<Value>, bool)> = Vec::new();
    let mut known: HashMap<String, usize> = HashMap::new();
    for (number, (name, text)) in url::form_urlencoded::parse(encoded).enumerate() {
        if number == MOST_FIELDS {
            let msg = format!("The request has more than {MOST_FIELDS} fields; send it as JSON");
            return Err(ApiFault::new(413, 0, msg));
        }
        let (name, is_list) = match name.strip_suffix("[]") {
            Some(stem) => (stem.to_owned(), true),
            None => (name.into_owned(), false),
        };
        if name.bytes().filter(|byte| *byte == b'.').count() >= MOST_PARTS {
            let msg = format!("A name in the request has more than {MOST_PARTS} parts");
            return Err(ApiFault::bad_request(msg));
        }
        let at = *known.entry(name.clone()).or_insert(values.len());
        match values.get_mut(at) {
            Some((_, list, _)) => list.push(scalar(&text)),
            None => values.push((name, vec![scalar(&text)], is_list)),
        }
    }
    let mut data = Map::new();
    for (name, mut list, is_list) in values {
        let value = if list.len() == 1 && !is_list {
            list.swap_remove(0)
        } else {
            Value::Array(list)
        };
        nest(&mut data, &name, value);
    }
    Ok(data)
}

fn nest(into: &mut Map<String, Value>, name: &str, value: Value) {
    let Some((head, rest)) = name.split_once('.') else {
        into.insert(name.to_owned(), value);
        return;
    };
    let slot = into
        .entry(head.to_owned())
        .or_insert_with(|| Value::Object(Map::new()));
    if !slot.is_object() {
        *slot = Value::Object(Map::new());
    }
    if let Value::Object(inner) = slot {
        nest(inner, rest, value);
    }
}

fn scalar(text: &str) -> Value {
    match text {
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    let dots = text.bytes().filter(|byte| *byte == b'.').count();
    let numeric = digits > 0 && digits + dots == text.len() && dots <= 1;
    if numeric && dots == 0 {
        // A number too long for an integer is an id that happens to have only digits.
        return text.parse::<i64>().map_or_else(|_| text.into(), Value::from);
    }
    if numeric {
        text.parse::<f64>().map_or_else(|_| text.into(), Value::from)
    } else {
        text.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn query_is_merged_over_the_body() {
        let request = parse(
            None,
            br#"{"a": 1, "b": 2}"#,
            Some("b=x&c.d=1.5&c.e=true&l[]=1&m=1&m=z"),
        )
        .unwrap();
        let expected = json!({"a": 1, "b": "x", "c": {"d": 1.5, "e": true}, "l": [1], "m": [1, "z"]});
        assert_eq!(Value::Object(request.data), expected);
    }

    #[test]
    fn form_bodies_follow_the_query_rules() {
        let request = parse(
            Some("application/x-www-form-urlencoded"),
            b"a.b=7&c=hello+you",
            None,
        )
        .unwrap();
        assert_eq!(
            Value::Object(request.data),
            json!({"a": {"b": 7}, "c": "hello you"})
        );
    }

    #[test]
    fn json_lines_allow_one_trailing_newline_only() {
        let lines =
            |body: &[u8]| parse(Some("application/json-lines"), body, None).map(|request| request.lines);
        assert_eq!(lines(b"{\"a\":1}\n{\"a\":2}\n").unwrap().unwrap().len(), 2);
        assert_eq!(lines(b"").unwrap().unwrap().len(), 0);
        for bad in [&b"{\"a\":1}\n\n{}"[..], b"{}\n\n", b"[1]\n", b"{bad\n"] {
            let fault = lines(bad).unwrap_err();
            assert_eq!((fault.code, fault.subcode), (400, 0));
        }
    }

    #[test]
    fn a_charset_suffix_makes_it_ordinary_json() {
        let request = parse(
            Some("application/json-lines; charset=utf-8"),
            b"{\"a\":1}\n",
            None,
        )
        .unwrap();
        assert!(request.lines.is_none());
        assert_eq!(request.data["a"], 1);
    }

    #[test]
    fn what_would_grow_is_refused_before_it_does() {
        let form = Some("application/x-www-form-urlencoded");
        let refusal = |kind, body: String| parse(kind, body.as_bytes(), None).unwrap_err().code;
        assert_eq!(refusal(form, "a.".repeat(1_000_000) + "a=1"), 400);
        assert_eq!(refusal(form, "a=1&".repeat(MOST_FIELDS + 1)), 413);
        assert_eq!(
            refusal(None, format!("{{\"id\":[{}1]}}", "1,".repeat(MOST_VALUES))),
            413
        );
        let lines = "{}\n".repeat(MOST_VALUES + 1);
        assert_eq!(refusal(Some("application/json-lines"), lines), 413);
        // Text counts as one value, whatever is in it.
        let text = format!("{{\"msg\":\"{}\\\"\"}}", "[,{".repeat(MOST_VALUES));
        assert_eq!(parse(None, text.as_bytes(), None).unwrap().data.len(), 1);
    }

    #[test]
    fn arrays_and_broken_bodies_are_refused() {
        assert_eq!(parse(None, b"[]", None).unwrap_err().subcode, 12);
        assert_eq!(parse(None, b"{bad", None).unwrap_err().subcode, 0);
        assert!(parse(None, b"  ", None).unwrap().data.is_empty());
    }
}
