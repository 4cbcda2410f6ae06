//! Which container a task gets.

use clearml_agent_config::Settings;
use clearml_container::choice::{self, Choice, Container, DefaultContainer, Facts, Rule};
use clearml_task_model::Task;
use serde_json::json;

use super::super::Runner;
use super::super::setup::failure;
use super::given;
use crate::console::Level;
use crate::record::{ContainerOptions, Failure};

impl Runner {
    pub(super) async fn choose(
        &self,
        task: &Task,
        wanted: &ContainerOptions,
        settings: &Settings,
    ) -> Result<Choice, Failure> {
        let containers = &settings.agent.containers;
        let variable = ["CLEARML_DOCKER_IMAGE", "TRAINS_DOCKER_IMAGE"]
            .into_iter()
            .find_map(|name| given::variable(&self.inputs, name));
        let default = DefaultContainer::new(
            &wanted.words,
            variable.as_deref(),
            containers.image.as_deref(),
            &containers.arguments,
        );
        let named = named(task).map_err(|text| failure("environment", &text))?;
        // Rules are for servers that offer them.
        let has_rules = self
            .client
            .session()
            .is_some_and(|session| session.at_least(2, 13) && session.feature_set == "advanced");
        let project = match &task.project {
            Some(project) if has_rules => self.client.projects_get_by_id(project).await.ok(),
            _ => None,
        };
        let script = task.script.clone().unwrap_or_default();
        let lists = script.requirements.clone().unwrap_or_default();
        let (pip, conda) = (
            lists.pip.map(|list| list.text()),
            lists.conda.map(|list| list.text()),
        );
        let tags: Vec<String> = task
            .extra
            .get("tags")
            .and_then(|tags| serde_json::from_value(tags.clone()).ok())
            .unwrap_or_default();
        let facts = Facts {
            project: project.as_ref().and_then(|project| project.name.as_deref()),
            tags: &tags,
            pip: pip.as_deref(),
            conda: conda.as_deref(),
            project_id: task.project.as_ref().map(|project| project.as_str()),
            user: task.user.as_ref().map(|user| user.as_str()),
            repository: script.repository.as_deref(),
            branch: script.branch.as_deref(),
            binary: script.binary.as_deref(),
            image: named.image.as_deref(),
        };
        let (rules, errors) = if has_rules {
            Rule::read_all(&containers.match_rules)
        } else {
            Default::default()
        };
        for error in errors {
            self.console.line(Level::Warning, &error.to_string());
        }
        let may_choose = !containers.disable_task_docker_override;
        let choice = choice::choose(
            &named,
            &facts,
            &rules,
            &default,
            may_choose,
            containers.update_back_task,
        );
        if let Some(text) = passed_over(&named, &choice, may_choose) {
            self.console.line(Level::Warning, text);
        }
        Ok(choice)
    }

    /// Tells the task which container it got.
    pub(super) async fn write_back_container(&self, choice: &Choice) {
        let container = json!({
            "image": choice.image,
            "arguments": line(&choice.arguments),
            "setup_shell_script": choice.setup_script.clone().unwrap_or_default(),
        });
        let id = &self.identity.task;
        if let Err(e) = self
            .client
            .tasks_edit(id, true, json!({ "container": container }))
            .await
        {
            tracing::warn!("writing the container to task {id}: {e}");
        }
    }
}

/// What is told to somebody whose task does not get the container that it asks for, and no rule is the reason.
fn passed_over(named: &Container, choice: &Choice, may_choose: bool) -> Option<&'static str> {
    let asks = named.image.is_some() || !named.arguments.is_empty();
    if !asks || choice.rule.is_some() {
        return None;
    }
    let other = Some(&choice.image) != named.image.as_ref() || choice.arguments != named.arguments;
    match may_choose {
        _ if !other => None,
        false => Some("the container of the task is not used (agent.disable_task_docker_override)"),
        true if named.image.is_none() => {
            Some("the task names no image, so its container arguments are not used")
        }
        true => None,
    }
}

/// Words as one line that [`named`] splits into the same words again.
fn line(words: &[String]) -> String {
    let quoted = |word: &String| {
        let plain = shlex::split(word).is_some_and(|read| read == [word.as_str()]);
        match shlex::try_quote(word) {
            Ok(quoted) if !plain => quoted.into_owned(),
            _ => word.clone(),
        }
    };
    words.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

/// What the task names; older servers have it as one line.
fn named(task: &Task) -> Result<Container, String> {
    let text = |name: &str| {
        let container = task.container.as_ref()?;
        container
            .get(name)?
            .as_str()
            .map(str::to_owned)
            .filter(|text| !text.trim().is_empty())
    };
    let split = |line: &str| {
        shlex::split(line)
            .ok_or_else(|| format!("the container arguments of the task have a quote without end: {line}"))
    };
    let image = text("image").map(|image| image.trim().to_owned());
    let old = task
        .execution
        .as_ref()
        .and_then(|execution| execution.get("docker_cmd")?.as_str());
    if image.is_none()
        && let Some(line) = old.filter(|line| !line.trim().is_empty())
    {
        let mut words = split(line)?.into_iter();
        return Ok(Container {
            image: words.next(),
            arguments: words.collect(),
            setup_script: text("setup_shell_script"),
        });
    }
    Ok(Container {
        image,
        arguments: split(&text("arguments").unwrap_or_default())?,
        setup_script: text("setup_shell_script"),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn who_asks_for_a_container_in_vain_is_told() {
        let named = |image: &str, arguments: &[&str]| Container {
            image: (!image.is_empty()).then(|| image.to_owned()),
            arguments: arguments.iter().map(|&word| word.to_owned()).collect(),
            setup_script: None,
        };
        let default = DefaultContainer::new(&["default".to_owned()], None, None, &[]);
        let told = |named: &Container, may_choose: bool| {
            let choice = choice::choose(named, &Facts::default(), &[], &default, may_choose, true);
            passed_over(named, &choice, may_choose).unwrap_or_default()
        };
        let (nothing, without_image, own) =
            (named("", &[]), named("", &["--init"]), named("own", &["--init"]));
        assert!(told(&without_image, true).contains("names no image"));
        assert!(told(&own, false).contains("agent.disable_task_docker_override"));
        for (named, may_choose) in [
            (&nothing, true),
            (&nothing, false),
            (&own, true),
            (&named("default", &[]), false),
        ] {
            assert_eq!(told(named, may_choose), "");
        }
    }

    #[test]
    fn the_container_of_a_task_in_both_forms() {
        let of = |json: Value| named(&serde_json::from_value(json).unwrap());
        let own = of(
            json!({"container": {"image": " img ", "arguments": "-e 'A=1 2' --init",
            "setup_shell_script": "echo\n"}}),
        );
        let own = own.unwrap();
        assert_eq!(own.image.as_deref(), Some("img"));
        assert_eq!(own.arguments, ["-e", "A=1 2", "--init"]);
        assert_eq!(own.setup_script.as_deref(), Some("echo\n"));
        let old = of(json!({"execution": {"docker_cmd": "img -v a:/b"}})).unwrap();
        assert_eq!((old.image.as_deref(), old.arguments.len()), (Some("img"), 2));
        assert_eq!(
            of(json!({"container": {"image": ""}})).unwrap(),
            Container::default()
        );
        assert!(of(json!({"container": {"arguments": "'"}})).is_err());

        // What is written back is read as the same words.
        let words = ["-e", "A=1 2", "--label=x", "", "it's", "a\\b", "#c"].map(str::to_owned);
        assert!(
            line(&words).starts_with("-e 'A=1 2' --label=x "),
            "{}",
            line(&words)
        );
        let again = of(json!({"container": {"image": "i", "arguments": line(&words)}}));
        assert_eq!(again.unwrap().arguments, words);
    }
}
