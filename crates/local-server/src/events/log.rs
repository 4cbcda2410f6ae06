//! Reading console lines page by page.

use rusqlite::{Connection, Row, params};
use serde_json::Value;

use crate::api::ApiFault;

/// Which lines of a task's console are wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Page {
    /// Lines strictly before (or after) this time; without it, from the newest (or oldest).
    pub(crate) from: Option<i64>,
    /// Towards older lines.
    pub(crate) earlier: bool,
    /// Lines wanted. All lines that share the time of the last one are added, so that the next page, which begins
    /// strictly beyond that time, misses none.
    pub(crate) size: usize,
}

/// What a line's metric must be. `?4` is a JSON list, or null for any; console lines seldom have a metric.
const OF_METRICS: &str =
    "(?4 IS NULL OR coalesce(json_extract(doc, '$.metric'), '') IN (SELECT value FROM json_each(?4)))";

/// One page, in the direction of travel: newest first when going towards older lines. `metrics` is a JSON list of the
/// metrics wanted.
pub(crate) fn page(
    connection: &Connection,
    task: &str,
    page: Page,
    metrics: Option<&str>,
) -> Result<Vec<Value>, ApiFault> {
    let (first, ties, no_bound) = if page.earlier {
        (
            "timestamp < ?2 AND {} ORDER BY timestamp DESC, seq DESC LIMIT ?3",
            "timestamp = ?2 AND seq < ?3 AND {} ORDER BY seq DESC",
            i64::MAX,
        )
    } else {
        (
            "timestamp > ?2 AND {} ORDER BY timestamp, seq LIMIT ?3",
            "timestamp = ?2 AND seq > ?3 AND {} ORDER BY seq",
            i64::MIN,
        )
    };
    let sql = |condition: &str| {
        let condition = condition.replace("{}", OF_METRICS);
        format!("SELECT doc, timestamp, seq FROM events_log WHERE task = ?1 AND {condition}")
    };
    let limit = i64::try_from(page.size).unwrap_or(i64::MAX);
    let mut lines: Vec<Line> = connection
        .prepare_cached(&sql(first))?
        .query_map(params![task, page.from.unwrap_or(no_bound), limit, metrics], line)?
        .collect::<Result<_, _>>()?;
    if let Some(last) = lines.last()
        && lines.len() == page.size
    {
        let (ts, seq) = (last.ts, last.seq);
        let mut statement = connection.prepare_cached(&sql(ties))?;
        for tied in statement.query_map(params![task, ts, seq, metrics], line)? {
            lines.push(tied?);
        }
    }
    Ok(lines
        .into_iter()
        .map(|line| serde_json::from_str(&line.doc))
        .collect::<Result<_, _>>()?)
}

/// How many console lines a task has.
pub(crate) fn count(connection: &Connection, task: &str, metrics: Option<&str>) -> rusqlite::Result<i64> {
    let sql = match metrics {
        None => "SELECT count(*) FROM events_log WHERE task = ?1 AND ?4 IS NULL".to_owned(),
        Some(_) => format!("SELECT count(*) FROM events_log WHERE task = ?1 AND {OF_METRICS}"),
    };
    let sql = sql.replace("?4", "?2");
    connection
        .prepare_cached(&sql)?
        .query_row(params![task, metrics], |row| row.get(0))
}

/// Deletes the lines before a time whose metric is among the included ones and not among the excluded ones, and says
/// how many there were.
pub(crate) fn delete(
    connection: &Connection,
    task: &str,
    before: i64,
    include: Option<&str>,
    exclude: Option<&str>,
) -> rusqlite::Result<usize> {
    let included = OF_METRICS.replace("?4", "?3");
    let sql = format!(
        "DELETE FROM events_log WHERE task = ?1 AND timestamp < ?2 AND {included} AND (?4 IS NULL OR
            coalesce(json_extract(doc, '$.metric'), '') NOT IN (SELECT value FROM json_each(?4)))"
    );
    connection.execute(&sql, params![task, before, include, exclude])
}

struct Line {
    doc: String,
    ts: i64,
    seq: i64,
}

fn line(row: &Row<'_>) -> rusqlite::Result<Line> {
    Ok(Line {
        doc: row.get(0)?,
        ts: row.get(1)?,
        seq: row.get(2)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::schema;
    use proptest::prelude::*;
    use serde_json::json;

    /// A console whose lines carry their number of arrival.
    fn console(times: &[i64]) -> Connection {
        let mut connection = Connection::open_in_memory().unwrap();
        schema::ensure(&mut connection).unwrap_or_else(|_| panic!("a fresh database"));
        for (arrival, ts) in times.iter().enumerate() {
            let sql = "INSERT INTO events_log (task, timestamp, doc) VALUES ('t', ?1, ?2)";
            connection
                .execute(
                    sql,
                    params![ts, json!({"n": arrival, "timestamp": ts}).to_string()],
                )
                .unwrap();
        }
        connection
    }

    fn numbers(lines: &[Value]) -> Vec<u64> {
        lines.iter().map(|line| line["n"].as_u64().unwrap()).collect()
    }

    #[test]
    fn pages_go_both_ways_and_keep_ties_together() {
        let console = console(&[10, 20, 20, 20, 30]);
        let get =
            |from, earlier, size| numbers(&page(&console, "t", Page { from, earlier, size }, None).unwrap());
        assert_eq!(get(None, true, 2), [4, 3, 2, 1]);
        assert_eq!(get(None, false, 2), [0, 1, 2, 3]);
        assert_eq!(get(Some(20), true, 5), [0]);
        assert_eq!(get(Some(20), false, 5), [4]);
        assert_eq!(get(Some(30), false, 5), [0u64; 0]);
        assert_eq!(count(&console, "t", None).unwrap(), 5);
        assert_eq!(count(&console, "other", None).unwrap(), 0);
    }

    proptest! {
        #[test]
        fn paging_by_time_returns_every_line_once_in_order(
            times in prop::collection::vec(0i64..12, 0..40),
            size in 1usize..7,
            earlier: bool,
        ) {
            let console = console(&times);
            let mut expected: Vec<(i64, u64)> = times.iter().enumerate().map(|(n, ts)| (*ts, n as u64)).collect();
            expected.sort_unstable();
            if earlier {
                expected.reverse();
            }
            let (mut seen, mut from) = (Vec::new(), None);
            loop {
                let lines = page(&console, "t", Page { from, earlier, size }, None).unwrap();
                let Some(last) = lines.last() else { break };
                from = last["timestamp"].as_i64();
                seen.extend(numbers(&lines));
            }
            prop_assert_eq!(seen, expected.into_iter().map(|line| line.1).collect::<Vec<_>>());
        }
    }
}
