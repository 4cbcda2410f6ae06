//! Scroll ids: where a reader left off, packed into opaque text. The server keeps nothing, so a scroll never expires
//! and survives a restart.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::api::ApiFault;

/// Packs a position.
pub(crate) fn pack<T: Serialize>(position: &T) -> Result<String, ApiFault> {
    Ok(URL_SAFE_NO_PAD.encode(serde_json::to_vec(position)?))
}

/// Unpacks a position.
///
/// # Errors
/// 400/1104 when the text was not made by [`pack`] for the same kind of position.
pub(crate) fn unpack<T: DeserializeOwned>(text: &str) -> Result<T, ApiFault> {
    URL_SAFE_NO_PAD
        .decode(text)
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .ok_or_else(|| ApiFault::new(400, 1104, format!("Invalid scroll id: scroll_id={text}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_survives_and_anything_else_is_refused() {
        let text = pack(&(1i64, "a/b")).unwrap();
        assert_eq!(unpack::<(i64, String)>(&text).unwrap(), (1, "a/b".to_owned()));
        for bad in ["", "%%%", "AAAA", &text[1..]] {
            assert_eq!(unpack::<(i64, String)>(bad).unwrap_err().subcode, 1104, "{bad}");
        }
    }
}
