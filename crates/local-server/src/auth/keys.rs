//! Making and keeping access keys and secrets.

use clearml_support::secret::Secret;
use rand::Rng as _;
use sha2::{Digest, Sha256};

const CAPITALS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
const URL_SAFE: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// 30 capitals and digits.
pub(crate) fn access_key() -> String {
    random_text(CAPITALS, 30)
}

/// 64 URL-safe characters.
pub(crate) fn secret_key() -> Secret {
    Secret::new(random_text(URL_SAFE, 64))
}

/// What is stored instead of a secret. A plain hash is enough: the secrets are random and long, so that guessing
/// them from the hash is hopeless.
pub(crate) fn fingerprint(secret: &str) -> String {
    Sha256::digest(secret.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn random_text(alphabet: &[u8], length: usize) -> String {
    let mut random = rand::rng();
    (0..length)
        .map(|_| char::from(alphabet[random.random_range(0..alphabet.len())]))
        .collect()
}
