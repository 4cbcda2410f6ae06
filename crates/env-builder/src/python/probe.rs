//! What an interpreter says about itself, asked once and remembered.
//!
//! Starting an interpreter costs more than everything else in a small build, so the answer is kept in
//! `interpreters.json` under the caches folder, for as long as the file behind the path is the same
//! (real path, size, time of change). A launcher script is only trusted when it is known what it
//! depends on: pyenv's shims are, others are asked each time.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clearml_support::command::CommandError;
use clearml_support::fs::{create_private_dir, read_json, write_json_atomic};
use serde::{Deserialize, Serialize};

use crate::tools::Context;

/// Changes when the question changes.
const SCHEMA: u32 = 1;
/// The cache is thrown away rather than grown beyond this.
const MAX_ENTRIES: usize = 64;
const TIMEOUT: Duration = Duration::from_secs(30);

const QUESTION: &str = r#"
import glob, json, os, site, sys, sysconfig
exe = os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)
scheme = "venv" if "venv" in sysconfig.get_scheme_names() else "posix_prefix"
purelib = sysconfig.get_path("purelib", scheme, {"base": "", "installed_base": ""})
bundles = [os.path.join(os.path.dirname(os.__file__), "ensurepip", "_bundled"),
           sysconfig.get_config_var("WHEEL_PKG_DIR") or "", "/usr/share/python-wheels"]
wheels = [w for b in bundles if b for w in sorted(glob.glob(os.path.join(b, "pip-*.whl")))]
print(json.dumps({
    "executable": exe,
    "implementation": sys.implementation.name,
    "cache_tag": sys.implementation.cache_tag or "",
    "version": list(sys.version_info[:3]),
    "stdlib": sys.path,
    "site_packages": purelib.lstrip("/"),
    "base_sites": [p for p in site.getsitepackages([sys.base_prefix]) if os.path.isdir(p)],
    "pip_wheel": wheels[0] if wheels else None,
}))
"#;

/// An interpreter that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interpreter {
    /// Where it was found; may be a link, a launcher, or inside a virtual environment.
    #[serde(skip)]
    pub found_at: PathBuf,
    /// The real file; never one inside a virtual environment.
    pub executable: PathBuf,
    /// `cpython`, `pypy`, …
    pub implementation: String,
    /// For example `cpython-311`.
    pub cache_tag: String,
    /// Major, minor, micro.
    pub version: [u32; 3],
    /// Where the standard library is.
    pub stdlib: Vec<PathBuf>,
    /// Where packages of an environment are, relative to it.
    pub site_packages: PathBuf,
    /// Where the packages of the interpreter itself are.
    pub base_sites: Vec<PathBuf>,
    /// The pip that comes with it.
    pub pip_wheel: Option<PathBuf>,
}

impl Interpreter {
    /// `major.minor`.
    #[must_use]
    pub fn series(&self) -> String {
        format!("{}.{}", self.version[0], self.version[1])
    }

    /// `major.minor.micro`.
    #[must_use]
    pub fn full_version(&self) -> String {
        format!("{}.{}", self.series(), self.version[2])
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Cache {
    schema: u32,
    entries: BTreeMap<String, Interpreter>,
}

/// Asks the interpreter at `path`, or remembers. `None`, with a line on the console, when it does not
/// run.
pub(crate) fn probe(context: &Context<'_>, path: &Path) -> Option<Interpreter> {
    let file = context.settings.caches_dir.join("interpreters.json");
    let key = identity(context, path);
    // A cache that can't be read is an empty one: it is only a cache.
    let mut cache = read_json::<Cache>(&file)
        .ok()
        .filter(|cache| cache.schema == SCHEMA)
        .unwrap_or_default();
    if let Some(known) = key.as_ref().and_then(|key| cache.entries.get(key))
        && known.executable.is_file()
        && known.pip_wheel.as_ref().is_none_or(|wheel| wheel.is_file())
    {
        return Some(Interpreter {
            found_at: path.to_owned(),
            ..known.clone()
        });
    }
    let found = ask(context, path)?;
    if let Some(key) = key {
        if cache.entries.len() >= MAX_ENTRIES {
            cache.entries.clear();
        }
        cache.schema = SCHEMA;
        cache.entries.insert(key, found.clone());
        let written = create_private_dir(&context.settings.caches_dir)
            .map_err(|e| e.to_string())
            .and_then(|()| write_json_atomic(&file, &cache, 0o600).map_err(|e| e.to_string()));
        if let Err(error) = written {
            tracing::warn!(%error, "the interpreter cache can't be written; interpreters are asked each time");
        }
    }
    Some(Interpreter {
        found_at: path.to_owned(),
        ..found
    })
}

fn ask(context: &Context<'_>, path: &Path) -> Option<Interpreter> {
    let command = context
        .command(path)
        // Not the agent's folder: launchers look there for a version to choose.
        .cwd("/")
        .args(["-I", "-S", "-c", QUESTION])
        .timeout(TIMEOUT);
    let answer = command.check().map_err(|e| why(&e)).and_then(|output| {
        serde_json::from_slice(&output.stdout).map_err(|e| format!("its answer can't be read: {e}"))
    });
    match answer {
        Ok(interpreter) => Some(interpreter),
        Err(reason) => {
            context.info(&format!("interpreter {} is skipped: {reason}", path.display()));
            None
        }
    }
}

/// In one line: a launcher says first what is wrong, and then at length what else could be done.
fn why(error: &CommandError) -> String {
    match error {
        CommandError::Failed { last_lines, .. } => {
            let first = last_lines.lines().find(|line| !line.trim().is_empty());
            first.unwrap_or("it said nothing").trim().to_owned()
        }
        error => error.to_string(),
    }
}

/// A text that changes when the interpreter behind the path does; `None` when that can't be known.
fn identity(context: &Context<'_>, path: &Path) -> Option<String> {
    let real = path.canonicalize().ok()?;
    let mut parts = vec![path.display().to_string(), stamp(&real)?];
    // The same real file is another interpreter inside a virtual environment.
    let folder = path.parent()?;
    parts.extend(stamp(&folder.join("../pyvenv.cfg")));
    if is_script(&real)? {
        if folder.file_name()? != "shims" {
            return None;
        }
        parts.push(stamp(&folder.join("../version"))?);
        parts.push(context.var("PYENV_VERSION").unwrap_or_default().to_owned());
    }
    Some(parts.join("|"))
}

fn stamp(path: &Path) -> Option<String> {
    let meta = fs::metadata(path).ok()?;
    Some(format!(
        "{}:{}:{}.{}:{}",
        path.display(),
        meta.len(),
        meta.mtime(),
        meta.mtime_nsec(),
        meta.ino()
    ))
}

fn is_script(path: &Path) -> Option<bool> {
    let mut head = [0; 2];
    fs::File::open(path).ok()?.read_exact(&mut head).ok()?;
    Some(&head == b"#!")
}
