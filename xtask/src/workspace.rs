//! Where things are, and building the tools.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process;
use crate::report::say;

/// The tools that are installed.
pub(crate) const TOOLS: [&str; 5] = ["aa-derive", "aa-render", "aa-load", "aa-confine", "virt-aa-helper"];

const STATIC_TARGET: &str = "x86_64-unknown-linux-gnu";

/// The workspace's root.
pub(crate) fn root() -> Result<&'static Path> {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask has no parent directory")
}

/// A directory for what is made and may be deleted: `target/NAME`. Made if missing.
///
/// Not `CARGO_TARGET_DIR`: guest images are shared by builds that keep apart.
pub(crate) fn scratch(name: &str) -> Result<PathBuf> {
    let dir = root()?.join("target").join(name);
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir)
}

/// The cargo that runs this program.
pub(crate) fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// A program of cargo's in this version, installed below target/ if this machine has none.
///
/// # Errors
/// It can be neither found nor installed.
pub(crate) fn cargo_tool(name: &str, version: &str) -> Result<PathBuf> {
    let is_it = |program: &PathBuf| {
        process::output(Command::new(program).arg("--version"))
            .is_ok_and(|text| text.ends_with(format!(" {version}\n").as_bytes()))
    };
    let dir = scratch("tools")?;
    let own = dir.join("bin").join(name);
    if let Some(found) = [PathBuf::from(name), own.clone()].into_iter().find(is_it) {
        return Ok(found);
    }
    say!("installing {name} {version} into {}", dir.display())?;
    let mut install = cargo();
    install.args(["install", "--quiet", "--locked", "--version", version, "--root"]).arg(&dir);
    process::run(install.arg(name))?;
    Ok(own)
}

/// Builds the tools for release, statically linked so that they run on every suite, and says in which
/// directory they are.
pub(crate) fn static_tools() -> Result<PathBuf> {
    build_static(&TOOLS.map(|tool| ["--package", tool]).concat())
}

/// Builds the programs that cases of the guest run beside the tools, and says in which directory they are.
pub(crate) fn static_programs() -> Result<PathBuf> {
    build_static(&["--package", "aa-tests", "--bins"])
}

fn build_static(what: &[&str]) -> Result<PathBuf> {
    let dir = scratch("static")?;
    let mut build = cargo();
    build.current_dir(root()?).args(["build", "--release", "--quiet", "--target", STATIC_TARGET]).args(what);
    build.env("CARGO_TARGET_DIR", &dir).env("RUSTFLAGS", "-C target-feature=+crt-static");
    build.env_remove("CARGO_ENCODED_RUSTFLAGS");
    process::run(&mut build)?;
    Ok(dir.join(STATIC_TARGET).join("release"))
}

/// The files in a directory whose names end in this, sorted.
pub(crate) fn files(dir: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(dir).with_context(|| dir.display().to_string())?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.retain(|path| path.extension().is_some_and(|found| found == extension));
    files.sort();
    Ok(files)
}
