//! The supply chain: licences, sources, duplicate and known-bad crates, by cargo-deny and deny.toml.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::Result;

use crate::report::{Outcome, Tally, say};
use crate::{process, workspace};

/// The one that deny.toml is written for.
const VERSION: &str = "0.20.2";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_: &Args) -> Result<Outcome> {
    Ok(checks()?.outcome())
}

/// Runs cargo-deny; advisories only where their database can be reached.
///
/// # Errors
/// cargo-deny can be neither found nor installed.
pub(crate) fn checks() -> Result<Tally> {
    let program = installed()?;
    let deny = |words: &[&str]| {
        let mut command = Command::new(&program);
        command.args(["--manifest-path", "Cargo.toml", "--locked"]).args(words);
        command.current_dir(workspace::root().unwrap_or_else(|_| ".".as_ref()));
        command
    };
    let mut tally = Tally::default();
    tally.count(process::passes(&mut deny(&["check", "licenses", "bans", "sources"]))?);
    if process::passes(deny(&["fetch", "db"]).stdout(Stdio::null()).stderr(Stdio::null()))? {
        tally.count(process::passes(&mut deny(&["check", "--disable-fetch", "advisories"]))?);
    } else {
        say!("the database of advisories cannot be reached: they are not checked")?;
    }
    Ok(tally)
}

/// cargo-deny of [`VERSION`], installed below target/ if this machine has none.
fn installed() -> Result<PathBuf> {
    let is_ours = |program: &PathBuf| {
        process::output(Command::new(program).arg("--version"))
            .is_ok_and(|text| text.ends_with(format!(" {VERSION}\n").as_bytes()))
    };
    let dir = workspace::scratch("tools")?;
    let own = dir.join("bin/cargo-deny");
    if let Some(found) = [PathBuf::from("cargo-deny"), own.clone()].into_iter().find(is_ours) {
        return Ok(found);
    }
    say!("installing cargo-deny {VERSION} into {}", dir.display())?;
    let mut install = workspace::cargo();
    install.args(["install", "--quiet", "--locked", "--version", VERSION, "--root"]).arg(&dir);
    process::run(install.arg("cargo-deny"))?;
    Ok(own)
}
