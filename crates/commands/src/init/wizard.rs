//! The questions, in their order. The wording of the prompts is the Python agent's, which scripts wait for.

use clearml_support::redact::mask_url;
use clearml_support::secret::{MASK, Secret};

use super::dialogue::Dialogue;
use super::hosts::{Derivation, Servers, WEB_PORT, derive, normalise, on_usual_ports, with_port};
use super::paste::{self, Pasted};
use super::{Answers, InitError, KeyPair, Outcome, Target, Verify};

/// Most that is read as pasted text.
const MAX_PASTE: usize = 256 << 10;
/// A secret key shorter than this would lose too much by its first four characters.
const SHORTEST_SHOWN_SECRET: usize = 16;

/// Leads through the questions, verifies, and writes the file.
pub(crate) fn run(
    dialogue: &mut Dialogue<'_>,
    target: &Target,
    verify: &mut Verify<'_>,
) -> Result<Outcome, InitError> {
    dialogue.say("CLEARML-AGENT setup process")?;
    if let Some(outcome) = target.refusal() {
        dialogue.say(&format!(
            "Configuration file already exists: {}",
            target.path.display()
        ))?;
        dialogue.say(
            "It is left as it is. To set up this machine as a worker, add an `agent` section to it, or move it \
             away and start again.",
        )?;
        return Ok(outcome);
    }
    let pasted = read_paste(dialogue)?;
    let mut keys = keys(dialogue, &pasted)?;
    let servers = ask_servers(dialogue, &pasted, target)?;
    show(dialogue, &servers)?;
    let user = match verified(dialogue, &servers.api, &mut keys, verify)? {
        Ok(user) => user,
        Err(reason) => {
            dialogue.say("Exiting setup without creating configuration file")?;
            return Ok(Outcome::NotVerified { reason });
        }
    };
    let output_uri = ask_output_uri(dialogue, &servers.files)?;
    let git = ask_git(dialogue)?;
    let index_urls = ask_index_urls(dialogue)?;
    let answers = Answers {
        keys,
        servers,
        output_uri,
        git,
        index_urls,
        user,
    };
    let outcome = target.write(answers)?;
    match &outcome {
        Outcome::Written(summary) => {
            dialogue.say("")?;
            dialogue.say(&format!("New configuration stored in {}", summary.path.display()))?;
            dialogue.say("CLEARML-AGENT setup completed successfully.")?;
        }
        Outcome::NotWritten { path, reason } => {
            dialogue.say(&format!(
                "Error! Could not write configuration file at: {} ({reason})",
                path.display()
            ))?;
        }
        _ => {}
    }
    Ok(outcome)
}

fn read_paste(dialogue: &mut Dialogue<'_>) -> Result<Pasted, InitError> {
    dialogue.say("")?;
    dialogue.say(
        "Open the web page of your ClearML server, create an access key there (Settings > Workspace > Create new \
         credentials), and copy the configuration that it shows.",
    )?;
    if dialogue.is_terminal() {
        dialogue.say("What you paste is not shown, because it holds a secret. An empty line ends it.")?;
    }
    let prompt = "Paste copied configuration here:";
    Ok(paste::read(&dialogue.paste(
        prompt,
        MAX_PASTE,
        paste::is_last_line,
    )?))
}

/// The keys of the paste, or those that are typed, and what they are.
fn keys(dialogue: &mut Dialogue<'_>, pasted: &Pasted) -> Result<KeyPair, InitError> {
    let keys = match &pasted.keys {
        Some(keys) => keys.clone(),
        None => {
            dialogue.say("Could not parse credentials, please try entering them manually.")?;
            enter_keys(dialogue)?
        }
    };
    dialogue.say(&format!(
        "Detected credentials key=\"{}\" secret=\"{}***\"",
        keys.access,
        beginning(&keys.secret)
    ))?;
    Ok(keys)
}

fn show(dialogue: &mut Dialogue<'_>, servers: &Servers) -> Result<(), InitError> {
    dialogue.say("\nClearML Hosts configuration:")?;
    for (name, url) in [
        ("Web App", &servers.web),
        ("API", &servers.api),
        ("File Store", &servers.files),
    ] {
        dialogue.say(&format!("{name}: {}", mask_url(url)))?;
    }
    dialogue.say("")
}

fn enter_keys(dialogue: &mut Dialogue<'_>) -> Result<KeyPair, InitError> {
    loop {
        let access = dialogue.ask("Enter user access key: ")?;
        let secret = dialogue.ask_secret("Enter user secret: ")?;
        if let Some(keys) = KeyPair::new(&access, secret.expose()) {
            return Ok(keys);
        }
    }
}

/// So much of a secret that its owner recognises it, and nobody else can use it.
fn beginning(secret: &Secret) -> String {
    let text = secret.expose();
    if text.chars().count() < SHORTEST_SHOWN_SECRET {
        return String::new();
    }
    text.chars().take(4).collect()
}

/// Asks for an address until there is one.
fn ask_url(dialogue: &mut Dialogue<'_>, what: &str, default: &str) -> Result<String, InitError> {
    loop {
        let answer = dialogue.ask(&format!("{what} configured to: [{}] ", mask_url(default)))?;
        if matches!(answer.to_lowercase().as_str(), "" | "y" | "yes") {
            if default.is_empty() {
                continue;
            }
            return Ok(default.to_owned());
        }
        match normalise(&answer) {
            Some(url) => return Ok(url),
            None => {
                dialogue.say("That is not the address of a server, such as https://clearml.example.com")?
            }
        }
    }
}

fn ask_servers(dialogue: &mut Dialogue<'_>, pasted: &Pasted, target: &Target) -> Result<Servers, InitError> {
    let asks_api = pasted.web.is_none() && pasted.api.is_some();
    if pasted.web.is_none() && pasted.api.is_none() {
        dialogue.say(&format!(
            "No server was named. Enter the address of the web page of your ClearML server, such as \
             https://app.clear.ml; it can be changed later in {}.",
            target.path.display()
        ))?;
    }
    let (what, default) = if asks_api {
        ("API Host", pasted.api.as_deref())
    } else {
        ("WEB Host", pasted.web.as_deref())
    };
    let entered = ask_url(dialogue, what, default.unwrap_or_default())?;
    let mut servers = derive_asking(dialogue, &entered)?;
    if asks_api {
        servers.api = if servers.api.is_empty() {
            entered
        } else {
            servers.api
        };
        servers.web = ask_url(dialogue, "Web Application Host", &servers.web)?;
    } else {
        let accepted = pasted.web.as_deref() == Some(entered.as_str());
        servers.web = if servers.web.is_empty() {
            entered
        } else {
            servers.web
        };
        let proposed = pasted.api.clone().filter(|_| accepted).unwrap_or(servers.api);
        servers.api = ask_url(dialogue, "API Host", &proposed)?;
    }
    let proposed = pasted.files.clone().unwrap_or(servers.files);
    servers.files = ask_url(dialogue, "File Store Host", &proposed)?;
    Ok(servers)
}

/// The servers that follow from an address; where nothing does, all are empty.
fn derive_asking(dialogue: &mut Dialogue<'_>, url: &str) -> Result<Servers, InitError> {
    match derive(url) {
        Derivation::Servers { servers, from_api } => {
            if from_api {
                dialogue.say("This is the address of an API server; the others follow from it.")?;
            }
            Ok(servers)
        }
        Derivation::OwnPort => Ok(Servers::default()),
        Derivation::NoPort => {
            let question =
                format!("Host port not detected, do you wish to use the default {WEB_PORT} port n/[y]? ");
            match dialogue.ask(&question)?.to_lowercase().as_str() {
                "" | "y" | "yes" => Ok(on_usual_ports(url)),
                "n" | "no" => Ok(Servers {
                    web: with_port(url, ask_port(dialogue, "Web")?),
                    api: with_port(url, ask_port(dialogue, "API")?),
                    files: with_port(url, ask_port(dialogue, "Files")?),
                }),
                _ => Ok(Servers::default()),
            }
        }
    }
}

fn ask_port(dialogue: &mut Dialogue<'_>, server: &str) -> Result<Option<u16>, InitError> {
    loop {
        let answer = dialogue.ask(&format!("Enter port for {server} host "))?;
        if answer.is_empty() {
            return Ok(None);
        }
        match answer.parse::<u16>() {
            Ok(port) if port > 0 => return Ok(Some(port)),
            _ => dialogue.say("A port is a number from 1 to 65535")?,
        }
    }
}

/// Logs in; after a failure once more with keys that are entered by hand. The name of the user, or why
/// that failed as well.
fn verified(
    dialogue: &mut Dialogue<'_>,
    api: &str,
    keys: &mut KeyPair,
    verify: &mut Verify<'_>,
) -> Result<Result<Option<String>, String>, InitError> {
    let mut is_second = false;
    loop {
        dialogue.say("Verifying credentials ...")?;
        let reason = match verify(api, keys) {
            Ok(user) => {
                dialogue.say("Credentials verified!")?;
                return Ok(Ok(user));
            }
            Err(reason) => reason,
        };
        dialogue.say(&format!(
            "Error: could not verify credentials: key={} secret={MASK}",
            keys.access
        ))?;
        dialogue.say(&format!("  {reason}"))?;
        if is_second {
            return Ok(Err(reason));
        }
        *keys = enter_keys(dialogue)?;
        is_second = true;
    }
}

fn ask_output_uri(dialogue: &mut Dialogue<'_>, files: &str) -> Result<Option<String>, InitError> {
    let question = "Default Output URI (used to automatically store models and artifacts): \
                    (N)one/ClearML (S)erver/(C)ustom [None] ";
    let uri = loop {
        match dialogue.ask(question)?.to_lowercase().as_str() {
            "" | "n" | "none" => break None,
            "s" => break Some(files.to_owned()),
            "c" => break Some(dialogue.ask("Custom Default Output URI: ")?),
            _ => {}
        }
    };
    let uri = uri.filter(|uri| !uri.is_empty() && !uri.contains(|c: char| c.is_control()));
    let shown = uri.as_deref().map_or_else(|| "not set".to_owned(), mask_url);
    dialogue.say(&format!("Default Output URI: {shown}"))?;
    Ok(uri)
}

fn ask_git(dialogue: &mut Dialogue<'_>) -> Result<Option<(String, Secret)>, InitError> {
    let user = dialogue
        .ask("Enter git username for repository cloning (leave blank for SSH key authentication): [] ")?;
    if user.is_empty() || user.contains(|c: char| c.is_control()) {
        return Ok(None);
    }
    dialogue.say("A token that may read repositories is enough. How to create one:")?;
    dialogue.say("  GitHub     https://github.com/settings/tokens")?;
    dialogue.say("  GitLab     https://gitlab.com/-/user_settings/personal_access_tokens")?;
    dialogue.say("  Bitbucket  https://id.atlassian.com/manage-profile/security/api-tokens")?;
    let token = dialogue.ask_secret(&format!("Enter git personal token for user '{user}': "))?;
    dialogue.say(&format!(
        "Git repository cloning will be using user={user} token={MASK}"
    ))?;
    Ok(Some((user, token)))
}

fn ask_index_urls(dialogue: &mut Dialogue<'_>) -> Result<Vec<String>, InitError> {
    dialogue.say("")?;
    let mut urls = Vec::new();
    let mut question = "Enter additional artifact repository (extra-index-url) to use when installing python \
                        packages (leave blank if not required):";
    loop {
        let url = dialogue.ask(question)?;
        if url.is_empty() {
            break;
        }
        urls.push(url);
        question = "Another artifact repository? (enter another url or leave blank if done):";
    }
    if !urls.is_empty() {
        dialogue.say("The following artifact repositories will be added:")?;
        for url in &urls {
            dialogue.say(&format!("\t- {}", mask_url(url)))?;
        }
    }
    Ok(urls)
}

/// The servers that somebody named without a dialogue, the missing ones derived. Pure.
pub(crate) fn complete(mut servers: Servers) -> Result<Servers, InitError> {
    let known = [&servers.api, &servers.web]
        .into_iter()
        .find(|url| !url.is_empty());
    let Some(known) = known else {
        return Err(InitError::Missing {
            what: "the API server",
            how: "--api-server URL or CLEARML_API_HOST",
        });
    };
    if let Derivation::Servers { servers: derived, .. } = derive(known) {
        for (server, derived) in [
            (&mut servers.api, derived.api),
            (&mut servers.web, derived.web),
            (&mut servers.files, derived.files),
        ] {
            if server.is_empty() {
                *server = derived;
            }
        }
    }
    if servers.api.is_empty() {
        return Err(InitError::Missing {
            what: "the API server, which does not follow from that web server,",
            how: "--api-server URL or CLEARML_API_HOST",
        });
    }
    Ok(servers)
}
