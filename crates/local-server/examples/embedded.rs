//! Starts a server in a temporary folder, asks whether it is there, and stops it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use clearml_local_server::{Server, ServerOptions};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let server = Server::start(ServerOptions::new(folder.path())).await?;
    println!("API {}, files {}", server.api_url(), server.files_url());
    println!("client configuration: {}", server.config_path().display());

    let address = server.api_url().trim_start_matches("http://").to_owned();
    let reply = tokio::task::spawn_blocking(move || ping(&address)).await??;
    println!("debug.ping: {}", reply.lines().next().unwrap_or_default());

    server.shutdown().await;
    if reply.starts_with("HTTP/1.1 200") {
        Ok(())
    } else {
        Err(format!("unexpected reply: {reply}").into())
    }
}

fn ping(address: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    write!(
        stream,
        "GET /debug.ping HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply)?;
    Ok(reply)
}
