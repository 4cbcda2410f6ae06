//! A document may not grow without limit when its substitutions are resolved.
//!
//! `a: ${b}${b}`, `b: ${c}${c}` and so on doubles with every line. The size after substitution is
//! estimated beforehand, from above, and a document beyond the limit is refused.

use std::collections::HashMap;

use hocon_rs::raw::field::ObjectField;
use hocon_rs::raw::raw_object::RawObject;
use hocon_rs::raw::raw_value::RawValue;

/// Largest accepted estimate, in bytes of text.
const MAX_BYTES: u64 = 8 << 20;
/// Most substitutions of one document that refer to the document itself.
const MAX_SUBSTITUTIONS: usize = 256;

/// One scalar, or one place where a substitution stands.
struct Entry {
    path: Vec<String>,
    bytes: u64,
    /// The paths that a substitution here may mean.
    target: Option<Vec<Vec<String>>>,
}

/// # Errors
///
/// A message when the document is too much.
pub(super) fn check(document: &RawObject) -> Result<(), String> {
    let mut entries = Vec::new();
    collect(document, &mut Vec::new(), &[], &mut entries);
    // Scalars of one key, such as the elements of a long list, count together.
    entries.dedup_by(|next, kept| {
        let same = next.target.is_none() && kept.target.is_none() && next.path == kept.path;
        kept.bytes += if same { next.bytes } else { 0 };
        same
    });
    let substitutions = entries.iter().filter(|entry| entry.target.is_some()).count();
    if substitutions > MAX_SUBSTITUTIONS {
        return Err(format!("there are more than {MAX_SUBSTITUTIONS} substitutions"));
    }
    if substitutions == 0 {
        return Ok(());
    }
    let mut estimate = Estimate {
        entries: &entries,
        known: HashMap::new(),
    };
    let mut total = 0_u64;
    for (index, entry) in entries.iter().enumerate() {
        let size = if entry.refers_to_itself() {
            estimate.of_path(&entry.path)
        } else {
            estimate.of_entry(index)
        };
        total = total.saturating_add(size);
    }
    if total > MAX_BYTES {
        return Err(format!(
            "the substitutions expand to more than {} MiB",
            MAX_BYTES >> 20
        ));
    }
    Ok(())
}

impl Entry {
    /// Whether this is a reference to an earlier value of the same key.
    fn refers_to_itself(&self) -> bool {
        self.target
            .iter()
            .flatten()
            .any(|target| related(target, &self.path))
    }
}

fn collect(object: &RawObject, path: &mut Vec<String>, scope: &[String], entries: &mut Vec<Entry>) {
    for field in object.iter() {
        match field {
            ObjectField::Inclusion { inclusion, .. } => {
                if let Some(content) = &inclusion.val {
                    let inner = path.clone();
                    collect(content, path, &inner, entries);
                }
            }
            ObjectField::KeyValue { key, value, .. } => {
                let length = path.len();
                path.extend(key.as_path().into_iter().map(str::to_owned));
                collect_value(value, path, scope, entries);
                path.truncate(length);
            }
            ObjectField::NewlineComment(_) => {}
        }
    }
}

fn collect_value(value: &RawValue, path: &mut Vec<String>, scope: &[String], entries: &mut Vec<Entry>) {
    let mut entry = |bytes: usize, target| {
        entries.push(Entry {
            path: path.clone(),
            bytes: bytes as u64,
            target,
        })
    };
    match value {
        RawValue::Object(object) => collect(object, path, scope, entries),
        RawValue::Array(array) => {
            entry(2, None);
            array
                .iter()
                .for_each(|item| collect_value(item, path, scope, entries));
        }
        RawValue::Concat(concat) => {
            entry(concat.get_spaces().iter().flatten().map(String::len).sum(), None);
            concat
                .get_values()
                .iter()
                .for_each(|item| collect_value(item, path, scope, entries));
        }
        RawValue::AddAssign(added) => collect_value(added, path, scope, entries),
        RawValue::Substitution(substitution) => {
            let plain: Vec<String> = substitution
                .path
                .as_path()
                .into_iter()
                .map(str::to_owned)
                .collect();
            let scoped = scope.iter().cloned().chain(plain.iter().cloned()).collect();
            entry(0, Some(vec![plain, scoped]));
        }
        RawValue::String(text) => entry(text.as_path().iter().map(|part| part.len()).sum(), None),
        RawValue::Boolean(_) | RawValue::Null | RawValue::Number(_) => entry(8, None),
    }
}

struct Estimate<'a> {
    entries: &'a [Entry],
    /// Size of everything at or around a path; zero while it is being worked out.
    known: HashMap<Vec<String>, u64>,
}

impl Estimate<'_> {
    fn of_entry(&mut self, index: usize) -> u64 {
        let entry = &self.entries[index];
        let Some(targets) = &entry.target else {
            return entry.bytes;
        };
        if entry.refers_to_itself() {
            // Accounted for by the doubling in `of_path`.
            return 0;
        }
        targets
            .iter()
            .fold(0_u64, |sum, target| sum.saturating_add(self.of_path(target)))
    }

    fn of_path(&mut self, path: &[String]) -> u64 {
        if let Some(size) = self.known.get(path) {
            return *size;
        }
        self.known.insert(path.to_vec(), 0);
        let mut size = 0_u64;
        let mut doublings = 0_u32;
        for index in 0..self.entries.len() {
            let entry = &self.entries[index];
            if !related(path, &entry.path) {
                continue;
            }
            doublings += u32::from(entry.refers_to_itself());
            size = size.saturating_add(self.of_entry(index));
        }
        // Each reference of a key to its own earlier value can at most double the value.
        let size = size.saturating_mul(1_u64.checked_shl(doublings).unwrap_or(u64::MAX));
        self.known.insert(path.to_vec(), size);
        size
    }
}

/// Whether one path lies inside the other.
fn related(a: &[String], b: &[String]) -> bool {
    a.iter().zip(b).all(|(a, b)| a == b)
}
