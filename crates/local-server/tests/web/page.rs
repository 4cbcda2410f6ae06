//! The web page over HTTP: who gets in, which forms count, and what hostile tasks can do to it.

use clearml_local_server::{Server, ServerOptions};
use reqwest::header::{CONTENT_TYPE, COOKIE, HOST, LOCATION, ORIGIN, SET_COOKIE};
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};

pub(crate) struct Page {
    pub(crate) server: Server,
    pub(crate) client: Client,
    pub(crate) url: String,
    _folder: tempfile::TempDir,
}

/// What a browser keeps: the cookie, and the token of the form on its page.
pub(crate) struct Browser {
    pub(crate) cookie: String,
    token: String,
}

impl Page {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut options = ServerOptions::new(folder.path().join("data"));
        options.web_port = Some(0);
        let server = Server::start(options).await.unwrap();
        let client = crate::tls::builder(None).build().unwrap();
        Self {
            url: server.web_url().unwrap(),
            server,
            client,
            _folder: folder,
        }
    }

    pub(crate) async fn get(&self, browser: &Browser, path: &str) -> (StatusCode, String) {
        let request = self.client.get(format!("{}{path}", self.url));
        let reply = request.header(COOKIE, &browser.cookie).send().await.unwrap();
        (reply.status(), reply.text().await.unwrap())
    }

    fn form(&self, browser: &Browser, path: &str, fields: &[(&str, &str)]) -> RequestBuilder {
        let form = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(fields)
            .append_pair("form_token", &browser.token)
            .finish();
        self.client
            .post(format!("{}{path}", self.url))
            .header(COOKIE, &browser.cookie)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(form)
    }

    async fn post(&self, browser: &Browser, path: &str, fields: &[(&str, &str)]) -> Response {
        self.form(browser, path, fields).send().await.unwrap()
    }

    /// The form that a stranger gets.
    pub(crate) async fn stranger(&self) -> Browser {
        let reply = self.client.get(&self.url).send().await.unwrap();
        assert_eq!(reply.status(), StatusCode::UNAUTHORIZED);
        let cookie = cookie(&reply);
        let token = token(&reply.text().await.unwrap());
        Browser { cookie, token }
    }

    pub(crate) async fn sign_in(&self) -> Browser {
        let stranger = self.stranger().await;
        let reply = self.post(&stranger, "/sign-in", &self.keys()).await;
        assert_eq!(reply.status(), StatusCode::SEE_OTHER);
        let cookie = cookie(&reply);
        assert_ne!(cookie, stranger.cookie, "the id before must not be good after");
        let mut browser = Browser {
            cookie,
            token: String::new(),
        };
        browser.token = token(&self.get(&browser, "/").await.1);
        browser
    }

    fn keys(&self) -> [(&str, &str); 2] {
        [
            ("access_key", self.server.access_key()),
            ("secret_key", self.server.secret_key().expose()),
        ]
    }

    pub(crate) async fn api(&self, endpoint: &str, body: Value) -> Value {
        let request = self
            .client
            .post(format!("{}/{endpoint}", self.server.api_url()))
            .basic_auth(self.server.access_key(), Some(self.server.secret_key().expose()))
            .json(&body);
        let mut reply: Value = request.send().await.unwrap().json().await.unwrap();
        assert_eq!(reply["meta"]["result_code"], 200, "{reply}");
        reply["data"].take()
    }

    pub(crate) async fn new_task(&self, name: &str) -> String {
        let created = self
            .api("tasks.create", json!({"name": name, "type": "training"}))
            .await;
        created["id"].as_str().unwrap().to_owned()
    }

    async fn status(&self, task: &str) -> String {
        let found = self.api("tasks.get_by_id", json!({"task": task})).await;
        found["task"]["status"].as_str().unwrap().to_owned()
    }
}

fn cookie(reply: &Response) -> String {
    let set = reply.headers()[SET_COOKIE].to_str().unwrap();
    for part in ["HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(set.contains(part), "{set}");
    }
    set.split(';').next().unwrap().to_owned()
}

fn token(page: &str) -> String {
    let (_, rest) = page.split_once("name=\"form_token\" value=\"").expect(page);
    rest.split('"').next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_keys_of_the_server_open_the_page() {
    let page = Page::start().await;
    let stranger = page.stranger().await;
    for path in ["/", "/tasks", "/tasks/abc", "/tasks/abc/console.txt"] {
        let (status, text) = page.get(&stranger, path).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{path}");
        assert!(text.contains("type=\"password\""), "{path}: {text}");
    }
    let wrong = [("access_key", page.server.access_key()), ("secret_key", "not it")];
    let reply = page.post(&stranger, "/sign-in", &wrong).await;
    assert_eq!(reply.status(), StatusCode::FORBIDDEN);
    assert!(reply.headers().get(SET_COOKIE).is_none());

    let browser = page.sign_in().await;
    let (status, text) = page.get(&browser, "/").await;
    assert_eq!(status, StatusCode::OK);
    assert!(text.contains("Queues") && text.contains("default"), "{text}");
    assert!(!text.contains(page.server.secret_key().expose()));
    // Back to where one wanted to go, but never to another site.
    for (next, to) in [
        ("/tasks?status=failed", "/tasks?status=failed"),
        ("//evil.example/", "/"),
    ] {
        let mut fields = page.keys().to_vec();
        fields.push(("next", next));
        let reply = page.post(&page.stranger().await, "/sign-in", &fields).await;
        assert_eq!(reply.headers()[LOCATION], to);
    }

    let reply = page.post(&browser, "/sign-out", &[]).await;
    assert_eq!(reply.status(), StatusCode::SEE_OTHER);
    assert_eq!(page.get(&browser, "/").await.0, StatusCode::UNAUTHORIZED);
    page.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forms_of_other_sites_change_nothing() {
    let page = Page::start().await;
    let browser = page.sign_in().await;
    let task = page.new_task("to be enqueued").await;
    let queue = page.api("queues.create", json!({"name": "work"})).await["id"].clone();
    let path = format!("/tasks/{task}/enqueue");
    let fields = [("queue", queue.as_str().unwrap())];

    let foreign = Browser {
        cookie: browser.cookie.clone(),
        token: page.stranger().await.token,
    };
    let none = Browser {
        cookie: browser.cookie.clone(),
        token: String::new(),
    };
    let refused = [
        page.form(&foreign, &path, &fields),
        page.form(&none, &path, &fields),
        page.form(&browser, &path, &fields)
            .header(ORIGIN, "http://evil.example"),
        page.form(&browser, &path, &fields)
            .header("Sec-Fetch-Site", "same-site"),
        page.form(&browser, &path, &fields).header(HOST, "evil.example"),
        page.form(&none, "/sign-in", &page.keys()),
    ];
    for request in refused {
        let reply = request.send().await.unwrap();
        assert_eq!(reply.status(), StatusCode::FORBIDDEN);
    }
    // Neither does a link, whatever it leads to.
    assert_eq!(page.get(&browser, &path).await.0, StatusCode::NOT_FOUND);
    assert_eq!(page.status(&task).await, "created");

    let ours = page.form(&browser, &path, &fields).header(ORIGIN, &page.url);
    assert_eq!(ours.send().await.unwrap().status(), StatusCode::SEE_OTHER);
    assert_eq!(page.status(&task).await, "queued");
    page.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn buttons_are_there_when_the_status_permits_and_do_what_they_say() {
    let page = Page::start().await;
    let browser = page.sign_in().await;
    let task = page.new_task("a task").await;
    let queue = page.api("queues.create", json!({"name": "work"})).await["id"].clone();
    let path = format!("/tasks/{task}");
    let buttons = async || {
        let (_, text) = page.get(&browser, &path).await;
        ["enqueue", "abort", "reset", "clone"]
            .into_iter()
            .filter(|name| text.contains(&format!("id=\"{name}\"")))
            .collect::<Vec<_>>()
    };
    assert_eq!(buttons().await, ["enqueue", "clone"]);
    let enqueue = [("queue", queue.as_str().unwrap())];
    page.post(&browser, &format!("{path}/enqueue"), &enqueue).await;
    assert_eq!(buttons().await, ["abort", "clone"]);
    page.api("tasks.started", json!({"task": task})).await;
    assert_eq!(buttons().await, ["abort", "clone"]);
    page.post(&browser, &format!("{path}/abort"), &[]).await;
    assert_eq!(page.status(&task).await, "stopped");
    assert_eq!(buttons().await, ["enqueue", "reset", "clone"]);
    page.post(&browser, &format!("{path}/reset"), &[]).await;
    assert_eq!(page.status(&task).await, "created");

    // What is not permitted is refused with the server's reason.
    let reply = page.post(&browser, &format!("{path}/abort"), &[]).await;
    assert_eq!(reply.status(), StatusCode::BAD_REQUEST);
    assert!(reply.text().await.unwrap().contains("Invalid task status"));

    let reply = page
        .post(&browser, &format!("{path}/clone"), &[("name", "its <copy>")])
        .await;
    let copy = reply.headers()[LOCATION].to_str().unwrap().to_owned();
    assert_ne!(copy, path);
    assert!(page.get(&browser, &copy).await.1.contains("its &lt;copy&gt;"));
    page.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_a_task_says_becomes_markup() {
    const EVIL: &str = "\"><script>alert(1)</script><img src=x onerror=alert(1)> '";
    let page = Page::start().await;
    let browser = page.sign_in().await;
    let task = page.new_task(EVIL).await;
    let hyperparams = json!({"Args": {"rate": {"section": "Args", "name": "rate", "value": EVIL}}});
    let edit = json!({
        "task": task, "hyperparams": hyperparams, "script": {"diff": EVIL, "entry_point": EVIL},
        "configuration": {"c": {"name": "c", "value": EVIL}},
    });
    page.api("tasks.edit", edit).await;
    page.api("queues.create", json!({"name": EVIL})).await;
    page.api("tasks.enqueue", json!({"task": task, "queue_name": EVIL}))
        .await;
    page.api("workers.register", json!({"worker": EVIL})).await;
    page.api(
        "tasks.started",
        json!({"task": task, "status_reason": EVIL, "status_message": EVIL}),
    )
    .await;
    page.api(
        "events.add",
        json!({"type": "log", "task": task, "level": "info", "msg": EVIL}),
    )
    .await;
    page.api(
        "events.add",
        json!({"type": "training_stats_scalar", "task": task, "metric": EVIL, "variant": EVIL, "iter": 1, "value": 1}),
    )
    .await;

    let task_page = format!("/tasks/{task}");
    for path in ["/", "/tasks", &task_page, &format!("{task_page}/live")] {
        let (status, text) = page.get(&browser, path).await;
        assert_eq!(status, StatusCode::OK, "{path}");
        assert!(text.contains("&lt;script&gt;alert(1)"), "{path}: {text}");
        assert!(
            !text.contains("<script>") && !text.contains("<img"),
            "{path}: {text}"
        );
    }
    let request = page.client.get(format!("{}{task_page}/console.txt", page.url));
    let reply = request.header(COOKIE, &browser.cookie).send().await.unwrap();
    let header = |name: &str| reply.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(header("content-type"), "text/plain; charset=utf-8");
    assert_eq!(header("x-content-type-options"), "nosniff");
    assert_eq!(header("x-frame-options"), "DENY");
    let policy = header("content-security-policy");
    assert!(
        policy.contains("default-src 'none'") && !policy.contains("unsafe"),
        "{policy}"
    );
    assert_eq!(reply.text().await.unwrap(), format!("{EVIL}\n"));
    page.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_console_is_followed_by_arrival_and_survives_a_reset() {
    let page = Page::start().await;
    let browser = page.sign_in().await;
    let task = page.new_task("prints").await;
    let say = async |timestamp: i64, text: &str| {
        let event =
            json!({"type": "log", "task": task, "level": "info", "timestamp": timestamp, "msg": text});
        page.api("events.add", event).await;
    };
    let news = async |after: i64| -> Value {
        let (_, text) = page
            .get(&browser, &format!("/tasks/{task}/console?after={after}"))
            .await;
        serde_json::from_str(&text).unwrap()
    };
    say(2_000_000_000_000, "second\n").await;
    let first = news(0).await;
    assert_eq!(first["text"], "second\n");
    // A line of another source that comes late is still news, and on a fresh page it stands where it belongs.
    say(1_000_000_000_000, "first").await;
    let after = first["after"].as_i64().unwrap();
    assert_eq!(news(after).await["text"], "first\n");
    assert!(
        page.get(&browser, &format!("/tasks/{task}"))
            .await
            .1
            .contains("first\nsecond\n")
    );
    page.api("tasks.reset", json!({"task": task})).await;
    assert_eq!(news(after).await["cleared"], true);
    assert_eq!(
        page.get(&browser, "/tasks/no-such-task").await.0,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        page.get(&browser, &format!("/projects/p/experiments/{task}/output/log"))
            .await
            .0,
        StatusCode::SEE_OTHER
    );
    page.server.shutdown().await;
}
