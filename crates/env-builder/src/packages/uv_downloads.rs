//! Where uv finds interpreters to download (`agent.bootstrap.uv_python_meta_file`), for machines without the
//! internet: a list in uv's own form, as a file or on a server of one's own that has the interpreters as well.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clearml_support::command::Command;
use clearml_support::fs::{create_private_dir, write_json_atomic};
use serde_json::Value;

use crate::code::repo_url::{Parts, is_http, without_password};
use crate::packages::requirements::torch::fetch::pages;
use crate::tools::Context;

/// What uv reads.
const VARIABLE: &str = "UV_PYTHON_DOWNLOADS_JSON_URL";
const PATIENCE: Duration = Duration::from_secs(30);

/// Tells uv where the list is, if one is configured. Without one that can be used, uv has its own. `python` is
/// any interpreter, for fetching it.
pub(crate) fn tell(context: &Context<'_>, command: Command, python: Option<&Path>) -> Command {
    let Some(named) = context.settings.package_manager.uv_python_meta_file.as_deref() else {
        return command;
    };
    if context.var(VARIABLE).is_some_and(|own| Path::new(own).is_file()) {
        return command;
    }
    match file(context, named, python) {
        Ok(path) => command.env(VARIABLE, path),
        Err(why) => {
            context.warn(&format!(
                "agent.bootstrap.uv_python_meta_file names {}, which can't be used: {why}; uv looks for \
                 interpreters where it usually does",
                without_password(named)
            ));
            command
        }
    }
}

fn file(context: &Context<'_>, named: &str, python: Option<&Path>) -> Result<PathBuf, String> {
    let Some(parts) = Parts::parse(named).filter(|parts| is_http(parts.scheme)) else {
        let path = PathBuf::from(named);
        return if path.is_file() {
            Ok(path)
        } else {
            Err("there is no such file".to_owned())
        };
    };
    let any = || context.find_program("python3");
    let python = python
        .map(Path::to_owned)
        .or_else(any)
        .ok_or("there is no interpreter to fetch it with")?;
    let answers = pages(context, &python, &[&named.to_owned()], PATIENCE, PATIENCE)?;
    let text = match answers.as_slice() {
        [(200..=299, text)] => text,
        [(0, why)] => return Err(why.clone()),
        [(status, _)] => return Err(format!("the server says {status}")),
        _ => return Err("the server says nothing".to_owned()),
    };
    let mut list: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    move_to(&mut list, &parts)?;
    let folder = &context.settings.caches_dir;
    let path = folder.join("uv-python-downloads.json");
    create_private_dir(folder).map_err(|error| error.to_string())?;
    write_json_atomic(&path, &list, 0o600).map_err(|error| error.to_string())?;
    Ok(path)
}

/// Makes every address of the list one of this server.
fn move_to(list: &mut Value, server: &Parts<'_>) -> Result<(), String> {
    let entries = list.as_object_mut().ok_or("it is no list of interpreters")?;
    for entry in entries.values_mut() {
        let Some(Value::String(url)) = entry.get_mut("url") else {
            continue;
        };
        let moved = Parts::parse(url).map(|parts| {
            Parts {
                scheme: server.scheme,
                user: None,
                pass: None,
                host: server.host,
                port: server.port,
                rest: parts.rest,
            }
            .text()
        });
        if let Some(moved) = moved {
            *url = moved;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn interpreters_come_from_the_server_of_the_list() {
        let mut list =
            json!({"a": {"url": "https://github.com/x/y%2Bz.tar.gz?q=1", "major": 3}, "b": {}, "c": 1});
        let server = Parts::parse("http://u:p@mirror:8080/list.json").unwrap();
        move_to(&mut list, &server).unwrap();
        assert_eq!(
            list,
            json!({"a": {"url": "http://mirror:8080/x/y%2Bz.tar.gz?q=1", "major": 3}, "b": {}, "c": 1})
        );
        assert!(move_to(&mut json!([1]), &server).is_err());
    }
}
