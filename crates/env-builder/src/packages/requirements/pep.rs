//! Names, versions and markers as PEP 503, 440 and 508 have them.

use std::str::FromStr;

use pep440_rs::{Version, VersionSpecifiers};
use pep508_rs::{
    ExtraName, MarkerEnvironment, MarkerEnvironmentBuilder, MarkerTree, PackageName, VerbatimUrl,
};

use crate::python::probe::Interpreter;

/// Limits beyond which a marker is left to the installer: evaluating one costs stack for each parenthesis
/// and, in the worst case, memory that doubles with each `and` and `or`.
const MAX_MARKER: usize = 2048;
const MAX_PARENTHESES: usize = 32;
const MAX_OPERATORS: usize = 24;

/// A package name as PEP 503 compares it.
#[must_use]
pub fn normal_name(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            '-' | '_' | '.' if out.ends_with('-') => {}
            '-' | '_' | '.' => out.push('-'),
            c => out.push(c.to_ascii_lowercase()),
        }
    }
    out
}

/// Whether a text can be the name of a package.
#[must_use]
pub fn is_name(text: &str) -> bool {
    !text.is_empty() && text.is_ascii() && PackageName::from_str(text).is_ok()
}

/// Whether a text can be the name of an extra.
#[must_use]
pub fn is_extra(text: &str) -> bool {
    !text.is_empty() && text.is_ascii() && ExtraName::from_str(text).is_ok()
}

/// The conditions of a requirement, as `>=1,<2`.
///
/// # Errors
///
/// Why they are none.
pub fn specifiers(text: &str) -> Result<VersionSpecifiers, String> {
    VersionSpecifiers::from_str(text).map_err(|error| one_line(&error.to_string()))
}

/// Whether two texts are the same version: `1.0` and `1.0.0` are.
#[must_use]
pub fn same_version(a: &str, b: &str) -> bool {
    match (Version::from_str(a), Version::from_str(b)) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    }
}

/// What markers are compared with: the interpreter, and this machine.
#[derive(Debug, Clone)]
pub struct Surroundings(Option<MarkerEnvironment>);

impl Surroundings {
    /// Those of an interpreter on this machine.
    #[must_use]
    pub fn new(interpreter: &Interpreter) -> Self {
        let machine = rustix::system::uname();
        let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
        let full = interpreter.full_version();
        let implementation = match interpreter.implementation.as_str() {
            "cpython" => "CPython",
            "pypy" => "PyPy",
            other => other,
        };
        let built = MarkerEnvironment::try_from(MarkerEnvironmentBuilder {
            implementation_name: &interpreter.implementation,
            implementation_version: &full,
            os_name: "posix",
            platform_machine: &text(machine.machine()),
            platform_python_implementation: implementation,
            platform_release: &text(machine.release()),
            platform_system: "Linux",
            platform_version: &text(machine.version()),
            python_full_version: &full,
            python_version: &interpreter.series(),
            sys_platform: "linux",
        });
        Self(built.ok())
    }

    /// Whether a marker holds. `None` for what is no marker, or too large to be evaluated: the installer
    /// decides then.
    #[must_use]
    pub fn satisfy(&self, marker: &str) -> Option<bool> {
        let environment = self.0.as_ref()?;
        Some(marker_tree(marker).ok()?.evaluate(environment, &[]))
    }
}

/// Reads a marker.
///
/// # Errors
///
/// Why it is none, or that it is too large.
pub fn marker_tree(marker: &str) -> Result<MarkerTree, String> {
    let parentheses = marker.chars().filter(|c| *c == '(').count();
    let operators = marker
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| matches!(*word, "and" | "or"))
        .count();
    if marker.len() > MAX_MARKER || parentheses > MAX_PARENTHESES || operators > MAX_OPERATORS {
        return Err("the marker is too large".to_owned());
    }
    MarkerTree::parse_str::<VerbatimUrl>(marker).map_err(|error| one_line(&error.to_string()))
}

/// The first line of a message; what follows points into the text, which is shown anyway.
fn one_line(message: &str) -> String {
    message.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn interpreter(version: [u32; 3]) -> Interpreter {
        Interpreter {
            found_at: "/usr/bin/python3".into(),
            executable: "/usr/bin/python3".into(),
            implementation: "cpython".into(),
            cache_tag: format!("cpython-{}{}", version[0], version[1]),
            version,
            stdlib: Vec::new(),
            site_packages: "lib/python/site-packages".into(),
            base_sites: Vec::new(),
            pip_wheel: None,
        }
    }

    #[test]
    fn names() {
        assert_eq!(normal_name("Foo.._Bar-baz"), "foo-bar-baz");
        assert!(same_version("1.0", "1.0.0") && same_version("1.0RC1", "1.0rc1"));
        assert!(!same_version("1.0", "1.0+cu118") && !same_version("x", "x"));
        for (name, expected) in [
            ("six", true),
            ("zope.interface", true),
            ("a", true),
            ("_x", false),
            ("x-", false),
            ("é", false),
            ("", false),
        ] {
            assert_eq!(is_name(name), expected, "{name:?}");
        }
    }

    #[test]
    fn markers() {
        let here = Surroundings::new(&interpreter([3, 10, 4]));
        for (marker, expected) in [
            ("python_version >= '3.9'", Some(true)),
            // As versions, not as texts.
            ("python_version < '3.9'", Some(false)),
            ("python_full_version >= '3.10.5'", Some(false)),
            ("sys_platform == 'linux' and os_name == 'posix'", Some(true)),
            (
                "platform_system == 'Windows' or implementation_name == 'pypy'",
                Some(false),
            ),
            ("'linux' in sys_platform", Some(true)),
            ("extra == 'test'", Some(false)),
            ("nonsense", None),
            ("", None),
        ] {
            assert_eq!(here.satisfy(marker), expected, "{marker}");
        }
        let deep = format!("{}os_name=='posix'{}", "(".repeat(100_000), ")".repeat(100_000));
        assert_eq!(here.satisfy(&deep), None);
        let wide = (0..90).map(|n| format!("extra=='{n}'")).collect::<Vec<_>>();
        assert_eq!(here.satisfy(&wide.join(" and ")), None);
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd(text in prop_oneof![
            "\\PC{0,60}",
            "(\\(|\\)| |and|or|not|in|<|>|=|!|~|'|\"|python_version|extra|os_name|3\\.9|x){0,24}",
        ]) {
            let here = Surroundings::new(&interpreter([3, 10, 4]));
            let _ = (here.satisfy(&text), is_name(&text), is_extra(&text), specifiers(&text));
            prop_assert_eq!(normal_name(&normal_name(&text)), normal_name(&text));
        }
    }
}
