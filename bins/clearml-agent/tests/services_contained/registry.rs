//! A registry with one small image, for an engine that pulls.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

use serde_json::json;

const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// Serves it until the end of the process, to everybody, or to who logs in with these words (`user:password` in
/// base64). Returns the image's name; no other has been pulled before. Under the tag `broken` a layer is missing.
pub(crate) fn serve(scratch: &Path, login: Option<&'static str>) -> String {
    let folder = scratch.join("image");
    fs::create_dir_all(folder.join("bin")).unwrap();
    fs::write(folder.join("bin/nothing"), scratch.to_str().unwrap()).unwrap();
    let tar = Command::new("tar")
        .arg("-c")
        .arg("-C")
        .arg(&folder)
        .arg(".")
        .output();
    let layer = tar.unwrap().stdout;
    let architecture = if cfg!(target_arch = "x86_64") {
        "amd64"
    } else {
        "arm64"
    };
    let config = json!({"architecture": architecture, "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [digest(scratch, &layer)]}});
    let config = config.to_string().into_bytes();
    let entry = |kind: &str, bytes: &[u8]| json!({"mediaType": format!("application/vnd.docker.{kind}"), "size": bytes.len(), "digest": digest(scratch, bytes)});
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST,
        "config": entry("container.image.v1+json", &config), "layers": [entry("image.rootfs.diff.tar.gzip", &layer)]});
    let manifest = manifest.to_string().into_bytes();
    let broken =
        String::from_utf8_lossy(&manifest).replace(&digest(scratch, &layer), &digest(scratch, b"gone"));
    let known = vec![
        ("/v2/".to_owned(), "application/json", b"{}".to_vec()),
        (
            "/v2/small/manifests/broken".to_owned(),
            MANIFEST,
            broken.into_bytes(),
        ),
        ("/v2/small/manifests/1".to_owned(), MANIFEST, manifest.clone()),
        (
            format!("/v2/small/manifests/{}", digest(scratch, &manifest)),
            MANIFEST,
            manifest,
        ),
        (blob(scratch, &config), "application/octet-stream", config),
        (blob(scratch, &layer), "application/octet-stream", layer),
    ];
    let known: Vec<_> = known
        .into_iter()
        .map(|(path, kind, bytes)| (path, kind, digest(scratch, &bytes), bytes))
        .collect();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let image = format!("{}/small:1", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // An engine that goes away is nothing to the next one.
            let _gone = answer(stream, &known, login);
        }
    });
    image
}

fn answer(
    stream: TcpStream,
    known: &[(String, &str, String, Vec<u8>)],
    login: Option<&str>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut line = String::new();
    let mut may = login.is_none();
    while reader.read_line(&mut line)? > 2 {
        may |= login.is_some_and(|login| line.trim_end() == format!("Authorization: Basic {login}"));
        line.clear();
    }
    let mut words = first.split(' ');
    let (method, path) = (words.next(), words.next());
    let found = known.iter().find(|(known, ..)| Some(known.as_str()) == path);
    let stream = reader.get_mut();
    if !may {
        return stream.write_all(
            b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"here\"\r\nContent-Length: 0\r\n\
              Connection: close\r\n\r\n",
        );
    }
    let Some((_, kind, digest, bytes)) = found else {
        return stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    };
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nDocker-Content-Digest: {digest}\r\n\
         Docker-Distribution-Api-Version: registry/2.0\r\nConnection: close\r\n\r\n",
        bytes.len()
    );
    stream.write_all(head.as_bytes())?;
    if method != Some("HEAD") {
        stream.write_all(bytes)?;
    }
    Ok(())
}

fn blob(scratch: &Path, bytes: &[u8]) -> String {
    format!("/v2/small/blobs/{}", digest(scratch, bytes))
}

fn digest(scratch: &Path, bytes: &[u8]) -> String {
    let path = scratch.join("digested");
    fs::write(&path, bytes).unwrap();
    let output = Command::new("sha256sum").arg(&path).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    format!("sha256:{}", text.split(' ').next().unwrap())
}
