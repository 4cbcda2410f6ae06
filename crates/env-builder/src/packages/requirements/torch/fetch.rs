//! Asking for pages: by the interpreter of the environment, which knows the proxies and certificates that pip
//! knows, and remembering the answers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clearml_support::fs::{create_private_dir, read_json, write_json_atomic};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::packages::requirements::torch::wheels;
use crate::tools::Context;

/// Changes when the form of the file does.
const SCHEMA: u32 = 1;
/// The cache is thrown away rather than grown beyond this.
const MAX_ENTRIES: usize = 200;
/// All questions of one list together take no longer.
pub(crate) const BUDGET: Duration = Duration::from_secs(20);
/// The same where one index after the other is asked.
pub(crate) const BUDGET_IN_TURN: Duration = Duration::from_secs(300);
const ONE_REQUEST: Duration = Duration::from_secs(10);
/// What exists, and what is on a page, is believed this long.
const PAGE_SEC: u64 = 24 * 60 * 60;
/// Whether something answers, this long.
const PROBE_SEC: u64 = 60 * 60;
const MAX_PAGE: u64 = 8 << 20;

/// Answers, for each address, the status (0 without an answer) and the page. Addresses come by the standard
/// input, as they may contain logins.
const PROGRAM: &str = r#"
import base64, json, os, ssl, sys
from concurrent.futures import ThreadPoolExecutor
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit, urlunsplit
from urllib.request import HTTPSHandler, Request, build_opener

question = json.load(sys.stdin)
context = ssl.create_default_context()
bundles = [os.environ.get(name) for name in ("PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")]
try:
    from pip._vendor import certifi
    bundles.append(certifi.where())
except Exception:
    pass
for bundle in bundles:
    try:
        if bundle:
            context.load_verify_locations(bundle)
    except Exception:
        pass
opener = build_opener(HTTPSHandler(context=context))

def ask(url):
    try:
        parts = urlsplit(url)
        host = parts.netloc.rsplit("@", 1)[-1]
        request = Request(urlunsplit((parts.scheme, host, parts.path, parts.query, "")))
        if parts.username:
            pair = unquote(parts.username) + ":" + unquote(parts.password or "")
            login = "Basic " + base64.b64encode(pair.encode()).decode()
            request.add_unredirected_header("Authorization", login)
        with opener.open(request, timeout=question["timeout"]) as answer:
            return [answer.status, answer.read(question["max"]).decode("utf-8", "replace")]
    except HTTPError as error:
        return [error.code, ""]
    except Exception as error:
        return [0, str(error)[:200]]

with ThreadPoolExecutor(16) as pool:
    print(json.dumps(list(pool.map(ask, question["urls"]))))
"#;

/// What is known about an address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    /// It is there, with these links to wheels.
    Found(Vec<String>),
    /// The server has no such page.
    Missing,
    /// Nobody has answered.
    Silent,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Remembered {
    /// Seconds since 1970.
    at: u64,
    answer: Answer,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Memory {
    schema: u32,
    pages: BTreeMap<String, Remembered>,
}

/// Asks, with a limit to the time that all questions take together.
pub(crate) struct Fetcher<'a> {
    context: &'a Context<'a>,
    python: &'a Path,
    file: PathBuf,
    until: Instant,
    memory: Memory,
}

impl<'a> Fetcher<'a> {
    pub(crate) fn new(context: &'a Context<'a>, python: &'a Path, budget: Duration) -> Self {
        let file = context.settings.caches_dir.join("torch.json");
        // A cache that can't be read is an empty one: it is only a cache.
        let memory = read_json::<Memory>(&file)
            .ok()
            .filter(|memory| memory.schema == SCHEMA && memory.pages.len() < MAX_ENTRIES)
            .unwrap_or_default();
        Self {
            context,
            python,
            file,
            until: Instant::now() + budget,
            memory,
        }
    }

    /// The links on a page.
    pub(crate) fn page(&mut self, url: &str) -> Answer {
        self.all(&[url.to_owned()], PAGE_SEC).remove(0)
    }

    /// Which of these addresses there are, asked all at once.
    pub(crate) fn probe(&mut self, urls: &[String]) -> Vec<Answer> {
        self.all(urls, PROBE_SEC)
    }

    fn all(&mut self, urls: &[String], found_for: u64) -> Vec<Answer> {
        let now = now();
        let fresh = |remembered: &Remembered| {
            let silent = remembered.answer == Answer::Silent;
            let limit = if silent { PROBE_SEC } else { found_for };
            // A clock that went back makes everything old.
            now.checked_sub(remembered.at).is_some_and(|age| age < limit)
        };
        let known = |memory: &Memory, url: &str| memory.pages.get(&key(url)).filter(|r| fresh(r)).cloned();
        let open: Vec<&String> = urls
            .iter()
            .filter(|url| known(&self.memory, url).is_none())
            .collect();
        if !open.is_empty() {
            let answers = self.ask(&open);
            for (url, answer) in open.into_iter().zip(answers) {
                self.memory.pages.insert(key(url), Remembered { at: now, answer });
            }
            self.save();
        }
        let answer = |url: &String| known(&self.memory, url).map_or(Answer::Silent, |r| r.answer);
        urls.iter().map(answer).collect()
    }

    fn ask(&self, urls: &[&String]) -> Vec<Answer> {
        let silent = vec![Answer::Silent; urls.len()];
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return silent;
        }
        let answers = match pages(self.context, self.python, urls, left, ONE_REQUEST) {
            Ok(answers) => answers,
            Err(error) => {
                tracing::debug!(%error, "asking for the index of torch");
                return silent;
            }
        };
        answers
            .into_iter()
            .map(|(status, page)| match status {
                200..=299 => Answer::Found(wheels::links(&page)),
                400..=499 => Answer::Missing,
                _ => Answer::Silent,
            })
            .collect()
    }

    fn save(&mut self) {
        self.memory.schema = SCHEMA;
        let folder = &self.context.settings.caches_dir;
        let written = create_private_dir(folder)
            .map_err(|error| error.to_string())
            .and_then(|()| {
                write_json_atomic(&self.file, &self.memory, 0o600).map_err(|error| error.to_string())
            });
        if let Err(error) = written {
            tracing::warn!(%error, "what is known about the indexes of torch can't be written");
        }
    }
}

/// Status (0 without an answer) and text of pages, asked for all at once within `limit`, and `each` for one.
pub(crate) fn pages(
    context: &Context<'_>,
    python: &Path,
    urls: &[&String],
    limit: Duration,
    each: Duration,
) -> Result<Vec<(u16, String)>, String> {
    let question = json!({
        "urls": urls,
        "timeout": limit.min(each).as_secs().max(1),
        "max": MAX_PAGE,
    });
    let command = context
        .command(python)
        .args(["-I", "-c", PROGRAM])
        .stdin_bytes(question.to_string())
        .timeout(limit);
    let output = command.check().map_err(|error| error.to_string())?;
    let answers: Vec<(u16, String)> =
        serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())?;
    if answers.len() == urls.len() {
        Ok(answers)
    } else {
        Err("some questions have no answer".to_owned())
    }
}

/// Addresses in the cache have no passwords.
fn key(url: &str) -> String {
    crate::code::repo_url::without_login(url)
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
