//! The plainest of clients: what is sent is what a case says, and what comes back is shown as it is. It shares nothing
//! with the agent's own client, so that a fault of one is not hidden by the same fault of the other.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use reqwest::{Client, Method};
use serde_json::{Value, json};

/// How long one call may take.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A server, and the key pair to use on it.
pub(super) struct Remote {
    pub(super) api: String,
    pub(super) files: String,
    pub(super) access_key: String,
    pub(super) secret_key: String,
    pub(super) token: String,
    client: Client,
    runtime: tokio::runtime::Runtime,
}

/// One request. [`Request::to`] gives an authenticated POST of the newest version.
#[derive(Clone)]
pub(super) struct Request {
    method: Method,
    url: String,
    auth: Auth,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

#[derive(Clone)]
enum Auth {
    Token,
    Keys,
    Nobody,
}

/// A reply, whatever it is.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    /// Names in lower case.
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Remote {
    pub(super) fn connect(api: &str, files: &str, access_key: &str, secret_key: &str) -> Result<Self> {
        // Fails when a provider is installed already, which is as good.
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .timeout(TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let mut remote = Self {
            api: api.trim_end_matches('/').to_owned(),
            files: files.trim_end_matches('/').to_owned(),
            access_key: access_key.to_owned(),
            secret_key: secret_key.to_owned(),
            token: String::new(),
            client,
            runtime,
        };
        let reply = remote.send(&remote.request("/auth.login").with_keys())?;
        let token = reply.data()?["token"].as_str().map(str::to_owned);
        remote.token = token.with_context(|| format!("the login failed: {}", reply.text()))?;
        Ok(remote)
    }

    /// A request to a path below the API's address.
    pub(super) fn request(&self, path: &str) -> Request {
        Request::to(format!("{}{path}", self.api))
    }

    pub(super) fn send(&self, request: &Request) -> Result<Reply> {
        self.runtime.block_on(self.sent(request))
    }

    /// Sends requests at the same time and gives their replies in the same order.
    pub(super) fn send_together(&self, requests: &[Request]) -> Result<Vec<Reply>> {
        self.runtime.block_on(async {
            let mut running = tokio::task::JoinSet::new();
            for (number, request) in requests.iter().enumerate() {
                let sending = self.prepared(request)?;
                running.spawn(async move { (number, received(sending).await) });
            }
            let mut replies: Vec<Option<Reply>> = requests.iter().map(|_| None).collect();
            while let Some(done) = running.join_next().await {
                let (number, reply) = done?;
                replies[number] = Some(reply?);
            }
            Ok(replies.into_iter().flatten().collect())
        })
    }

    async fn sent(&self, request: &Request) -> Result<Reply> {
        received(self.prepared(request)?)
            .await
            .with_context(|| format!("{} {}", request.method, request.url))
    }

    fn prepared(&self, request: &Request) -> Result<reqwest::RequestBuilder> {
        let mut builder = self.client.request(request.method.clone(), &request.url);
        builder = match request.auth {
            Auth::Token => builder.bearer_auth(&self.token),
            Auth::Keys => builder.basic_auth(&self.access_key, Some(&self.secret_key)),
            Auth::Nobody => builder,
        };
        for (name, value) in &request.headers {
            builder = builder.header(*name, value);
        }
        Ok(builder.body(request.body.clone()))
    }
}

async fn received(builder: reqwest::RequestBuilder) -> Result<Reply> {
    let response = builder.send().await?;
    let status = response.status().as_u16();
    let headers = response
        .headers()
        .iter()
        .map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            (name.as_str().to_owned(), value)
        })
        .collect();
    let body = response.bytes().await?.to_vec();
    Ok(Reply {
        status,
        headers,
        body,
    })
}

impl Request {
    pub(super) fn to(url: String) -> Self {
        Self {
            method: Method::POST,
            url,
            auth: Auth::Token,
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    pub(super) fn method(mut self, method: Method) -> Self {
        self.method = method;
        self
    }

    pub(super) fn anonymous(mut self) -> Self {
        self.auth = Auth::Nobody;
        self
    }

    /// With the key pair instead of the token.
    pub(super) fn with_keys(mut self) -> Self {
        self.auth = Auth::Keys;
        self
    }

    pub(super) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(super) fn json(self, body: &Value) -> Self {
        self.header("content-type", "application/json")
            .body(body.to_string())
    }

    pub(super) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }
}

impl Reply {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The reply as an envelope that follows the rules of every envelope.
    pub(super) fn envelope(&self) -> Result<Value> {
        let reply: Value = serde_json::from_slice(&self.body)
            .with_context(|| format!("HTTP {} without JSON: {}", self.status, self.text()))?;
        let meta = &reply["meta"];
        let shown = || format!("not a proper envelope: {reply}");
        ensure!(reply.as_object().is_some_and(|fields| fields.len() == 2), shown());
        ensure!(reply["data"].is_object(), "data is no object in {reply}");
        ensure!(meta["result_code"] == json!(self.status), shown());
        ensure!(meta["result_subcode"].is_i64(), shown());
        ensure!(
            meta["id"]
                .as_str()
                .is_some_and(|id| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())),
            shown()
        );
        ensure!(meta["trx"].is_string() && meta["result_msg"].is_string(), shown());
        Ok(reply)
    }

    /// Code and subcode.
    pub(super) fn codes(&self) -> Result<(i64, i64)> {
        let meta = self.envelope()?["meta"].take();
        match (meta["result_code"].as_i64(), meta["result_subcode"].as_i64()) {
            (Some(code), Some(subcode)) => Ok((code, subcode)),
            _ => bail!("no codes in {meta}"),
        }
    }

    pub(super) fn data(&self) -> Result<Value> {
        Ok(self.envelope()?["data"].take())
    }
}
