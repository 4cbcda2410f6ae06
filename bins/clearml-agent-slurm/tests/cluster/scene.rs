//! A cluster, a server, and the glue between them.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use xtask::e2e::slurm::cluster::{Cluster, missing};
use xtask::workbench::{Api, LocalServer, TaskSpec};
use xtask::workspace;

/// So many clusters at a time: each has eight daemons, and most of the time nothing to do.
const CLUSTERS: usize = 3;

/// One of them, until it is dropped.
struct Turn;

/// One begins at a time.
static BEGINS: Mutex<()> = Mutex::new(());

static TAKEN: Mutex<usize> = Mutex::new(0);
static GIVEN: Condvar = Condvar::new();

impl Turn {
    fn take() -> Self {
        let taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = GIVEN
            .wait_while(taken, |taken| *taken >= CLUSTERS)
            .unwrap_or_else(PoisonError::into_inner);
        *taken += 1;
        Self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *TAKEN.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        GIVEN.notify_one();
    }
}

const HEAD: &str = "#!/bin/bash
#SBATCH --job-name=clearml_task_${CLEARML_TASK.id}
#SBATCH --open-mode=append
#SBATCH --ntasks-per-node=1
#SBATCH --mem=200
#SBATCH --nodes=${CLEARML_TASK.hyperparams.properties.num_nodes.value:1}
#SBATCH --begin=${CLEARML_TASK.hyperparams.properties.begin.value:}
#SBATCH --constraint=${CLEARML_TASK.hyperparams.properties.constraint.value:}
#SBATCH --partition=${CLEARML_TASK.hyperparams.properties.partition.value:}
";

/// The number of `nobody`.
pub(crate) const NOBODY: u32 = 65534;

/// Whether this machine has the users that jobs are to run as; says so if not.
pub(crate) fn has_users(test: &str) -> bool {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let has = |start: &str| passwd.lines().any(|line| line.starts_with(start));
    let found = has("nobody:x:65534:") && has("games:x:5:");
    if !found {
        eprintln!("SKIPPED {test}: this machine lacks the users nobody and games");
    }
    found
}

/// A template whose body has these lines between the parts.
pub(crate) fn template(directives: &str, before: &str) -> String {
    format!(
        "{HEAD}{directives}\n${{CLEARML_PRE_SETUP}}\nexport CLEARML_AGENT_SKIP_PYTHON_ENV_INSTALL=1\n{before}\n\
         ${{CLEARML_AGENT_EXECUTE}}\n${{CLEARML_POST_SETUP}}\n"
    )
}

pub(crate) struct Scene {
    glue: Option<Child>,
    pub(crate) cluster: Cluster,
    pub(crate) api: Api,
    pub(crate) server: LocalServer,
    queues: Vec<String>,
    ids: Vec<String>,
    agent: PathBuf,
    pub(crate) folder: TempDir,
    pub(crate) options: Vec<String>,
    /// How the agent is started, queue by queue; as the command line says when empty.
    pub(crate) modes: Vec<&'static str>,
    _turn: Turn,
}

impl Scene {
    /// A cluster and a server with these queues and templates; no glue yet. `None`, said loudly, where there
    /// can be no cluster.
    pub(crate) fn new(test: &str, queues: &[(&str, String)]) -> Option<Self> {
        Self::with_server(test, queues, &[])
    }

    /// The same with a server that was started with further arguments.
    pub(crate) fn with_server(test: &str, queues: &[(&str, String)], arguments: &[&str]) -> Option<Self> {
        if let Some(reason) = missing() {
            eprintln!("SKIPPED {test}: {reason}");
            return None;
        }
        let turn = Turn::take();
        let agent = workspace::target().join("debug/clearml-agent");
        let agent = if agent.is_file() {
            agent
        } else {
            workspace::build_agent(false).unwrap()
        };
        let folder = tempfile::tempdir().unwrap();
        // Two that look for free ports at the same moment may find the same ones.
        let begins = BEGINS.lock().unwrap_or_else(PoisonError::into_inner);
        let cluster = Cluster::up(&folder.path().join("cluster")).unwrap();
        drop(begins);
        let server = LocalServer::start_with(&agent, &folder.path().join("server"), arguments).unwrap();
        let api = server.api().unwrap();
        let mut ids = Vec::new();
        for (name, text) in queues {
            ids.push(api.create_queue(name).unwrap());
            let output = format!("#SBATCH --output={}/%j.log\n", folder.path().display());
            let text = text.replacen("#SBATCH --open-mode", &format!("{output}#SBATCH --open-mode"), 1);
            fs::write(folder.path().join(format!("{name}.sh")), text).unwrap();
        }
        fs::create_dir(folder.path().join("shared")).unwrap();
        Some(Self {
            glue: None,
            cluster,
            api,
            server,
            queues: queues.iter().map(|(name, _)| (*name).to_owned()).collect(),
            ids,
            agent,
            folder,
            options: Vec::new(),
            modes: Vec::new(),
            _turn: turn,
        })
    }

    /// The glue with these further arguments.
    pub(crate) fn glue_command(&self, arguments: &[&str]) -> Command {
        let folder = self.folder.path();
        let mut command = Command::new(env!("CARGO_BIN_EXE_clearml-agent-slurm"));
        let template = |name: &String| folder.join(format!("{name}.sh"));
        if self.modes.is_empty() {
            command.arg("--queue").args(&self.queues).arg("--template-files");
            command.args(self.queues.iter().map(template));
        } else {
            let queues = self.queues.iter().zip(&self.modes);
            let entries: Vec<Value> = queues
                .map(|(name, mode)| json!({"queue": name, "template": template(name), "mode": mode}))
                .collect();
            command.args(["--set", &format!("agent.slurm.queues={}", json!(entries))]);
        }
        let set = [
            "credentials=inline".to_owned(),
            format!("agent_binary={}", self.agent.display()),
            format!("shared_dir={}", folder.join("shared").display()),
            "poll_interval=1".to_owned(),
            "queue_poll_interval=0.2".to_owned(),
            "end_grace=2".to_owned(),
            "abort_grace=20".to_owned(),
            "lost_job_grace=15".to_owned(),
        ];
        for value in set.iter().chain(&self.options) {
            command.args(["--set", &format!("agent.slurm.{value}")]);
        }
        command
            .arg("--state-dir")
            .arg(folder.join("state"))
            .args(arguments)
            .env("SLURM_CONF", self.cluster.configuration())
            .env("CLEARML_CONFIG_FILE", folder.join("server/clearml.conf"))
            .env("CLEARML_WORKER_NAME", "login")
            .env("HOME", folder)
            // What must not reach jobs, and what must not reach sbatch.
            .env("SECRET_OF_THE_GLUE", "do-not-tell")
            .env("SBATCH_PARTITION", "nowhere")
            .env("SLURM_MEM_PER_NODE", "1")
            .current_dir(folder)
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn start(&mut self) {
        let command = self.glue_command(&[]);
        self.spawn(command);
    }

    /// The same, wrapped in another command.
    pub(crate) fn start_as(&mut self, wrap: impl FnOnce(&Self, &Command) -> Command) {
        let command = wrap(self, &self.glue_command(&[]));
        self.spawn(command);
    }

    fn spawn(&mut self, mut command: Command) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log())
            .unwrap();
        self.glue = Some(
            command
                .stdout(log.try_clone().unwrap())
                .stderr(log)
                .spawn()
                .unwrap(),
        );
    }

    /// Waits until the program of a task has printed that it has begun.
    pub(crate) fn until_begun(&self, task: &str) {
        self.wait(&format!("task {task} runs"), 60, || {
            self.api.console(task).unwrap().contains("begun").then_some(())
        });
    }

    /// Has a job that Slurm has put back start at once, not after its two minutes.
    pub(crate) fn hurry(&self, job: &str) {
        let job = format!("JobId={job}");
        self.cluster
            .output("scontrol", &["update", &job, "StartTime=now"])
            .unwrap();
    }

    /// The id of a queue.
    pub(crate) fn queue_id(&self, name: &str) -> String {
        let index = self.queues.iter().position(|queue| queue == name).unwrap();
        self.ids[index].clone()
    }

    /// Changes the configuration of the cluster, and starts its controller again.
    pub(crate) fn configure(&mut self, change: impl FnOnce(String) -> String) {
        let path = self.cluster.configuration();
        let text = change(fs::read_to_string(&path).unwrap());
        fs::write(path, text).unwrap();
        self.cluster
            .stop("slurmctld", rustix::process::Signal::TERM)
            .unwrap();
        self.cluster.start_controller().unwrap();
    }

    /// The processor time that the glue itself has used.
    pub(crate) fn glue_cpu(&self) -> Duration {
        let pid = self.glue.as_ref().unwrap().id();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        // Linux counts in hundredths of a second for everybody.
        Duration::from_millis(ticks * 10)
    }

    /// Lets other users of this machine reach what jobs need, and gives jobs a folder in which all may write.
    pub(crate) fn open_to_others(&mut self) {
        let folder = self.folder.path().to_owned();
        let jobs = folder.join("jobs");
        fs::create_dir(&jobs).unwrap();
        fs::copy(&self.agent, folder.join("agent")).unwrap();
        for (name, mode) in [
            ("", 0o755),
            ("jobs", 0o1777),
            ("shared", 0o1777),
            ("agent", 0o755),
        ] {
            fs::set_permissions(folder.join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        for name in &self.queues {
            let path = folder.join(format!("{name}.sh"));
            let text = fs::read_to_string(&path).unwrap();
            let outputs = format!("--output={}/", folder.display());
            fs::write(
                &path,
                text.replace(&outputs, &format!("--output={}/", jobs.display())),
            )
            .unwrap();
        }
        self.options.extend([
            format!("work_dir={}", jobs.display()),
            format!("agent_binary={}", folder.join("agent").display()),
        ]);
    }

    /// Where the glue puts what jobs log in with.
    pub(crate) fn credentials(&self) -> PathBuf {
        let below = self.folder.path().join("shared/credentials");
        let mut folders = fs::read_dir(&below).unwrap();
        folders.next().unwrap().unwrap().path()
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("glue.log")
    }

    pub(crate) fn glue_log(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }

    pub(crate) fn kill_glue(&mut self) {
        if let Some(mut glue) = self.glue.take() {
            let _gone = glue.kill();
            let _status = glue.wait();
        }
    }

    /// Stops the glue as a service manager does; it must obey.
    pub(crate) fn stop_glue(&mut self) {
        let Some(mut glue) = self.glue.take() else { return };
        let pid = rustix::process::Pid::from_raw(i32::try_from(glue.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let status = glue.wait().unwrap();
        assert!(status.success(), "{status}: {}", self.glue_log());
    }

    /// Asks twice, as somebody does who can't wait. Says how long it took.
    pub(crate) fn stop_glue_twice(&mut self) -> Duration {
        let mut glue = self.glue.take().unwrap();
        let pid = rustix::process::Pid::from_raw(i32::try_from(glue.id()).unwrap()).unwrap();
        let begun = Instant::now();
        for _ in 0..2 {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
            std::thread::sleep(Duration::from_secs(1));
        }
        let status = glue.wait().unwrap();
        assert!(status.success(), "{status}: {}", self.glue_log());
        begun.elapsed()
    }

    /// A task in a queue, with user properties.
    pub(crate) fn submit(&self, queue: &str, code: &str, properties: &[(&str, &str)]) -> String {
        self.submit_with(queue, code, properties, json!({}))
    }

    /// The same with more of its fields set.
    pub(crate) fn submit_with(
        &self,
        queue: &str,
        code: &str,
        properties: &[(&str, &str)],
        fields: Value,
    ) -> String {
        let items: serde_json::Map<String, Value> = properties
            .iter()
            .map(|(name, value)| {
                let item = json!({"section": "properties", "name": name, "value": value});
                ((*name).to_owned(), item)
            })
            .collect();
        let spec = TaskSpec {
            hyperparams: Some(json!({"properties": items})),
            ..TaskSpec::script(code)
        };
        let index = self.queues.iter().position(|name| name == queue).unwrap();
        let task = self.api.create_task("a task for slurm", &spec).unwrap();
        let mut edit = fields;
        if edit.as_object().is_some_and(|fields| !fields.is_empty()) {
            edit["task"] = task.clone().into();
            self.api.call("tasks.edit", edit).unwrap();
        }
        self.api.enqueue(&task, &self.ids[index]).unwrap();
        task
    }

    pub(crate) fn task(&self, task: &str) -> Value {
        self.api.task(task).unwrap()
    }

    /// Waits until the task has one of these statuses; gives its reason.
    pub(crate) fn until(&self, task: &str, status: &str, limit_sec: u64) -> String {
        self.wait(&format!("task {task} is {status}"), limit_sec, || {
            let now = self.task(task);
            (now["status"] == status).then(|| now["status_reason"].as_str().unwrap_or_default().to_owned())
        })
    }

    pub(crate) fn until_message(&self, task: &str, part: &str, limit_sec: u64) {
        self.wait(&format!("task {task} says {part}"), limit_sec, || {
            let message = self.task(task)["status_message"].clone();
            message
                .as_str()
                .is_some_and(|text| text.contains(part))
                .then_some(())
        });
    }

    pub(crate) fn wait<T>(&self, what: &str, limit_sec: u64, mut ready: impl FnMut() -> Option<T>) -> T {
        let begun = Instant::now();
        loop {
            if let Some(value) = ready() {
                return value;
            }
            if begun.elapsed() > Duration::from_secs(limit_sec) {
                let jobs = self
                    .cluster
                    .output("squeue", &["-a", "-t", "all"])
                    .unwrap_or_default();
                panic!(
                    "waited {limit_sec} s in vain until {what}\n{jobs}\n{}",
                    self.glue_log()
                );
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The job of a task.
    pub(crate) fn job(&self, task: &str) -> String {
        self.wait(&format!("task {task} has a job"), 20, || {
            let noted = self.task(task)["runtime"]["_slurm_job"]
                .as_str()
                .map(str::to_owned)?;
            noted.split_once('/').map(|(_, id)| id.to_owned())
        })
    }

    /// The state of a job as squeue shows it; empty when it is not there any more.
    pub(crate) fn state(&self, job: &str) -> String {
        let output = self
            .cluster
            .command("squeue")
            .args(["-h", "-t", "all", "-o", "%T", "-j", job])
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    pub(crate) fn until_state(&self, job: &str, wanted: &str, limit_sec: u64) {
        self.wait(&format!("job {job} is {wanted}"), limit_sec, || {
            (self.state(job) == wanted).then_some(())
        });
    }

    /// How many jobs of a task Slurm has ever seen, once accounting knows of one.
    pub(crate) fn jobs_of(&self, task: &str) -> usize {
        self.wait("accounting knows the job", 30, || {
            match self.known_jobs_of(task) {
                0 => None,
                count => Some(count),
            }
        })
    }

    /// How many jobs of a task accounting knows. The name of a job arrives there some seconds after its number.
    pub(crate) fn known_jobs_of(&self, task: &str) -> usize {
        let name = format!("clearml_task_{task}");
        let arguments = ["-n", "-X", "-P", "-D", "--name", &name, "-o", "JobIDRaw"];
        let text = self.cluster.output("sacct", &arguments).unwrap();
        text.lines().filter(|line| !line.trim().is_empty()).count()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.glue_log());
        }
        self.kill_glue();
        if std::thread::panicking() && self.folder.path().join("state/process.json").exists() {
            // One in the background.
            let _not_running = self.glue_command(&["--stop"]).output();
        }
    }
}
