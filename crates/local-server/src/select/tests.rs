//! Tables and properties of the selection language.

use proptest::prelude::*;
use serde_json::json;

use super::*;

const THINGS: Collection = Collection {
    fields: &[
        ("id", Kind::List),
        ("tags", Kind::List),
        ("status", Kind::List),
        ("execution.queue", Kind::List),
        ("name", Kind::Pattern),
        ("iteration", Kind::Range),
        ("last_update", Kind::DateTime),
        ("ready", Kind::Equality),
        ("runtime.*", Kind::Equality),
    ],
    known: &[
        "id",
        "name",
        "tags",
        "status",
        "execution",
        "iteration",
        "last_update",
        "ready",
        "runtime",
        "comment",
        "hyperparams",
    ],
};

fn select(request: Value, docs: &[Value]) -> Result<Vec<String>, ApiFault> {
    let Value::Object(request) = request else {
        panic!("requests are objects")
    };
    let page = Selection::parse(&request, &THINGS)?.run(docs.to_vec());
    Ok(page
        .docs
        .iter()
        .map(|doc| doc["id"].as_str().unwrap_or_default().to_owned())
        .collect())
}

fn project(request: Value, doc: Value) -> Value {
    let Value::Object(request) = request else {
        panic!("requests are objects")
    };
    Selection::parse(&request, &THINGS)
        .unwrap()
        .project(vec![doc])
        .remove(0)
}

#[test]
fn list_fields_know_operators() {
    let docs = [
        json!({"id": "1", "tags": ["x"]}),
        json!({"id": "2", "tags": ["y"]}),
        json!({"id": "3", "tags": []}),
    ];
    for (tags, expected) in [
        (json!(["x"]), vec!["1"]),
        (json!("x"), vec!["1"]),
        (json!(["x", "y"]), vec!["1", "2"]),
        (json!(["-x"]), vec!["2", "3"]),
        (json!(["__$all", "x", "y"]), vec![]),
        (json!(["__$and", "x"]), vec!["1"]),
        (json!(["__$not", "x"]), vec!["2", "3"]),
        (json!(["__$all", "x", "__$any", "y"]), vec![]),
        (json!([null]), vec!["3"]),
        (json!([null, "x"]), vec!["1", "3"]),
        (json!([]), vec!["1", "2", "3"]),
    ] {
        assert_eq!(select(json!({"tags": tags}), &docs).unwrap(), expected, "{tags}");
    }
    for bad in [json!([5]), json!(["__$xor", "x"])] {
        assert_eq!(select(json!({"tags": bad}), &docs).unwrap_err().subcode, 16);
    }
}

#[test]
fn patterns_ranges_dates_and_values() {
    let docs = [
        json!({"id": "1", "name": "default", "iteration": 5, "last_update": "2026-01-01T00:00:00.000000+00:00", "ready": true,
            "runtime": {"_x": "v"}, "execution": {"queue": "q"}}),
        json!({"id": "2", "name": "Other", "comment": "a Default one", "iteration": 7, "last_update": "2026-01-03T00:00:00.000000+00:00"}),
    ];
    for (request, expected) in [
        (json!({"name": "aul"}), vec!["1"]),
        (json!({"name": "DEFAULT"}), vec![]),
        (json!({"name": "^default$"}), vec!["1"]),
        (json!({"name": r"^def\ault$"}), vec![]),
        (json!({"iteration": [6, null]}), vec!["2"]),
        (json!({"iteration": [null, 5]}), vec!["1"]),
        (json!({"last_update": [">2026-01-01T00:00:00"]}), vec!["2"]),
        (
            json!({"last_update": ["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"]}),
            vec!["1"],
        ),
        (json!({"ready": true}), vec!["1"]),
        (json!({"ready": false}), vec!["2"]),
        (json!({"runtime._x": "v"}), vec!["1"]),
        (json!({"execution.queue": ["q"]}), vec!["1"]),
        (json!({"execution": {"queue": "q"}}), vec!["1"]),
        (
            json!({"_any_": {"fields": ["name", "comment"], "pattern": "default"}}),
            vec!["1", "2"],
        ),
        (
            json!({"_all_": {"fields": ["name", "comment"], "pattern": "default"}}),
            vec![],
        ),
        (
            json!({"filters": {"name": {"any": {"include": ["Other"]}}}}),
            vec!["2"],
        ),
        (json!({"name": null, "unknown": 1}), vec!["1", "2"]),
    ] {
        assert_eq!(select(request.clone(), &docs).unwrap(), expected, "{request}");
    }
    assert_eq!(select(json!({"name": "("}), &docs).unwrap_err().subcode, 21);
}

#[test]
fn escapes_that_python_writes_are_understood() {
    let name = "a b-c#d&e~f.g+h[i](j){k}|l^m$n/o\\p";
    let escaped = r"^a\ b\-c\#d\&e\~f\.g\+h\[i\]\(j\)\{k\}\|l\^m\$n/o\\p$";
    assert_eq!(
        select(json!({"name": escaped}), &[json!({"id": "1", "name": name})]).unwrap(),
        ["1"]
    );
}

#[test]
fn order_puts_missing_values_last_and_breaks_ties_by_id() {
    let docs = [
        json!({"id": "c", "iteration": 10, "hyperparams": {"A": {"lr": {"value": "9"}}}}),
        json!({"id": "a"}),
        json!({"id": "d", "iteration": 9, "hyperparams": {"A": {"lr": {"value": "10"}}}}),
        json!({"id": "b", "iteration": 10}),
    ];
    assert_eq!(
        select(json!({"order_by": "iteration"}), &docs).unwrap(),
        ["d", "b", "c", "a"]
    );
    assert_eq!(
        select(json!({"order_by": ["-iteration"]}), &docs).unwrap(),
        ["b", "c", "d", "a"]
    );
    assert_eq!(
        select(json!({"order_by": "hyperparams.A.lr.value"}), &docs).unwrap(),
        ["c", "d", "a", "b"]
    );
    assert_eq!(select(json!({}), &docs).unwrap(), ["c", "a", "d", "b"]);
    assert_eq!(
        select(json!({"order_by": "nosuch"}), &docs).unwrap_err().subcode,
        14
    );
}

#[test]
fn projections_are_exact() {
    let doc = json!({"id": "1", "name": "n", "runtime": {"a": 1, "_b": 2}, "execution": {"l": [{"k": 1, "v": 2}]},
        "hyperparams": {"S": {"n.m": {"value": "5"}}}, "_server": true});
    for (fields, expected) in [
        (json!(["name"]), json!({"name": "n"})),
        (json!("name"), json!({"name": "n"})),
        (json!(["runtime._b"]), json!({"runtime": {"_b": 2}})),
        (json!(["runtime._x"]), json!({"runtime": {}})),
        (json!(["execution.l.k"]), json!({"execution": {"l": [{"k": 1}]}})),
        (
            json!(["hyperparams.S.n%2Em.value"]),
            json!({"hyperparams": {"S": {"n.m": {"value": "5"}}}}),
        ),
        (json!(["comment"]), json!({})),
        (
            json!(["-runtime", "-execution", "-hyperparams"]),
            json!({"id": "1", "name": "n"}),
        ),
    ] {
        assert_eq!(
            project(json!({"only_fields": fields}), doc.clone()),
            expected,
            "{fields}"
        );
    }
    assert!(project(json!({}), doc.clone()).get("_server").is_none());
    let Value::Object(request) = json!({"only_fields": ["nosuch"]}) else {
        unreachable!()
    };
    assert_eq!(Selection::parse(&request, &THINGS).err().unwrap().subcode, 14);
}

#[test]
fn pages_are_capped() {
    let docs: Vec<Value> = (0..520)
        .map(|index| json!({"id": format!("{index:03}")}))
        .collect();
    assert_eq!(select(json!({}), &docs).unwrap().len(), 500);
    assert_eq!(
        select(json!({"page": 1, "page_size": 500}), &docs).unwrap().len(),
        20
    );
    assert_eq!(select(json!({"page_size": 1000}), &docs).unwrap().len(), 500);
    assert_eq!(select(json!({"start": 510, "size": 5}), &docs).unwrap().len(), 5);
    for bad in [json!({"page": -1}), json!({"page_size": 0}), json!({"page": "x"})] {
        assert_eq!(select(bad, &docs).unwrap_err().subcode, 12);
    }
    assert_eq!(
        select(json!({"scroll_id": "what"}), &docs).unwrap_err().subcode,
        1104
    );
}

proptest! {
    #[test]
    fn scrolling_visits_every_document_once(count in 0_usize..60, size in 1_usize..20) {
        let docs: Vec<Value> = (0..count).map(|index| json!({"id": index.to_string()})).collect();
        let mut request = Map::new();
        request.insert("size".to_owned(), json!(size));
        let mut seen = Vec::new();
        loop {
            let page = Selection::parse(&request, &THINGS).unwrap().run(docs.clone());
            if page.docs.is_empty() { break; }
            seen.extend(page.docs);
            request.insert("scroll_id".to_owned(), json!(page.scroll_id.unwrap()));
        }
        prop_assert_eq!(seen, docs);
    }

    #[test]
    fn a_value_and_its_exclusion_split_the_documents(tags in proptest::collection::vec(proptest::collection::vec("[abc]", 0..3), 0..20)) {
        let docs: Vec<Value> = tags.iter().enumerate().map(|(id, tags)| json!({"id": id.to_string(), "tags": tags})).collect();
        let with = select(json!({"tags": ["a"]}), &docs).unwrap();
        let without = select(json!({"tags": ["-a"]}), &docs).unwrap();
        prop_assert_eq!(with.len() + without.len(), docs.len());
        prop_assert!(with.iter().all(|id| !without.contains(id)));
    }
}
