//! `status`: what the agents of this machine do.

use std::io::stdout;
use std::time::Duration;

use clap::Args;
use clearml_agent_config::{Settings, Sources};
use clearml_commands::status::{Collector, Style, render, watch};

use crate::output::{colours, print, print_line};

/// A shorter time would be spent on nothing but looking.
const SHORTEST: f64 = 0.2;
const LONGEST: f64 = 86_400.0;

#[derive(Args)]
pub(crate) struct StatusArguments {
    /// Show it again and again, until Ctrl-C.
    #[arg(long, short, conflicts_with = "json")]
    watch: bool,
    /// Seconds between two looks of --watch.
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = interval)]
    interval: f64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

fn interval(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|seconds| (SHORTEST..=LONGEST).contains(seconds))
        .ok_or_else(|| format!("expected seconds between {SHORTEST} and {LONGEST}"))
}

pub(crate) async fn status(options: StatusArguments, sources: Sources) -> anyhow::Result<i32> {
    let settings = Settings::load(&sources)?;
    let mut collector = Collector::new(&settings);
    let colours = colours(&stdout());
    if options.watch {
        watch(&mut collector, Duration::from_secs_f64(options.interval), colours).await?;
        return Ok(0);
    }
    let overview = collector.overview();
    if options.json {
        print_line(format_args!("{:#}", serde_json::to_value(&overview)?))?;
    } else {
        print(render(&overview, Style { colours, width: None }))?;
    }
    Ok(0)
}
