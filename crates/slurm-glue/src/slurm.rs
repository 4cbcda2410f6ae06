//! The commands of Slurm: argument vectors, a constructed environment, a time limit.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use clearml_support::command::{Command, CommandError, Output};

use crate::core::jobs::{
    EndedJob, QueuedJob, SACCT_FORMAT, SQUEUE_FORMAT, read_sacct, read_scontrol, read_squeue,
};
use crate::core::refusal::{self, Submission};
use crate::core::users::Account;

/// Where programs are looked for when `agent.slurm.bin_dir` is not set.
const PATH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/slurm/bin:/opt/slurm/sbin";

/// So many bytes of what a command prints go into the log where that is wanted.
const MOST_SHOWN: usize = 2048;

/// A command of Slurm did not do its work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SlurmError {
    /// It can't be started.
    #[error("{program} can't be started: {reason}; install Slurm's commands, or set agent.slurm.bin_dir")]
    Missing {
        /// The program.
        program: String,
        /// Why not.
        reason: String,
    },
    /// Slurm can't be reached.
    #[error("Slurm can't be reached: {0}")]
    Outage(String),
    /// Accounting is not there, now or at all (`for_ever`).
    #[error("Slurm's accounting can't be used: {text}")]
    NoAccounting {
        /// What sacct said.
        text: String,
        /// It is not installed here.
        for_ever: bool,
    },
    /// It refused.
    #[error("{program}: {text}")]
    Failed {
        /// The program.
        program: String,
        /// What it said.
        text: String,
    },
}

/// The commands of one cluster.
#[derive(Debug, Clone)]
pub struct Slurm {
    /// The folder with the commands.
    pub bin_dir: Option<PathBuf>,
    /// The environment of the commands.
    pub environment: Vec<(String, String)>,
    /// How long one may take.
    pub timeout: Duration,
}

/// What Slurm says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// The name of the cluster.
    pub cluster: String,
    /// Ordinary users, of whom we are one, see their own jobs only.
    pub hides_jobs: bool,
    /// The partition of jobs that ask for none.
    pub default_partition: Option<String>,
}

/// A job to be submitted.
#[derive(Debug, Clone, Default)]
pub struct Job {
    /// The script.
    pub script: String,
    /// The name of the job.
    pub name: String,
    /// Its comment, unless the template sets one.
    pub comment: Option<String>,
    /// Its partition, as far as it is known.
    pub partition: Option<String>,
    /// Where its output goes, as the template says it.
    pub output: Option<String>,
    /// Its working folder, unless the template sets one.
    pub work_dir: Option<String>,
    /// Further arguments of the operator.
    pub extra: Vec<String>,
    /// The Linux user to submit as, and that user's home.
    pub user: Option<(String, String)>,
}

impl Slurm {
    /// The environment for commands: constructed, because sbatch hands its own to the job, and its variables
    /// `SBATCH_…` and `SLURM_…` override templates.
    #[must_use]
    pub fn environment(from: impl Fn(&str) -> Option<String>, passed: &[String]) -> Vec<(String, String)> {
        let kept = ["HOME", "USER", "LOGNAME", "SHELL", "LANG", "TZ", "SLURM_CONF"];
        let mut environment: Vec<(String, String)> = kept
            .iter()
            .copied()
            .chain(passed.iter().map(String::as_str))
            .filter_map(|name| Some((name.to_owned(), from(name)?)))
            .collect();
        environment.push(("LC_ALL".to_owned(), "C.UTF-8".to_owned()));
        environment.push(("SLURM_TIME_FORMAT".to_owned(), "%s".to_owned()));
        environment
    }

    fn command(&self, program: &str, user: Option<&(String, String)>) -> Command {
        let path = match &self.bin_dir {
            Some(folder) => format!("{}:{PATH}", folder.display()),
            None => PATH.to_owned(),
        };
        let found = path
            .split(':')
            .map(|folder| PathBuf::from(folder).join(program))
            .find(|candidate| candidate.is_file())
            .unwrap_or_else(|| PathBuf::from(program));
        let mut command = match user {
            None => Command::new(found),
            Some((user, _)) if rustix::process::geteuid().is_root() => {
                Command::new("/sbin/runuser").args(["-u", user, "--"]).arg(found)
            }
            Some((user, _)) => Command::new("/usr/bin/sudo")
                .args(["-n", "-H", "-u", user, "--"])
                .arg(found),
        };
        command = command
            .env_clear()
            .env("PATH", path)
            .cwd("/")
            .timeout(self.timeout);
        for (name, value) in &self.environment {
            command = command.env(name, value);
        }
        if let Some((user, home)) = user {
            command = command
                .env("USER", user)
                .env("LOGNAME", user)
                .env("HOME", home)
                .env("SHELL", "/bin/sh");
        }
        command
    }

    async fn run(&self, program: &str, command: Command) -> Result<Output, SlurmError> {
        let missing = |reason: String| SlurmError::Missing {
            program: program.to_owned(),
            reason,
        };
        let begun = std::time::Instant::now();
        let shown = command.describe();
        let result = tokio::task::spawn_blocking(move || command.output()).await;
        if let Ok(Ok(output)) = &result {
            let begin =
                |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(MOST_SHOWN)]).into_owned();
            let (stdout, stderr) = (begin(&output.stdout), begin(&output.stderr));
            let (took, status) = (begun.elapsed(), output.status);
            tracing::debug!("{shown}: {took:?}, {status}: {stdout:?} {stderr:?}");
        } else {
            tracing::debug!("{shown}: {:?}", begun.elapsed());
        }
        match result {
            Ok(Ok(output)) => Ok(output),
            Ok(Err(error)) if error.is_not_found() => Err(missing(error.to_string())),
            Ok(Err(error @ CommandError::TimedOut { .. })) => Err(SlurmError::Outage(error.to_string())),
            Ok(Err(error)) => Err(missing(error.to_string())),
            Err(error) => Err(missing(error.to_string())),
        }
    }

    /// Runs a command that has to succeed, and gives what it prints.
    async fn read(&self, program: &str, arguments: &[&str]) -> Result<String, SlurmError> {
        self.read_as(program, arguments, None).await
    }

    async fn read_as(
        &self,
        program: &str,
        arguments: &[&str],
        user: Option<&(String, String)>,
    ) -> Result<String, SlurmError> {
        let command = self.command(program, user).args(arguments);
        let output = self.run(program, command).await?;
        let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(if refusal::is_outage(&stderr) {
            SlurmError::Outage(stderr)
        } else {
            SlurmError::Failed {
                program: program.to_owned(),
                text: stderr,
            }
        })
    }

    /// All our jobs, of whatever state, by one command. `users`: further ones whose jobs are hidden from us.
    ///
    /// # Errors
    ///
    /// When the listing is not complete.
    pub async fn jobs(&self, users: &[(String, String)]) -> Result<Vec<QueuedJob>, SlurmError> {
        let arguments = ["-h", "-a", "-t", "all", "-o", SQUEUE_FORMAT];
        let mut jobs = read_squeue(&self.read("squeue", &arguments).await?);
        for user in users {
            let theirs = read_squeue(&self.read_as("squeue", &arguments, Some(user)).await?);
            let is_new = |job: &QueuedJob| jobs.iter().all(|known| known.id != job.id);
            let new: Vec<QueuedJob> = theirs.into_iter().filter(is_new).collect();
            jobs.extend(new);
        }
        Ok(jobs)
    }

    /// How these jobs ended, by one command.
    ///
    /// # Errors
    ///
    /// When accounting does not answer, or there is none.
    pub async fn ended(
        &self,
        ids: &[u64],
        users: &[(String, String)],
    ) -> Result<HashMap<u64, EndedJob>, SlurmError> {
        let list = ids.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
        let arguments = ["-n", "-X", "-P", "-D", "-j", &list, "-o", SACCT_FORMAT];
        match self.read("sacct", &arguments).await {
            Ok(text) => {
                let mut ended = read_sacct(&text);
                for user in users {
                    let text = self.read_as("sacct", &arguments, Some(user)).await?;
                    ended.extend(read_sacct(&text));
                }
                Ok(ended)
            }
            Err(SlurmError::Failed { text, .. } | SlurmError::Outage(text)) => {
                Err(SlurmError::NoAccounting {
                    for_ever: text.contains("accounting storage is disabled"),
                    text,
                })
            }
            Err(error) => Err(error),
        }
    }

    /// What the controller knows of a job: how it ended, and the file with its output.
    ///
    /// # Errors
    ///
    /// When it does not answer, or does not know the job.
    pub async fn show(
        &self,
        id: u64,
        users: &[(String, String)],
    ) -> Result<(Option<EndedJob>, Option<PathBuf>), SlurmError> {
        let id = id.to_string();
        let arguments = ["show", "job", &id];
        let mut shown = self.read("scontrol", &arguments).await;
        for user in users {
            if shown.is_err() {
                shown = self.read_as("scontrol", &arguments, Some(user)).await;
            }
        }
        let text = shown?;
        let output = text.lines().find_map(|line| line.trim().strip_prefix("StdOut="));
        Ok((read_scontrol(&text), output.map(PathBuf::from)))
    }

    /// Cancels a job. `gently`: its processes are asked first.
    ///
    /// # Errors
    ///
    /// When Slurm refuses or does not answer. An unknown job is no error.
    pub async fn cancel(
        &self,
        id: u64,
        gently: bool,
        user: Option<&(String, String)>,
    ) -> Result<(), SlurmError> {
        let id = id.to_string();
        let mut command = self.command("scancel", user);
        if gently {
            command = command.args(["--full", "--signal=TERM"]);
        }
        let output = self.run("scancel", command.arg(&id)).await?;
        if output.status.success() {
            return Ok(());
        }
        Err(SlurmError::Failed {
            program: "scancel".to_owned(),
            text: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        })
    }

    fn sbatch(&self, job: &Job, test_only: bool) -> Command {
        let mut command = self.command("sbatch", job.user.as_ref()).arg("--parsable");
        if test_only {
            command = command.arg("--test-only");
        }
        command = command.args(["--job-name", &job.name]);
        if let Some(folder) = &job.work_dir {
            command = command.args(["--chdir", folder]);
        }
        if let Some(comment) = &job.comment {
            command = command.args(["--comment", comment]);
        }
        // From standard input: a file would have to be readable by whoever submits.
        command.args(&job.extra).stdin_bytes(job.script.as_bytes())
    }

    /// Submits a job.
    pub async fn submit(&self, job: &Job) -> Submission {
        match self.run("sbatch", self.sbatch(job, false)).await {
            Ok(output) => refusal::judge(
                output.status.code(),
                &String::from_utf8_lossy(&output.stdout),
                &String::from_utf8_lossy(&output.stderr),
            ),
            Err(error @ SlurmError::Missing { .. }) => Submission::Outage(error.to_string()),
            Err(error) => Submission::Unknown(error.to_string()),
        }
    }

    /// Asks Slurm whether it would take a job.
    ///
    /// # Errors
    ///
    /// When it would not: what it says.
    pub async fn test(&self, job: &Job) -> Result<String, SlurmError> {
        let output = self.run("sbatch", self.sbatch(job, true)).await?;
        let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        if output.status.success() {
            return Ok(text);
        }
        Err(SlurmError::Failed {
            program: "sbatch".to_owned(),
            text,
        })
    }

    /// What has to be known of a cluster before its jobs can be told from others.
    ///
    /// # Errors
    ///
    /// When the controller does not answer.
    pub async fn site(&self) -> Result<Site, SlurmError> {
        let text = self.read("scontrol", &["show", "config"]).await?;
        let value = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once('=')?.1.trim())
        };
        let is_jobs = |kind: &str| kind.trim() == "jobs";
        Ok(Site {
            cluster: value("ClusterName").unwrap_or("slurm").to_owned(),
            hides_jobs: !rustix::process::geteuid().is_root()
                && value("PrivateData").is_some_and(|kinds| kinds.split(',').any(is_jobs)),
            default_partition: self.default_partition().await,
        })
    }

    /// The partition of jobs that ask for none.
    async fn default_partition(&self) -> Option<String> {
        let text = self.read("sinfo", &["-h", "-o", "%P"]).await.ok()?;
        text.lines()
            .find_map(|line| line.trim().strip_suffix('*'))
            .map(str::to_owned)
    }

    /// A job of this name that accounting knows, submitted since (Unix seconds).
    pub async fn submitted_as(&self, name: &str, since: i64) -> Option<u64> {
        let arguments = [
            "-n",
            "-a",
            "-X",
            "-P",
            "-D",
            "-S",
            "now-1days",
            "--name",
            name,
            "-o",
            SACCT_FORMAT,
        ];
        let text = self.read("sacct", &arguments).await.ok()?;
        let jobs = read_sacct(&text);
        jobs.values()
            .filter(|job| job.submitted >= since && job.complete)
            .map(|job| job.id)
            .max()
    }

    /// The name of a Linux user by its number; a name stays.
    pub async fn name_of(&self, uid: &str) -> Option<String> {
        let command = self.command("getent", None).args(["passwd", "--", uid]);
        let output = self.run("getent", command).await.ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.split(':')
            .next()
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
    }

    /// A Linux user, wherever users are kept, with its groups where they are needed.
    pub async fn account(&self, name: &str, with_groups: bool) -> Option<Account> {
        let (uid, home) = self.user(name).await?;
        let mut groups = Vec::new();
        if with_groups {
            let command = self.command("id", None).args(["-Gn", "--", name]);
            let output = self.run("id", command).await.ok()?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            groups.extend(text.split_whitespace().map(str::to_owned));
        }
        Some(Account { uid, home, groups })
    }

    /// The number and home of a Linux user, wherever users are kept.
    pub async fn user(&self, name: &str) -> Option<(u32, String)> {
        let command = self.command("getent", None).args(["passwd", "--", name]);
        let output = self.run("getent", command).await.ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let fields: Vec<&str> = text.trim().split(':').collect();
        Some((fields.get(2)?.parse().ok()?, (*fields.get(5)?).to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_see_nothing_of_what_surrounds_the_glue() {
        let passed = ["SITE_VARIABLE".to_owned()];
        let environment = Slurm::environment(|name| Some(format!("the {name}")), &passed);
        let names: Vec<&str> = environment.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names,
            [
                "HOME",
                "USER",
                "LOGNAME",
                "SHELL",
                "LANG",
                "TZ",
                "SLURM_CONF",
                "SITE_VARIABLE",
                "LC_ALL",
                "SLURM_TIME_FORMAT"
            ]
        );
        // Cargo sets this one for every test.
        let slurm = Slurm {
            bin_dir: None,
            environment,
            timeout: Duration::from_secs(10),
        };
        let output = slurm.command("env", None).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let seen: Vec<&str> = text
            .lines()
            .filter_map(|line| Some(line.split_once('=')?.0))
            .collect();
        assert!(
            seen.contains(&"SITE_VARIABLE") && !seen.contains(&"CARGO_MANIFEST_DIR"),
            "{text}"
        );
    }
}
