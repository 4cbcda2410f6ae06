//! The file server: uploads by the name of a form field, downloads, deletion.

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};

use super::http::{Reply, Request};
use super::scene::{Scene, same};
use super::{Case, case};

const BOUNDARY: &str = "a-line-that-occurs-nowhere-else";

pub(super) const CASES: &[Case] = &[
    case(
        "164",
        "a file is stored under the literal name of its form field",
        |scene| {
            with_folder(scene, |folder| {
                for (stem, encoded) in [("a b/c.json", "a%20b/c.json"), ("1+1 100%", "1+1%20100%25")] {
                    let name = format!("/{folder}/{stem}");
                    let reply = upload(scene, &[(&name, "{}")])?;
                    same(
                        "the names",
                        &list_of(&reply)?,
                        json!([format!("{folder}/{stem}")]),
                    )?;
                    let found = get(scene, &format!("{folder}/{encoded}"))?;
                    same("the content", &json!(found.text()), json!("{}"))?;
                }
                let (one, two) = (format!("{folder}/one"), format!("{folder}/two"));
                let reply = upload(scene, &[(&one, "1"), (&two, "2")])?;
                same("two parts", &list_of(&reply)?, json!([one, two]))?;
                same("no part", &list_of(&upload(scene, &[])?)?, json!([]))
            })
        },
    ),
    case("165", "files are for those who have a token", |scene| {
        let path = |request: Request| request.method(Method::GET);
        let file = || path(file_request(scene, &scene.name("none")));
        for request in [
            file().anonymous(),
            file().anonymous().header("authorization", "Bearer garbage"),
            file().with_keys(),
        ] {
            same(
                "the status",
                &json!(scene.remote.send(&request)?.status),
                json!(401),
            )?;
        }
        let cookie = format!("clearml_token_basic={}", scene.remote.token);
        let reply = scene.remote.send(&file().anonymous().header("cookie", cookie))?;
        same("with the cookie", &json!(reply.status), json!(404))
    }),
    case("166", "an upload cannot leave the server's folder", |scene| {
        let reply = upload(scene, &[("../../conformance-escape", "x")])?;
        ensure!(
            reply.status == 404 || reply.status == 400,
            "accepted: {}",
            reply.text()
        );
        Ok(())
    }),
    case(
        "167",
        "parts, changes and existence can be asked for, and files deleted",
        |scene| {
            with_folder(scene, |folder| {
                let name = format!("{folder}/digits");
                upload(scene, &[(&name, "0123456789")])?;
                let request = file_request(scene, &name).method(Method::GET);
                let status = |request: Request| Ok::<_, anyhow::Error>(scene.remote.send(&request)?.status);
                same(
                    "HEAD",
                    &json!(status(request.clone().method(Method::HEAD))?),
                    json!(200),
                )?;
                let part = scene.remote.send(&request.clone().header("range", "bytes=2-4"))?;
                same("a part", &json!([part.status, part.text()]), json!([206, "234"]))?;
                let whole = scene.remote.send(&request)?;
                let tag = whole.header("etag").context("no ETag")?.to_owned();
                same(
                    "unchanged",
                    &json!(status(request.header("if-none-match", tag))?),
                    json!(304),
                )?;
                let delete = || file_request(scene, &name).method(Method::DELETE);
                same("deleted", &json!(status(delete())?), json!(200))?;
                same("deleted again", &json!(status(delete())?), json!(404))?;
                let head = file_request(scene, &name).method(Method::HEAD);
                same("gone", &json!(status(head)?), json!(404))?;
                upload(scene, &[(&name, "x")])?;
                let folder_itself = file_request(scene, folder).method(Method::DELETE);
                same("a folder", &json!(status(folder_itself)?), json!(404))?;
                let missing = format!("{folder}/missing");
                let reply = delete_many(scene, &[&name, &missing, "."])?;
                let reply: Value = serde_json::from_slice(&reply.body)?;
                same("deleted", &reply["deleted"], json!({name.as_str(): name}))?;
                ensure!(
                    !reply["errors"].as_object().is_none_or(serde_json::Map::is_empty),
                    "{reply}"
                );
                Ok(())
            })
        },
    ),
    case("168", "files work below a path of the API's address", |scene| {
        let base = format!("{}/files", scene.remote.api);
        let probe = scene
            .remote
            .send(&Request::to(format!("{base}/")).method(Method::GET))?;
        if probe.status != 200 {
            return super::scene::not_applicable("this server has no files on its API port");
        }
        with_folder(scene, |folder| {
            let name = format!("{folder}/here");
            let reply = scene
                .remote
                .send(&form(Request::to(base.clone()), &[(&name, "x")]))?;
            same("the names", &list_of(&reply)?, json!([name]))?;
            let found = scene
                .remote
                .send(&Request::to(format!("{base}/{name}")).method(Method::GET))?;
            same("the content", &json!(found.text()), json!("x"))
        })
    }),
];

/// Runs something with a folder of its own, which is deleted afterwards.
fn with_folder(scene: &Scene<'_>, run: impl Fn(&str) -> Result<()>) -> Result<()> {
    let folder = scene.name("files");
    let probe = Request::to(format!("{}/", scene.remote.files)).method(Method::GET);
    let answers = scene.remote.send(&probe);
    if !answers.as_ref().is_ok_and(|reply| reply.status == 200) {
        return super::scene::not_applicable(format!(
            "no file server at {}; give its address with --files",
            scene.remote.files
        ));
    }
    let outcome = run(&folder);
    let cleaned = delete_many(scene, &[&folder]);
    outcome.and(cleaned.map(drop))
}

fn file_request(scene: &Scene<'_>, path: &str) -> Request {
    Request::to(format!("{}/{path}", scene.remote.files))
}

fn get(scene: &Scene<'_>, path: &str) -> Result<Reply> {
    scene.remote.send(&file_request(scene, path).method(Method::GET))
}

fn delete_many(scene: &Scene<'_>, paths: &[&str]) -> Result<Reply> {
    let request = file_request(scene, "delete_many").json(&json!({"files": paths}));
    scene.remote.send(&request)
}

fn upload(scene: &Scene<'_>, parts: &[(&str, &str)]) -> Result<Reply> {
    scene
        .remote
        .send(&form(Request::to(format!("{}/", scene.remote.files)), parts))
}

/// Adds a multipart form whose fields are files.
fn form(request: Request, parts: &[(&str, &str)]) -> Request {
    let mut body = String::new();
    for (name, content) in parts {
        body.push_str(&format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"f\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n{content}\r\n"
        ));
    }
    body.push_str(&format!("--{BOUNDARY}--\r\n"));
    request
        .header(
            "content-type",
            format!("multipart/form-data; boundary={BOUNDARY}"),
        )
        .body(body)
}

fn list_of(reply: &Reply) -> Result<Value> {
    ensure!(reply.status == 200, "HTTP {}: {}", reply.status, reply.text());
    Ok(serde_json::from_slice(&reply.body)?)
}
