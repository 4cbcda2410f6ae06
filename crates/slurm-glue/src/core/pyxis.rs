//! What Pyxis has to be told so that a script in a container finds the agent.

use clearml_sbatch_template::Script;

/// Where the agent is in containers.
const INSIDE: &str = "/opt/clearml/clearml-agent";

/// Arguments of sbatch for a script whose directives ask for a container, and what people should know.
///
/// The command line wins over directives, so mounts of the template stay only because they are repeated. The form of
/// an image stays the user's own; one without a scheme is taken for an image of a registry.
#[must_use]
pub fn arguments(
    script: &Script,
    agent: Option<&str>,
    shared: Option<&str>,
) -> (Vec<String>, Option<String>) {
    let Some(image) = script.option("container-image", '-') else {
        return (Vec::new(), None);
    };
    let mut arguments = Vec::new();
    let mut warning = None;
    let is_file = image.starts_with(['/', '.']) || image.ends_with(".sqsh");
    if !image.contains("://") && !is_file {
        arguments.push(format!("--container-image=docker://{image}"));
        warning = Some(format!(
            "container image {image} has no scheme; docker://{image} is used"
        ));
    }
    let mut mounts: Vec<String> = Vec::new();
    mounts.extend(script.option("container-mounts", '-').map(str::to_owned));
    mounts.extend(agent.map(|agent| format!("{agent}:{INSIDE}:ro")));
    mounts.extend(shared.map(|shared| format!("{shared}:{shared}")));
    if agent.is_some() || shared.is_some() {
        arguments.push(format!("--container-mounts={}", mounts.join(",")));
    }
    (arguments, warning)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clearml_sbatch_template::{Options, Setup, Template, Values};

    fn script(directives: &str) -> Script {
        let text = format!("#!/bin/bash\n{directives}\n${{CLEARML_AGENT_EXECUTE}}\n");
        let setup = Setup {
            task: "a1".to_owned(),
            ..Setup::default()
        };
        let template = Template::parse("t.sh", &text, Options::default()).unwrap();
        template.render(&Values::default(), &setup).unwrap()
    }

    #[test]
    fn containers_get_the_agent_beside_the_mounts_of_the_template() {
        let none = (Vec::new(), None);
        assert_eq!(
            arguments(&script("#SBATCH --nodes=1"), Some("/a"), Some("/s")),
            none
        );
        let plain = script("#SBATCH --container-image=docker://nvcr.io#nvidia/x:1");
        assert_eq!(arguments(&plain, None, None), none, "the user's form stays");
        let (words, _) = arguments(
            &script("#SBATCH --container-image=docker://u --container-mounts=/d:/e"),
            Some("/a"),
            Some("/s"),
        );
        assert_eq!(
            words,
            ["--container-mounts=/d:/e,/a:/opt/clearml/clearml-agent:ro,/s:/s"]
        );
        let (words, warning) = arguments(&script("#SBATCH --container-image=ubuntu"), None, None);
        assert_eq!(words, ["--container-image=docker://ubuntu"]);
        assert!(warning.unwrap().contains("no scheme"));
        assert_eq!(
            arguments(&script("#SBATCH --container-image=/i/a.sqsh"), None, None),
            none
        );
    }
}
