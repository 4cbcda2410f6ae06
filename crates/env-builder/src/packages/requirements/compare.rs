//! The old comparison of versions that a few rules are written for: components only, and fewer of them than
//! there may be. The installers never see it, and new rules use PEP 440.

use std::str::FromStr;

use pep440_rs::Version;

/// Compares `a` with `b` by their first `parts` components, without filling up with zeros: `1.0.0` is not
/// `1.0`. Pre-releases and the like do not count. Everything holds for an empty `b`.
///
/// ```
/// use clearml_env_builder::packages::requirements::compare::compare;
/// assert!(compare("22.2.2", ">=", "20.3", 3));
/// assert!(!compare("1.0.0", "==", "1.0", 3));
/// ```
#[must_use]
pub fn compare(a: &str, operator: &str, b: &str, parts: usize) -> bool {
    let (a, b) = (a.trim(), b.trim());
    if b.is_empty() {
        return true;
    }
    let operator = if operator == "===" { "==" } else { operator };
    if a.contains('*') || b.contains('*') {
        let (a, b) = (until_star(a), until_star(b));
        let common = a.len().min(b.len());
        return holds(&a[..common], operator, &b[..common]);
    }
    let (left, right) = match (Version::from_str(a), Version::from_str(b)) {
        (Ok(a), Ok(b)) => (components(&a), components(&b)),
        // What is no version is compared as text, piece by piece.
        _ => return as_text(a, operator, b, parts),
    };
    if operator == "~=" {
        let count = right.len().saturating_sub(1).max(2);
        return first(&left, count) == first(&right, count);
    }
    holds(first(&left, parts), operator, first(&right, parts))
}

/// Whether a version lies in a list of conditions as in `>=20.3,<24.3`. A condition that is none never
/// holds.
#[must_use]
pub fn within(version: &str, conditions: &str) -> bool {
    conditions.split(',').all(|condition| {
        let condition = condition.trim();
        let at = condition
            .find(|c: char| !"<>=!~".contains(c))
            .unwrap_or(condition.len());
        let (operator, wanted) = condition.split_at(at);
        let is_version = Version::from_str(version).is_ok() && Version::from_str(wanted.trim()).is_ok();
        is_version && compare(version, operator, wanted, 3)
    })
}

fn components(version: &Version) -> Vec<u64> {
    version.release().to_vec()
}

fn first<T>(list: &[T], count: usize) -> &[T] {
    &list[..list.len().min(count)]
}

fn until_star(text: &str) -> Vec<u64> {
    text.split('.').map_while(|part| part.parse().ok()).collect()
}

fn as_text(a: &str, operator: &str, b: &str, parts: usize) -> bool {
    let split = |text: &str| -> Vec<String> {
        let mut list: Vec<String> = text.split('.').map(str::to_owned).take(parts).collect();
        list.resize(parts, "0".to_owned());
        list
    };
    holds(&split(a), operator, &split(b))
}

fn holds<T: Ord>(a: &[T], operator: &str, b: &[T]) -> bool {
    match operator {
        "==" | "~=" => a == b,
        "!=" => a != b,
        ">=" => a >= b,
        "<=" => a <= b,
        ">" => a > b,
        "<" => a < b,
        _ => false,
    }
}

/// The lower and the upper end of a list of conditions, each with whether it belongs to it.
#[derive(Debug, Default)]
struct Interval {
    lower: Option<(Vec<u64>, bool)>,
    upper: Option<(Vec<u64>, bool)>,
}

impl Interval {
    fn new(conditions: &str) -> Self {
        let mut interval = Self::default();
        for condition in conditions.split(',').map(str::trim) {
            let at = condition
                .find(|c: char| !"<>=!~".contains(c))
                .unwrap_or(condition.len());
            let (operator, text) = condition.split_at(at);
            let star = text.trim().ends_with(".*");
            let Ok(version) = Version::from_str(text.trim().trim_end_matches(".*")) else {
                continue;
            };
            let release = trimmed(&components(&version));
            match operator {
                ">=" => interval.raise(release, true),
                ">" => interval.raise(release, false),
                "<=" => interval.lower(release, true),
                "<" => interval.lower(release, false),
                "==" | "===" if star => {
                    let next = next(&components(&version));
                    interval.raise(release, true);
                    interval.lower(next, false);
                }
                "==" | "===" => {
                    interval.raise(release.clone(), true);
                    interval.lower(release, true);
                }
                "~=" => {
                    let all = components(&version);
                    let series = &all[..all.len().saturating_sub(1).max(1)];
                    interval.raise(release, true);
                    interval.lower(next(series), false);
                }
                // `!=` takes out a point, which never makes a difference here.
                _ => {}
            }
        }
        interval
    }

    fn raise(&mut self, to: Vec<u64>, included: bool) {
        let higher =
            |(old, old_included): &(Vec<u64>, bool)| *old < to || (*old == to && *old_included && !included);
        if self.lower.as_ref().is_none_or(higher) {
            self.lower = Some((to, included));
        }
    }

    fn lower(&mut self, to: Vec<u64>, included: bool) {
        let lower =
            |(old, old_included): &(Vec<u64>, bool)| *old > to || (*old == to && *old_included && !included);
        if self.upper.as_ref().is_none_or(lower) {
            self.upper = Some((to, included));
        }
    }
}

/// Without the zeros at the end, so that `1.0` is `1`.
fn trimmed(release: &[u64]) -> Vec<u64> {
    let end = release.iter().rposition(|part| *part != 0).map_or(0, |at| at + 1);
    release[..end].to_vec()
}

/// The first version behind a series.
fn next(series: &[u64]) -> Vec<u64> {
    let mut next = series.to_vec();
    if let Some(last) = next.last_mut() {
        *last = last.saturating_add(1);
    }
    trimmed(&next)
}

/// Whether some version may satisfy both lists of conditions.
#[must_use]
pub fn intersects(a: &str, b: &str) -> bool {
    let (a, b) = (Interval::new(a), Interval::new(b));
    let ends = [a.lower, b.lower].into_iter().flatten();
    let starts: Vec<_> = ends.collect();
    let ends: Vec<_> = [a.upper, b.upper].into_iter().flatten().collect();
    starts.iter().all(|(lower, lower_included)| {
        ends.iter().all(|(upper, upper_included)| {
            lower < upper || (lower == upper && *lower_included && *upper_included)
        })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn comparisons() {
        for (a, operator, b, expected) in [
            ("22.2.2", ">=", "20.3", true),
            ("1.10", "<", "1.9", false),
            ("2.2.0", "~=", "2.1.0", false),
            ("2.1.7", "~=", "2.1.0", true),
            ("1.13.0a0+x", "==", "1.13.0", true),
            ("1.0.0", "==", "1.0", false),
            ("1.2.3.4", "==", "1.2.3.9", true),
            ("1.2.3", "==", "1.2.*", true),
            ("1.3", "==", "1.2.*", false),
            ("1.2", "===", "1.2", true),
            ("1.2", "!=", "1.3", true),
            ("1", "<", "", true),
            ("abc", "==", "abc", true),
            ("abc", "<", "abd", true),
            ("1", "=", "1", false),
        ] {
            assert_eq!(compare(a, operator, b, 3), expected, "{a} {operator} {b}");
        }
    }

    #[test]
    fn ranges() {
        let default = ">=20.3,<24.3";
        for (version, expected) in [
            ("22.2.2", true),
            ("20.3", true),
            ("24.3", false),
            ("24.3.1", false),
            ("19.3", false),
            ("x", false),
        ] {
            assert_eq!(within(version, default), expected, "{version}");
        }
        assert!(!within("22.0", "22"));
        assert!(!within("22.0", ""));
    }

    #[test]
    fn intersections() {
        for (a, b, expected) in [
            ("==2.6.1", "~=2.6", true),
            ("==1.10.0", ">=1.11.0", false),
            ("<1.11.0", ">=1.11.0", false),
            ("<=1.11", ">=1.11.0", true),
            (">1.11", "<=1.11.0", false),
            ("", ">=1.11.0", true),
            ("", "", true),
            ("!=1.11", "==1.11", true),
            ("==1.10.*", ">=1.11.0", false),
            ("==1.11.*", "<1.11.5", true),
            ("~=1.10.1", ">=1.11.0", false),
            ("~=1.10", ">=1.11.0", true),
        ] {
            assert_eq!(intersects(a, b), expected, "{a:?} {b:?}");
            assert_eq!(intersects(b, a), expected, "{b:?} {a:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd(a in "[0-9.*a-z+~<>=!, ]{0,16}", b in "[0-9.*a-z+~<>=!, ]{0,16}", operator in "[<>=!~]{0,3}") {
            let _ = (compare(&a, &operator, &b, 3), within(&a, &b));
            prop_assert_eq!(intersects(&a, &b), intersects(&b, &a));
        }
    }
}
