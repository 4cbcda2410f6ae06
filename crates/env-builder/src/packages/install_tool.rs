//! Tools of the agent itself (uv, Poetry), each in an environment of its own that all builds share.
//!
//! The environment of a task and the interpreter of the machine stay as they are.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use clearml_support::fs::{create_private_dir, remove_tree};
use clearml_support::lock::FileLock;

use crate::error::at;
use crate::packages::PackageError;
use crate::packages::install::quiet_tool;
use crate::packages::pip::extra_indexes;
use crate::packages::requirements::step::write_private;
use crate::python::probe::Interpreter;
use crate::python::{seed, venv};
use crate::tools::Context;

/// Somebody else may be installing the same.
const LOCK_TIMEOUT: Duration = Duration::from_secs(300);

/// Installs `spec` (`uv==0.5`) for the agent's use unless it is there; the program `name` of it.
pub(crate) fn install(
    context: &Context<'_>,
    python: &Interpreter,
    name: &str,
    spec: &str,
) -> Result<PathBuf, PackageError> {
    let parent = context.settings.caches_dir.join("tools");
    create_private_dir(&parent).map_err(at("creating", &parent))?;
    let readable: String = spec
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || ".=-".contains(c) {
                c
            } else {
                '_'
            }
        })
        .take(60)
        .collect();
    let id = format!("{readable}-{}-{:08x}", python.cache_tag, fingerprint(spec));
    let root = parent.join(&id);
    let program = root.join("bin").join(name);
    let done = root.join("complete");
    if done.exists() && program.is_file() {
        return Ok(program);
    }
    let lock = parent.join(format!("{id}.lock"));
    let _lock = FileLock::acquire(&lock, LOCK_TIMEOUT).map_err(at("locking", &lock))?;
    if done.exists() && program.is_file() {
        return Ok(program);
    }
    context.info(&format!("installing {spec} for the agent"));
    remove_tree(&root).map_err(at("removing", &root))?;
    let venv = venv::create(context, &root, python.clone())?;
    if seed::seed(context, &venv)?.is_none() {
        return Err(PackageError::NoInstaller {
            python: python.executable.clone(),
        });
    }
    let list = root.join("list.txt");
    let mut text = extra_indexes(&context.settings.package_manager);
    text.push_str(spec);
    text.push('\n');
    write_private(&list, &text)?;
    let command = context
        .command(&venv.python)
        .args(["-m", "pip", "install", "-r"])
        .arg(&list);
    let ended = context.stream(&quiet_tool(context, command));
    fs::remove_file(&list).map_err(at("removing", &list))?;
    let ended = ended?;
    if !ended.status.success() || !program.is_file() {
        return Err(PackageError::Install {
            what: spec.to_owned(),
            last_line: ended.last_line(),
        });
    }
    fs::write(&done, "").map_err(at("writing", &done))?;
    Ok(program)
}

/// Tells apart specs that look alike as file names (FNV-1a).
fn fingerprint(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}
