//! The reply envelope: `meta` and `data`, on success and on error alike.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use clearml_support::id::hex32;
use serde_json::{Value, json};

use super::path::Version;
use crate::api::ApiFault;

/// What `meta` says about the call.
pub(crate) struct Meta {
    pub(crate) endpoint: String,
    pub(crate) requested: Version,
    /// Minimum version of the implementation that answered; none when there is none.
    pub(crate) actual: Option<Version>,
    /// Transaction id given by the caller.
    pub(crate) trx: Option<String>,
}

/// Builds the HTTP reply. The HTTP status is the result code, and `data` is an object even on errors, because
/// clients unpack it before they look at the code.
pub(crate) fn reply(meta: &Meta, result: Result<Value, ApiFault>) -> Response {
    let id = hex32();
    let version_value = |version: Version| {
        let text = version.to_string();
        // Clients below 2.1 expect numbers.
        match text.parse::<f64>() {
            Ok(number) if meta.requested < Version::new(2, 1) => json!(number),
            _ => json!(text),
        }
    };
    let (code, subcode, msg, error_data, data) = match result {
        Ok(data) => (200, 0, "OK".to_owned(), json!({}), data),
        Err(fault) => (
            fault.code,
            fault.subcode,
            fault.msg,
            Value::Object(fault.data),
            json!({}),
        ),
    };
    let body = json!({
        "meta": {
            "id": id,
            "trx": meta.trx.as_deref().unwrap_or(&id),
            "endpoint": {
                "name": meta.endpoint,
                "requested_version": version_value(meta.requested),
                "actual_version": meta.actual.map(version_value),
            },
            "result_code": code,
            "result_subcode": subcode,
            "result_msg": msg,
            "error_stack": null,
            "error_data": error_data,
        },
        "data": data,
    });
    json_response(code, &body)
}

/// A downloaded text, which comes without an envelope. A handler asks for it by giving a text instead of an object.
pub(crate) fn text_file(text: String) -> Response {
    let mut response = Response::new(Body::from(text));
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"task.log\""),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::SERVER, "clearml"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// A JSON reply with a status.
pub(crate) fn json_response(code: u16, body: &Value) -> Response {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::SERVER, HeaderValue::from_static("clearml"));
    response
}
