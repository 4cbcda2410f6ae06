//! Container arguments as words: what a task may say, what this machine adds, and how both become one list.
//!
//! Words are options of `docker run` as people write them. Nothing here knows what an option means; it is told
//! apart by its name, in whatever way it is spelled (`--net`, `--network`, `-p`, `--publish=…`). Pure.

mod variables;

use std::collections::BTreeSet;

use regex::Regex;

use crate::flags::flags;

pub use variables::expand_variables;

/// How the arguments of a task and of this machine are put together.
#[derive(Debug, Clone)]
pub struct Rules {
    /// If there are any, words of the task stay only where one of these matches at their beginning.
    pub filters: Vec<Regex>,
    /// Options that nobody may use, without dashes.
    pub forbidden: Vec<String>,
    /// Options that are not taken from the weaker side where the stronger one has them, without dashes.
    pub protected: Vec<String>,
    /// Whether the words of this machine come first and win.
    pub extra_first: bool,
    /// Whether variables of this machine are put into `-e NAME=$VARIABLE` of a task.
    pub host_environment_for_tasks: bool,
}

/// Words for one container, and what was left out on the way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Combined {
    /// The list.
    pub words: Vec<String>,
    /// How many of them, at the beginning, are of one side: an option that lacks its value there must not find it
    /// on the other side.
    pub front: usize,
    /// Words of the task that no filter lets through.
    pub filtered: Vec<String>,
    /// Options that were forbidden, as they were written.
    pub forbidden: Vec<String>,
}

impl Rules {
    /// Puts the words of a task and those of this machine together.
    ///
    /// `environment` answers for variables of this machine.
    #[must_use]
    pub fn combine(
        &self,
        task: &[String],
        extra: &[String],
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Combined {
        let (task, filtered) = self.filter(task);
        let task = if self.host_environment_for_tasks {
            expand_variables(&task, environment)
        } else {
            task
        };
        let extra = expand_variables(extra, environment);
        let (task, mut forbidden) = without(&task, &names(&self.forbidden));
        let (extra, more) = without(&extra, &names(&self.forbidden));
        forbidden.extend(more);
        let protected = names(&self.protected);
        let (first, second) = if self.extra_first {
            (extra, task)
        } else {
            (task, extra)
        };
        let used: BTreeSet<String> = first.iter().flat_map(|word| options(word)).collect();
        let taken: BTreeSet<String> = protected.intersection(&used).cloned().collect();
        let (second, _repeated) = without(&second, &taken);
        Combined {
            front: first.len(),
            words: first.into_iter().chain(second).collect(),
            filtered,
            forbidden,
        }
    }

    fn filter(&self, task: &[String]) -> (Vec<String>, Vec<String>) {
        if self.filters.is_empty() {
            return (task.to_vec(), Vec::new());
        }
        let (mut kept, mut dropped) = (Vec::new(), Vec::new());
        let mut with_value = false;
        for word in task {
            let is_option = word.starts_with('-');
            let stays = if with_value && !is_option {
                with_value = false;
                true
            } else {
                let matches = self.filters.iter().any(|filter| matches_at_start(filter, word));
                with_value = matches && !word.contains('=');
                matches
            };
            if stays {
                kept.push(word.clone())
            } else {
                dropped.push(word.clone())
            }
        }
        (kept, dropped)
    }
}

fn matches_at_start(filter: &Regex, word: &str) -> bool {
    // The leftmost match is not always the one at the beginning, but if there is one there, it is leftmost.
    filter.find(word).is_some_and(|found| found.start() == 0)
}

/// Takes options away, with their values: all words up to the next option.
fn without(words: &[String], names: &BTreeSet<String>) -> (Vec<String>, Vec<String>) {
    let (mut kept, mut removed) = (Vec::new(), Vec::new());
    let mut removing = false;
    for word in words {
        if word.starts_with('-') {
            removing = options(word).iter().any(|option| names.contains(option));
            if removing {
                removed.push(word.clone());
            }
        }
        if !removing {
            kept.push(word.clone());
        }
    }
    (kept, removed)
}

/// The long names of the options in a word: one, or several single letters (`-itp 80:80`). None for other words.
fn options(word: &str) -> Vec<String> {
    let mut names = Vec::new();
    if let Some(text) = word.strip_prefix("--") {
        let text = text.split('=').next().unwrap_or_default();
        let known = flags()
            .iter()
            .find(|flag| flag.long == text || flag.aliases.contains(&text));
        names.push(known.map_or(text, |flag| flag.long).to_owned());
    } else if let Some(letters) = word.strip_prefix('-') {
        // With one dash too many people mean the long name; docker would not.
        let text = letters.split('=').next().unwrap_or_default();
        names.extend(
            flags()
                .iter()
                .find(|flag| flag.long == text)
                .map(|flag| flag.long.to_owned()),
        );
        for letter in text.chars() {
            let known = flags().iter().find(|flag| flag.short == Some(letter));
            names.push(known.map_or_else(|| letter.to_string(), |flag| flag.long.to_owned()));
            // What follows is the value.
            if known.is_none_or(|flag| !flag.switch) {
                break;
            }
        }
    }
    names
}

/// Names as people configure them, with or without dashes, in any spelling.
fn names(configured: &[String]) -> BTreeSet<String> {
    let bare = |text: &String| text.trim().trim_start_matches('-').to_owned();
    let dashed = |text: String| {
        if text.chars().count() == 1 {
            format!("-{text}")
        } else {
            format!("--{text}")
        }
    };
    configured
        .iter()
        .map(bare)
        .filter(|text| !text.is_empty())
        .flat_map(|text| options(&dashed(text)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        shlex::split(line).unwrap()
    }

    fn rules() -> Rules {
        Rules {
            filters: Vec::new(),
            forbidden: vec!["entrypoint".to_owned()],
            protected: words("privileged security-opt network ipc"),
            extra_first: true,
            host_environment_for_tasks: false,
        }
    }

    #[test]
    fn the_stronger_side_keeps_what_is_protected() {
        let extra = words("--network=host --privileged=false --ipc host -v /host/b:/docker/b");
        let task = words("--network host -it --privileged -v=/a/b:/c/d -v /c/e:/f/g --rm");
        let combined = rules().combine(&task, &extra, &|_| None);
        let expected = words(
            "--network=host --privileged=false --ipc host -v /host/b:/docker/b -it -v=/a/b:/c/d -v /c/e:/f/g --rm",
        );
        assert_eq!(combined.words, expected);
        let combined = Rules {
            extra_first: false,
            ..rules()
        }
        .combine(&task, &extra, &|_| None);
        let expected = [task, words("--ipc host -v /host/b:/docker/b")].concat();
        assert_eq!(combined.words, expected);
    }

    #[test]
    fn spellings_do_not_help_around_a_rule() {
        let rules = Rules {
            forbidden: words("entrypoint --user publish"),
            ..rules()
        };
        for (task, rest) in [
            ("--entrypoint /bin/bash -c \"echo hello\"", "-c \"echo hello\""),
            (
                "--entrypoint /bin/echo --user=root -v /x:/y --ipc=host",
                "-v /x:/y --ipc=host",
            ),
            ("-u root --init", "--init"),
            ("-uroot --init", "--init"),
            ("-u=root stray --init", "--init"),
            ("-p 80:80 -P", "-P"),
            ("-p80:80 --pid=host", "--pid=host"),
            ("-itp 80:80 --init", "--init"),
            ("-tiuroot -it", "-it"),
            ("-du=root -ie A=p", "-ie A=p"),
        ] {
            let combined = rules.combine(&words(task), &[], &|_| None);
            assert_eq!(combined.words, words(rest), "{task}");
            assert!(!combined.forbidden.is_empty(), "{task}");
        }
        let combined = rules.combine(&words("--net=host"), &words("--network=none"), &|_| None);
        assert_eq!(combined.words, words("--network=none"));
        // An option without its value must not take the first word of the other side for it.
        let weak = Rules {
            extra_first: false,
            ..rules.clone()
        };
        let combined = weak.combine(&words("--init -e"), &words("--network=none"), &|_| None);
        assert_eq!(combined.words[..combined.front], words("--init -e"));
        let from_machine = rules.combine(&[], &words("--entrypoint x"), &|_| None);
        assert_eq!(from_machine.words, Vec::<String>::new());
    }

    #[test]
    fn only_what_a_filter_knows_comes_through() {
        let filters = ["-e$", "--env", "-v=/data"].map(|filter| Regex::new(filter).unwrap());
        let rules = Rules {
            filters: filters.to_vec(),
            ..rules()
        };
        let task = words("-e A=1 --env=B=2 stray --privileged -v=/data:/d -v /etc:/e x-e");
        let combined = rules.combine(&task, &words("--init"), &|_| None);
        assert_eq!(combined.words, words("--init -e A=1 --env=B=2 -v=/data:/d"));
        assert_eq!(combined.filtered, words("stray --privileged -v /etc:/e x-e"));
    }

    #[test]
    fn variables_of_this_machine_are_for_this_machines_words() {
        let environment = |name: &str| (name == "TOKEN").then(|| "secret".to_owned());
        let (task, extra) = (words("-e A='$TOKEN'"), words("-e B='${TOKEN}x'"));
        let combined = rules().combine(&task, &extra, &environment);
        assert_eq!(combined.words, words("-e B=secretx -e 'A=$TOKEN'"));
        let trusting = Rules {
            host_environment_for_tasks: true,
            ..rules()
        };
        assert_eq!(
            trusting.combine(&task, &[], &environment).words,
            words("-e A=secret")
        );
    }
}
