//! A template in pieces: text, and the places where something is inserted.

use crate::finding::Position;
use crate::grammar::{Part, Placeholder};

/// A piece of a template.
#[derive(Debug, Clone)]
pub(crate) enum Piece {
    Text(String),
    Part(Part, Position),
    Hole(Box<Hole>),
}

/// A place for a value.
#[derive(Debug, Clone)]
pub(crate) struct Hole {
    pub(crate) placeholder: Placeholder,
    pub(crate) position: Position,
    pub(crate) place: Place,
}

/// What surrounds a value, and so how it has to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// In a `#SBATCH` line.
    Directive(Directive),
    /// A word, or a part of one. `always`: whatever it says, it is quoted.
    Plain {
        always: bool,
        may_split: bool,
    },
    Double,
    Single,
    /// Here-document that the shell expands.
    Here(Delimiter),
    /// Here-document that it does not.
    QuotedHere(Delimiter),
    /// Whole numbers only.
    Number,
    /// Where no quoting helps: safe values only.
    SafeOnly,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quote {
    None,
    Double,
    Single,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Directive {
    pub(crate) quote: Quote,
    /// The argument is a pattern for a file name.
    pub(crate) pattern: bool,
    /// A word begins here.
    pub(crate) at_start: bool,
    /// It stands for whole options.
    pub(crate) options: bool,
}

/// The line that ends a here-document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Delimiter {
    pub(crate) text: String,
    pub(crate) strip_tabs: bool,
}

impl Delimiter {
    pub(crate) fn is(&self, line: &str) -> bool {
        let line = if self.strip_tabs {
            line.trim_start_matches('\t')
        } else {
            line
        };
        line == self.text
    }
}
