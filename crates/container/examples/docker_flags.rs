//! What an agent makes of options for `docker run`: `cargo run -p clearml-container --example docker_flags -- -m 1g`.

use clearml_container::flags;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    if words.is_empty() {
        words = shlex::split("--ipc=host -m 8g --gpus '\"device=0,1\"' -v /data:/data:ro -e EPOCHS=3")
            .unwrap_or_default();
    }
    let spec = flags::parse(&words, &|name| std::env::var(name).ok())?;
    println!("{}", serde_json::to_string_pretty(&spec.body)?);
    for notice in &spec.notices {
        println!("{notice}");
    }
    Ok(())
}
