//! `cargo xtask conformance`: how a ClearML-compatible server has to behave, as cases over HTTP that run on any server.
//!
//! Without `--server` the cases run on an embedded server in this process; with it, on the given one, such as an
//! official ClearML server. Each case makes its own projects, queues, tasks and workers under names that nobody else
//! has, looks at nothing else, and deletes them again. A case that says nothing about a server (it would need another
//! user, or would disturb somebody) is counted as not applicable, with the reason.
//!
//! There are two kinds: the numbered cases of the checklist ([`Case::id`] is the number), and one case for every
//! endpoint, named after it, which holds its version, its reply and its tolerance of unknown fields.

mod editing;
mod endpoints;
mod endpoints_data;
mod endpoints_queues;
mod endpoints_rare;
mod endpoints_system;
mod endpoints_tasks;
mod events;
mod files;
mod http;
mod lifecycle;
mod projects;
mod queues;
mod reading;
mod scene;
mod transport;
mod workers;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clearml_local_server::{Server, ServerOptions};

use crate::{terminal, workspace};
use http::Remote;
use scene::{NotApplicable, Scene};

/// One case.
pub struct Case {
    /// Number in the checklist, or name of the endpoint.
    pub id: &'static str,
    /// What is expected, in words.
    pub title: &'static str,
    run: Run,
}

enum Run {
    Case(fn(&Scene<'_>) -> Result<()>),
    Endpoint(&'static endpoints::Contract),
}

const fn case(id: &'static str, title: &'static str, run: fn(&Scene<'_>) -> Result<()>) -> Case {
    Case {
        id,
        title,
        run: Run::Case(run),
    }
}

/// Where the cases run.
pub struct Options {
    /// Address of the API; nothing means an embedded server.
    pub server: Option<String>,
    /// Address of the file server; nothing means the API's with `/files`.
    pub files: Option<String>,
    /// Access key; nothing means `CLEARML_API_ACCESS_KEY`.
    pub key: Option<String>,
    /// Secret key; nothing means `secret_file`.
    pub secret: Option<String>,
    /// File with the secret key; nothing means `CLEARML_API_SECRET_KEY`.
    pub secret_file: Option<PathBuf>,
    /// Only the case with this id, or cases whose words contain this text.
    pub filter: Option<String>,
}

/// What came out.
#[derive(Debug, Default)]
pub struct Counts {
    /// Cases that held.
    pub held: usize,
    /// Cases that did not, with the reason.
    pub failed: Vec<String>,
    /// Cases that say nothing about this server, with the reason.
    pub not_applicable: Vec<String>,
}

/// All cases.
#[must_use]
pub fn cases() -> Vec<Case> {
    let numbered = [
        transport::CASES,
        reading::CASES,
        lifecycle::CASES,
        editing::CASES,
        projects::CASES,
        queues::CASES,
        workers::CASES,
        events::CASES,
        files::CASES,
    ];
    let contracts = [
        endpoints_system::CONTRACTS,
        endpoints_tasks::CONTRACTS,
        endpoints_queues::CONTRACTS,
        endpoints_data::CONTRACTS,
        endpoints_rare::CONTRACTS,
    ];
    let endpoints = contracts.into_iter().flatten().map(|contract| Case {
        id: contract.endpoint,
        title: contract.purpose,
        run: Run::Endpoint(contract),
    });
    numbered
        .into_iter()
        .flatten()
        .map(|case| Case {
            id: case.id,
            title: case.title,
            run: match case.run {
                Run::Case(run) => Run::Case(run),
                Run::Endpoint(contract) => Run::Endpoint(contract),
            },
        })
        .chain(endpoints)
        .collect()
}

/// Runs the cases and prints what became of each.
///
/// # Errors
///
/// When the server cannot be used, or a case failed.
pub fn run(options: &Options) -> Result<()> {
    let counts = match &options.server {
        Some(server) => {
            let (key, secret) = credentials(options)?;
            let files = options
                .files
                .clone()
                .unwrap_or_else(|| format!("{}/files", server.trim_end_matches('/')));
            let remote = Remote::connect(server, &files, &key, &secret)?;
            run_on(&remote, options.filter.as_deref(), true)
        }
        None => on_embedded(options.filter.as_deref(), true)?,
    };
    println!(
        "{} cases: {} ok, {} failed, {} not applicable",
        counts.held + counts.failed.len() + counts.not_applicable.len(),
        counts.held,
        counts.failed.len(),
        counts.not_applicable.len()
    );
    ensure!(counts.failed.is_empty(), "the server does not conform");
    Ok(())
}

fn credentials(options: &Options) -> Result<(String, String)> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let key = options
        .key
        .clone()
        .or_else(|| variable("CLEARML_API_ACCESS_KEY"))
        .context("give the access key with --key or CLEARML_API_ACCESS_KEY")?;
    let secret = match (&options.secret, &options.secret_file) {
        (Some(secret), _) => secret.clone(),
        (None, Some(path)) => std::fs::read_to_string(path)
            .with_context(|| format!("reading the secret key from {}", path.display()))?
            .trim()
            .to_owned(),
        (None, None) => variable("CLEARML_API_SECRET_KEY").context(
            "give the secret key with --secret, in a file with --secret-file, or in CLEARML_API_SECRET_KEY",
        )?,
    };
    Ok((key, secret))
}

/// Runs the cases on a server of their own.
fn on_embedded(filter: Option<&str>, print: bool) -> Result<Counts> {
    let folder = workspace::target().join(format!("conformance-{}", std::process::id()));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let server = runtime.block_on(Server::start(ServerOptions::new(&folder)))?;
    let remote = Remote::connect(
        &server.api_url(),
        &server.files_url(),
        server.access_key(),
        server.secret_key().expose(),
    );
    let counts = remote.map(|remote| run_on(&remote, filter, print));
    runtime.block_on(server.shutdown());
    std::fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
    counts
}

fn run_on(remote: &Remote, filter: Option<&str>, print: bool) -> Counts {
    let wanted = |case: &Case| filter.is_none_or(|text| case.id == text || case.title.contains(text));
    let mut counts = Counts::default();
    for case in cases().iter().filter(|case| wanted(case)) {
        let started = Instant::now();
        let outcome = perform(remote, case);
        let line = format!("{:<44} {}", case.id, case.title);
        let shown = match outcome {
            Ok(()) => {
                counts.held += 1;
                format!("{} {line}", terminal::green("ok    "))
            }
            Err(error) => match error.downcast_ref::<NotApplicable>() {
                Some(reason) => {
                    counts.not_applicable.push(format!("{}: {reason}", case.id));
                    format!("{} {line}: {reason}", terminal::dim("n/a   "))
                }
                None => {
                    counts
                        .failed
                        .push(format!("{} {}: {error:#}", case.id, case.title));
                    format!("{} {line}: {error:#}", terminal::red("failed"))
                }
            },
        };
        if print {
            println!(
                "{shown} {}",
                terminal::dim(&terminal::duration(started.elapsed()))
            );
        }
    }
    counts
}

/// Runs one case and cleans up after it, whatever became of it.
fn perform(remote: &Remote, case: &Case) -> Result<()> {
    let scene = Scene::new(remote);
    let outcome = match &case.run {
        Run::Case(run) => run(&scene),
        Run::Endpoint(contract) => contract.hold(&scene),
    };
    let cleaned = scene.clean_up().context("cleaning up");
    match (outcome, cleaned) {
        (Ok(()), cleaned) => cleaned,
        (Err(error), Ok(())) => Err(error),
        (Err(error), Err(left)) if error.is::<NotApplicable>() => bail!("{error}; and {left:#}"),
        (Err(error), Err(left)) => Err(error.context(format!("{left:#}"))),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_embedded_server_conforms() {
        let counts = on_embedded(None, false).unwrap();
        assert_eq!(counts.failed, [""; 0], "{:?}", counts.not_applicable);
        assert!(counts.held > 250, "only {} cases held", counts.held);
        // What the embedded server has no reason to leave out.
        assert_eq!(counts.not_applicable, [""; 0]);
    }

    #[test]
    fn every_case_has_a_name_of_its_own() {
        let cases = cases();
        let ids: BTreeSet<_> = cases.iter().map(|case| case.id).collect();
        assert_eq!(ids.len(), cases.len());
    }
}
