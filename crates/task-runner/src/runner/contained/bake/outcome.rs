//! What becomes of an image: what it runs, and what people are told about it. Pure.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clearml_container::engine::{ImageFacts, ImageReference};
use clearml_task_model::TaskId;
use serde::Serialize;

use crate::inside::Baked;

const MEGABYTE: f64 = 1e6;

/// What an image runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryPoint {
    /// The task itself, again.
    ReuseTask,
    /// A copy of the task.
    CloneTask,
}

/// The agent's program in an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImageProgram {
    /// Where it is.
    pub path: PathBuf,
    /// How large it is.
    pub bytes: u64,
}

/// An image that was built.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BuiltImage {
    /// The task.
    pub task: TaskId,
    /// Its name.
    pub image: String,
    /// Its id.
    pub image_id: String,
    /// The image that it was made from.
    pub base_image: String,
    /// What it runs; `None` = nothing of its own.
    pub entry_point: Option<EntryPoint>,
    /// Bytes of all its layers.
    pub bytes: u64,
    /// Bytes that it has beyond the base image.
    pub added_bytes: u64,
    /// How many layers it has.
    pub layers: usize,
    /// How long the build has taken.
    pub seconds: f64,
    /// The agent's program, which is there for an entry point.
    pub program: Option<ImageProgram>,
    /// The folder of the environment in it.
    pub target: PathBuf,
    /// The programs of the environment; `None` for a task without Python.
    pub virtual_environment: Option<PathBuf>,
    /// The working copy, or the folder of the script.
    pub source_code: PathBuf,
    /// What is installed, as `name==version`.
    pub packages: Vec<String>,
    /// The commit.
    pub commit: Option<String>,
}

/// What the steps have made.
pub(super) struct Made {
    pub(super) target: ImageReference,
    pub(super) image: ImageFacts,
    pub(super) base: ImageReference,
    pub(super) base_facts: ImageFacts,
    pub(super) entry_point: Option<EntryPoint>,
    pub(super) took: Duration,
    pub(super) program_bytes: u64,
    pub(super) baked: Baked,
}

impl Made {
    pub(super) fn of(self, task: TaskId) -> BuiltImage {
        let Baked { built, program, .. } = self.baked;
        let bytes = self.program_bytes;
        BuiltImage {
            task,
            image: self.target.to_string(),
            image_id: self.image.id,
            base_image: self.base.to_string(),
            entry_point: self.entry_point,
            bytes: self.image.size,
            added_bytes: self.image.size.saturating_sub(self.base_facts.size),
            layers: self.image.layers,
            seconds: (self.took.as_secs_f64() * 100.0).round() / 100.0,
            program: program.map(|path| ImageProgram { path, bytes }),
            target: built.target,
            virtual_environment: built.virtual_environment,
            source_code: built.source_code,
            packages: built.packages,
            commit: built.commit,
        }
    }
}

impl BuiltImage {
    /// The summary for people.
    #[must_use]
    pub fn summary(&self) -> String {
        let megabytes = |bytes: u64| {
            #[expect(clippy::cast_precision_loss, reason = "it is shown with one digit")]
            let bytes = bytes as f64;
            format!("{:.1} MB", bytes / MEGABYTE)
        };
        let mut lines = vec!["Packages:".to_owned()];
        lines.extend(self.packages.iter().map(|package| format!("  {package}")));
        if self.packages.is_empty() {
            lines.push("  none".to_owned());
        }
        lines.push(format!("Source code: {}", self.source_code.display()));
        lines.push(format!(
            "Image: {} ({}), {} in {} layers, {} more than {}",
            self.image,
            self.image_id,
            megabytes(self.bytes),
            self.layers,
            megabytes(self.added_bytes),
            self.base_image
        ));
        if let Some(program) = &self.program {
            lines.push(format!(
                "Agent in the image: {}, {}",
                program.path.display(),
                megabytes(program.bytes)
            ));
        }
        lines.push(match self.entry_point {
            None => format!("Use it as the container of tasks: {}", self.image),
            Some(_) => format!(
                "Run it: docker run --rm -e CLEARML_API_ACCESS_KEY -e CLEARML_API_SECRET_KEY {}",
                self.image
            ),
        });
        lines.push(format!("Docker build done in {:.1} s", self.seconds));
        lines.join("\n")
    }
}

/// Lines of a Dockerfile that say what the image runs, and what it comes from. That is the one variable of the build
/// that it keeps.
pub(super) fn changes(
    entry_point: Option<EntryPoint>,
    task: &TaskId,
    baked: &Baked,
    (name, base): (&ImageReference, &ImageFacts),
) -> Vec<String> {
    let (entry, command) = match (entry_point, &baked.program) {
        (Some(entry_point), Some(program)) => {
            (entry_words(entry_point, task, program, &baked.builds), Vec::new())
        }
        // The engine takes none at all for "that of the container".
        _ if base.cmd.is_empty() => (Vec::new(), vec!["/bin/sh".to_owned()]),
        _ => (Vec::new(), base.cmd.clone()),
    };
    let json = |words: Vec<String>| serde_json::Value::from(words).to_string();
    vec![
        format!("ENTRYPOINT {}", json(entry)),
        format!("CMD {}", json(command)),
        format!("ENV CLEARML_DOCKER_IMAGE={name}"),
    ]
}

fn entry_words(entry_point: EntryPoint, task: &TaskId, program: &Path, builds: &Path) -> Vec<String> {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let mut words = vec![
        text(program),
        "execute".to_owned(),
        "--id".to_owned(),
        task.to_string(),
        "--standalone-mode".to_owned(),
        "--from-image".to_owned(),
        text(builds),
    ];
    if entry_point == EntryPoint::CloneTask {
        words.push("--clone".to_owned());
    }
    words
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn baked(program: Option<&str>) -> Baked {
        serde_json::from_value(json!({
            "built": {"task": "t", "target": "/root/b/3.11", "virtual_environment": null, "source_code": "/root/b/3.11/code",
                "entry_point": "x", "working_dir": "/", "command": [], "packages": ["alpha==1.0"], "commit": null},
            "builds": "/root/b", "program": program,
        }))
        .unwrap()
    }

    #[test]
    fn an_image_runs_the_task_or_what_its_base_runs() {
        let base = ImageFacts {
            entrypoint: vec!["/entry.sh".to_owned()],
            cmd: vec!["bash".to_owned(), "-c".to_owned(), "a \"b\"\n".to_owned()],
            ..ImageFacts::default()
        };
        let name = ImageReference::parse("base:1").unwrap();
        let from = "ENV CLEARML_DOCKER_IMAGE=base:1";
        let lines = |entry, program| changes(entry, &"t".into(), &baked(program), (&name, &base));
        assert_eq!(
            lines(None, None),
            ["ENTRYPOINT []", r#"CMD ["bash","-c","a \"b\"\n"]"#, from]
        );
        let none = ImageFacts::default();
        let bare = changes(None, &"t".into(), &baked(None), (&name, &none));
        assert_eq!(bare, ["ENTRYPOINT []", r#"CMD ["/bin/sh"]"#, from]);
        let words =
            r#"["/p/clearml-agent","execute","--id","t","--standalone-mode","--from-image","/root/b""#;
        assert_eq!(
            lines(Some(EntryPoint::ReuseTask), Some("/p/clearml-agent")),
            [&*format!("ENTRYPOINT {words}]"), "CMD []", from]
        );
        assert_eq!(
            lines(Some(EntryPoint::CloneTask), Some("/p/clearml-agent"))[0],
            format!("ENTRYPOINT {words},\"--clone\"]")
        );
    }

    #[test]
    fn people_are_told_what_was_made_and_how_to_use_it() {
        let facts = |size, layers| ImageFacts {
            id: "sha256:1".to_owned(),
            size,
            layers,
            ..ImageFacts::default()
        };
        let made = |entry_point, program| Made {
            target: ImageReference::parse("new").unwrap(),
            image: facts(350_000_000, 2),
            base: ImageReference::parse("base:1").unwrap(),
            base_facts: facts(340_000_000, 1),
            entry_point,
            took: Duration::from_millis(12_345),
            program_bytes: 9_000_000,
            baked: baked(program),
        };
        let text = made(Some(EntryPoint::ReuseTask), Some("/p"))
            .of("t".into())
            .summary();
        for part in [
            "  alpha==1.0",
            "Image: new:latest (sha256:1), 350.0 MB in 2 layers, 10.0 MB more than base:1",
            "Agent in the image: /p, 9.0 MB",
            "docker run --rm -e CLEARML_API_ACCESS_KEY -e CLEARML_API_SECRET_KEY new:latest",
            "done in 12.3 s",
        ] {
            assert!(text.contains(part), "no {part} in {text}");
        }
        let text = made(None, None).of("t".into()).summary();
        assert!(
            text.contains("Use it as the container of tasks: new:latest"),
            "{text}"
        );
    }
}
