//! What an administrator sets up on such a cluster: agent and glue in the shared folder, a configuration, templates.
//!
//! Everything is in one folder of the volume that all nodes share. The server runs on the login node as well, where
//! all nodes and this machine reach it, and nobody else does.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::compose::{Compose, FUSE, LOGIN, NODE};
use crate::engine;
use crate::terminal::step;
use crate::workbench::{Api, TaskSpec, wait_for};
use crate::workspace;

/// The folder in the shared volume.
pub(super) const SHARED: &str = "/data/clearml-e2e";
/// The unpacked image of the journey in a container.
pub(super) const IMAGE: &str = "/data/clearml-e2e/images/py";
/// The same image in a registry on the login node, without a scheme.
pub(super) const PULLED: &str = "slurmctld:15000/lab/py:1";
const PORT: &str = "18008";
const FILES_PORT: &str = "18081";
/// How tasks end.
const FINAL: [&str; 3] = ["completed", "failed", "stopped"];
/// What this machine trusts; containers may have to go the same way to a package registry.
const TRUSTED: &str = "/etc/ssl/certs/ca-certificates.crt";
/// For what all templates of the journeys have beside the documented lines.
const DIRECTIVES: &str = "#SBATCH --mem=200
#SBATCH --begin=${CLEARML_TASK.hyperparams.properties.begin.value:}
";

/// A cluster on which a glue works.
pub(super) struct Site {
    pub(super) compose: Compose,
    pub(super) api: Api,
    queues: BTreeMap<&'static str, String>,
}

impl Site {
    /// Sets it up, glue and all. What an earlier time has left is taken away.
    ///
    /// # Errors
    ///
    /// When something can't be copied, or server or glue do not start.
    pub(super) fn start(compose: Compose, agent: &Path, glue: &Path) -> Result<Self> {
        clear(&compose)?;
        step("Copying agent and glue to the shared folder");
        compose.output(
            LOGIN,
            &[
                "mkdir",
                "-p",
                &format!("{SHARED}/jobs"),
                &format!("{SHARED}/logs"),
                IMAGE,
            ],
        )?;
        for program in [agent, glue] {
            let name = program
                .file_name()
                .context("a program without a name")?
                .to_string_lossy();
            compose.copy(program, &format!("{SHARED}/{name}"))?;
        }
        if Path::new(TRUSTED).is_file() {
            compose.copy(Path::new(TRUSTED), &format!("{SHARED}/trusted.crt"))?;
        }
        let scratch = tempfile::tempdir()?;
        let (api, keys) = serve(&compose, &scratch)?;
        let mut site = Self {
            compose,
            api,
            queues: BTreeMap::new(),
        };
        site.templates(&scratch)?;
        site.write(&scratch, "slurm.conf", &(keys + &site.settings()))?;
        Ok(site)
    }

    /// Takes away what the journeys need.
    ///
    /// # Errors
    ///
    /// When the folder stays.
    pub(super) fn end(self) -> Result<()> {
        clear(&self.compose)
    }

    /// Starts the glue in the background, or again.
    ///
    /// # Errors
    ///
    /// When the login node does not do it.
    pub(super) fn start_glue(&self) -> Result<()> {
        let program = format!("{SHARED}/clearml-agent-slurm");
        let config = format!("--config-file={SHARED}/slurm.conf");
        background(&self.compose, "glue", &[&program, &config])
    }

    /// Ends the glue by a signal.
    ///
    /// # Errors
    ///
    /// When it does not end.
    pub(super) fn end_glue(&self, signal: &str) -> Result<()> {
        end(&self.compose, "glue", signal)
    }

    /// What the glue prints when it does nothing but this.
    ///
    /// # Errors
    ///
    /// When it fails.
    pub(super) fn glue(&self, arguments: &[&str]) -> Result<String> {
        let program = format!("{SHARED}/clearml-agent-slurm");
        let config = format!("--config-file={SHARED}/slurm.conf");
        let words = [&[program.as_str(), &config], arguments].concat();
        self.compose.output(LOGIN, &words)
    }

    /// What the glue has logged.
    pub(super) fn glue_log(&self) -> String {
        self.file("glue.log").unwrap_or_default()
    }

    /// The text of a file in the shared folder.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub(super) fn file(&self, name: &str) -> Result<String> {
        self.compose.output(LOGIN, &["cat", &format!("{SHARED}/{name}")])
    }

    /// What a command of Slurm prints.
    ///
    /// # Errors
    ///
    /// When it fails.
    pub(super) fn slurm(&self, words: &[&str]) -> Result<String> {
        Ok(self.compose.output(LOGIN, words)?.trim().to_owned())
    }

    /// The version of Apptainer on the nodes, if they have it.
    pub(super) fn apptainer(&self) -> Option<String> {
        let said = self.compose.output(NODE, &["apptainer", "--version"]).ok()?;
        Some(said.trim().to_owned())
    }

    /// Unpacks the image of tests into the shared folder, with a file that tells it from others.
    ///
    /// # Errors
    ///
    /// When the image can't be made or copied.
    pub(super) fn unpack_image(&self) -> Result<()> {
        engine::make_image(self.compose.address())?;
        self.compose.unpack(engine::IMAGE, IMAGE)?;
        let script = format!("echo in the image > {IMAGE}/etc/image");
        self.compose.output(LOGIN, &["sh", "-c", &script]).map(drop)
    }

    /// Starts a registry on the login node, and puts the image of tests into it; or says what the cluster lacks for it.
    ///
    /// # Errors
    ///
    /// When it does not start or the image can't be pushed.
    pub(super) fn serve_image(&self) -> Result<Option<String>> {
        for (service, program) in [(LOGIN, "docker-registry"), (LOGIN, "skopeo"), (NODE, FUSE)] {
            let question = ["sh", "-c", "command -v \"$1\" || test -c \"$1\"", "sh", program];
            if self.compose.output(service, &question).is_err() {
                return Ok(Some(format!("{service} has no {program}")));
            }
        }
        let text = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {SHARED}/registry}}}}\nhttp: {{addr: ':15000'}}\n"
        );
        let config = format!("{SHARED}/registry.yml");
        self.write(&tempfile::tempdir()?, "registry.yml", &text)?;
        background(&self.compose, "registry", &["docker-registry", "serve", &config])?;
        engine::make_image(self.compose.address())?;
        let archive = format!("{SHARED}/image.tar");
        self.compose.save(engine::IMAGE, &archive)?;
        let from = format!("docker-archive:{archive}");
        let to = format!("docker://{PULLED}");
        let push = [
            "skopeo",
            "copy",
            "--insecure-policy",
            "--dest-tls-verify=false",
            &from,
            &to,
        ];
        self.compose.output(LOGIN, &push)?;
        Ok(None)
    }

    /// A task in a queue, with user properties and further fields.
    ///
    /// # Errors
    ///
    /// When the server refuses.
    pub(super) fn submit(
        &self,
        queue: &str,
        spec: TaskSpec,
        properties: &[(&str, &str)],
        image: Option<&str>,
    ) -> Result<String> {
        let items: serde_json::Map<String, Value> = properties
            .iter()
            .map(|(name, value)| {
                let item = json!({"section": "properties", "name": name, "value": value});
                ((*name).to_owned(), item)
            })
            .collect();
        let spec = TaskSpec {
            hyperparams: Some(json!({"properties": items})),
            ..spec
        };
        let task = self
            .api
            .create_task("a task for a cluster in containers", &spec)?;
        if let Some(image) = image {
            let edit = json!({"task": task, "container": {"image": image}});
            self.api.call("tasks.edit", edit)?;
        }
        let queue = self.queues.get(queue).context("no such queue")?;
        self.api.enqueue(&task, queue)?;
        Ok(task)
    }

    /// Waits until a task has ended; gives its status and its reason.
    ///
    /// # Errors
    ///
    /// When it does not end in time.
    pub(super) fn end_of(&self, task: &str, limit_sec: u64) -> Result<(String, String)> {
        self.wait(&format!("the end of task {task}"), limit_sec, || {
            let (is, reason) = self.status(task)?;
            Ok(FINAL.contains(&is.as_str()).then_some((is, reason)))
        })
    }

    /// Waits until a task has this status; gives its reason.
    ///
    /// # Errors
    ///
    /// When it ends otherwise, or not in time.
    pub(super) fn until(&self, task: &str, status: &str, limit_sec: u64) -> Result<String> {
        self.wait(&format!("status {status} of task {task}"), limit_sec, || {
            let (is, reason) = self.status(task)?;
            ensure!(
                is == status || !FINAL.contains(&is.as_str()),
                "task {task} is {is} ({reason}), not {status}\n{}",
                self.api.console(task).unwrap_or_default()
            );
            Ok((is == status).then_some(reason))
        })
    }

    fn status(&self, task: &str) -> Result<(String, String)> {
        let now = self.api.task(task)?;
        let text = |field: &str| now[field].as_str().unwrap_or_default().to_owned();
        Ok((text("status"), text("status_reason")))
    }

    /// Waits until the status message of a task has this part.
    ///
    /// # Errors
    ///
    /// When it does not in time.
    pub(super) fn until_message(&self, task: &str, part: &str, limit_sec: u64) -> Result<()> {
        self.wait(&format!("{part:?} in the status of {task}"), limit_sec, || {
            let message = self.api.task(task)?["status_message"].take();
            let found = message.as_str().is_some_and(|text| text.contains(part));
            Ok(found.then_some(()))
        })
    }

    /// Waits until the console of a task has this part.
    ///
    /// # Errors
    ///
    /// When it does not in time.
    pub(super) fn until_console(&self, task: &str, part: &str, limit_sec: u64) -> Result<()> {
        self.wait(&format!("{part:?} in the console of {task}"), limit_sec, || {
            Ok(self.api.console(task)?.contains(part).then_some(()))
        })
    }

    /// The job of a task.
    ///
    /// # Errors
    ///
    /// When it has none in time.
    pub(super) fn job(&self, task: &str) -> Result<String> {
        self.wait(&format!("a job of task {task}"), 30, || {
            let noted = self.api.task(task)?["runtime"]["_slurm_job"].take();
            let job = noted.as_str().and_then(|noted| noted.split_once('/'));
            Ok(job.map(|(_, job)| job.to_owned()))
        })
    }

    /// Waits until accounting has this state and exit code of a job, such as `FAILED|3:0`.
    ///
    /// # Errors
    ///
    /// When it does not in time.
    pub(super) fn until_accounted(&self, job: &str, wanted: &str, limit_sec: u64) -> Result<()> {
        let question = ["sacct", "-n", "-X", "-P", "-j", job, "-o", "State,ExitCode"];
        self.wait(&format!("job {job} accounted as {wanted}"), limit_sec, || {
            Ok(self.slurm(&question)?.starts_with(wanted).then_some(()))
        })
    }

    /// How many jobs of a task there have ever been.
    ///
    /// # Errors
    ///
    /// When accounting does not know it in time.
    pub(super) fn jobs_of(&self, task: &str) -> Result<usize> {
        let name = format!("--name=clearml_task_{task}");
        self.wait(&format!("accounting of task {task}"), 60, || {
            let text = self.slurm(&["sacct", "-n", "-X", "-P", &name, "-o", "JobIDRaw"])?;
            let count = text.lines().count();
            Ok((count > 0).then_some(count))
        })
    }

    /// Waits; failing, it shows the queue and the log of the glue.
    fn wait<T>(&self, what: &str, limit_sec: u64, question: impl FnMut() -> Result<Option<T>>) -> Result<T> {
        let pause = Duration::from_millis(250);
        wait_for(what, Duration::from_secs(limit_sec), pause, question).with_context(|| {
            let jobs = self.slurm(&["squeue", "-a", "-t", "all"]).unwrap_or_default();
            format!("{jobs}\n{}", self.glue_log())
        })
    }

    /// Writes the documented templates with lines of the journeys, and makes their queues.
    fn templates(&mut self, scratch: &TempDir) -> Result<()> {
        let trust = format!("if [ -f {SHARED}/trusted.crt ]; then export PIP_CERT={SHARED}/trusted.crt; fi");
        let skip = "export CLEARML_AGENT_SKIP_PYTHON_ENV_INSTALL=1";
        for (queue, template, line) in [
            ("native", "native", skip),
            ("sdk", "native", &trust),
            ("apptainer", "singularity", &format!("{skip} APPTAINER_NOHTTPS=1")),
        ] {
            let text = documented(template, line)?;
            self.write(scratch, &format!("{queue}.sh"), &text)?;
            self.queues.insert(queue, self.api.create_queue(queue)?);
        }
        Ok(())
    }

    fn settings(&self) -> String {
        let queues: Vec<Value> = self
            .queues
            .keys()
            .map(|queue| {
                let mode = if *queue == "apptainer" {
                    "singularity"
                } else {
                    "native"
                };
                json!({"queue": queue, "template": format!("{SHARED}/{queue}.sh"), "mode": mode})
            })
            .collect();
        let settings = json!({
            "queues": queues,
            "agent_binary": format!("{SHARED}/clearml-agent"),
            "shared_dir": format!("{SHARED}/jobs"),
            "work_dir": format!("{SHARED}/logs"),
            "state_dir": format!("{SHARED}/state"),
            "credentials": "inline",
            "poll_interval": 2,
            "queue_poll_interval": 0.5,
            "end_grace": 5,
            "abort_grace": 20,
        });
        format!("\nagent.slurm: {settings:#}\n")
    }

    fn write(&self, scratch: &TempDir, name: &str, text: &str) -> Result<()> {
        let path = scratch.path().join(name);
        fs::write(&path, text)?;
        self.compose.copy(&path, &format!("{SHARED}/{name}"))
    }
}

/// Starts a server on the login node. Gives a client, and the part of `clearml.conf` with address and keys.
fn serve(compose: &Compose, scratch: &TempDir) -> Result<(Api, String)> {
    step("Starting a server on the login node");
    let program = format!("{SHARED}/clearml-agent");
    let data = format!("{SHARED}/server");
    background(
        compose,
        "server",
        &[
            &program,
            "server",
            "--data",
            &data,
            "--no-web",
            "--host=0.0.0.0",
            "--allow-remote",
            "--allowed-host",
            LOGIN,
            "--port",
            PORT,
            "--files-port",
            FILES_PORT,
        ],
    )?;
    let keys = wait_for(
        "the start of the server",
        Duration::from_secs(30),
        Duration::from_millis(200),
        || {
            Ok(compose
                .output(LOGIN, &["cat", &format!("{data}/clearml.conf")])
                .ok())
        },
    )?;
    let addresses = compose.output(LOGIN, &["hostname", "-i"])?;
    let address = addresses
        .split_whitespace()
        .next()
        .context("the login node has no address")?;
    let config: PathBuf = scratch.path().join("clearml.conf");
    fs::write(&config, keys.replace("127.0.0.1", address))?;
    let api = wait_for(
        "an answer of the server",
        Duration::from_secs(30),
        Duration::from_millis(200),
        || Ok(Api::connect(&config).ok()),
    )
    .with_context(|| {
        format!("this machine does not reach {LOGIN} at {address}; does the engine run here?")
    })?;
    Ok((api, keys.replace("127.0.0.1", LOGIN)))
}

/// A documented template with further directives, and a line between its parts as users write them.
fn documented(name: &str, line: &str) -> Result<String> {
    let path = workspace::root()
        .join("fixtures/slurm/templates")
        .join(format!("{name}.sh"));
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let setup = "${CLEARML_PRE_SETUP}";
    ensure!(text.contains(setup), "{} has no {setup}", path.display());
    let mut text = text.replacen("#SBATCH", &format!("{DIRECTIVES}#SBATCH"), 1);
    // The template's own is for sites where users choose it.
    if let Some(line) = text.lines().find(|line| line.contains("properties.memory")) {
        text = text.replace(&format!("{line}\n"), "");
    }
    // In a container Apptainer can't have what root has elsewhere.
    let text = text.replace("singularity exec --uts", "singularity exec --userns --uts");
    Ok(text.replace(setup, &format!("{setup}\n{line}")))
}

/// Starts a program on the login node, which outlives the command; its pid and its output are in files.
fn background(compose: &Compose, name: &str, words: &[&str]) -> Result<()> {
    let script = r#"cd "$1" && echo $$ > "$2.pid" && name=$2 && shift 2 && exec "$@" >> "$name.log" 2>&1"#;
    let words = [&["sh", "-c", script, "sh", SHARED, name], words].concat();
    compose.spawn(LOGIN, &words)
}

/// Ends such a program.
fn end(compose: &Compose, name: &str, signal: &str) -> Result<()> {
    let script = r#"pid=$(cat "$1/$2.pid" 2> /dev/null) || exit 0
rm -f "$1/$2.pid"
case $(tr '\0' ' ' < "/proc/$pid/cmdline" 2> /dev/null) in *"$1"/*) ;; *) exit 0 ;; esac
kill -s "$3" "$pid" 2> /dev/null
for wait in $(seq 100); do grep -q '^State:.[^Z]' "/proc/$pid/status" 2> /dev/null || exit 0; sleep 0.1; done
echo "$2 does not end" >&2
exit 1"#;
    compose
        .output(LOGIN, &["sh", "-c", script, "sh", SHARED, name, signal])
        .map(drop)
}

fn clear(compose: &Compose) -> Result<()> {
    for name in ["glue", "registry", "server"] {
        end(compose, name, "TERM")?;
    }
    compose.output(LOGIN, &["rm", "-rf", SHARED]).map(drop)
}
