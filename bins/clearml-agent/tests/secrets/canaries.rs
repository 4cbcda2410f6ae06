//! The secrets, by the place in which they stand.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use base64::Engine;
use clearml_support::id::hex32;

/// Grows on demand. Clones share the secrets.
#[derive(Clone, Default)]
pub(crate) struct Canaries(Arc<Mutex<BTreeMap<String, Forms>>>);

/// A secret, and how it looks inside a Basic login.
struct Forms {
    plain: String,
    encoded: [String; 3],
}

impl Canaries {
    /// The secret of a place.
    pub(crate) fn get(&self, place: &str) -> String {
        let mut places = self.0.lock().unwrap();
        let made = || Forms::new(&format!("CaNaRy{}", hex32()));
        places.entry(place.to_owned()).or_insert_with(made).plain.clone()
    }

    /// A secret that someone else has made.
    pub(crate) fn add(&self, place: &str, secret: &str) {
        self.0
            .lock()
            .unwrap()
            .insert(place.to_owned(), Forms::new(secret));
    }

    /// The places whose secrets occur, plainly or as part of a Basic login.
    pub(crate) fn found(&self, bytes: &[u8]) -> Vec<String> {
        let text = String::from_utf8_lossy(bytes);
        let places = self.0.lock().unwrap();
        let occurs = |form: &String| text.contains(form.as_str());
        let found = places
            .iter()
            .filter(|(_, forms)| occurs(&forms.plain) || forms.encoded.iter().any(occurs));
        found.map(|(place, _)| place.clone()).collect()
    }

    /// Fails when a secret occurs.
    #[track_caller]
    pub(crate) fn check(&self, what: &str, bytes: &[u8]) {
        let found = self.found(bytes);
        let text = String::from_utf8_lossy(bytes);
        let lines: Vec<&str> = text
            .lines()
            .filter(|line| !self.found(line.as_bytes()).is_empty())
            .collect();
        assert!(
            found.is_empty(),
            "{what} tells the secrets of {found:?}: {lines:#?}"
        );
    }
}

impl Forms {
    fn new(secret: &str) -> Self {
        // The middle in base64, for each of the three ways in which it may be aligned.
        let encoded = [0, 1, 2].map(|skipped| {
            let aligned = &secret.as_bytes()[skipped..];
            let whole = aligned.len() - aligned.len() % 3;
            base64::engine::general_purpose::STANDARD.encode(&aligned[..whole])
        });
        Self {
            plain: secret.to_owned(),
            encoded,
        }
    }
}
