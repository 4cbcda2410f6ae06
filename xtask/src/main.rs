//! `cargo xtask`: everything a contributor types.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Everything a contributor types.
#[derive(Parser)]
#[command(name = "cargo xtask", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// A task on its whole way: embedded server, official SDK, queue, agent, console, scalars.
    Demo,
    /// Run every test of the workspace and every example, and count what was skipped.
    Test {
        /// Only tests whose name contains this text (examples are left out then).
        filter: Option<String>,
    },
    /// Measure this agent as whole processes, and optionally the official Python agent beside it.
    Bench {
        /// What to measure.
        #[arg(value_enum, default_value = "agents")]
        what: Measured,
        /// Install the official Python agent and measure both in turn on the same server.
        #[arg(long)]
        against_python: bool,
        /// Fewer repetitions and a shorter idle time.
        #[arg(long)]
        quick: bool,
        /// With `worker`, `slurm` and `docker`: only rows whose name contains this text, such as `services` or `burst`.
        #[arg(long)]
        only: Option<String>,
        /// With `worker`, `slurm` and `docker`: this agent, which is built already.
        #[arg(long, value_name = "PROGRAM")]
        executable: Option<std::path::PathBuf>,
    },
    /// Run the tests that draw lots in their long form, with new seeds each time.
    Soak {
        /// Begin no new round after this time; every form runs once at least.
        #[arg(long, default_value_t = 30)]
        minutes: u64,
        /// Only forms whose name contains this text, such as `kill-campaign` or `properties`.
        name: Option<String>,
    },
    /// Whole systems of real processes, treated badly, and audited afterwards.
    E2e {
        #[command(subcommand)]
        what: EndToEnd,
    },
    /// Write the pages of docs/reference anew.
    Reference {
        /// Only say whether they are up to date.
        #[arg(long)]
        check: bool,
    },
    /// Make archives of the programs, for every Linux since glibc 2.17.
    Dist {
        /// What it shall run on.
        #[arg(default_value = std::env::consts::ARCH, value_parser = ["x86_64", "aarch64"])]
        architecture: String,
    },
    /// Check the rules about who may import whom.
    Floors,
    /// Check how a ClearML-compatible server behaves, case by case over HTTP: this project's own, or any other.
    Conformance {
        /// Address of the API, such as http://127.0.0.1:8008; without it an embedded server is started.
        #[arg(long, value_name = "URL")]
        server: Option<String>,
        /// Address of the file server; without it the API's address with /files.
        #[arg(long, value_name = "URL", requires = "server")]
        files: Option<String>,
        /// Access key; without it CLEARML_API_ACCESS_KEY.
        #[arg(long, requires = "server")]
        key: Option<String>,
        /// Secret key. Other users of the machine can see it there; --secret-file or CLEARML_API_SECRET_KEY hide it.
        #[arg(long, requires = "server", conflicts_with = "secret_file")]
        secret: Option<String>,
        /// File with the secret key; without it CLEARML_API_SECRET_KEY.
        #[arg(long, value_name = "FILE", requires = "server")]
        secret_file: Option<std::path::PathBuf>,
        /// Only the case with this id, or cases whose words contain this text.
        filter: Option<String>,
    },
    /// Check that every promise in fixtures/conformance names a test that exists.
    ConformanceRows,
}

/// What `e2e` does.
#[derive(Subcommand)]
enum EndToEnd {
    /// Many small tasks while processes are killed and stopped, connections cut, a disk filled, tasks aborted.
    Chaos {
        /// How long the storm lasts; the audit comes after it.
        #[arg(long, default_value_t = 20.0)]
        minutes: f64,
        /// Repeats the choices of an earlier storm.
        #[arg(long)]
        seed: Option<u64>,
        /// The agent's executable; built when not given.
        #[arg(long, value_name = "FILE")]
        executable: Option<std::path::PathBuf>,
    },
    /// Everything about containers in its long form, on the engine that answers, or on one that is started here.
    Docker {
        /// Only start the engine and make the image of the tests (`up`), or stop one that was left (`down`).
        #[arg(value_enum, default_value = "run")]
        action: DockerAction,
        /// Leave the engine that was started here, to look into it.
        #[arg(long)]
        keep: bool,
    },
    /// The glue on a real Slurm cluster, which is started here and stopped again.
    Slurm {
        /// Only start the cluster (`up`), or stop one that was started so (`down`).
        #[arg(value_enum, default_value = "run")]
        action: SlurmAction,
        /// A cluster in containers instead: the running slurm-docker-cluster in this folder, or, where it holds no
        /// Compose project, one that is built and started here.
        #[arg(long, value_name = "DIR")]
        docker_cluster: Option<std::path::PathBuf>,
        /// Leave the cluster in containers running, to look into it.
        #[arg(long, requires = "docker_cluster")]
        keep: bool,
        /// With --docker-cluster: this agent, which is built already, with the glue beside it.
        #[arg(long, value_name = "PROGRAM", requires = "docker_cluster")]
        executable: Option<std::path::PathBuf>,
    },
}

/// What `e2e docker` does.
#[derive(Clone, Copy, clap::ValueEnum)]
enum DockerAction {
    /// Start an engine, if none answers, and leave it.
    Up,
    /// Start an engine, if none answers, run the tests on it, stop it.
    Run,
    /// Stop the engine that was left.
    Down,
}

/// What `e2e slurm` does.
#[derive(Clone, Copy, clap::ValueEnum)]
enum SlurmAction {
    /// Start a cluster and leave it.
    Up,
    /// Start a cluster, run the glue's tests on it, stop it.
    Run,
    /// Stop the cluster that was left.
    Down,
}

/// What `bench` is about.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Measured {
    /// Start, memory, idle time, small tasks.
    Agents,
    /// Environments of tasks, with cold and hot caches.
    Env,
    /// Many tasks, much output, a server in trouble, and aborts.
    Worker,
    /// The Slurm glue on a cluster that is started here.
    Slurm,
    /// Tasks in containers of the engine that answers, or of one that is started.
    Docker,
}

fn main() -> ExitCode {
    let outcome: Result<()> = match Arguments::parse().command {
        Command::Demo => xtask::demo::run(),
        Command::Test { filter } => xtask::testing::run(filter.as_deref()),
        Command::Bench {
            what: Measured::Agents,
            against_python,
            quick,
            ..
        } => xtask::bench::run(against_python, quick),
        Command::Bench {
            what: Measured::Env,
            against_python,
            quick,
            ..
        } => xtask::bench::env::run(against_python, quick),
        Command::Bench {
            what: Measured::Worker,
            against_python,
            quick,
            only,
            executable,
        } => {
            let choice = xtask::bench::worker::Choice { only, executable };
            xtask::bench::worker::run(against_python, quick, choice)
        }
        Command::Bench {
            what: Measured::Slurm,
            quick,
            only,
            executable,
            ..
        } => xtask::bench::slurm::run(quick, only.as_deref(), executable.as_deref()),
        Command::Bench {
            what: Measured::Docker,
            against_python,
            quick,
            only,
            executable,
        } => {
            let choice = xtask::bench::docker::Choice { only, executable };
            xtask::bench::docker::run(against_python, quick, &choice)
        }
        Command::Soak { minutes, name } => xtask::soak::run(minutes, name.as_deref()),
        Command::E2e {
            what:
                EndToEnd::Chaos {
                    minutes,
                    seed,
                    executable,
                },
        } => xtask::e2e::chaos::run(minutes, seed, executable),
        Command::E2e {
            what: EndToEnd::Docker { action, keep },
        } => xtask::e2e::docker::run(match action {
            DockerAction::Up => xtask::e2e::docker::Action::Up,
            DockerAction::Run => xtask::e2e::docker::Action::Run { keep },
            DockerAction::Down => xtask::e2e::docker::Action::Down,
        }),
        Command::E2e {
            what:
                EndToEnd::Slurm {
                    action,
                    docker_cluster,
                    keep,
                    executable,
                },
        } => {
            let action = match action {
                SlurmAction::Up => xtask::e2e::slurm::Action::Up,
                SlurmAction::Run => xtask::e2e::slurm::Action::Run,
                SlurmAction::Down => xtask::e2e::slurm::Action::Down,
            };
            match docker_cluster {
                Some(folder) => xtask::e2e::slurm::containers::run(&folder, action, keep, executable),
                None => xtask::e2e::slurm::run(action),
            }
        }
        Command::Reference { check } => xtask::reference::run(check),
        Command::Dist { architecture } => xtask::dist::run(&architecture),
        Command::Floors => xtask::floors::run(),
        Command::Conformance {
            server,
            files,
            key,
            secret,
            secret_file,
            filter,
        } => xtask::conformance_suite::run(&xtask::conformance_suite::Options {
            server,
            files,
            key,
            secret,
            secret_file,
            filter,
        }),
        Command::ConformanceRows => xtask::conformance::run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{} {error:#}", xtask::terminal::red("error:"));
            ExitCode::FAILURE
        }
    }
}
