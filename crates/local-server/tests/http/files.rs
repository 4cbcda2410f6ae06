//! The file server over HTTP: uploads, downloads, deletion, and everything that must not be possible.

use crate::raw::{Reply, TestServer, send};
use serde_json::{Value, json};

/// One part of a form: field name, file name, contents. Without a file name it is a plain form field.
type Part<'a> = (&'a str, Option<&'a str>, &'a [u8]);

fn form(parts: &[Part<'_>]) -> (String, Vec<u8>) {
    let boundary = "----boundary-of-the-test";
    let mut body = Vec::new();
    for (name, file, contents) in parts {
        let file = file
            .map(|file| format!("; filename=\"{file}\""))
            .unwrap_or_default();
        let head = format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n");
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(contents);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    (format!("multipart/form-data; boundary={boundary}"), body)
}

fn upload_to(server: &TestServer, base: &str, path: &str, parts: &[Part<'_>]) -> Reply {
    let (kind, body) = form(parts);
    send(
        base,
        "POST",
        path,
        &[("Authorization", &server.bearer()), ("Content-Type", &kind)],
        &body,
    )
}

fn upload(server: &TestServer, parts: &[Part<'_>]) -> Reply {
    upload_to(server, &server.server.files_url(), "/", parts)
}

fn request(server: &TestServer, method: &str, path: &str, headers: &[(&str, &str)]) -> Reply {
    let bearer = server.bearer();
    let mut all = vec![("Authorization", bearer.as_str())];
    all.extend_from_slice(headers);
    send(&server.server.files_url(), method, path, &all, b"")
}

fn stored_files(server: &TestServer) -> usize {
    fn count(folder: &std::path::Path) -> usize {
        let entries = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        entries
            .map(|path| if path.is_dir() { count(&path) } else { 1 })
            .sum()
    }
    count(&server.folder.path().join("data/files")) + count(&server.folder.path().join("data/uploads"))
}

#[test]
fn uploads_are_stored_under_the_name_of_their_form_field() {
    let server = TestServer::start();
    let reply = upload(&server, &[("/a b/c.json", Some("c.json"), b"{\"x\": 1}")]);
    assert_eq!((reply.status, reply.json()), (200, json!(["a b/c.json"])));
    assert!(reply.header("content-type").unwrap().starts_with("text/html"));
    let reply = request(&server, "GET", "/a%20b/c.json", &[]);
    assert_eq!((reply.status, reply.text().as_str()), (200, "{\"x\": 1}"));
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert!(reply.header("content-disposition").unwrap().starts_with("inline"));
    let download = request(&server, "GET", "/a%20b/c.json?download", &[]);
    assert!(
        download
            .header("content-disposition")
            .unwrap()
            .starts_with("attachment")
    );
    server.stop();
}

#[test]
fn names_are_literal_and_several_parts_are_several_files() {
    let server = TestServer::start();
    let reply = upload(
        &server,
        &[
            ("p+q/%20x", Some("x"), b"1"),
            ("ü/y", Some("y"), b"2"),
            ("field", None, b"3"),
        ],
    );
    assert_eq!(reply.json(), json!(["p+q/%20x", "ü/y"]));
    assert_eq!(request(&server, "GET", "/p+q/%2520x", &[]).text(), "1");
    assert_eq!(request(&server, "GET", "/%C3%BC/y", &[]).text(), "2");
    assert_eq!(upload(&server, &[("field", None, b"3")]).json(), json!([]));
    assert_eq!(request(&server, "POST", "/", &[]).json(), json!([]));
    let replaced = upload(&server, &[("ü/y", Some("y"), b"two")]);
    assert_eq!(replaced.status, 200);
    assert_eq!(request(&server, "GET", "/%C3%BC/y", &[]).text(), "two");
    server.stop();
}

#[test]
fn only_good_tokens_are_let_in() {
    let server = TestServer::start();
    upload(&server, &[("f", Some("f"), b"1")]);
    let base = server.server.files_url();
    let keys = "Basic YTpi";
    for headers in [
        vec![],
        vec![("Authorization", "Bearer nonsense")],
        vec![("Authorization", keys)],
        vec![("Cookie", "clearml_token_basic=nonsense")],
    ] {
        let (kind, body) = form(&[("g", Some("g"), b"1")]);
        let mut with_kind = headers.clone();
        with_kind.push(("Content-Type", &kind));
        assert_eq!(send(&base, "GET", "/f", &headers, b"").status, 401, "{headers:?}");
        assert_eq!(
            send(&base, "POST", "/", &with_kind, &body).status,
            401,
            "{headers:?}"
        );
        assert_eq!(
            send(&base, "DELETE", "/f", &headers, b"").status,
            401,
            "{headers:?}"
        );
    }
    let cookie = format!("other=1; clearml_token_basic={}", server.token);
    assert_eq!(send(&base, "GET", "/f", &[("Cookie", &cookie)], b"").status, 200);
    assert_eq!(
        send(
            &base,
            "GET",
            "/f",
            &[("Cookie", &cookie), ("Authorization", keys)],
            b""
        )
        .status,
        401
    );
    assert_eq!(send(&base, "GET", "/", &[], b"").text(), "OK");
    assert_eq!(
        send(&base, "GET", "/", &[("Authorization", "Bearer nonsense")], b"").status,
        401
    );
    server.stop();
}

#[test]
fn nothing_outside_the_root_can_be_reached() {
    let server = TestServer::start();
    let outside = server.folder.path().join("data/clearml.conf");
    assert!(outside.exists());
    for name in ["../x", "/../x", "a/../../x", "..", "a/.."] {
        let reply = upload(&server, &[(name, Some("x"), b"1")]);
        assert_eq!(reply.status, 404, "{name}");
    }
    for path in [
        "/../clearml.conf",
        "/%2e%2e/clearml.conf",
        "/..%2fclearml.conf",
        "/a/%2e%2e/%2e%2e/clearml.conf",
        "/x%00",
    ] {
        assert_eq!(request(&server, "GET", path, &[]).status, 404, "{path}");
        assert_eq!(request(&server, "DELETE", path, &[]).status, 404, "{path}");
    }
    assert_eq!(stored_files(&server), 0);
    std::os::unix::fs::symlink(
        server.folder.path().join("data"),
        server.folder.path().join("data/files/door"),
    )
    .unwrap();
    assert_eq!(request(&server, "GET", "/door/clearml.conf", &[]).status, 404);
    assert!(upload(&server, &[("door/new", Some("new"), b"1")]).status >= 400);
    assert!(!server.folder.path().join("data/new").exists());
    assert!(outside.exists());
    server.stop();
}

#[test]
fn existence_parts_and_changes_can_be_asked_for() {
    let server = TestServer::start();
    upload(&server, &[("d/f.txt", Some("f"), b"0123456789")]);
    let head = request(&server, "HEAD", "/d/f.txt", &[]);
    assert_eq!(
        (head.status, head.header("content-length"), head.body.len()),
        (200, Some("10"), 0)
    );
    assert_eq!(request(&server, "HEAD", "/d/none", &[]).status, 404);
    assert_eq!(request(&server, "GET", "/d", &[]).status, 404);
    assert_eq!(request(&server, "GET", "/d/f.txt/below", &[]).status, 404);

    let part = request(&server, "GET", "/d/f.txt", &[("Range", "bytes=2-4")]);
    assert_eq!((part.status, part.text().as_str()), (206, "234"));
    assert_eq!(part.header("content-range"), Some("bytes 2-4/10"));
    let beyond = request(&server, "GET", "/d/f.txt", &[("Range", "bytes=10-")]);
    assert_eq!(
        (beyond.status, beyond.header("content-range")),
        (416, Some("bytes */10"))
    );

    let etag = head.header("etag").unwrap().to_owned();
    let modified = head.header("last-modified").unwrap().to_owned();
    assert_eq!(head.header("cache-control"), Some("public, max-age=300"));
    assert_eq!(
        request(&server, "GET", "/d/f.txt", &[("If-None-Match", &etag)]).status,
        304
    );
    assert_eq!(
        request(&server, "GET", "/d/f.txt", &[("If-Modified-Since", &modified)]).status,
        304
    );
    let resumed = request(
        &server,
        "GET",
        "/d/f.txt",
        &[("Range", "bytes=8-"), ("If-Range", &etag)],
    );
    assert_eq!((resumed.status, resumed.text().as_str()), (206, "89"));

    upload(&server, &[("d/f.txt", Some("f"), b"abcdefghij")]);
    let changed = request(&server, "GET", "/d/f.txt", &[("If-None-Match", &etag)]);
    assert_eq!((changed.status, changed.text().as_str()), (200, "abcdefghij"));
    let restarted = request(
        &server,
        "GET",
        "/d/f.txt",
        &[("Range", "bytes=8-"), ("If-Range", &etag)],
    );
    assert_eq!(restarted.status, 200);
    server.stop();
}

#[test]
fn files_are_deleted_one_by_one_or_many_at_once() {
    let server = TestServer::start();
    upload(
        &server,
        &[
            ("a b", Some("f"), b"1"),
            ("d/e/f", Some("f"), b"1"),
            ("g", Some("g"), b"1"),
        ],
    );
    let deleted = request(&server, "DELETE", "/g", &[]);
    assert_eq!((deleted.status, deleted.json()), (200, json!("g")));
    assert_eq!(request(&server, "DELETE", "/g", &[]).status, 404);
    assert_eq!(request(&server, "DELETE", "/d", &[]).status, 404);

    let many = |body: &Value| {
        let headers = [
            ("Authorization", server.bearer()),
            ("Content-Type", "application/json".to_owned()),
        ];
        let headers: Vec<(&str, &str)> = headers
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        send(
            &server.server.files_url(),
            "POST",
            "/delete_many",
            &headers,
            body.to_string().as_bytes(),
        )
    };
    let reply = many(&json!({"files": ["a%20b", "none", "/d", ".", "", "../x"]}));
    assert_eq!(reply.status, 200);
    assert_eq!(
        reply.json(),
        json!({"deleted": {"a%20b": "a b", "/d": "d"},
            "errors": {"Not found": ["none"], "Empty path not allowed": [""], "Path not allowed": [".", "../x"]}})
    );
    assert_eq!(stored_files(&server), 0);
    assert!(server.folder.path().join("data/files").is_dir());
    for bad in [json!({}), json!({"files": 5}), json!({"files": [5]}), json!([])] {
        assert_eq!(many(&bad).status, 400, "{bad}");
    }
    server.stop();
}

#[test]
fn one_port_can_serve_everything() {
    let server = TestServer::start();
    let base = server.server.api_url();
    let reply = upload_to(&server, &base, "/files", &[("/p/f", Some("f"), b"1")]);
    assert_eq!((reply.status, reply.json()), (200, json!(["p/f"])));
    let bearer = server.bearer();
    let headers = [("Authorization", bearer.as_str())];
    assert_eq!(send(&base, "GET", "/files/p/f", &headers, b"").text(), "1");
    assert_eq!(request(&server, "GET", "/p/f", &[]).text(), "1");
    assert_eq!(send(&base, "GET", "/files", &[], b"").text(), "OK");
    server.stop();
}

#[test]
fn what_cannot_be_an_upload_is_refused_and_leaves_nothing() {
    let server = TestServer::start_with(|options| options.max_upload_bytes = 1000);
    let large = vec![b'x'; 100_000];
    let reply = upload(
        &server,
        &[("fits", Some("f"), b"1"), ("large", Some("f"), &large)],
    );
    assert_eq!(reply.status, 413);
    assert_eq!(
        stored_files(&server),
        0,
        "the part that fits is not published without the other"
    );
    let (kind, body) = form(&[("f", Some("f"), b"1")]);
    let bearer = server.bearer();
    let base = server.server.files_url();
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", &kind)];
    assert_eq!(send(&base, "POST", "/elsewhere", &headers, &body).status, 405);
    let truncated = send(&base, "POST", "/", &headers, &body[..body.len() - 30]);
    assert_eq!(truncated.status, 400);
    let compressed = [headers[0], headers[1], ("Content-Encoding", "gzip")];
    assert_eq!(send(&base, "POST", "/", &compressed, &body).status, 415);
    assert_eq!(stored_files(&server), 0);
    upload(&server, &[("folder/f", Some("f"), b"1")]);
    assert_eq!(upload(&server, &[("folder", Some("f"), b"1")]).status, 409);
    assert_eq!(upload(&server, &[("folder/f/g", Some("g"), b"1")]).status, 409);
    server.stop();
}
