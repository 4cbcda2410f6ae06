//! Paths, methods, bodies, envelopes, versions and authentication.

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use reqwest::Method;
use serde_json::{Value, json};

use super::http::Request;
use super::scene::{Scene, fields, not_applicable, same, text};
use super::{Case, case};

pub(super) const CASES: &[Case] = &[
    case(
        "1",
        "a login by GET gives a token with every claim that clients read, and a cookie",
        login,
    ),
    case(
        "2",
        "a login by POST under an older version, which the reply names",
        login_by_post,
    ),
    case(
        "3",
        "a wrong secret is 401/22 with an object as data",
        wrong_secret,
    ),
    case("4", "a login without credentials is 401/20", |scene| {
        refused(scene, scene.remote.request("/auth.login").anonymous(), (401, 20))
    }),
    case("5", "an unknown authentication scheme is 401/10", |scene| {
        let request = scene.remote.request("/auth.login").anonymous();
        refused(scene, request.header("authorization", "Foo x"), (401, 10))
    }),
    case("6", "a valid token is good for another login", |scene| {
        let data = scene.ok("auth.login", json!({}))?;
        claims(&text(&data, "token")?).map(drop)
    }),
    case("7", "the life of a token can be asked for", |scene| {
        same(
            "the life",
            &json!(life(scene, "/auth.login?expiration_sec=60")?),
            json!(60),
        )
    }),
    case("8", "a life of more than a year is 400/12", |scene| {
        refused(
            scene,
            scene
                .remote
                .request("/auth.login?expiration_sec=31536001")
                .with_keys(),
            (400, 12),
        )
    }),
    case("9", "a call without credentials is 401/20", |scene| {
        refused(
            scene,
            scene.remote.request("/tasks.get_all").anonymous(),
            (401, 20),
        )
    }),
    case("10", "a token that is none is 401/30", |scene| {
        with_token(scene, "garbage")
    }),
    case("11", "an expired token is 401/30", expired),
    case("15", "a key pair is accepted by every call", |scene| {
        accepted(
            scene,
            scene
                .remote
                .request("/tasks.get_all")
                .with_keys()
                .json(&json!({"id": ["zz"]})),
        )
    }),
    case("16", "the login cookie alone is enough", |scene| {
        let cookie = format!("clearml_token_basic={}", scene.remote.token);
        let request = scene.remote.request("/tasks.get_all").anonymous();
        accepted(
            scene,
            request.header("cookie", cookie).json(&json!({"id": ["zz"]})),
        )
    }),
    case("17", "a token is refused after its logout", logout),
    case(
        "18",
        "the health check echoes its request and needs no credentials",
        |scene| {
            let request = scene
                .remote
                .request("/debug.ping")
                .anonymous()
                .method(Method::GET);
            let data = scene.remote.send(&request.json(&json!({"a": 1})))?.data()?;
            fields(&data, json!({"a": 1}))?;
            text(&data, "msg").map(drop)
        },
    ),
    case("19", "every method means the same", |scene| {
        [Method::PUT, Method::DELETE, Method::PATCH]
            .into_iter()
            .try_for_each(|method| accepted(scene, scene.remote.request("/debug.ping").method(method)))
    }),
    case("20", "OPTIONS is answered with nothing", |scene| {
        let request = scene
            .remote
            .request("/tasks.get_all")
            .anonymous()
            .method(Method::OPTIONS);
        let reply = scene.remote.send(&request)?;
        same("the status", &json!(reply.status), json!(200))?;
        same("the body", &json!(reply.text()), json!(""))
    }),
    case("21", "a body is read on GET", |scene| {
        let request = scene.remote.request("/v2.14/tasks.get_all").method(Method::GET);
        no_tasks(scene, request.json(&json!({"id": ["zz"]})))
    }),
    case("22", "the same as a query string", |scene| {
        let path = "/v2.14/tasks.get_all?id[]=zz&only_fields=id&only_fields=name&search_hidden=true";
        no_tasks(scene, scene.remote.request(path).method(Method::GET))
    }),
    case("23", "a slash at the end does no harm", |scene| {
        no_tasks(
            scene,
            scene
                .remote
                .request("/v2.14/tasks.get_all/")
                .json(&json!({"id": ["zz"]})),
        )
    }),
    case(
        "24",
        "a version above the newest is taken as the newest",
        |scene| version_shown(scene, "/v9.9/tasks.get_all", json!("9.9")),
    ),
    case("25", "versions are numbers for clients before 2.1", |scene| {
        version_shown(scene, "/v1.5/tasks.get_all", json!(1.5))
    }),
    case("26", "paths outside the grammar are 400/0", |scene| {
        ["/v2/tasks.get_all", "/bogus", "/"]
            .into_iter()
            .try_for_each(|path| refused(scene, scene.remote.request(path), (400, 0)))
    }),
    case(
        "27",
        "an unknown endpoint is 404/0 without an actual version",
        |scene| {
            let reply = scene.call("nosuch.thing", &json!({}))?;
            same("the codes", &json!(reply.codes()?), json!([404, 0]))?;
            same(
                "the version",
                &reply.envelope()?["meta"]["endpoint"]["actual_version"],
                json!(null),
            )
        },
    ),
    case(
        "28",
        "an endpoint that is newer than the version asked for is 404/0",
        |scene| scene.refused("v2.1/tasks.completed", json!({"task": "zz"}), (404, 0)),
    ),
    case("29", "a body that is not JSON is 400/0", |scene| {
        let request = scene
            .remote
            .request("/tasks.get_all")
            .header("content-type", "application/json");
        refused(scene, request.body("{bad"), (400, 0))
    }),
    case("30", "a missing field is 400/12 and named", |scene| {
        let reply = scene.call("tasks.get_by_id", &json!({}))?;
        same("the codes", &json!(reply.codes()?), json!([400, 12]))?;
        ensure!(
            reply.text().contains("task"),
            "the field is not named: {}",
            reply.text()
        );
        Ok(())
    }),
    case("31", "a field of the wrong type is 400/12", |scene| {
        scene.refused("tasks.get_by_id", json!({"task": 5}), (400, 12))
    }),
    case("32", "a compressed request is refused with 415", |scene| {
        let request = scene
            .remote
            .request("/tasks.get_all")
            .header("content-encoding", "gzip");
        let reply = scene.remote.send(&request.body("x"))?;
        same("the status", &json!(reply.status), json!(415))
    }),
    case("33", "a body without a content type is JSON", |scene| {
        no_tasks(
            scene,
            scene.remote.request("/tasks.get_all").body(r#"{"id": ["zz"]}"#),
        )
    }),
    case("35", "a transaction id is echoed", |scene| {
        let request = scene.remote.request("/debug.ping").header("x-clearml-trx", "T1");
        let reply = scene.remote.send(&request)?.envelope()?;
        same("the id", &reply["meta"]["trx"], json!("T1"))
    }),
    case("36", "a wish for a deferred answer is ignored", |scene| {
        accepted(
            scene,
            scene.remote.request("/debug.ping").header("x-clearml-async", "1"),
        )
    }),
    case(
        "38",
        "a long reply is readable for clients that take gzip",
        |scene| {
            let task = scene.task_with(json!({"comment": "long ".repeat(400)}))?;
            let body = json!({"task": task});
            let request = scene
                .request("tasks.get_by_id", &body)
                .header("accept-encoding", "gzip");
            let reply = scene.remote.send(&request)?;
            if reply.header("content-encoding").is_some() {
                // Asked for by hand, a compressed reply arrives as it was sent.
                ensure!(reply.body.starts_with(&[0x1f, 0x8b]), "not gzip");
                return Ok(());
            }
            same("the task", &reply.data()?["task"]["id"], json!(task))
        },
    ),
    case(
        "39",
        "every refusal is an envelope with an object as data",
        |scene| {
            // `refused` reads each reply as an envelope; these are of every kind.
            for (endpoint, codes) in [("tasks.get_by_id", (400, 101)), ("tasks.started", (400, 10))] {
                scene.refused(endpoint, json!({"task": "zz"}), codes)?;
            }
            scene.refused("queues.get_by_id", json!({"queue": "zz"}), (400, 701))
        },
    ),
    case(
        "40",
        "acting for a user that does not exist, or in two ways at once, is refused",
        impersonation,
    ),
    case("auth.logout", "the end of a session", |scene| {
        scene.refused("v2.1/auth.logout", json!({}), (404, 0))?;
        accepted(scene, scene.remote.request("/auth.logout").with_keys())
    }),
    case("login.logout", "the end of a session of a browser", |scene| {
        let reply = scene
            .remote
            .send(&scene.remote.request("/login.logout").anonymous())?;
        same(&reply.text(), &json!(reply.codes()?), json!([200, 0]))
    }),
    case(
        "async.result",
        "answers are never deferred, so there is nothing to ask for",
        |scene| scene.refused("async.result", json!({"id": "zz"}), (404, 0)),
    ),
    case(
        "absent",
        "what a server does not have is 404/0, so that clients can tell",
        |scene| {
            for endpoint in ["nosuch.action", "tasks.nosuch", "queues.nosuch"] {
                scene.refused(endpoint, json!({}), (404, 0))?;
            }
            Ok(())
        },
    ),
    case(
        "root",
        "what only the root user may do is forbidden for others, also for administrators",
        |scene| {
            for endpoint in [
                "server.config",
                "server.endpoints",
                "server.get_stats",
                "auth.validate_token",
                "auth.get_token_for_user",
                "users.create",
                "users.delete",
            ] {
                scene.refused(endpoint, json!({}), (403, 20))?;
            }
            Ok(())
        },
    ),
    case(
        "body.array",
        "a body that is a list is refused without harm",
        |scene| {
            let reply = scene
                .remote
                .send(&scene.remote.request("/tasks.get_all").body("[]"))?;
            ensure!(reply.status >= 400, "accepted: {}", reply.text());
            reply.envelope().map(drop)
        },
    ),
    case("null", "a null is as good as nothing", |scene| {
        let task = scene.task_with(json!({"comment": "kept"}))?;
        scene.ok("tasks.edit", json!({"task": task, "comment": null, "name": null}))?;
        same("the comment", &scene.task_doc(&task)?["comment"], json!("kept"))
    }),
];

fn accepted(scene: &Scene<'_>, request: Request) -> Result<()> {
    refused(scene, request, (200, 0))
}

fn refused(scene: &Scene<'_>, request: Request, codes: (i64, i64)) -> Result<()> {
    let reply = scene.remote.send(&request)?;
    same(&reply.text(), &json!(reply.codes()?), json!([codes.0, codes.1]))
}

fn no_tasks(scene: &Scene<'_>, request: Request) -> Result<()> {
    let data = scene.remote.send(&request)?.data()?;
    same("the data", &data, json!({"tasks": []}))
}

fn version_shown(scene: &Scene<'_>, path: &str, shown: Value) -> Result<()> {
    let request = scene.remote.request(path).json(&json!({"id": ["zz"]}));
    let reply = scene.remote.send(&request)?.envelope()?;
    same("the code", &reply["meta"]["result_code"], json!(200))?;
    let endpoint = &reply["meta"]["endpoint"];
    same("the version", &endpoint["requested_version"], shown.clone())?;
    ensure!(
        endpoint["actual_version"].is_number() == shown.is_number(),
        "{endpoint}"
    );
    Ok(())
}

/// What a token says, unchecked as clients read it.
fn claims(token: &str) -> Result<Value> {
    let body = token.split('.').nth(1).context("a token without a body")?;
    Ok(serde_json::from_slice(
        &URL_SAFE_NO_PAD.decode(body.trim_end_matches('='))?,
    )?)
}

fn life(scene: &Scene<'_>, path: &str) -> Result<i64> {
    let reply = scene.remote.send(&scene.remote.request(path).with_keys())?;
    let claims = claims(&text(&reply.data()?, "token")?)?;
    match (claims["exp"].as_i64(), claims["iat"].as_i64()) {
        (Some(exp), Some(iat)) => Ok(exp - iat),
        _ => anyhow::bail!("no life in {claims}"),
    }
}

fn login(scene: &Scene<'_>) -> Result<()> {
    let request = scene
        .remote
        .request("/auth.login")
        .with_keys()
        .method(Method::GET);
    let reply = scene.remote.send(&request)?;
    let token = text(&reply.data()?, "token")?;
    let claims = claims(&token)?;
    for field in ["api_version", "server_version", "feature_set"] {
        text(&claims, field)?;
    }
    for field in ["user", "company", "role"] {
        text(&claims["identity"], field)?;
    }
    // Clients renew tokens that end within twelve hours; a shorter default would make them log in all the time.
    let life = life(scene, "/auth.login")?;
    ensure!(
        (24 * 3600..=365 * 24 * 3600).contains(&life),
        "a default life of {life} s"
    );
    let cookie = reply.header("set-cookie").context("no cookie")?;
    let holds_it = cookie.starts_with(&format!("clearml_token_basic={token}"));
    ensure!(
        holds_it && cookie.to_lowercase().contains("httponly"),
        "the cookie is {cookie}"
    );
    Ok(())
}

fn login_by_post(scene: &Scene<'_>) -> Result<()> {
    let reply = scene
        .remote
        .send(&scene.remote.request("/v2.5/auth.login").with_keys())?;
    text(&reply.data()?, "token")?;
    let endpoint = reply.envelope()?["meta"]["endpoint"].take();
    fields(
        &endpoint,
        json!({"name": "auth.login", "requested_version": "2.5"}),
    )
}

fn wrong_secret(scene: &Scene<'_>) -> Result<()> {
    let keys = STANDARD.encode(format!("{}:wrong", scene.remote.access_key));
    let request = scene.remote.request("/auth.login").anonymous();
    refused(
        scene,
        request.header("authorization", format!("Basic {keys}")),
        (401, 22),
    )
}

fn with_token(scene: &Scene<'_>, token: &str) -> Result<()> {
    let request = scene.remote.request("/tasks.get_all").anonymous();
    refused(
        scene,
        request.header("authorization", format!("Bearer {token}")),
        (401, 30),
    )
}

fn expired(scene: &Scene<'_>) -> Result<()> {
    let request = scene.remote.request("/auth.login?expiration_sec=1").with_keys();
    let token = text(&scene.remote.send(&request)?.data()?, "token")?;
    std::thread::sleep(std::time::Duration::from_millis(2100));
    with_token(scene, &token)
}

fn logout(scene: &Scene<'_>) -> Result<()> {
    let reply = scene
        .remote
        .send(&scene.remote.request("/auth.login").with_keys())?;
    let token = text(&reply.data()?, "token")?;
    let request = scene.remote.request("/auth.logout").anonymous();
    accepted(scene, request.header("authorization", format!("Bearer {token}")))?;
    with_token(scene, &token)
}

fn impersonation(scene: &Scene<'_>) -> Result<()> {
    let request = scene.remote.request("/auth.login").with_keys();
    let stranger = "0123456789abcdef0123456789abcdef";
    refused(
        scene,
        request.clone().header("x-clearml-impersonate-as", stranger),
        (400, 6),
    )?;
    let both = request
        .clone()
        .header("x-clearml-impersonate-as", stranger)
        .header("x-clearml-act-as", stranger);
    refused(scene, both, (400, 5))?;
    let own = claims(&scene.remote.token)?;
    if !matches!(
        own["identity"]["role"].as_str(),
        Some("admin" | "system" | "root")
    ) {
        return not_applicable("the rest needs an administrator");
    }
    let user = text(&own["identity"], "user")?;
    let reply = scene
        .remote
        .send(&request.header("x-clearml-impersonate-as", user.as_str()))?;
    let other = claims(&text(&reply.data()?, "token")?)?;
    same("the user", &other["identity"]["user"], json!(user))
}
