//! `init`: the way to a first configuration.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use clearml_agent_config::Sources;
use clearml_commands::init::{Given, InitOptions, Outcome, SecretSource, run};

use crate::output::print_line;

#[derive(Args)]
pub(crate) struct InitArguments {
    /// Write this file instead of ~/clearml.conf. A file that is not empty is never overwritten.
    #[arg(long, value_name = "PATH")]
    output: Option<PathBuf>,
    /// Ask nothing. What the options below leave open is taken from the environment: CLEARML_API_HOST,
    /// CLEARML_API_ACCESS_KEY, CLEARML_API_SECRET_KEY, CLEARML_AGENT_GIT_USER, CLEARML_AGENT_GIT_PASS and so on.
    #[arg(long)]
    non_interactive: bool,
    /// The API server; the other servers follow from it where that is possible.
    #[arg(long, value_name = "URL", requires = "non_interactive")]
    api_server: Option<String>,
    /// The web pages.
    #[arg(long, value_name = "URL", requires = "non_interactive")]
    web_server: Option<String>,
    /// The file server.
    #[arg(long, value_name = "URL", requires = "non_interactive")]
    files_server: Option<String>,
    /// The access key.
    #[arg(long, value_name = "KEY", requires = "non_interactive")]
    access_key: Option<String>,
    /// A file whose first line is the secret key. There is no option for the key itself, because every user
    /// of the machine could read it.
    #[arg(long, value_name = "PATH", requires = "non_interactive")]
    secret_key_file: Option<PathBuf>,
    /// Read the secret key from standard input.
    #[arg(long, requires = "non_interactive", conflicts_with = "secret_key_file")]
    secret_key_stdin: bool,
    /// The user for git repositories.
    #[arg(long, value_name = "NAME", requires = "non_interactive")]
    git_user: Option<String>,
    /// A file whose first line is the password or token of that user.
    #[arg(long, value_name = "PATH", requires = "non_interactive")]
    git_pass_file: Option<PathBuf>,
    /// Further indexes of Python packages.
    #[arg(long, value_name = "URL", requires = "non_interactive", num_args = 1..)]
    extra_index_url: Vec<String>,
    /// Where models and artifacts go.
    #[arg(long, value_name = "URI", requires = "non_interactive")]
    default_output_uri: Option<String>,
    /// Print the result as JSON; the dialogue goes to standard error.
    #[arg(long)]
    json: bool,
}

impl InitArguments {
    fn given(&self) -> anyhow::Result<Given> {
        let read = |what: &str, source: SecretSource| {
            source
                .read()
                .with_context(|| format!("reading {what} from {source}"))
        };
        let file = |path: &PathBuf| SecretSource::File(path.clone());
        let secret_source = match &self.secret_key_file {
            Some(path) => Some(file(path)),
            None => self.secret_key_stdin.then_some(SecretSource::Stdin),
        };
        Ok(Given {
            api_server: self.api_server.clone(),
            web_server: self.web_server.clone(),
            files_server: self.files_server.clone(),
            access_key: self.access_key.clone(),
            secret_key: secret_source
                .map(|source| read("the secret key", source))
                .transpose()?,
            git_user: self.git_user.clone(),
            git_pass: self
                .git_pass_file
                .as_ref()
                .map(|path| read("the git password", file(path)))
                .transpose()?,
            extra_index_url: self.extra_index_url.clone(),
            default_output_uri: self.default_output_uri.clone(),
        })
    }
}

pub(crate) async fn init(options: InitArguments, sources: Sources) -> anyhow::Result<i32> {
    let (json, dialogue) = (options.json, !options.non_interactive);
    let ended = async {
        let given = options.non_interactive.then(|| options.given()).transpose()?;
        let init = InitOptions {
            output: options.output,
            given,
            dialogue_on_stderr: json,
        };
        anyhow::Ok(run(init, &sources).await?)
    };
    let outcome = match ended.await {
        Ok(outcome) => outcome,
        Err(error) if json => {
            let reason = format!("{error:#}");
            let failure = serde_json::json!({"schema": 1, "result": "error", "path": null, "reason": reason});
            print_line(format_args!("{failure:#}"))?;
            return Ok(1);
        }
        Err(error) => return Err(error),
    };
    if json {
        print_line(format_args!("{:#}", outcome.to_json()))?;
        return Ok(outcome.exit_code(dialogue));
    }
    // A dialogue has said already how it ended.
    if !dialogue {
        match &outcome {
            Outcome::Written(summary) => print_line(format_args!(
                "New configuration stored in {}",
                summary.path.display()
            ))?,
            Outcome::Exists { path } => bail!(
                "the configuration file {} exists already and is left as it is",
                path.display()
            ),
            Outcome::NotVerified { reason } => {
                bail!("the credentials could not be verified, so nothing was written: {reason}")
            }
            Outcome::NotWritten { path, reason } => {
                bail!(
                    "could not write the configuration file {}: {reason}",
                    path.display()
                )
            }
            Outcome::Interrupted => {}
        }
    }
    Ok(outcome.exit_code(dialogue))
}
