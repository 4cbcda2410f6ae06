//! Options of `docker run`, as people write them, into fields of the Engine API.
//!
//! The rules are those of the `docker` program: `--name value`, `--name=value`, `-n value`, `-nvalue`,
//! several switches in one word (`-it`), `--` as the end. Every option of that program stands in [`flags`]
//! with what becomes of it, so none can be dropped in silence.

mod devices;
mod draft;
mod fields;
mod mounts;
mod ports;
mod table;
mod values;
mod variables;

use thiserror::Error;

pub use draft::{PullPolicy, RunSpec};
pub use fields::restart_policy;
pub use table::{Flag, Outcome, flags};

pub(crate) use devices::cdi_device;
use draft::Draft;
use table::Effect;

/// The longest list of options that is looked at; task fields come from other people.
pub const MAX_WORDS: usize = 4096;

/// An option that can't be followed.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum FlagError {
    /// Not an option of `docker run`.
    #[error("container argument {word:?} is not an option of docker run{hint}")]
    Unknown {
        /// As it was given.
        word: String,
        /// Which option may have been meant; begins with a separator, or is empty.
        hint: String,
    },
    /// Known, but there is no way to follow it here.
    #[error("container argument --{flag} can't be used: {reason}")]
    Refused {
        /// Its long name.
        flag: &'static str,
        /// Why, and what to do instead.
        reason: &'static str,
    },
    /// Its value can't be read.
    #[error("container argument --{flag} has the value {value:?}: {reason}")]
    Value {
        /// Its long name.
        flag: &'static str,
        /// As it was given.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There is nothing after it.
    #[error("container argument --{flag} needs a value")]
    Missing {
        /// Its long name.
        flag: &'static str,
    },
    /// A word that belongs to no option: docker would take it for the image.
    #[error("container argument {word:?} belongs to no option; options begin with a dash")]
    Stray {
        /// As it was given.
        word: String,
    },
    /// More than [`MAX_WORDS`].
    #[error("there are {count} container arguments; at most {MAX_WORDS} are looked at")]
    TooMany {
        /// How many.
        count: usize,
    },
    /// Options that contradict each other.
    #[error("container arguments: {0}")]
    Conflict(String),
}

/// Reads options of `docker run` into a request for a container.
///
/// `words` are single arguments, not lines of a shell. `environment` answers for variables that are named
/// without a value (`-e NAME`).
///
/// # Errors
///
/// [`FlagError`] for the first option that can't be followed.
pub fn parse(words: &[String], environment: &dyn Fn(&str) -> Option<String>) -> Result<RunSpec, FlagError> {
    if words.len() > MAX_WORDS {
        return Err(FlagError::TooMany { count: words.len() });
    }
    let mut draft = Draft::new(environment);
    let mut rest = words.iter().map(String::as_str);
    while let Some(word) = rest.next() {
        if let Some(long) = word.strip_prefix("--").filter(|long| !long.is_empty()) {
            let (name, value) = match long.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (long, None),
            };
            let flag = table::by_name(name).ok_or_else(|| unknown(word, name))?;
            take(&mut draft, flag, value, &mut rest)?;
        } else if let Some(letters) = word
            .strip_prefix('-')
            .filter(|letters| !letters.is_empty() && word != "--")
        {
            short(&mut draft, word, letters, &mut rest)?;
        } else {
            return Err(FlagError::Stray {
                word: word.to_owned(),
            });
        }
    }
    draft.finish()
}

/// One word of single letters: switches, the last of which may take a value.
fn short<'w>(
    draft: &mut Draft<'_>,
    word: &str,
    mut letters: &'w str,
    rest: &mut impl Iterator<Item = &'w str>,
) -> Result<(), FlagError> {
    while let Some(letter) = letters.chars().next() {
        letters = &letters[letter.len_utf8()..];
        let flag = table::by_letter(letter).ok_or_else(|| unknown(word, ""))?;
        if let Some(value) = letters.strip_prefix('=') {
            return take(draft, flag, Some(value), rest);
        }
        if flag.switch {
            take(draft, flag, None, rest)?;
        } else if letters.is_empty() {
            return take(draft, flag, None, rest);
        } else {
            return take(draft, flag, Some(letters), rest);
        }
    }
    Ok(())
}

fn take<'w>(
    draft: &mut Draft<'_>,
    flag: &'static Flag,
    value: Option<&'w str>,
    rest: &mut impl Iterator<Item = &'w str>,
) -> Result<(), FlagError> {
    let value = match value {
        Some(value) => value,
        None if flag.switch => "true",
        None => rest.next().ok_or(FlagError::Missing { flag: flag.long })?,
    };
    if value.contains('\0') {
        let reason = "a zero byte can't be passed on".to_owned();
        return Err(value_error(flag, value, reason));
    }
    match flag.effect {
        Effect::Set(set) => set(draft, value).map_err(|reason| value_error(flag, value, reason)),
        Effect::Pointless(reason) => {
            draft.notices.push(format!(
                "container argument --{} has no effect: {reason}",
                flag.long
            ));
            Ok(())
        }
        // Switched off is what it is already.
        Effect::Refused(_) if flag.switch && values::switch(value) == Ok(false) => Ok(()),
        Effect::Refused(reason) => Err(FlagError::Refused {
            flag: flag.long,
            reason,
        }),
    }
}

fn value_error(flag: &Flag, value: &str, reason: String) -> FlagError {
    FlagError::Value {
        flag: flag.long,
        // Values of variables are often secrets.
        value: if flag.long == "env" {
            value.split('=').next().unwrap_or_default().to_owned()
        } else {
            value.chars().take(200).collect()
        },
        reason,
    }
}

fn unknown(word: &str, name: &str) -> FlagError {
    let near = flags()
        .iter()
        .map(|flag| (strsim::damerau_levenshtein(flag.long, name), flag.long))
        .min()
        .filter(|(distance, _)| *distance <= 2 && name.len() > 3);
    FlagError::Unknown {
        word: word
            .split('=')
            .next()
            .unwrap_or_default()
            .chars()
            .take(200)
            .collect(),
        hint: near.map_or_else(String::new, |(_, near)| format!("; did you mean --{near}?")),
    }
}
