//! What a glue is told: by the command line, and by `agent.slurm` of the configuration.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use clearml_agent_config::Settings;
use clearml_sbatch_template::{Mode, Options as TemplateOptions, Separator};
use clearml_support::secret::Secret;
use serde::Deserialize;
use serde_json::Value;

use crate::core::decide::Graces;
use crate::core::limits::Limits;
use crate::core::users::{Rules, Trust, UserMap};
use crate::core::verdict::OnPreemption;

/// One queue and what becomes of its tasks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueSetup {
    /// The queue, by name or id.
    pub queue: String,
    /// Its template.
    pub template: PathBuf,
    /// How the agent is started in the job.
    pub mode: Mode,
    /// Its own limits.
    pub limits: Limits,
    /// Working folder of its jobs.
    pub work_dir: Option<PathBuf>,
    /// Further arguments for sbatch.
    pub extra_args: Vec<String>,
}

/// The options do not fit together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// Queues and templates can't be paired.
    #[error(
        "{queues} queues and {templates} templates can't be paired: give one template, or one for each queue"
    )]
    Pairing {
        /// How many queues.
        queues: usize,
        /// How many templates.
        templates: usize,
    },
    /// A queue is named twice.
    #[error("queue {0:?} is named twice")]
    Twice(String),
    /// Nothing to do.
    #[error("no queue is named; use --queue and --template-files, or agent.slurm.queues")]
    NoQueue,
    /// A value of the configuration.
    #[error("agent.slurm.{key} {problem}")]
    Value {
        /// The key.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// Everything.
#[derive(Debug, Clone)]
pub struct GlueOptions {
    /// The queues, the most important one first.
    pub queues: Vec<QueueSetup>,
    /// Create queues that do not exist.
    pub create_queue: bool,
    /// Serve queues in turn.
    pub order_fairness: bool,
    /// Name of the parking queue.
    pub parking: Option<String>,
    /// Limits over all queues.
    pub limits: Limits,
    /// Between looks at jobs.
    pub poll: Duration,
    /// Between looks at queues.
    pub queue_poll: Duration,
    /// Between two calls of sbatch.
    pub spacing: Duration,
    /// What preemption does.
    pub on_preemption: OnPreemption,
    /// Where the journal is.
    pub state_dir: PathBuf,
    /// How templates are read.
    pub separator: Separator,
    /// Options of sbatch that values may go into.
    pub allow_user_options: Vec<String>,
    /// Options of sbatch that values may consist of.
    pub allowed_sbatch_options: Vec<String>,
    /// How long to wait for others.
    pub graces: Graces,
    /// After so many seconds a hopeless job fails its task; 0: never.
    pub pending_deadline: u64,
    /// Reasons for waiting that fail the task.
    pub fail_on_pending: Vec<String>,
    /// Write user properties.
    pub report_properties: bool,
    /// Lines of the job's own output to show.
    pub log_tail_lines: usize,
    /// Default working folder of jobs.
    pub work_dir: Option<PathBuf>,
    /// A folder that all nodes see.
    pub shared_dir: Option<PathBuf>,
    /// The agent on compute nodes.
    pub agent_binary: Option<PathBuf>,
    /// What the agents in jobs log in with.
    pub credentials: Credentials,
    /// Linux users by ClearML users.
    pub user_map: UserMap,
    /// Whose vaults may bring a map of their own.
    pub vault_user_map: Trust,
    /// Which Linux users are allowed.
    pub user_rules: Rules,
    /// Where Slurm's commands are.
    pub bin_dir: Option<PathBuf>,
    /// How long a command may take.
    pub command_timeout: Duration,
    /// Variables for Slurm's commands.
    pub pass_env: Vec<String>,
    /// How often preemption may send a task back.
    pub max_requeue: u32,
    /// `agent.default_docker.image`.
    pub default_image: Option<String>,
    /// Images that tasks may name; empty: all.
    pub allowed_images: Vec<String>,
    /// Let Slurm start no second job of a task.
    pub singleton: bool,
    /// Ask accounting how jobs ended.
    pub accounting: bool,
    /// Nothing is taken or made: scripts are shown, or everything is checked.
    pub look_only: bool,
}

/// What the agents in jobs log in with.
#[derive(Debug, Clone, Default)]
pub enum Credentials {
    /// What the nodes have.
    #[default]
    None,
    /// The configuration in the script.
    Inline(Secret),
    /// The configuration in a file.
    File(Secret),
    /// A token of the task's owner.
    Token {
        /// The configuration without keys.
        server: String,
        /// Tasks whose owner's token can't be had fail. Otherwise they do with what the nodes have.
        required: bool,
    },
}

impl Credentials {
    /// Those that the settings ask for.
    ///
    /// # Errors
    ///
    /// When the glue itself lacks what jobs are to have.
    pub fn new(settings: &Settings, owner_token: bool) -> Result<Self, OptionsError> {
        let wrong = |problem: String| OptionsError::Value {
            key: "credentials".to_owned(),
            problem,
        };
        let wanted = settings.text("agent.slurm.credentials");
        let wanted = if owner_token {
            Some("token")
        } else {
            wanted.as_deref()
        };
        Ok(match wanted {
            Some("inline") => Self::Inline(job_configuration(settings, true)?),
            Some("file") if settings.path("agent.slurm.shared_dir").is_none() => {
                return Err(wrong("file needs agent.slurm.shared_dir".to_owned()));
            }
            Some("file") => Self::File(job_configuration(settings, true)?),
            Some("none") => Self::None,
            other => Self::Token {
                server: job_configuration(settings, false)?.expose().to_owned(),
                required: other.is_some(),
            },
        })
    }
}

impl GlueOptions {
    /// The options of a configuration, with the queues that were named on the command line, if any.
    ///
    /// # Errors
    ///
    /// When they do not fit together.
    pub fn new(
        settings: &Settings,
        queues: &[String],
        templates: &[String],
        mode: Mode,
    ) -> Result<Self, OptionsError> {
        let seconds = |key: &str| Duration::from_secs_f64(settings.number(key).clamp(0.0, 1e9));
        let whole = |key: &str| settings.number(key).clamp(0.0, 1e9).round() as u64;
        let count = |key: &str| usize::try_from(settings.integer(key).unwrap_or(0)).unwrap_or(0);
        let poll = seconds("agent.slurm.poll_interval");
        let parking = settings
            .text("agent.slurm.parking_queue")
            .filter(|name| name != "none");
        let options = Self {
            queues: if queues.is_empty() && templates.is_empty() {
                configured(settings.get("agent.slurm.queues"), mode)?
            } else {
                pair(&split(queues), &split(templates), mode)?
            },
            create_queue: false,
            order_fairness: false,
            parking,
            limits: Limits {
                max_jobs: count("agent.slurm.max_jobs"),
                max_pending: count("agent.slurm.max_pending"),
            },
            poll,
            queue_poll: seconds("agent.slurm.queue_poll_interval"),
            spacing: seconds("agent.slurm.submission_spacing"),
            on_preemption: match settings.text("agent.slurm.on_preemption").as_deref() {
                Some("fail") => OnPreemption::Fail,
                Some("requeue") => OnPreemption::Requeue,
                _ => OnPreemption::Stop,
            },
            state_dir: settings.path("agent.slurm.state_dir").unwrap_or_default(),
            separator: separator(settings)?,
            allow_user_options: settings.list("agent.slurm.allow_user_options"),
            allowed_sbatch_options: settings.list("agent.slurm.allowed_sbatch_options"),
            graces: Graces {
                end: whole("agent.slurm.end_grace"),
                abort: whole("agent.slurm.abort_grace"),
                lost: whole("agent.slurm.lost_job_grace"),
                pass: poll.as_secs().max(1),
                begin: 1800,
            },
            pending_deadline: whole("agent.slurm.pending_deadline"),
            fail_on_pending: settings.list("agent.slurm.fail_on_pending_reasons"),
            report_properties: settings.flag("agent.slurm.report_properties"),
            log_tail_lines: count("agent.slurm.log_tail_lines"),
            work_dir: settings.path("agent.slurm.work_dir"),
            shared_dir: settings.path("agent.slurm.shared_dir"),
            agent_binary: settings.path("agent.slurm.agent_binary"),
            credentials: Credentials::new(settings, false)?,
            user_map: user_map(settings.get("agent.slurm.user_map"))?,
            vault_user_map: match settings.text("agent.slurm.vault_user_map").as_deref() {
                Some("admin") => Trust::Admin,
                Some("off") => Trust::Off,
                _ => Trust::Any,
            },
            user_rules: Rules {
                allowed: settings.list("agent.slurm.allowed_users"),
                min_uid: u32::try_from(settings.integer("agent.slurm.min_uid").unwrap_or(1000))
                    .unwrap_or(1000),
            },
            bin_dir: settings.path("agent.slurm.bin_dir"),
            command_timeout: seconds("agent.slurm.command_timeout"),
            pass_env: settings.list("agent.slurm.pass_env"),
            max_requeue: u32::try_from(count("agent.slurm.max_requeue")).unwrap_or(u32::MAX),
            default_image: settings.text("agent.default_docker.image"),
            allowed_images: settings.list("agent.slurm.allowed_images"),
            singleton: settings.flag("agent.slurm.singleton"),
            accounting: settings.text("agent.slurm.account_check").as_deref() != Some("off"),
            look_only: false,
        };
        Ok(options)
    }

    /// How the template of a queue is to be read.
    #[must_use]
    pub fn template_options(&self, queue: &QueueSetup) -> TemplateOptions {
        TemplateOptions {
            mode: queue.mode,
            separator: self.separator.clone(),
            allow_user_options: self.allow_user_options.clone(),
            allowed_sbatch_options: self.allowed_sbatch_options.clone(),
        }
    }
}

fn separator(settings: &Settings) -> Result<Separator, OptionsError> {
    let text = settings.text("agent.slurm.default_separator");
    Separator::new(text.as_deref().unwrap_or(":")).map_err(|text| OptionsError::Value {
        key: "default_separator".to_owned(),
        problem: format!(
            "can't be {text:?}: one to three characters that mean nothing else in a placeholder"
        ),
    })
}

fn split(texts: &[String]) -> Vec<String> {
    texts
        .iter()
        .flat_map(|text| text.split(','))
        .filter(|text| !text.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Pairs queues with templates: the first with the first, or one template for all.
///
/// # Errors
///
/// When their numbers do not fit, or a queue is named twice.
pub fn pair(queues: &[String], templates: &[String], mode: Mode) -> Result<Vec<QueueSetup>, OptionsError> {
    if queues.is_empty() {
        return Err(OptionsError::NoQueue);
    }
    if templates.is_empty() || (templates.len() != 1 && templates.len() != queues.len()) {
        return Err(OptionsError::Pairing {
            queues: queues.len(),
            templates: templates.len(),
        });
    }
    for (index, queue) in queues.iter().enumerate() {
        if queues[..index].contains(queue) {
            return Err(OptionsError::Twice(queue.clone()));
        }
    }
    let setup = |(index, queue): (usize, &String)| QueueSetup {
        queue: queue.clone(),
        template: PathBuf::from(templates.get(index).unwrap_or(&templates[0])),
        mode,
        limits: Limits::default(),
        work_dir: None,
        extra_args: Vec::new(),
    };
    Ok(queues.iter().enumerate().map(setup).collect())
}

/// The queues of the configuration. What is misspelt or of another kind is no queue without limits.
fn configured(value: Option<&Value>, mode: Mode) -> Result<Vec<QueueSetup>, OptionsError> {
    let mut found: Vec<QueueSetup> = Vec::new();
    for entry in value.and_then(Value::as_array).into_iter().flatten() {
        let setup = entry_of(entry, mode).map_err(|problem| OptionsError::Value {
            key: "queues".to_owned(),
            problem,
        })?;
        if found.iter().any(|other| other.queue == setup.queue) {
            return Err(OptionsError::Twice(setup.queue));
        }
        found.push(setup);
    }
    if found.is_empty() {
        return Err(OptionsError::NoQueue);
    }
    Ok(found)
}

/// One entry of `agent.slurm.queues`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    queue: String,
    template: PathBuf,
    mode: Option<String>,
    #[serde(default)]
    max_jobs: usize,
    #[serde(default)]
    max_pending: usize,
    work_dir: Option<PathBuf>,
    #[serde(default)]
    extra_sbatch_args: Vec<String>,
}

fn entry_of(value: &Value, mode: Mode) -> Result<QueueSetup, String> {
    let entry = Entry::deserialize(value).map_err(|error| format!("has the entry {value}: {error}"))?;
    Ok(QueueSetup {
        queue: entry.queue,
        template: entry.template,
        mode: match entry.mode.as_deref() {
            None => mode,
            Some("native") => Mode::Native,
            Some("singularity") => Mode::Singularity,
            Some("srun-delegation") => Mode::SrunDelegation,
            Some(_) => return Err("knows the modes native, singularity and srun-delegation".to_owned()),
        },
        limits: Limits {
            max_jobs: entry.max_jobs,
            max_pending: entry.max_pending,
        },
        work_dir: entry.work_dir,
        extra_args: entry.extra_sbatch_args,
    })
}

/// The map that this value is. An entry that is no name can't be left out: jobs would run as somebody else.
pub(crate) fn user_map(value: Option<&Value>) -> Result<UserMap, OptionsError> {
    let Some(value) = value.filter(|value| !value.is_null()) else {
        return Ok(UserMap::new());
    };
    BTreeMap::deserialize(value).map_err(|error| OptionsError::Value {
        key: "user_map".to_owned(),
        problem: format!("can't be {value}: {error}; write names of Linux users"),
    })
}

/// The server and the keys, as a job needs them. JSON is a part of the configuration's language.
fn job_configuration(settings: &Settings, with_keys: bool) -> Result<Secret, OptionsError> {
    let wrong = |problem: String| OptionsError::Value {
        key: "credentials".to_owned(),
        problem: format!("can't be given to jobs: {problem}"),
    };
    let mut api = serde_json::json!({});
    match settings.api.require_server() {
        Ok(server) => api["api_server"] = server.into(),
        Err(error) if with_keys => return Err(wrong(error.to_string())),
        // Whoever logs in says so.
        Err(_) => {}
    }
    if with_keys {
        let credentials = settings.api.require_credentials();
        let clearml_agent_config::Credentials::Keys {
            access_key,
            secret_key,
        } = credentials.map_err(|error| wrong(error.to_string()))?
        else {
            return Err(wrong("the glue itself uses a token".to_owned()));
        };
        api["credentials"] =
            serde_json::json!({"access_key": access_key.expose(), "secret_key": secret_key.expose()});
    }
    for key in ["web_server", "files_server", "verify_certificate"] {
        if let Some(value) = settings
            .get(&format!("api.{key}"))
            .filter(|value| !value.is_null())
        {
            api[key] = value.clone();
        }
    }
    Ok(Secret::new(serde_json::json!({ "api": api }).to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_wrong_is_no_queue_without_limits_and_no_map_without_users() {
        let read = |entry: Value| configured(Some(&serde_json::json!([entry])), Mode::Native);
        let good = read(serde_json::json!({
            "queue": "a", "template": "t", "mode": "singularity", "max_jobs": 2, "extra_sbatch_args": ["--qos=x"]
        }));
        let good = &good.unwrap()[0];
        assert_eq!((good.mode, good.limits.max_jobs), (Mode::Singularity, 2));
        assert_eq!(good.extra_args, ["--qos=x"]);
        for (entry, part) in [
            (serde_json::json!({"queue": "a"}), "template"),
            (
                serde_json::json!({"queue": "a", "template": "t", "max_job": 2}),
                "`max_job`",
            ),
            (
                serde_json::json!({"queue": "a", "template": "t", "max_jobs": -2}),
                "-2",
            ),
            (
                serde_json::json!({"queue": "a", "template": "t", "extra_sbatch_args": "--qos=x"}),
                "--qos=x",
            ),
            (
                serde_json::json!({"queue": "a", "template": "t", "mode": "docker"}),
                "modes",
            ),
        ] {
            let error = read(entry).unwrap_err().to_string();
            assert!(
                error.starts_with("agent.slurm.queues") && error.contains(part),
                "{error}"
            );
        }
        let map = |value: Value| user_map(Some(&value));
        assert!(user_map(None).unwrap().is_empty() && map(Value::Null).unwrap().is_empty());
        assert_eq!(
            map(serde_json::json!({"default": "alice"})).unwrap()["default"],
            "alice"
        );
        for wrong in [serde_json::json!({"default": 1001}), serde_json::json!("alice")] {
            let error = map(wrong).unwrap_err().to_string();
            assert!(error.contains("names of Linux users"), "{error}");
        }
    }

    #[test]
    fn queues_and_templates_are_paired_or_refused() {
        let texts = |list: &[&str]| split(&list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
        let paired =
            |queues: &[&str], templates: &[&str]| pair(&texts(queues), &texts(templates), Mode::Native);
        let two = paired(&["a,b"], &["x", "y"]).unwrap();
        assert_eq!(
            (two[1].queue.as_str(), two[1].template.to_str()),
            ("b", Some("y"))
        );
        let three = paired(&["a", "b", "c"], &["x"]).unwrap();
        assert!(three.iter().all(|setup| setup.template.to_str() == Some("x")));
        let error = paired(&["a", "b", "c"], &["x", "y"]).unwrap_err().to_string();
        assert!(
            error.contains("3 queues") && error.contains("2 templates"),
            "{error}"
        );
        assert_eq!(paired(&["a", "a"], &["x"]), Err(OptionsError::Twice("a".into())));
        assert!(paired(&[], &["x"]).is_err() && paired(&["a"], &[]).is_err());
    }
}
