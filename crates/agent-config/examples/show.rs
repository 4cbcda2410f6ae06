//! Loads a configuration made of a file, a variable and an option, and shows what came of it.

use clearml_agent_config::{Settings, Sources, declarations};
use serde_json::json;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let home = std::env::temp_dir().join(format!("agent-config-example-{}", std::process::id()));
    std::fs::create_dir_all(&home)?;
    let file = "api {\n  api_server: http://localhost:8008\n  credentials { access_key: AK, secret_key: \"not shown\" }\n}\nagent.woker_name: typo\n";
    std::fs::write(home.join("clearml.conf"), file)?;

    let sources = Sources {
        env: [(
            "CLEARML_AGENT__AGENT__VCS_CACHE__ENABLED".to_owned(),
            "false".to_owned(),
        )]
        .into(),
        home: Some(home.clone()),
        overrides: vec![(
            "agent.on_stop".to_owned(),
            json!("detach"),
            "--on-stop".to_owned(),
        )],
        ..Sources::default()
    };
    let loaded = Settings::load(&sources);
    std::fs::remove_dir_all(&home)?;
    let settings = loaded?;

    for warning in settings.warnings() {
        println!("warning: {warning}");
    }
    println!("credentials: {}", settings.masked_json()["api"]["credentials"]);
    for declaration in declarations().take(40) {
        if let (Some(value), Some(origin)) = (settings.get(declaration.key), settings.origin(declaration.key))
        {
            println!("{} = {value}   ({origin})", declaration.key);
        }
    }
    Ok(())
}
