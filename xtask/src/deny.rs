//! The supply chain: licences, sources, duplicate and known-bad crates, by cargo-deny and deny.toml.

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
    let program = workspace::cargo_tool("cargo-deny", VERSION)?;
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
