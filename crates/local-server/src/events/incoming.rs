//! What one reported line means: its type, its identity, and why it is refused. Pure.

use md5::{Digest, Md5};
use serde_json::{Map, Value};

use super::last_metrics::hex;

/// Kind of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Log,
    Scalar,
    Vector,
    DebugImage,
    Plot,
}

impl Kind {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "log" => Self::Log,
            "training_stats_scalar" => Self::Scalar,
            "training_stats_vector" => Self::Vector,
            "training_debug_image" => Self::DebugImage,
            "plot" => Self::Plot,
            _ => return None,
        })
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Scalar => "training_stats_scalar",
            Self::Vector => "training_stats_vector",
            Self::DebugImage => "training_debug_image",
            Self::Plot => "plot",
        }
    }
}

/// An event that may be stored, when its owner may be written to.
#[derive(Clone, Debug)]
pub(crate) struct Incoming {
    pub(crate) kind: Kind,
    /// The task, or the model when `model_event` is set.
    pub(crate) owner: String,
    pub(crate) model_event: bool,
    pub(crate) allow_locked: bool,
    /// Milliseconds since the epoch.
    pub(crate) ts: i64,
    pub(crate) iter: i64,
    pub(crate) metric: String,
    pub(crate) variant: String,
    /// Only for scalars.
    pub(crate) value: Option<f64>,
    /// What is returned to readers.
    pub(crate) doc: Map<String, Value>,
}

/// What an event gets when it does not say.
pub(crate) struct Defaults<'a> {
    /// Time of the call, in milliseconds since the epoch.
    pub(crate) now: i64,
    /// Reporter, from the header of the call.
    pub(crate) worker: Option<&'a str>,
    /// Time of the call as text, for `@timestamp`.
    pub(crate) written: &'a str,
}

impl Incoming {
    /// Reads one reported object.
    ///
    /// # Errors
    ///
    /// The reason under which the event is counted in the reply.
    pub(crate) fn parse(mut doc: Map<String, Value>, defaults: &Defaults<'_>) -> Result<Self, String> {
        doc.retain(|_, value| !value.is_null());
        let kind = match doc.get("type") {
            None => return Err("Event must have a 'type' field".into()),
            Some(Value::String(text)) => Kind::parse(&text.replace(' ', "_")),
            Some(_) => None,
        }
        .ok_or_else(|| format!("Invalid event type {}", plain(doc.get("type"))))?;
        let model_event = doc.get("model_event").and_then(Value::as_bool).unwrap_or(false);
        let owner_field = if model_event && doc.contains_key("model") {
            "model"
        } else {
            "task"
        };
        let owner = match doc.get(owner_field) {
            Some(Value::String(id)) if !id.is_empty() => id.clone(),
            None => return Err("Event must have a 'task' field".into()),
            other => return Err(format!("Invalid task id {}", plain(other))),
        };
        if model_event && kind == Kind::Log {
            return Err("Task log events are not supported for models".into());
        }
        let ts = match doc.get("timestamp").or_else(|| doc.get("ts")) {
            None => defaults.now,
            Some(given) => whole_number(given).ok_or("Invalid timestamp")?,
        };
        let iter = match doc.get("iter") {
            None => 0,
            Some(given) => whole_number(given).ok_or("Invalid iteration")?,
        };
        let value = match kind {
            Kind::Scalar => Some(
                doc.get("value")
                    .and_then(Value::as_f64)
                    .ok_or("Scalar value must be a number")?,
            ),
            _ => None,
        };
        let allow_locked = doc.get("allow_locked").and_then(Value::as_bool).unwrap_or(false);
        let metric = text_of(&doc, "metric")?;
        let variant = text_of(&doc, "variant")?;
        let mut event = Self {
            kind,
            owner,
            model_event,
            allow_locked,
            ts,
            iter,
            metric,
            variant,
            value,
            doc: Map::new(),
        };
        event.doc = event.stored(doc, defaults);
        Ok(event)
    }

    /// The document as readers will see it: canonical types and defaults, without what was meant for this call only.
    fn stored(&self, mut doc: Map<String, Value>, defaults: &Defaults<'_>) -> Map<String, Value> {
        for name in ["allow_locked", "skip_validation", "method", "ts", "model"] {
            doc.remove(name);
        }
        doc.insert("type".into(), self.kind.as_str().into());
        doc.insert("task".into(), self.owner.as_str().into());
        doc.insert("timestamp".into(), self.ts.into());
        doc.insert("@timestamp".into(), defaults.written.into());
        doc.insert("model_event".into(), self.model_event.into());
        if !doc.contains_key("worker") {
            doc.insert("worker".into(), defaults.worker.unwrap_or("<unknown>").into());
        }
        if self.kind == Kind::Log {
            doc.remove("iter");
            let message = plain(doc.get("msg"));
            doc.insert("msg".into(), message.into());
        } else {
            doc.insert("iter".into(), self.iter.into());
            doc.insert("metric".into(), self.metric.as_str().into());
            doc.insert("variant".into(), self.variant.as_str().into());
        }
        if let Some(Value::String(plot)) = doc.get("plot_str") {
            let length = plot.len();
            doc.insert("plot_len".into(), length.into());
        }
        doc
    }

    /// The identity under which a repeated report replaces the stored one; logs have none.
    ///
    /// The parts are joined by NUL, which keeps metric `a-b` of variant `c` apart from metric `a` of variant `b-c`.
    pub(crate) fn identity(&self) -> Option<String> {
        if self.kind == Kind::Log {
            return None;
        }
        let iter = self.iter.to_string();
        let mut hash = Md5::new();
        for part in [
            self.kind.as_str(),
            &self.owner,
            &iter,
            &self.metric,
            &self.variant,
        ] {
            hash.update(part);
            hash.update([0]);
        }
        if let Some(Value::String(key)) = self.doc.get("key") {
            hash.update(key);
        }
        Some(hex(&hash.finalize()))
    }
}

/// A name that may be left out; numbers are names too (clients pass what users typed).
fn text_of(doc: &Map<String, Value>, field: &str) -> Result<String, String> {
    match doc.get(field) {
        None | Some(Value::String(_) | Value::Number(_) | Value::Bool(_)) => Ok(plain(doc.get(field))),
        Some(_) => Err(format!("Invalid {field}")),
    }
}

/// A scalar as text without quotation marks; nothing is empty text.
fn plain(value: Option<&Value>) -> String {
    match value {
        None => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// An integer, also when written with a fraction; `None` when it is none or does not fit 64 bits.
fn whole_number(value: &Value) -> Option<i64> {
    if let Some(number) = value.as_i64() {
        return Some(number);
    }
    // 2^63 as a float is exact; anything at or beyond it does not fit.
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    match value.as_f64() {
        Some(number) if !value.is_u64() && (-LIMIT..LIMIT).contains(&number) =>
        {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "the range was checked; the fraction is meant to go"
            )]
            Some(number as i64)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const DEFAULTS: Defaults<'_> = Defaults {
        now: 77,
        worker: Some("host"),
        written: "then",
    };

    fn parse(value: Value) -> Result<Incoming, String> {
        let Value::Object(doc) = value else {
            panic!("an object")
        };
        Incoming::parse(doc, &DEFAULTS)
    }

    #[test]
    fn a_log_line_gets_its_defaults_and_loses_what_was_for_the_call() {
        let event =
            parse(json!({"type": "log", "task": "t", "msg": "hi", "method": "get", "allow_locked": true}))
                .unwrap();
        assert!(event.allow_locked);
        assert_eq!(
            Value::Object(event.doc.clone()),
            json!({"type": "log", "task": "t", "msg": "hi", "timestamp": 77, "@timestamp": "then",
                "model_event": false, "worker": "host"})
        );
        assert_eq!(event.identity(), None);
    }

    #[test]
    fn spaces_in_types_and_the_short_time_field_are_understood() {
        let event = parse(
            json!({"type": "training stats scalar", "task": "t", "metric": "m", "variant": "v",
            "value": 1, "iter": 3.0, "ts": 5}),
        )
        .unwrap();
        assert_eq!(
            (event.kind, event.ts, event.iter, event.value),
            (Kind::Scalar, 5, 3, Some(1.0))
        );
    }

    #[test]
    fn identity_covers_type_task_iteration_metric_variant_and_key() {
        let base =
            json!({"type": "plot", "task": "t", "metric": "m", "variant": "v", "iter": 1, "plot_str": "{}"});
        let id = |change: (&str, Value)| {
            let mut doc = base.clone();
            doc[change.0] = change.1;
            parse(doc).unwrap().identity().unwrap()
        };
        let same = id(("plot_str", json!("[]")));
        assert_eq!(id(("timestamp", json!(5))), same);
        for change in [
            ("iter", json!(2)),
            ("metric", json!("n")),
            ("variant", json!("w")),
            ("key", json!("k")),
            ("task", json!("u")),
            ("type", json!("training_debug_image")),
        ] {
            assert_ne!(id(change), same);
        }
        let named = |metric: &str, variant: &str| {
            let mut doc = base.clone();
            (doc["metric"], doc["variant"]) = (json!(metric), json!(variant));
            parse(doc).unwrap().identity().unwrap()
        };
        assert_ne!(named("a-b", "c"), named("a", "b-c"));
    }

    #[test]
    fn refusals_name_their_reason() {
        let reason = |value| parse(value).unwrap_err();
        assert_eq!(reason(json!({"task": "t"})), "Event must have a 'type' field");
        assert_eq!(reason(json!({"type": "x", "task": "t"})), "Invalid event type x");
        assert_eq!(reason(json!({"type": "log"})), "Event must have a 'task' field");
        assert_eq!(reason(json!({"type": "log", "task": 5})), "Invalid task id 5");
        assert_eq!(
            reason(json!({"type": "log", "model": "m", "model_event": true})),
            "Task log events are not supported for models"
        );
        let scalar = json!({"type": "training_stats_scalar", "task": "t", "value": "x"});
        assert_eq!(reason(scalar), "Scalar value must be a number");
        let far = json!({"type": "plot", "task": "t", "iter": 1e19});
        assert_eq!(reason(far), "Invalid iteration");
        let unsigned = json!({"type": "plot", "task": "t", "iter": u64::MAX});
        assert_eq!(reason(unsigned), "Invalid iteration");
    }
}
