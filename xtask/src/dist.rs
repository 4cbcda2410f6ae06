//! `cargo xtask dist`: binaries that run on every Linux since glibc 2.17, as archives.
//!
//! The linker of zig, which PyPI has as a package, links against the old version of glibc whatever this machine
//! has. What was linked is then looked at, because one call of a newer function would be enough to make a binary
//! that does not start where it is needed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use regex::bytes::Regex;

use crate::workspace;

/// The oldest glibc that the binaries run on: that of RHEL 7, and the oldest that Rust supports.
const GLIBC: (u32, u32) = (2, 17);
/// What the binaries are linked with; versions that were seen working together.
const TOOLS: [&str; 2] = ["ziglang==0.17.1", "cargo-zigbuild==0.24.0"];
/// Binaries of the archive.
const PROGRAMS: [&str; 2] = ["clearml-agent", "clearml-agent-slurm"];

/// Builds and packs the binaries for an architecture, as Rust names it. Prints where the archive is.
///
/// # Errors
///
/// When a tool is missing, the build fails, or a binary would need a newer glibc.
pub fn run(architecture: &str) -> Result<()> {
    let triple = format!("{architecture}-unknown-linux-gnu");
    let tools = tools()?;
    let programs: Vec<&str> = PROGRAMS
        .into_iter()
        .filter(|program| workspace::root().join("bins").join(program).is_dir())
        .collect();
    let mut build = workspace::cargo();
    build.args(["zigbuild", "--release", "--locked", "--target"]);
    build.arg(format!("{triple}.{}.{}", GLIBC.0, GLIBC.1));
    for program in &programs {
        build.args(["--package", program]);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(tools.join("bin")).chain(std::env::split_paths(&path)))?;
    let status = build
        .env("PATH", path)
        .status()
        .context("starting cargo zigbuild")?;
    ensure!(
        status.success(),
        "the build failed ({status}); is the target there? rustup target add {triple}"
    );

    let built = workspace::target().join(&triple).join("release");
    let name = format!("clearml-agent-{}-{architecture}-linux", env!("CARGO_PKG_VERSION"));
    let dist = workspace::target().join("dist");
    let folder = dist.join(&name);
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    for program in programs {
        let binary = built.join(program);
        let (major, minor) = needed_glibc(&binary)?;
        ensure!(
            (major, minor) <= GLIBC,
            "{} needs glibc {major}.{minor}",
            binary.display()
        );
        if architecture == std::env::consts::ARCH {
            let started = Command::new(&binary).arg("--version").output();
            let started = started.with_context(|| format!("starting {}", binary.display()))?;
            ensure!(started.status.success(), "{} does not start", binary.display());
        }
        let bytes = fs::copy(&binary, folder.join(program))
            .with_context(|| format!("copying {}", binary.display()))?;
        println!(
            "{program}: {} MB, glibc {major}.{minor} or newer",
            bytes / 1_000_000
        );
        let symbols = built.join(format!("{program}.dwp"));
        if symbols.is_file() {
            fs::copy(&symbols, dist.join(format!("{name}-{program}.dwp")))?;
        }
    }
    for part in ["README.md", "dist/systemd"] {
        pack_in(&workspace::root().join(part), &folder)?;
    }
    let archive = dist.join(format!("{name}.tar.gz"));
    let status = Command::new("tar")
        .arg("-czf")
        .arg(&archive)
        .arg("-C")
        .arg(&dist)
        .arg(&name)
        .status()?;
    ensure!(
        status.success(),
        "packing {} failed ({status})",
        archive.display()
    );
    println!("{}", archive.display());
    Ok(())
}

/// Zig and its helper for cargo, in an environment of their own.
fn tools() -> Result<PathBuf> {
    let folder = workspace::target().join("tools/zig");
    // Not its program pip, which does not find its way back when the build folder was moved.
    let python = folder.join("bin/python3");
    if !python.is_file() {
        let status = Command::new("python3")
            .args(["-m", "venv"])
            .arg(&folder)
            .status()
            .context("starting python3")?;
        ensure!(status.success(), "making {} failed ({status})", folder.display());
    }
    let status = Command::new(&python)
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
        .args(TOOLS)
        .status()
        .with_context(|| format!("starting {}", python.display()))?;
    ensure!(
        status.success(),
        "installing {} failed ({status})",
        TOOLS.join(" and ")
    );
    Ok(folder)
}

/// The newest version of glibc that a binary names. The names stand in it as text; one in its data would only
/// make this stricter.
fn needed_glibc(binary: &Path) -> Result<(u32, u32)> {
    let bytes = fs::read(binary).with_context(|| format!("reading {}", binary.display()))?;
    let pattern = Regex::new(r"GLIBC_(\d{1,4})\.(\d{1,4})").context("the pattern of versions")?;
    let number = |digits: &[u8]| std::str::from_utf8(digits).ok()?.parse().ok();
    let newest = pattern
        .captures_iter(&bytes)
        .filter_map(|found| Some((number(&found[1])?, number(&found[2])?)))
        .max();
    match newest {
        Some(version) => Ok(version),
        None => bail!(
            "{} names no version of glibc; is it linked dynamically?",
            binary.display()
        ),
    }
}

/// Copies a file, or the files of a folder, into a folder.
fn pack_in(from: &Path, folder: &Path) -> Result<()> {
    let copied = Command::new("cp")
        .arg("-r")
        .arg(from)
        .arg(folder)
        .status()
        .context("starting cp")?;
    ensure!(copied.success(), "copying {} failed ({copied})", from.display());
    Ok(())
}
