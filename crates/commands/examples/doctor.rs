//! Examines this machine without any configuration.

use clearml_agent_config::Sources;
use clearml_commands::doctor::{DoctorOptions, run};

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let sources = Sources {
        env: std::env::vars()
            .filter(|(name, _)| !name.starts_with("CLEARML_") && !name.starts_with("TRAINS_"))
            .collect(),
        ..Sources::default()
    };
    let report = run(&DoctorOptions::default(), &sources).await;
    report.write(&mut std::io::stdout(), false)
}
