//! The `*_many` calls: one operation on many ids, each with an outcome of its own.

use rusqlite::Transaction;
use serde_json::{Map, Value, json};

use super::{ApiFault, Call};

/// Runs `operation` once an id of `field`. Items that fail leave nothing behind and do not stop the others.
pub(crate) fn run(
    call: &Call,
    tx: &Transaction<'_>,
    field: &str,
    operation: impl Fn(&Call, &Transaction<'_>, &str) -> Result<Map<String, Value>, ApiFault>,
) -> Result<Value, ApiFault> {
    let (mut succeeded, mut failed) = (Vec::new(), Vec::new());
    for id in call.required_strings(field)? {
        tx.execute_batch("SAVEPOINT item")?;
        match operation(call, tx, &id) {
            Ok(reply) => {
                tx.execute_batch("RELEASE item")?;
                let mut item = Map::new();
                item.insert("id".to_owned(), json!(id));
                item.extend(reply);
                succeeded.push(Value::Object(item));
            }
            Err(fault) => {
                tx.execute_batch("ROLLBACK TO item; RELEASE item")?;
                let error =
                    json!({"codes": [fault.code, fault.subcode], "msg": fault.msg, "data": fault.data});
                failed.push(json!({"id": id, "error": error}));
            }
        }
    }
    Ok(json!({"succeeded": succeeded, "failed": failed}))
}

/// The same on top of a handler for one object, whose id field is `one`.
pub(crate) fn each(
    call: &Call,
    tx: &Transaction<'_>,
    one: &str,
    handler: super::Handler,
) -> Result<Value, ApiFault> {
    run(call, tx, "ids", |call, tx, id| {
        let mut data = call.data.clone();
        data.shift_remove("ids");
        data.insert(one.to_owned(), json!(id));
        match handler(&call.with_data(data), tx)? {
            Value::Object(reply) => Ok(reply),
            _ => Ok(Map::new()),
        }
    })
}
