//! From what a person typed after `--queue` to queues of the server.

use clearml_api_client::{ApiError, Client, QueuesQuery, exact};
use clearml_task_model::{Queue, QueueId};

/// The most names that an error message proposes.
const SUGGESTIONS: usize = 10;

/// The most objects that the server puts on one page.
const PAGE: u32 = 500;

/// A server with more queues than fit on these pages does not exist; one that never stops answering might.
const MOST_PAGES: u32 = 1000;

/// The name that is tried when the server names no default queue.
const DEFAULT_NAME: &str = "default";

/// A queue that a consumer listens to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServedQueue {
    /// Its id.
    pub id: QueueId,
    /// Its name; the id when the server does not know the queue.
    pub name: String,
    /// Its tags.
    pub tags: Vec<String>,
}

/// A queue could not be found.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// No queue has this name.
    #[error(
        "Could not find queue with name/id {name:?}; check --queue, or add --create-queue{}",
        suggest(suggestions)
    )]
    NotFound {
        /// What was asked for.
        name: String,
        /// Queues whose names look similar, best first: id and name.
        suggestions: Vec<(String, String)>,
    },
    /// The names of several queues differ only in upper and lower case.
    #[error(
        "Found multiple queues with name {name:?}; give the id of one of them:{}",
        bullets(ids)
    )]
    Ambiguous {
        /// What was asked for.
        name: String,
        /// The ids of those queues.
        ids: Vec<String>,
    },
    /// The server could not be asked.
    #[error("looking up queue {name:?}: {source}")]
    Api {
        /// What was asked for.
        name: String,
        /// Why.
        source: Box<ApiError>,
    },
    /// The queue could not be created.
    #[error("creating queue {name:?}: {source}")]
    Create {
        /// Its name.
        name: String,
        /// Why.
        source: Box<ApiError>,
    },
}

fn suggest(queues: &[(String, String)]) -> String {
    if queues.is_empty() {
        return String::new();
    }
    let lines: Vec<String> = queues.iter().map(|(id, name)| format!("({id}) {name}")).collect();
    format!(". Did you mean this?{}", bullets(&lines))
}

fn bullets(lines: &[String]) -> String {
    let shown = lines.iter().take(SUGGESTIONS).map(|line| format!("\n* {line}"));
    let more = (lines.len() > SUGGESTIONS).then(|| "\n...".to_owned());
    shown.chain(more).collect()
}

/// Whether text is taken for an id, as the Python agent does: 30 or more of `a-f`, `0-9` and `-`.
#[must_use]
pub fn looks_like_id(text: &str) -> bool {
    text.len() >= 30
        && text
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'f' | b'0'..=b'9' | b'-'))
}

/// The queue with this name, upper and lower case aside; an exact match beats the others. Pure.
///
/// # Errors
///
/// When none or several match.
pub fn pick(name: &str, queues: &[Queue]) -> Result<QueueId, QueueError> {
    let named = |same: &dyn Fn(&str) -> bool| -> Vec<&QueueId> {
        let queues = queues
            .iter()
            .filter(|queue| queue.name.as_deref().is_some_and(same));
        queues.filter_map(|queue| queue.id.as_ref()).collect()
    };
    let folded = name.to_lowercase();
    let mut found = named(&|other| other == name);
    if found.is_empty() {
        found = named(&|other| other.to_lowercase() == folded);
    }
    match found[..] {
        [id] => Ok(id.clone()),
        [] => Err(QueueError::NotFound {
            name: name.to_owned(),
            suggestions: similar(name, queues),
        }),
        _ => Err(QueueError::Ambiguous {
            name: name.to_owned(),
            ids: found.into_iter().map(ToString::to_string).collect(),
        }),
    }
}

fn similar(name: &str, queues: &[Queue]) -> Vec<(String, String)> {
    let folded = name.to_lowercase();
    let mut scored: Vec<(f64, &str, String)> = queues
        .iter()
        .filter_map(|queue| Some((queue.name.as_deref()?, queue.id.as_ref()?)))
        .map(|(other, id)| {
            (
                strsim::jaro_winkler(&folded, &other.to_lowercase()),
                other,
                id.to_string(),
            )
        })
        .filter(|(score, ..)| *score > 0.6)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(b.1)));
    scored
        .into_iter()
        .take(SUGGESTIONS)
        .map(|(_, other, id)| (id, other.to_owned()))
        .collect()
}

/// Finds the queues that were asked for, in that order and each once. Nothing asked for: the server's
/// default queue. With `create`, missing ones are created.
///
/// # Errors
///
/// When a queue can't be found, looked up or created.
pub async fn resolve_queues(
    client: &Client,
    wanted: &[String],
    create: bool,
) -> Result<Vec<ServedQueue>, QueueError> {
    let mut ids: Vec<QueueId> = Vec::new();
    if wanted.is_empty() {
        ids.push(match client.queues_get_default().await {
            Ok(Queue { id: Some(id), .. }) => id,
            _ => find(client, DEFAULT_NAME, create).await?,
        });
    }
    for name in wanted {
        let id = if looks_like_id(name) {
            name.as_str().into()
        } else {
            find(client, name, create).await?
        };
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    describe(client, ids).await
}

async fn find(client: &Client, name: &str, create: bool) -> Result<QueueId, QueueError> {
    match look_up(client, name).await {
        Err(QueueError::NotFound { .. }) if create => {
            match client.queues_create(name, &[]).await {
                Ok(id) => return Ok(id),
                // Somebody else was faster, or our own call arrived although its answer did not.
                Err(error) if error.is_code(400, 801) || !error.was_not_applied() => {}
                Err(source) => {
                    return Err(QueueError::Create {
                        name: name.to_owned(),
                        source: Box::new(source),
                    });
                }
            }
            look_up(client, name).await
        }
        result => result,
    }
}

async fn look_up(client: &Client, name: &str) -> Result<QueueId, QueueError> {
    let api = |source| QueueError::Api {
        name: name.to_owned(),
        source: Box::new(source),
    };
    let mut query = QueuesQuery {
        name: Some(exact(name)),
        only_fields: vec!["id".into(), "name".into()],
        search_hidden: true,
        ..QueuesQuery::default()
    };
    if let Ok(id) = pick(name, &client.queues_get_all(&query).await.map_err(api)?) {
        return Ok(id);
    }
    // Another spelling, or none at all: all names are needed to tell, and to propose some.
    query.name = None;
    query.page_size = Some(PAGE);
    let mut all = Vec::new();
    for page in 0..MOST_PAGES {
        query.page = Some(page);
        let queues = client.queues_get_all(&query).await.map_err(api)?;
        let last = queues.len() < PAGE as usize;
        all.extend(queues);
        if last {
            break;
        }
    }
    pick(name, &all)
}

async fn describe(client: &Client, ids: Vec<QueueId>) -> Result<Vec<ServedQueue>, QueueError> {
    let query = QueuesQuery {
        id: ids.clone(),
        only_fields: vec!["id".into(), "name".into(), "tags".into()],
        search_hidden: true,
        ..QueuesQuery::default()
    };
    let known = client
        .queues_get_all(&query)
        .await
        .map_err(|source| QueueError::Api {
            name: ids.first().map(ToString::to_string).unwrap_or_default(),
            source: Box::new(source),
        })?;
    Ok(ids
        .into_iter()
        .map(|id| {
            let queue = known.iter().find(|queue| queue.id.as_ref() == Some(&id));
            ServedQueue {
                name: queue
                    .and_then(|queue| queue.name.clone())
                    .unwrap_or_else(|| id.to_string()),
                tags: queue.map(|queue| queue.tags.clone()).unwrap_or_default(),
                id,
            }
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queues(names: &[&str]) -> Vec<Queue> {
        let queue = |name: &&str| Queue {
            id: Some(format!("id-{name}").into()),
            name: Some((*name).into()),
            ..Queue::default()
        };
        names.iter().map(queue).collect()
    }

    #[test]
    fn names_match_as_a_whole_and_in_any_case() {
        let all = queues(&["GPU", "gpu-large", "cpu", "CPU", "Cpu"]);
        assert_eq!(pick("gpu", &all).unwrap().as_str(), "id-GPU");
        assert_eq!(
            pick("cpu", &all).unwrap().as_str(),
            "id-cpu",
            "the exact one of three"
        );
        let error = pick("cPU", &all).unwrap_err().to_string();
        assert!(
            error.starts_with("Found multiple queues with name \"cPU\""),
            "{error}"
        );
        assert!(error.ends_with(":\n* id-cpu\n* id-CPU\n* id-Cpu"), "{error}");
    }

    #[test]
    fn an_unknown_name_gets_at_most_ten_similar_ones_the_best_first() {
        let many: Vec<String> = (0..30)
            .map(|n| format!("training{n}"))
            .chain(["other".into()])
            .collect();
        let names: Vec<&str> = many.iter().map(String::as_str).collect();
        let QueueError::NotFound { suggestions, .. } = pick("trainin", &queues(&names)).unwrap_err() else {
            panic!("it is not there");
        };
        assert_eq!(suggestions.len(), SUGGESTIONS);
        assert!(
            suggestions
                .iter()
                .all(|(id, name)| name.starts_with("training") && *id == format!("id-{name}")),
            "{suggestions:?}"
        );
        let error = pick("q", &[]).unwrap_err().to_string();
        let expected = "Could not find queue with name/id \"q\"; check --queue, or add --create-queue";
        assert_eq!(error, expected);
        let error = pick("othe", &queues(&names)).unwrap_err().to_string();
        assert_eq!(
            error,
            format!(
                "{}. Did you mean this?\n* (id-other) other",
                expected.replace("\"q\"", "\"othe\"")
            )
        );
    }

    #[test]
    fn ids_are_told_from_names_by_their_form() {
        assert!(looks_like_id("0123456789abcdef0123456789abcdef"));
        assert!(looks_like_id("01234567-89ab-cdef-0123-456789abcdef"));
        assert!(!looks_like_id("0123456789ABCDEF0123456789ABCDEF"));
        assert!(!looks_like_id("abcdef"));
    }
}
