//! Reading an object of the API and writing it back loses nothing.

use clearml_task_model::{Queue, Task};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from)
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(("[a-z_$%.]{1,10}", inner), 0..4)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

fn with_unknown(mut known: Value, path: &[&str], unknown: &Map<String, Value>) -> Value {
    let mut here = &mut known;
    for name in path {
        here = &mut here[*name];
    }
    for (key, value) in unknown {
        here[format!("x_{key}")] = value.clone();
    }
    known
}

proptest! {
    #[test]
    fn unknown_fields_survive(
        unknown in prop::collection::vec(("[a-z.$]{1,10}", any_value()), 0..5),
        place in prop::sample::select(vec![vec![], vec!["script"], vec!["script", "requirements"], vec!["hyperparams", "Args", "lr"]]),
    ) {
        let unknown: Map<String, Value> = unknown.into_iter().collect();
        let known = json!({
            "id": "a1", "name": "n", "type": "training", "status": "in_progress", "status_message": "m",
            "script": {"binary": "python3", "diff": "print()", "requirements": {"pip": ["a==1"], "poetry": "x"}},
            "container": {"image": "i"}, "execution": {"queue": "q"}, "runtime": {"_a": 1},
            "hyperparams": {"Args": {"lr": {"section": "Args", "name": "lr", "value": "0.1"}}},
            "configuration": {"c": {"value": "v"}}, "last_worker": "w:0",
        });
        let before = with_unknown(known, &place, &unknown);
        let task: Task = serde_json::from_value(before.clone()).unwrap();
        prop_assert_eq!(serde_json::to_value(&task).unwrap(), before);
    }
}

#[test]
fn queue_keeps_unknown_fields_of_itself_and_its_entries() {
    let before = json!({"id": "q", "name": "default", "entries": [{"task": "t", "added": "2020-01-01", "z": 1}], "resources": {"a": 1}});
    let queue: Queue = serde_json::from_value(before.clone()).unwrap();
    assert_eq!(serde_json::to_value(&queue).unwrap(), before);
}
