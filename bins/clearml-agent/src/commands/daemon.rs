//! `daemon`: polls queues and runs their tasks.

use std::ffi::OsString;
use std::io::{self, Write};
use std::net::SocketAddr;

use anyhow::Context;
use clap::{ArgAction, Args};
use clearml_agent_config::{Settings, Sources, printout};
use clearml_gpu_alloc::{Request, Surroundings};
use clearml_intake::{Identity, Register, Schedule, WorkingHours};
use clearml_task_runner::RunOptions;
use clearml_worker::{DaemonOptions, Output, ServicesMode, StopRequest};
use serde_json::Value;

use crate::arguments::expected;
use crate::containers::Containers;
use crate::default_python;
use crate::failure::warn;
use crate::logging;
use crate::output::print_line;
use crate::task_options::{GpuUse, Prepared, TaskArguments, not_yet};

#[derive(Args)]
pub(crate) struct DaemonArguments {
    /// Queues to poll, by name or id, the most important one first. Without it, the server's default queue.
    #[arg(long, num_args = 1.., action = ArgAction::Set, value_name = "QUEUE")]
    queue: Vec<String>,
    /// Take one task of each queue in turn instead of starting with the first queue every time.
    #[arg(long)]
    order_fairness: bool,
    /// Seconds between polls, at least 5.
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, value_parser = expected::<i64>("whole seconds"))]
    polling_interval: Option<i64>,
    /// Keep the output on the terminal and say what happens while idle.
    #[arg(long)]
    foreground: bool,
    /// Go to the background and leave the terminal.
    #[arg(long, short)]
    detached: bool,
    /// Run tasks in containers: image and arguments, or the configured ones.
    #[arg(long, num_args = 0.., action = ArgAction::Set, value_name = "IMAGE")]
    docker: Option<Vec<String>>,
    /// The same with Podman.
    #[arg(long, num_args = 0.., action = ArgAction::Set, value_name = "IMAGE")]
    podman: Option<Vec<String>>,
    /// Pin the version of the official agent that containers install.
    #[arg(long)]
    force_current_version: bool,
    /// Install nothing in containers.
    #[arg(long)]
    standalone_mode: bool,
    /// Run many tasks at the same time, without GPUs; at most N of them.
    #[arg(long, num_args = 0..=1, value_name = "N", allow_negative_numbers = true, value_parser = expected::<i64>("a whole number"))]
    services_mode: Option<Option<i64>>,
    /// Tags of the worker that runs a task.
    #[arg(long, num_args = 1.., action = ArgAction::Set, value_name = "TAG")]
    child_report_tags: Option<Vec<String>>,
    /// Create queues that do not exist.
    #[arg(long)]
    create_queue: bool,
    /// Stop the daemon of these worker ids, or the one that was started with the same other arguments.
    #[arg(long, num_args = 0.., action = ArgAction::Set, value_name = "WORKER")]
    stop: Option<Vec<String>>,
    /// Share the GPUs of --gpus between the queues: --queue NAME=GPUS.
    #[arg(long)]
    dynamic_gpus: bool,
    /// Take tasks only in these hours: "17-20 TUE" "13-22 WED,SAT".
    #[arg(long, num_args = 0.., action = ArgAction::Set, value_name = "HOURS DAYS")]
    uptime: Vec<String>,
    /// Take no tasks in these hours.
    #[arg(long, num_args = 0.., action = ArgAction::Set, value_name = "HOURS DAYS")]
    downtime: Vec<String>,
    /// Show working hours and queues, and end.
    #[arg(long)]
    status: bool,
    /// Accepted for scripts of the official agent; this one needs no bootstrap package.
    #[arg(long)]
    check_bootstrap: bool,
    /// Offer metrics for Prometheus on this address, such as 127.0.0.1:9101.
    #[arg(long, value_name = "ADDRESS", value_parser = expected::<SocketAddr>("an IP address and a port, such as 127.0.0.1:9101"))]
    metrics_address: Option<SocketAddr>,
    /// Act towards the server as the owner of each task.
    #[arg(long)]
    use_owner_token: bool,
    /// The process that --detached has started.
    #[arg(long, hide = true)]
    in_background: bool,
    #[command(flatten)]
    task: TaskArguments,
}

impl DaemonArguments {
    /// `--services-mode 0` is the same as nothing.
    fn services(&self) -> bool {
        self.services_mode.is_some_and(|number| number != Some(0))
    }

    /// A number below zero is no limit, as is none.
    fn services_mode(&self) -> Option<ServicesMode> {
        let limit = self.services_mode?.filter(|number| *number > 0);
        self.services().then_some(ServicesMode {
            limit: limit.and_then(|number| usize::try_from(number).ok()),
        })
    }

    fn containers(&self) -> Containers<'_> {
        Containers {
            docker: self.docker.as_deref(),
            podman: self.podman.as_deref(),
            force_current_version: self.force_current_version,
        }
    }

    fn output(&self) -> Output {
        match (self.foreground, self.in_background) {
            (true, _) => Output::Terminal,
            (false, true) => Output::Detached,
            (false, false) => Output::Log,
        }
    }

    /// Contradictions first, then what is not there yet.
    fn check(&self) -> anyhow::Result<()> {
        self.containers().check()?;
        if self.dynamic_gpus {
            self.check_pool()?;
        }
        if self.dynamic_gpus {
            return Err(not_yet(
                "sharing GPUs between queues (--dynamic-gpus)",
                "start one daemon for each group of GPUs with --gpus instead",
            ));
        }
        let contained = self.containers().wanted();
        for (given, option) in [
            (self.force_current_version, "--force-current-version"),
            (self.standalone_mode, "--standalone-mode"),
        ] {
            if given && !contained {
                warn(&format!("{option} has no effect without --docker"));
            }
        }
        Ok(())
    }

    fn check_pool(&self) -> anyhow::Result<()> {
        let surroundings = Surroundings {
            containers: self.containers().wanted(),
            services_mode: self.services(),
            cpu_only: self.task.cpu_only,
        };
        let request = Request::parse(self.task.gpus.as_deref(), &self.queue, surroundings)?;
        request.warnings.iter().for_each(|warning| warn(warning));
        Ok(())
    }
}

pub(crate) async fn daemon(options: &DaemonArguments, mut sources: Sources) -> anyhow::Result<i32> {
    if options.in_background {
        clearml_worker::leave_terminal().context("leaving the terminal")?;
    } else if options.detached && !options.foreground && !options.status && options.stop.is_none() {
        return detach().await;
    }
    let gpu_use = GpuUse {
        none: options.services(),
        dynamic: options.dynamic_gpus,
    };
    if options.standalone_mode && options.containers().wanted() {
        let option = "--standalone-mode".to_owned();
        let key = "agent.standalone_mode".to_owned();
        sources.overrides.push((key, Value::Bool(true), option));
    }
    // Whom to stop can be found out even where the pool is wrong: by its name.
    let prepared = options.task.prepare(sources, gpu_use);
    if let Some(ids) = &options.stop {
        let identity = match prepared {
            Ok(prepared) => prepared.identity(),
            // Who has the id needs no configuration, which may have been spoilt since the start.
            Err(error) if !ids.is_empty() => {
                warn(&format!("{error:#}"));
                Identity {
                    name: clearml_task_runner::settings::host_name(),
                    ..Identity::default()
                }
            }
            Err(error) => return Err(error),
        };
        return stop(ids, identity);
    }
    let prepared = prepared?;
    options.check()?;
    let hours = working_hours(options, &prepared.settings)?;
    prepared.warn();
    if options.check_bootstrap {
        print_line(super::bootstrap::NOTE)?;
    }
    let introduction = options
        .containers()
        .introduction(&prepared.settings, |name| prepared.sources.env.get(name).cloned());
    let daemon = daemon_options(options, prepared, hours);
    if options.status {
        clearml_worker::status(&daemon).await?;
        return Ok(0);
    }
    options.containers().reach_engine().await?;
    if let Some(line) = introduction.filter(|_| !logging::is_json()) {
        print_line(line)?;
    }
    Ok(clearml_worker::daemon(daemon).await?)
}

/// The process in the background does everything, and says here what goes wrong.
async fn detach() -> anyhow::Result<i32> {
    // Nothing can stand behind a "--", and the option that is added must not.
    let given = std::env::args_os().skip(1).filter(|argument| argument != "--");
    let mut arguments: Vec<OsString> = given.collect();
    arguments.push("--in-background".into());
    let program = clearml_task_runner::this_program();
    clearml_worker::start_detached(&program, arguments)
        .await
        .context("starting the daemon in the background")
}

fn daemon_options(options: &DaemonArguments, prepared: Prepared, hours: WorkingHours) -> DaemonOptions {
    DaemonOptions {
        queues: options.queue.clone(),
        create_queue: options.create_queue,
        order_fairness: options.order_fairness,
        #[expect(
            clippy::cast_precision_loss,
            reason = "seconds, of which nobody wants that many"
        )]
        polling_interval: options.polling_interval.map(|seconds| seconds as f64),
        identity: prepared.identity(),
        gpus_wanted: options.task.wants_gpus() && !prepared.visible.ignored,
        services: options.services_mode(),
        use_owner_token: options.use_owner_token,
        hours,
        tags: options.child_report_tags.clone(),
        output: options.output(),
        introduce: Some(introduce),
        metrics_address: options.metrics_address,
        redactor: logging::redactor().clone(),
        run: RunOptions {
            container: options.containers().options(),
            ..options.task.run_options(&prepared.visible)
        },
        ..DaemonOptions::new(prepared.sources, prepared.settings)
    }
}

fn introduce(settings: &Settings) {
    if logging::is_json() {
        return;
    }
    // Nobody may be reading, or the disk behind it may be full.
    let settings = default_python::shown(settings);
    let _unwritable = write!(io::stdout(), "{}", printout(&settings, env!("CARGO_PKG_VERSION")));
}

fn stop(ids: &[String], identity: Identity) -> anyhow::Result<i32> {
    let request = StopRequest {
        ids: ids.to_vec(),
        identity,
        patience: None,
    };
    let found = clearml_worker::stop_daemons(&Register::of_machine(), &request)?;
    Ok(i32::from(!found))
}

/// The schedules of the command line, or else those of the configuration.
fn working_hours(options: &DaemonArguments, settings: &Settings) -> anyhow::Result<WorkingHours> {
    let read = |entries: &[String], source: &str| {
        let (schedule, warnings) =
            Schedule::parse(entries).map_err(|error| anyhow::anyhow!("{source}: {error}"))?;
        warnings
            .iter()
            .for_each(|warning| warn(&format!("{source}: {warning}")));
        anyhow::Ok(schedule)
    };
    let command_line = (
        read(&options.uptime, "--uptime")?,
        read(&options.downtime, "--downtime")?,
    );
    let agent = &settings.agent;
    let configured = (
        read(&agent.uptime, "agent.uptime")?,
        read(&agent.downtime, "agent.downtime")?,
    );
    Ok(
        WorkingHours::choose(command_line, configured).unwrap_or_else(|both| {
            warn(&both.to_string());
            WorkingHours::Always
        }),
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::arguments::{Arguments, Command};

    fn made_of(words: &str, configuration: &[(&str, &str)]) -> DaemonOptions {
        let words = std::iter::once("clearml-agent").chain(words.split_whitespace());
        let Some(Command::Daemon(options)) = Arguments::try_parse_from(words).unwrap().command else {
            panic!("it is the command daemon");
        };
        let env = configuration.iter();
        let sources = Sources {
            home: Some("/nowhere".into()),
            host_name: Some("host".to_owned()),
            env: env
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            ..Sources::default()
        };
        let prepared = options.task.prepare(sources, GpuUse::default()).unwrap();
        daemon_options(&options, prepared, WorkingHours::Always)
    }

    #[test]
    fn every_option_reaches_the_daemon() {
        let words = "daemon --queue a b --create-queue --order-fairness --polling-interval 7 \
                     --child-report-tags x y --gpus 1 -OO --git-user me --git-pass hunter2 --log-level warning";
        let configured = [
            ("CLEARML_AGENT_GIT_USER", "other"),
            ("CLEARML_AGENT_GIT_PASS", "other"),
        ];
        let daemon = made_of(words, &configured);
        assert_eq!(daemon.queues, ["a", "b"]);
        assert!(daemon.create_queue && daemon.order_fairness);
        assert_eq!(daemon.polling_interval, Some(7.0));
        assert_eq!(daemon.tags, Some(vec!["x".to_owned(), "y".to_owned()]));
        assert_eq!((daemon.output, daemon.gpus_wanted), (Output::Log, true));
        assert_eq!(daemon.identity.fixed().unwrap().as_str(), "host:gpu1");
        assert_eq!(
            (daemon.run.optimization, daemon.run.log_level.as_deref()),
            (2, Some("WARNING"))
        );
        // They count more than the variables.
        let git = ["agent.git_user", "agent.git_pass"].map(|key| daemon.settings.text(key).unwrap());
        assert_eq!(git, ["me", "hunter2"]);
        let origin = daemon.settings.origin("agent.git_user").unwrap();
        assert_eq!(origin.to_string(), "command line --git-user");

        for (words, limit) in [
            ("--services-mode", Some(None)),
            ("--services-mode 3", Some(Some(3))),
            ("--services-mode -1", Some(None)),
            ("--services-mode 0", None),
            ("", None),
        ] {
            let services = made_of(&format!("daemon {words}"), &[]).services;
            assert_eq!(services.map(|mode| mode.limit), limit, "{words}");
        }
        let plain = made_of("daemon --foreground --detached --cpu-only", &[]);
        assert!(plain.queues.is_empty() && !plain.create_queue && !plain.order_fairness);
        assert_eq!((plain.polling_interval, plain.tags), (None, None));
        assert_eq!((plain.output, plain.gpus_wanted), (Output::Terminal, false));
        assert_eq!(plain.identity.prefix(), "host:cpu:");
    }
}
