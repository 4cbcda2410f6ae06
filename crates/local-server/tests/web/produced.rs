//! What a task has left behind, on its page: files to download, plots to have, and addresses that lead nowhere.

use reqwest::StatusCode;
use reqwest::header::{CONTENT_DISPOSITION, CONTENT_TYPE, COOKIE};
use serde_json::json;

use crate::page::Page;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn artifacts_models_plots_and_samples_can_be_had() {
    let page = Page::start().await;
    let browser = page.sign_in().await;
    let task = page.new_task("leaves things").await;
    let folder = format!("{}/a%20b", page.server.files_url());
    page.upload(&[
        ("/a b/page.html", "<script>1</script>"),
        ("/a b/weights?.bin", "weights"),
    ])
    .await;
    let artifacts = json!([
        {"key": "a <page>", "type": "file", "mode": "output", "uri": format!("{folder}/page.html"),
         "type_data": {"preview": "<b>seen</b>"}, "content_size": 18},
        {"key": "gone", "type": "file", "uri": format!("{folder}/gone")},
        {"key": "away", "type": "file", "uri": "https://files.example/x?a=1&b=2"},
        {"key": "bucket", "type": "file", "uri": "s3://bucket/x"},
        {"key": "code", "type": "file", "uri": "javascript:alert(1)"},
        {"key": "outside", "type": "file", "uri": format!("{folder}/../../%2e%2e/server.db")},
    ]);
    page.api(
        "tasks.add_or_update_artifacts",
        json!({"task": task, "artifacts": artifacts}),
    )
    .await;
    let model = json!({"name": "net", "task": task, "uri": format!("{}/files/a%20b/weights%3F.bin", page.server.api_url())});
    page.api("models.create", model).await;
    let figure = r#"{"data": [{"x": [1]}]}"#;
    for event in [
        json!({"type": "plot", "task": task, "metric": "p&q", "variant": "=", "iter": 3, "plot_str": figure}),
        json!({"type": "training_debug_image", "task": task, "metric": "i", "variant": "v", "iter": 1, "key": "k",
            "url": format!("{folder}/page.html")}),
    ] {
        page.api("events.add", event).await;
    }

    let (status, text) = page.get(&browser, &format!("/tasks/{task}")).await;
    assert_eq!(status, StatusCode::OK);
    assert!(
        text.contains("&lt;b&gt;seen&lt;/b&gt;") && !text.contains("<b>seen"),
        "{text}"
    );
    let links = links(&text, &task);
    assert!(
        links.contains(&"https://files.example/x?a=1&b=2".to_owned()),
        "{links:?}"
    );
    assert!(
        !text.contains("href=\"javascript:") && !text.contains("href=\"s3:"),
        "{text}"
    );

    let reply = async |link: &str| {
        let request = page.client.get(format!("{}{link}", page.url));
        request.header(COOKIE, &browser.cookie).send().await.unwrap()
    };
    let link = |what: &str| links.iter().find(|link| link.contains(what)).expect(what).clone();
    // What a task has uploaded never becomes a page of this one.
    for (what, name) in [
        ("/artifact?key=a+", "page.html"),
        ("/sample?", "page.html"),
        ("/model?", "weights"),
    ] {
        let reply = reply(&link(what)).await;
        assert_eq!(reply.status(), StatusCode::OK, "{what}");
        let disposition = reply.headers()[CONTENT_DISPOSITION].to_str().unwrap();
        assert!(disposition.starts_with("attachment"), "{disposition}");
        assert!(disposition.replace("%2E", ".").contains(name), "{disposition}");
        assert!(
            reply.headers()["content-security-policy"]
                .to_str()
                .unwrap()
                .contains("default-src 'none'")
        );
    }
    assert_eq!(reply(&link("/model?")).await.text().await.unwrap(), "weights");
    let plot = reply(&link("/plot?")).await;
    assert_eq!(plot.headers()[CONTENT_TYPE], "application/json");
    assert_eq!(plot.text().await.unwrap(), figure);

    for bad in [
        "key=gone&mode=output",
        "key=outside&mode=output",
        "key=away&mode=output",
        "key=none",
        "",
    ] {
        let (status, text) = page.get(&browser, &format!("/tasks/{task}/artifact?{bad}")).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{bad}: {text}");
    }
    let stranger = page.stranger().await;
    let (status, text) = page.get(&stranger, &link("/model?")).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert!(!text.contains("weights"), "{text}");
    page.server.shutdown().await;
}

/// The addresses of all links, as a browser understands them.
fn links(page: &str, task: &str) -> Vec<String> {
    let links = page
        .split("href=\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next());
    links
        .map(|link| link.replace("&amp;", "&"))
        .filter(|link| link.contains(task) || link.contains("://"))
        .collect()
}

impl Page {
    async fn upload(&self, files: &[(&str, &str)]) {
        let token = self.api("auth.login", json!({})).await["token"].clone();
        let part = |(name, content): &(&str, &str)| {
            format!(
                "--cut\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"f\"\r\n\r\n{content}\r\n"
            )
        };
        let body: String = files.iter().map(part).chain(["--cut--\r\n".to_owned()]).collect();
        let request = self
            .client
            .post(self.server.files_url())
            .bearer_auth(token.as_str().unwrap());
        let request = request.header(CONTENT_TYPE, "multipart/form-data; boundary=cut");
        let reply = request.body(body).send().await.unwrap();
        assert_eq!(reply.status(), StatusCode::OK);
    }
}
