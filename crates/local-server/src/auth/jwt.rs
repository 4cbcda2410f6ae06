//! JSON web tokens with HS256, and nothing more of the standard than this server needs: it only ever reads tokens
//! that it wrote itself, so a foreign algorithm or header is simply a wrong signature.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::api::Identity;

/// The claims that clients read.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Claims {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) exp: Option<i64>,
    pub(crate) iat: i64,
    pub(crate) session_id: String,
    pub(crate) auth_type: String,
    pub(crate) env: String,
    pub(crate) identity: IdentityClaim,
    pub(crate) api_version: String,
    pub(crate) server_version: String,
    pub(crate) server_build: String,
    pub(crate) feature_set: String,
}

/// Who the token stands for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct IdentityClaim {
    pub(crate) user: String,
    pub(crate) company: String,
    pub(crate) role: String,
    pub(crate) user_name: String,
    pub(crate) company_name: String,
}

impl Claims {
    pub(crate) fn into_identity(self) -> Identity {
        let IdentityClaim {
            user,
            company,
            role,
            user_name,
            company_name,
        } = self.identity;
        Identity {
            user,
            user_name,
            company,
            company_name,
            role,
            session: Some(self.session_id),
            access_key: None,
        }
    }
}

/// Header `{"alg":"HS256","typ":"JWT"}`, claims, signature.
pub(crate) fn sign(claims: &Claims, secret: &[u8]) -> Result<String, serde_json::Error> {
    let header = URL_SAFE_NO_PAD.encode(br#"{"alg":"HS256","typ":"JWT"}"#);
    let body = URL_SAFE_NO_PAD.encode(serde_json::to_vec(claims)?);
    let signed = format!("{header}.{body}");
    let signature = URL_SAFE_NO_PAD.encode(mac(secret, signed.as_bytes()).finalize().into_bytes());
    Ok(format!("{signed}.{signature}"))
}

/// The claims, when the signature is ours.
pub(crate) fn verify(token: &str, secret: &[u8]) -> Option<Claims> {
    let (signed, signature) = token.rsplit_once('.')?;
    let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
    mac(secret, signed.as_bytes()).verify_slice(&signature).ok()?;
    let (_, body) = signed.split_once('.')?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(body).ok()?).ok()
}

fn mac(secret: &[u8], data: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
    mac.update(data);
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_own_signatures_pass() {
        let identity = IdentityClaim {
            user: "u".into(),
            company: "c".into(),
            role: "admin".into(),
            user_name: "n".into(),
            company_name: "m".into(),
        };
        let claims = Claims {
            exp: Some(10),
            iat: 1,
            session_id: "s".into(),
            auth_type: "Bearer".into(),
            env: "x".into(),
            identity,
            api_version: "2.34".into(),
            server_version: "2.3.0".into(),
            server_build: "1".into(),
            feature_set: "basic".into(),
        };
        let token = sign(&claims, b"secret").unwrap();
        assert_eq!(verify(&token, b"secret").unwrap().session_id, "s");
        assert!(verify(&token, b"other").is_none());
        assert!(verify("garbage", b"secret").is_none());
        let unsigned = format!(
            "{}.{}.",
            URL_SAFE_NO_PAD.encode(br#"{"alg":"none"}"#),
            token.split('.').nth(1).unwrap()
        );
        assert!(verify(&unsigned, b"secret").is_none());
    }
}
