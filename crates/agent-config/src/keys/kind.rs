//! What values a key or a variable takes.

use std::fmt;

/// What values a key takes.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Kind {
    /// Any text; numbers and booleans are taken as their text.
    Text,
    /// A path; `~`, `$NAME` and `${NAME}` are expanded.
    Path,
    /// `true` or `false`; also `yes`, `no`, `on`, `off`, `t`, `f`, `y`, `n`, 1, 0.
    Flag,
    /// A whole number of at least this much.
    Integer(i64),
    /// A port number.
    Port,
    /// The first and the last of a range of port numbers.
    PortRange,
    /// A number of attempts above 0, or a word for yes or no.
    Attempts,
    /// Up to three numbers with dots between.
    Version,
    /// A number of at least this much.
    Number(f64),
    /// A list of texts; a single text is a list of one.
    List,
    /// A list of texts; a single text is divided as a shell would.
    Words,
    /// One of these words, in any case.
    Choice(&'static [&'static str]),
    /// `true`, `false`, or the path of a file with certificates.
    Verify,
    /// An object that gives each name a text.
    Map,
    /// A list of objects.
    Entries,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text => f.write_str("a text"),
            Self::Path => f.write_str("a path"),
            Self::Flag => f.write_str("true or false"),
            Self::Integer(i64::MIN) => f.write_str("a whole number"),
            Self::Integer(least) => write!(f, "a whole number of at least {least}"),
            Self::Port => f.write_str("a port number from 1 to 65535"),
            Self::PortRange => f.write_str("a list of two port numbers, the first not above the second"),
            Self::Attempts => f.write_str("a number of attempts, true or false"),
            Self::Version => f.write_str("a version such as 2.14"),
            Self::Number(least) if *least == f64::MIN => f.write_str("a number"),
            Self::Number(least) => write!(f, "a number of at least {least}"),
            Self::List => f.write_str("a list of texts"),
            Self::Words => f.write_str("a list of texts, or one text with blanks between"),
            Self::Choice(words) => write!(f, "one of {}", words.join(", ")),
            Self::Verify => f.write_str("true, false or the path of a certificate file"),
            Self::Map => f.write_str("an object of texts"),
            Self::Entries => f.write_str("a list of objects"),
        }
    }
}
