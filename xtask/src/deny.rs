//! The supply chain: licences, sources, duplicate and known-bad crates, by cargo-deny and deny.toml.

use std::process::Command;

use anyhow::Result;

use crate::report::{Outcome, Tally, say};
use crate::{process, workspace};

/// The one that deny.toml is written for.
const VERSION: &str = "0.20.2";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Do without the advisories, whose database is fetched
    #[arg(long)]
    offline: bool,
}

pub(crate) fn run(args: &Args) -> Result<Outcome> {
    let tally = checks(if args.offline { Advisories::Skip } else { Advisories::Check })?;
    say!("{tally}")?;
    Ok(tally.outcome())
}

/// What becomes of the advisories.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Advisories {
    /// They are checked; it fails where their database cannot be fetched.
    Check,
    /// As `Check`, but they are skipped where it cannot be fetched: a machine may reach crates and nothing else.
    CheckIfReached,
    Skip,
}

/// Runs cargo-deny.
///
/// # Errors
/// cargo-deny can be neither found nor installed.
pub(crate) fn checks(advisories: Advisories) -> Result<Tally> {
    let program = workspace::cargo_tool("cargo-deny", VERSION)?;
    let deny = |words: &[&str]| {
        let mut command = Command::new(&program);
        command.args(["--manifest-path", "Cargo.toml", "--locked"]).args(words);
        command.current_dir(workspace::root().unwrap_or_else(|_| ".".as_ref()));
        command
    };
    let mut tally = Tally::default();
    tally.count(process::passes(&mut deny(&["check", "licenses", "bans", "sources"]))?);
    if advisories == Advisories::Skip {
        tally.skip("advisories: --offline");
    } else if process::passes(&mut deny(&["fetch", "db"]))? {
        tally.count(process::passes(&mut deny(&["check", "--disable-fetch", "advisories"]))?);
    } else if advisories == Advisories::CheckIfReached {
        tally.skip("advisories: their database could not be fetched");
    } else {
        say!("the database of advisories could not be fetched; --offline does without")?;
        tally.count(false);
    }
    Ok(tally)
}
