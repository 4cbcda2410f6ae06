//! Object ids in the form the ClearML API uses.

/// A new random id: 32 lower-case hexadecimal digits.
#[must_use]
pub fn hex32() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}
