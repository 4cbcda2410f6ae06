//! `--check`: is everything as it should be? Submits nothing, and works without a server as far as that goes.

use std::io::{self, Write};

use clearml_agent_config::Settings;
use clearml_api_client::Client;
use clearml_slurm_glue::templates::Loaded;
use clearml_slurm_glue::{Glue, GlueError, GlueOptions};
use clearml_task_model::WorkerId;
use clearml_task_runner::settings::client_options;

/// What has been found so far.
#[derive(Default)]
struct Findings {
    wrong: usize,
}

impl Findings {
    fn say(&mut self, mark: &str, text: &str) {
        self.wrong += usize::from(mark == "wrong");
        // Nobody may be reading; the exit code says the same.
        let _gone = writeln!(io::stdout(), "{mark:>7}  {text}");
    }
}

pub(crate) async fn check(settings: &Settings, options: GlueOptions, worker: WorkerId) -> anyhow::Result<u8> {
    let mut findings = Findings::default();
    templates(&options, &mut findings);
    folders(&options, &mut findings);
    users(&options, &mut findings).await;
    let slurm = clearml_slurm_glue::glue::slurm(&options);
    match slurm.site().await {
        Ok(site) => findings.say("ok", &format!("Slurm answers; the cluster is {}", site.cluster)),
        Err(error) => findings.say("wrong", &error.to_string()),
    }
    if findings.wrong == 0 {
        server(settings, options, worker, &mut findings).await?;
    }
    Ok(u8::from(findings.wrong > 0))
}

fn templates(options: &GlueOptions, findings: &mut Findings) {
    for setup in &options.queues {
        match Loaded::read(setup.template.clone(), options.template_options(setup)) {
            Ok(loaded) => {
                findings.say(
                    "ok",
                    &format!("template {} of queue {}", setup.template.display(), setup.queue),
                );
                for warning in loaded.template.warnings() {
                    findings.say("warning", &format!("{}:{warning}", setup.template.display()));
                }
            }
            Err(error) => findings.say("wrong", &error.to_string()),
        }
    }
}

/// What compute nodes need is looked at from here, where they are only if the folder is shared.
fn folders(options: &GlueOptions, findings: &mut Findings) {
    if let Some(folder) = &options.shared_dir
        && !folder.is_dir()
    {
        let what = "is no folder here; make it, for several users with the mode of /tmp";
        findings.say(
            "wrong",
            &format!("agent.slurm.shared_dir: {} {what}", folder.display()),
        );
    }
    for (key, path) in [
        ("agent_binary", &options.agent_binary),
        ("work_dir", &options.work_dir),
    ] {
        if let Some(path) = path
            && !path.exists()
        {
            let what = "is not on this machine; it has to be on compute nodes";
            findings.say(
                "warning",
                &format!("agent.slurm.{key}: {} {what}", path.display()),
            );
        }
    }
}

async fn users(options: &GlueOptions, findings: &mut Findings) {
    use clearml_slurm_glue::core::users::{Decision, decide};
    let slurm = clearml_slurm_glue::glue::slurm(options);
    for (clearml, linux) in &options.user_map {
        let account = slurm.account(linux, options.user_rules.name_groups()).await;
        match decide(
            &options.user_map,
            Some(clearml),
            &options.user_rules,
            account.as_ref(),
        ) {
            Decision::Rejected(reason) => findings.say("wrong", &format!("user map, {clearml}: {reason}")),
            _ => findings.say("ok", &format!("user map: {clearml} is {linux}")),
        }
    }
}

/// Queues, and what Slurm says about a job of each.
async fn server(
    settings: &Settings,
    options: GlueOptions,
    worker: WorkerId,
    findings: &mut Findings,
) -> anyhow::Result<()> {
    let client = match client_options(settings).map(Client::new) {
        Ok(client) => client?,
        Err(error) => {
            findings.say("warning", &format!("queues were not looked at: {error}"));
            return Ok(());
        }
    };
    if let Err(error) = client.login().await {
        findings.say("wrong", &format!("logging in: {error}"));
        return Ok(());
    }
    findings.say("ok", &format!("the server {} lets us in", client.server()));
    let scratch = crate::scratch_folder()?;
    // Nothing is created on the server, and the journal of a running glue is left alone.
    let options = GlueOptions {
        state_dir: scratch.path().to_owned(),
        look_only: true,
        ..options
    };
    match Glue::new(client, settings.clone(), options, worker).await {
        Ok(glue) => {
            for found in glue.check().await {
                let queue = &found.queue;
                if !found.exists {
                    findings.say(
                        "warning",
                        &format!("queue {queue} is not there yet, and will be created"),
                    );
                }
                match found.job {
                    Ok(text) => findings.say("ok", &format!("queue {queue}: {text}")),
                    Err(text) => findings.say("wrong", &format!("queue {queue}: {text}")),
                }
            }
        }
        Err(error @ GlueError::Queue(_)) => findings.say("wrong", &error.to_string()),
        Err(error) => return Err(error.into()),
    }
    Ok(())
}
