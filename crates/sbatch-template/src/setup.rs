//! The parts of a script that prepare a job, start the agent in it, and clean up.
//!
//! They are POSIX shell, survive `set -eu` and `set -x` of the operator's lines, and reach neither network nor
//! package index. Secrets come from here-documents, never as words of a command.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::container;
use crate::directive::SbatchOption;
use crate::grammar::Part;
use crate::operators::{is_forbidden, one_line};
use crate::quote;
use crate::template::{Mode, Template};
use crate::values::Values;

const LAUNCH: &str = include_str!("launch.sh");
const PRE_SETUP: &str = include_str!("pre_setup.sh");

/// Where the agent's binary is inside of containers.
const INSIDE: &str = "/opt/clearml/clearml-agent";

/// What the generated parts need to know.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    /// The task's id: letters, digits, dashes.
    pub task: String,
    /// Name of the queue it came from.
    pub queue: String,
    /// The worker id of the agent in the job.
    pub worker: String,
    /// A folder that all nodes see; needed for jobs on several nodes.
    pub shared_dir: Option<String>,
    /// The agent's binary on compute nodes.
    pub agent: Option<String>,
    /// A `clearml.conf` for the job, which gets a private copy there.
    pub configuration: Option<JobFile>,
    /// A token to log in with.
    pub token: Option<JobFile>,
    /// Whether the task waits in a queue and has to be taken from there.
    pub require_queue: bool,
    /// The container that the task asks for (`--singularity-mode`).
    pub container: Container,
}

/// How something that is nobody else's business gets into a job.
#[derive(Clone)]
pub enum JobFile {
    /// As text in the script, encoded.
    Inline(String),
    /// In a file that the job can read.
    File(String),
}

impl std::fmt::Debug for JobFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Inline(_) => f.write_str("Inline(..)"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

impl JobFile {
    /// The line that makes a file of it in the job's folder.
    fn written(&self, name: &str) -> String {
        let target = format!("\"$CLEARML_SLURM_JOB_DIR/{name}\"");
        match self {
            Self::Inline(text) => format!(
                "(umask 077 && base64 -d > {target}) <<'CLEARML_END'\n{}CLEARML_END\n",
                folded(text)
            ),
            Self::File(path) => format!("(umask 077 && cat -- {} > {target})\n", quote::single(path)),
        }
    }
}

/// A container as the task asks for it.
#[derive(Debug, Clone, Default)]
pub struct Container {
    /// The image; `agent.default_docker.image` otherwise.
    pub image: Option<String>,
    /// Arguments in the form of `docker run`.
    pub arguments: String,
    /// Shell lines to run inside before the agent.
    pub setup_script: Option<String>,
}

/// The generated parts.
pub(crate) struct Parts {
    pub(crate) pre: String,
    pub(crate) run: String,
    pub(crate) post: String,
    pub(crate) warnings: Vec<String>,
}

impl Setup {
    /// Generates the parts for a template.
    pub(crate) fn parts(
        &self,
        template: &Template,
        values: &Values,
        directives: &[SbatchOption],
    ) -> Result<Parts, String> {
        let is_name = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
        if self.task.is_empty() || !self.task.chars().all(is_name) {
            return Err(format!("{:?} is not the id of a task", self.task));
        }
        let mut warnings = Vec::new();
        let delegation = template.options.mode == Mode::SrunDelegation;
        let has_run = template.has(Part::AgentExecute);
        let variables = self.variables(directives);
        let run = match template.options.mode {
            _ if !template.is_shell => self.plain_command(),
            Mode::Singularity => self.singularity(values, &mut warnings)?,
            Mode::SrunDelegation => srun(),
            Mode::Native if template.has(Part::PreSetup) => r#""$CLEARML_SLURM_JOB_DIR"/run"#.to_owned(),
            Mode::Native => format!(
                "/bin/sh -c {} clearml",
                quote::single(&format!("{variables}{LAUNCH}"))
            ),
        };
        let mut post = "# --- clearml: the end ---\n".to_owned();
        if delegation && !has_run {
            post.push_str(&srun());
            post.push('\n');
        }
        post.push_str("__clearml_rc=$?\nrm -rf -- \"${CLEARML_SLURM_JOB_DIR:?}\"\n# --- clearml: done ---");
        if !template.has(Part::PreSetup) {
            "# --- clearml: the end ---\n__clearml_rc=$?\n# --- clearml: done ---".clone_into(&mut post);
        }
        Ok(Parts {
            pre: self.pre(&variables),
            run,
            post,
            warnings,
        })
    }

    fn variables(&self, directives: &[SbatchOption]) -> String {
        let exclusive = directives.iter().any(|option| option.name == "exclusive");
        [
            ("TASK", self.task.as_str()),
            ("QUEUE", &self.queue),
            ("WORKER", &self.worker),
            ("SHARED", self.shared_dir.as_deref().unwrap_or_default()),
            ("AGENT", self.agent.as_deref().unwrap_or_default()),
            ("EXCLUSIVE", if exclusive { "1" } else { "0" }),
            ("REQUIRE_QUEUE", if self.require_queue { "1" } else { "0" }),
        ]
        .iter()
        .map(|(name, value)| format!("CLEARML_SLURM_{name}={}\n", quote::single(&on_one_line(value))))
        .collect()
    }

    fn pre(&self, variables: &str) -> String {
        let mut text = format!("# --- clearml: set-up ---\n{variables}{PRE_SETUP}");
        if let Some(configuration) = &self.configuration {
            text.push_str(&configuration.written("clearml.conf"));
            text.push_str(
                "CLEARML_CONFIG_FILE=$CLEARML_SLURM_JOB_DIR/clearml.conf\nexport CLEARML_CONFIG_FILE\n",
            );
        }
        if let Some(token) = &self.token {
            text.push_str(&token.written("token"));
            // Not by a word of a command: the operator's lines may have asked for a trace.
            text.push_str(
                "read -r CLEARML_AUTH_TOKEN < \"$CLEARML_SLURM_JOB_DIR/token\" || :\nexport CLEARML_AUTH_TOKEN\n\
                 rm -f -- \"$CLEARML_SLURM_JOB_DIR/token\"\n",
            );
        }
        if let Some(script) = self
            .container
            .setup_script
            .as_deref()
            .filter(|script| !script.is_empty())
        {
            text.push_str(&JobFile::Inline(script.to_owned()).written("setup.sh"));
        }
        text.push_str("cat > \"$CLEARML_SLURM_JOB_DIR/run\" <<'CLEARML_END'\n#!/bin/sh\n");
        text.push_str(LAUNCH);
        text.push_str("CLEARML_END\nchmod 700 \"$CLEARML_SLURM_JOB_DIR/run\"\n# --- clearml: ready ---");
        text
    }

    fn plain_command(&self) -> String {
        let queue = if self.require_queue {
            " --require-queue"
        } else {
            ""
        };
        format!(
            "clearml-agent execute --full-monitoring{queue} --id {}",
            self.task
        )
    }

    /// What comes after `singularity exec`.
    fn singularity(&self, values: &Values, warnings: &mut Vec<String>) -> Result<String, String> {
        let image = self.container.image.as_deref().filter(|image| !image.is_empty());
        let image = image.or(values.default_image.as_deref()).ok_or(
            "the task names no container image, and there is no agent.default_docker.image; set one of them",
        )?;
        let mut words = vec![
            "--bind".to_owned(),
            r#""$CLEARML_SLURM_JOB_DIR:$CLEARML_SLURM_JOB_DIR""#.to_owned(),
        ];
        if let Some(agent) = &self.agent {
            words.push("--bind".to_owned());
            words.push(quote::word(&format!("{agent}:{INSIDE}:ro")));
        }
        let (flags, left_out) = container::translate(&on_one_line(&self.container.arguments))?;
        warnings.extend(left_out);
        if !flags.iter().any(|flag| flag == "--pwd") {
            words.extend(["--pwd".to_owned(), r#""$CLEARML_SLURM_JOB_DIR""#.to_owned()]);
        }
        words.extend(flags);
        words.push(quote::word(&container::image(&on_one_line(image))));
        words.push(r#"/bin/sh "$CLEARML_SLURM_JOB_DIR"/run inside"#.to_owned());
        Ok(words.join(" "))
    }
}

/// A text as placeholders show it: no script may contain control characters, and a value is one line.
fn on_one_line(text: &str) -> String {
    let kept: String = text.chars().filter(|c| !is_forbidden(*c)).collect();
    one_line(&kept)
}

/// Starts the agent on every node, through whatever `srun` is here: it may be a function.
fn srun() -> String {
    format!(
        "srun --overlap --ntasks=\"${{SLURM_JOB_NUM_NODES:-1}}\" --ntasks-per-node=1 --kill-on-bad-exit=1 /bin/sh -c {} \
         clearml inside",
        quote::single(LAUNCH)
    )
}

fn folded(text: &str) -> String {
    let encoded = STANDARD.encode(text);
    let mut out = String::with_capacity(encoded.len() + encoded.len() / 76 + 1);
    for chunk in encoded.as_bytes().chunks(76) {
        out.extend(chunk.iter().map(|byte| char::from(*byte)));
        out.push('\n');
    }
    out
}
