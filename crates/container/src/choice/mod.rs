//! Which container a task gets: its own, the one of a rule, or the default one. Pure.

mod rules;

pub use rules::{Facts, Rule, RuleError};

/// A container as tasks and configurations name one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Container {
    /// The image; `None` where none is named.
    pub image: Option<String>,
    /// Options of `docker run`, as words.
    pub arguments: Vec<String>,
    /// A script to run in the container before the task.
    pub setup_script: Option<String>,
}

/// What a task gets if nothing else is said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DefaultContainer {
    /// The image; never empty.
    pub image: String,
    /// Its options.
    pub arguments: Vec<String>,
    /// Whether a person has named them on the command line, which rules respect unless they are forced.
    pub from_command_line: bool,
}

impl DefaultContainer {
    /// The container that `--docker [IMAGE [ARGUMENT…]]` asks for.
    ///
    /// One value may hold the image and its arguments, separated by spaces; so may `variable`
    /// (`CLEARML_DOCKER_IMAGE`) and the configured image.
    #[must_use]
    pub fn new(
        words: &[String],
        variable: Option<&str>,
        configured_image: Option<&str>,
        configured_arguments: &[String],
    ) -> Self {
        let split = |text: &str| -> Option<(String, Vec<String>)> {
            let mut words = text.split(' ').filter(|word| !word.is_empty()).map(str::to_owned);
            Some((words.next()?, words.collect()))
        };
        if let Some((image, own)) = words.first().and_then(|word| split(word)) {
            let mut arguments: Vec<String> = own.into_iter().chain(words[1..].iter().cloned()).collect();
            if words.len() == 1 && arguments.is_empty() {
                arguments = configured_arguments.to_vec();
            }
            return Self {
                image,
                arguments,
                from_command_line: true,
            };
        }
        let (image, own) = variable
            .and_then(split)
            .or_else(|| configured_image.and_then(split))
            .unwrap_or_else(|| ("nvidia/cuda".to_owned(), Vec::new()));
        let arguments = if own.is_empty() {
            configured_arguments.to_vec()
        } else {
            own
        };
        Self {
            image,
            arguments,
            from_command_line: false,
        }
    }
}

/// What was decided for one task.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice {
    /// The image.
    pub image: String,
    /// Options, without those that this machine adds for all tasks.
    pub arguments: Vec<String>,
    /// A script to run in the container before the task.
    pub setup_script: Option<String>,
    /// The rule that had a part in it, by its number.
    pub rule: Option<usize>,
    /// Whether the task shall be told which container it got, because it did not name that one.
    pub write_back: bool,
}

/// Decides. `task` is what the task names; `default_write_back` is `agent.default_docker.update_back_task`.
///
/// The order of what counts, strongest first: a task that may not choose, a forced rule, the image of the task,
/// the image of the command line, a rule, the default image.
#[must_use]
pub fn choose(
    task: &Container,
    facts: &Facts<'_>,
    rules: &[Rule],
    default: &DefaultContainer,
    task_may_choose: bool,
    default_write_back: bool,
) -> Choice {
    let matched = rules
        .iter()
        .enumerate()
        .find(|(_, rule)| rule.matches(facts))
        .filter(|(_, rule)| rule.forced || !default.from_command_line);
    let mut named = task.clone();
    if let Some((_, rule)) = matched {
        let own = &rule.container;
        if rule.forced {
            named = own.clone();
        } else {
            // The arguments of a rule are for its image, unless the task has none of its own.
            if named.image.is_none() {
                named.image.clone_from(&own.image);
            }
            if named.arguments.is_empty() {
                named.arguments.clone_from(&own.arguments);
            }
            if named.setup_script.is_none() {
                named.setup_script.clone_from(&own.setup_script);
            }
        }
    }
    let rule = matched.map(|(number, _)| number);
    let by_rule = matched.is_some_and(|(_, rule)| rule.write_back.unwrap_or(default_write_back));
    match named.image.filter(|_| task_may_choose) {
        Some(image) => {
            let differs = task.image.as_ref() != Some(&image)
                || task.arguments != named.arguments
                || task.setup_script != named.setup_script;
            Choice {
                image,
                arguments: named.arguments,
                setup_script: named.setup_script,
                rule,
                write_back: by_rule && differs,
            }
        }
        None => Choice {
            image: default.image.clone(),
            arguments: default.arguments.clone(),
            setup_script: named.setup_script,
            rule,
            write_back: true,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        shlex::split(line).unwrap()
    }

    fn container(image: &str, arguments: &str) -> Container {
        Container {
            image: (!image.is_empty()).then(|| image.to_owned()),
            arguments: words(arguments),
            setup_script: None,
        }
    }

    #[test]
    fn what_the_command_line_asks_for() {
        let configured = words("--ipc=host");
        let of = |line: &[&str], variable: Option<&str>, image: Option<&str>| {
            let line: Vec<String> = line.iter().map(|word| (*word).to_owned()).collect();
            let default = DefaultContainer::new(&line, variable, image, &configured);
            (
                default.image,
                default.arguments.join(" "),
                default.from_command_line,
            )
        };
        let is = |image: &str, arguments: &str, from: bool| (image.to_owned(), arguments.to_owned(), from);
        assert_eq!(of(&[], None, None), is("nvidia/cuda", "--ipc=host", false));
        assert_eq!(of(&[], None, Some("conf")), is("conf", "--ipc=host", false));
        assert_eq!(
            of(&[], Some("env -v  a:/b"), Some("conf")),
            is("env", "-v a:/b", false)
        );
        assert_eq!(of(&[], Some(""), Some("conf -x")), is("conf", "-x", false));
        assert_eq!(of(&["img"], Some("env"), None), is("img", "--ipc=host", true));
        assert_eq!(of(&["img -v a:/b"], None, None), is("img", "-v a:/b", true));
        assert_eq!(of(&["img", "-v", "a:/b"], None, None), is("img", "-v a:/b", true));
        assert_eq!(of(&[""], None, Some("conf")), is("conf", "--ipc=host", false));
    }

    #[test]
    fn who_wins() {
        let rule = |image: &str, forced: bool| {
            let rule = serde_json::json!({"image": image, "arguments": "--rule", "match": {"container": "^$|mine"},
                "force_container_rules": forced});
            let (mut rules, errors) = Rule::read_all(&[rule]);
            assert_eq!(errors, []);
            rules.remove(0)
        };
        let default = |from_command_line| DefaultContainer {
            image: "default".to_owned(),
            arguments: words("--default"),
            from_command_line,
        };
        let (mine, none) = (container("mine", ""), container("", "--ignored"));
        for (name, task, rules, from_command_line, may_choose, expected) in [
            (
                "the default and its arguments",
                &none,
                vec![],
                false,
                true,
                ("default", "--default", true),
            ),
            (
                "a task's image without arguments",
                &mine,
                vec![],
                false,
                true,
                ("mine", "", false),
            ),
            (
                "a rule, but the task's own arguments",
                &none,
                vec![rule("rule", false)],
                false,
                true,
                ("rule", "--ignored", true),
            ),
            (
                "a rule completes",
                &mine,
                vec![rule("rule", false)],
                false,
                true,
                ("mine", "--rule", true),
            ),
            (
                "the command line over a rule",
                &none,
                vec![rule("rule", false)],
                true,
                true,
                ("default", "--default", true),
            ),
            (
                "a task over the command line",
                &mine,
                vec![],
                true,
                true,
                ("mine", "", false),
            ),
            (
                "a forced rule over all",
                &mine,
                vec![rule("rule", true)],
                true,
                true,
                ("rule", "--rule", true),
            ),
            (
                "tasks may not choose",
                &mine,
                vec![rule("rule", true)],
                false,
                false,
                ("default", "--default", true),
            ),
        ] {
            let facts = Facts {
                image: task.image.as_deref(),
                ..Facts::default()
            };
            let choice = choose(
                task,
                &facts,
                &rules,
                &default(from_command_line),
                may_choose,
                true,
            );
            let actual = (
                choice.image.as_str(),
                choice.arguments.join(" "),
                choice.write_back,
            );
            let (image, arguments, write_back) = expected;
            assert_eq!(actual, (image, arguments.to_owned(), write_back), "{name}");
        }
        let mut quiet = rule("rule", false);
        quiet.write_back = Some(false);
        let choice = choose(
            &mine,
            &Facts {
                image: Some("mine"),
                ..Facts::default()
            },
            &[quiet],
            &default(false),
            true,
            true,
        );
        assert!(!choice.write_back);
    }
}
