//! What happens to the command line before clap reads it, because clap does not do it. Pure: files are read
//! through an argument.
//!
//! * `@file` is replaced by the lines of the file.
//! * Any unique beginning of a long option stands for the option; one that is not unique is an error.
//! * `--gpus 0, 1` is one list.
//!
//! Everything else is left as it is; clap judges it.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;

use clap::{Arg, Command};

/// The most that a file of arguments may have.
pub(crate) const MAX_FILE_BYTES: u64 = 1 << 20;
/// How deep files of arguments may name others.
const MAX_DEPTH: usize = 8;
/// The most arguments that files may give.
const MAX_ARGUMENTS: usize = 10_000;

/// The arguments, ready for clap.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Prepared {
    /// Without the name of the program.
    pub(crate) arguments: Vec<OsString>,
    /// The command among them, if it is one.
    pub(crate) command: Option<String>,
}

/// The command line can't be understood.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct UsageError {
    /// The command that it is about, if it is known.
    pub(crate) command: Option<String>,
    pub(crate) message: String,
}

/// Prepares the arguments after the name of the program. `top` must have been built; `read` gives the content of
/// a file, an error if it is larger than [`MAX_FILE_BYTES`].
pub(crate) fn prepare(
    arguments: impl IntoIterator<Item = OsString>,
    top: &Command,
    read: &dyn Fn(&Path) -> io::Result<Vec<u8>>,
) -> Result<Prepared, UsageError> {
    let mut expanded = Vec::new();
    for argument in arguments {
        expand(argument, 0, &mut expanded, read)?;
    }
    let mut level = top;
    let mut command = None;
    let mut prepared = Vec::with_capacity(expanded.len());
    let mut rest = expanded.into_iter().peekable();
    while let Some(token) = rest.next() {
        if token == OsStr::new("--") {
            prepared.push(token);
            prepared.extend(rest);
            break;
        }
        let Some(text) = token.to_str().and_then(|text| text.strip_prefix("--")) else {
            if command.is_none() && !is_option(&token) {
                // What is no command is clap's to refuse.
                command = token.to_str().map(str::to_owned);
                level = command
                    .as_deref()
                    .and_then(|name| top.find_subcommand(name))
                    .unwrap_or(level);
            }
            prepared.push(token);
            continue;
        };
        let (typed, inline) = match text.split_once('=') {
            Some((typed, value)) => (typed, Some(value.to_owned())),
            None => (text, None),
        };
        let Some((name, option)) = resolve(typed, level).map_err(|message| UsageError {
            command: command.clone(),
            message,
        })?
        else {
            prepared.push(token);
            continue;
        };
        let is_list = name == "gpus";
        let takes_value = option.get_action().takes_values();
        let mut value = inline.clone().map(OsString::from);
        if takes_value && value.is_none() && (is_list || command.is_none()) {
            value = rest.next_if(|next| !is_option(next));
        }
        if let (true, Some(list)) = (is_list, &mut value) {
            while ends_with_comma(list) {
                let Some(more) = rest.next_if(|next| !is_option(next)) else {
                    break;
                };
                list.push(more);
            }
        }
        match (value, inline) {
            (Some(value), Some(_)) => {
                let mut token = OsString::from(format!("--{name}="));
                token.push(value);
                prepared.push(token);
            }
            (value, _) => {
                prepared.push(format!("--{name}").into());
                prepared.extend(value);
            }
        }
    }
    let command = command.filter(|name| top.find_subcommand(name).is_some());
    Ok(Prepared {
        arguments: prepared,
        command,
    })
}

/// Puts a token, or what its file has, at the end of the list.
fn expand(
    token: OsString,
    depth: usize,
    expanded: &mut Vec<OsString>,
    read: &dyn Fn(&Path) -> io::Result<Vec<u8>>,
) -> Result<(), UsageError> {
    let fail = |message| UsageError {
        command: None,
        message,
    };
    let Some(path) = token
        .to_str()
        .and_then(|text| text.strip_prefix('@'))
        .filter(|path| !path.is_empty())
    else {
        if depth > 0 && expanded.len() >= MAX_ARGUMENTS {
            return Err(fail(format!(
                "files of arguments give more than {MAX_ARGUMENTS} arguments"
            )));
        }
        expanded.push(token);
        return Ok(());
    };
    if depth == MAX_DEPTH {
        return Err(fail(format!(
            "@{path}: files of arguments name each other more than {MAX_DEPTH} deep"
        )));
    }
    let cannot = |reason: String| fail(format!("can't read the arguments of @{path}: {reason}"));
    let bytes = read(Path::new(path)).map_err(|e| cannot(e.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|_| cannot("it is no UTF-8 text".to_owned()))?;
    for line in text.lines() {
        expand(line.into(), depth + 1, expanded, read)?;
    }
    Ok(())
}

/// The option that is meant; `None` if there is none of that beginning.
fn resolve<'c>(typed: &str, level: &'c Command) -> Result<Option<(&'c str, &'c Arg)>, String> {
    let options = || {
        level
            .get_arguments()
            .filter_map(|option| Some((option.get_long()?, option)))
    };
    if let Some(exact) = options().find(|(name, _)| *name == typed) {
        return Ok(Some(exact));
    }
    let matching: Vec<_> = options()
        .filter(|(name, option)| name.starts_with(typed) && !option.is_hide_set())
        .collect();
    match matching[..] {
        _ if typed.is_empty() => Ok(None),
        [] => Ok(None),
        [one] => Ok(Some(one)),
        _ => {
            let names: Vec<String> = matching.iter().map(|(name, _)| format!("--{name}")).collect();
            Err(format!(
                "ambiguous option: --{typed} could match {}",
                names.join(", ")
            ))
        }
    }
}

/// Whether a token is no value. A lone dash is one.
fn is_option(token: &OsStr) -> bool {
    let bytes = token.as_encoded_bytes();
    bytes.len() > 1 && bytes[0] == b'-'
}

fn ends_with_comma(list: &OsStr) -> bool {
    list.as_encoded_bytes().trim_ascii_end().ends_with(b",")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::arguments;

    fn prepare_with(words: &[&str], files: &[(&str, &str)]) -> Result<Vec<String>, UsageError> {
        let files: BTreeMap<&str, &str> = files.iter().copied().collect();
        let read = |path: &Path| {
            let content = path.to_str().and_then(|path| files.get(path));
            let content = content.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
            Ok(content.as_bytes().to_vec())
        };
        let mut top = arguments::command();
        top.build();
        let prepared = prepare(words.iter().map(OsString::from), &top, &read)?;
        Ok(prepared
            .arguments
            .into_iter()
            .map(|word| word.into_string().unwrap())
            .collect())
    }

    #[track_caller]
    fn gives(words: &str, expected: &str) {
        let words: Vec<&str> = words.split(' ').collect();
        let got = prepare_with(&words, &[]).unwrap();
        assert_eq!(got, expected.split('|').collect::<Vec<_>>(), "{words:?}");
    }

    #[test]
    fn unique_beginnings_of_options_stand_for_them() {
        gives("daemon --gpu 0", "daemon|--gpus|0");
        gives("daemon --det", "daemon|--detached");
        gives("daemon --hel", "daemon|--help");
        gives("--he", "--help");
        gives("--conf x daemon --que a b", "--config-file|x|daemon|--queue|a|b");
        gives("--config-file daemon list", "--config-file|daemon|list");
        gives("--deb daemon --fore", "--debug|daemon|--foreground");
        gives(
            "daemon --queue=a --poll=7",
            "daemon|--queue=a|--polling-interval=7",
        );
        // Of the level at which they stand, and exact names first.
        gives("daemon --debug", "daemon|--debug");
        gives("daemon --stop", "daemon|--stop");
        gives("daemon -d --no-such x", "daemon|-d|--no-such|x");
        gives("daemon -- --gpu 0", "daemon|--|--gpu|0");
    }

    #[test]
    fn what_could_be_several_options_is_refused_with_their_names() {
        for (words, message) in [
            (
                "daemon --do",
                "ambiguous option: --do could match --docker, --downtime",
            ),
            (
                "daemon --st=1",
                "ambiguous option: --st could match --standalone-mode, --stop, --status",
            ),
        ] {
            let words: Vec<&str> = words.split(' ').collect();
            let error = prepare_with(&words, &[]).unwrap_err();
            assert_eq!(error.message, message);
            assert_eq!(error.command.as_deref(), Some("daemon"));
        }
    }

    #[test]
    fn a_list_of_gpus_may_have_blanks_after_its_commas() {
        gives("daemon --gpus 0, 1", "daemon|--gpus|0,1");
        gives("daemon --gpus 0, 1, 2 --queue a", "daemon|--gpus|0,1,2|--queue|a");
        gives("daemon --gpus=0, 1", "daemon|--gpus=0,1");
        gives("daemon --gpus 0, --queue a", "daemon|--gpus|0,|--queue|a");
        // Without a comma it is a stray word.
        gives("daemon --gpus 0 1", "daemon|--gpus|0|1");
        gives("daemon --queue a, b", "daemon|--queue|a,|b");
    }

    #[test]
    fn files_give_one_argument_a_line_anywhere() {
        let files = [
            ("f", "--queue\nwith blank\n@g\n"),
            ("g", "b"),
            ("c", "daemon"),
            ("crlf", "--gpus\r\n0\r\n"),
        ];
        let got = prepare_with(&["@c", "@f", "--gpu", "@g", "@crlf", "@"], &files).unwrap();
        assert_eq!(
            got,
            [
                "daemon",
                "--queue",
                "with blank",
                "b",
                "--gpus",
                "b",
                "--gpus",
                "0",
                "@"
            ]
        );
        // Values behind an equals sign are values.
        assert_eq!(
            prepare_with(&["daemon", "--queue=@g"], &files).unwrap(),
            ["daemon", "--queue=@g"]
        );
    }

    #[test]
    fn files_that_are_missing_endless_or_huge_are_refused_by_name() {
        let many = "x\n".repeat(MAX_ARGUMENTS + 1);
        let files = [("loop", "@loop"), ("many", many.as_str())];
        for (word, wanted) in [("@none", "@none"), ("@loop", "8 deep"), ("@many", "10000")] {
            let error = prepare_with(&["daemon", word], &files).unwrap_err();
            assert!(error.message.contains(wanted), "{}", error.message);
        }
    }

    /// A few, unless the environment wants another number.
    fn campaign() -> ProptestConfig {
        let mut config = ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::default()
        };
        if std::env::var_os("PROPTEST_CASES").is_none() {
            config.cases = 100;
        }
        config
    }

    proptest! {
        #![proptest_config(campaign())]

        /// Nothing panics, nothing is lost but what was replaced, and what is prepared stays as it is.
        #[test]
        fn any_words_are_prepared_once_and_for_all(
            words in proptest::collection::vec(
                prop_oneof![
                    "(daemon|execute|list|--[a-z]{0,6}(=[a-z0-9,]{0,3})?|-[a-zO]{0,2}|[a-z0-9,= ]{0,5})",
                    any::<String>().prop_filter("files are another test", |word| !word.starts_with('@')),
                ],
                0..8,
            )
        ) {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            if let Ok(once) = prepare_with(&words, &[]) {
                prop_assert!(once.len() <= words.len());
                let again: Vec<&str> = once.iter().map(String::as_str).collect();
                prop_assert_eq!(&prepare_with(&again, &[]).unwrap(), &once);
                let total = |words: &[String]| words.iter().map(String::len).sum::<usize>();
                prop_assert!(total(&once) >= words.iter().map(|word| word.len()).sum::<usize>());
            }
        }
    }
}
