//! Our tools beside libvirt's own helper: times, memory and growth, written down in docs/performance.md.
//!
//! Nothing here can fail for being slow: what is measured is shown, never judged by a test.

mod document;
mod domains;
mod guest;
mod host;
mod measure;
mod plot;
mod stage;
mod work;

use std::path::PathBuf;

use anyhow::Result;

use crate::guest::Suite;
use crate::report::{self, Outcome, say};
use crate::{differential, process, setup, workspace};
use host::Measured;
use stage::Stage;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Less of everything, and no guest: under two minutes, with the tables in target/bench/stage
    #[arg(long)]
    quick: bool,
    /// No guests: only what this machine tells
    #[arg(long, conflicts_with_all = ["quick", "suite"])]
    no_guests: bool,
    /// Only the guest of this Debian release, with its table printed
    #[arg(long, conflicts_with = "quick")]
    suite: Option<Suite>,
    /// Measure in this directory; this program calls itself so, in a mount namespace
    #[arg(long, hide = true, value_name = "DIR", requires_all = ["tools", "original"])]
    on_stage: Option<PathBuf>,
    /// Take the tools from DIR instead of building them
    #[arg(long, value_name = "DIR")]
    tools: Option<PathBuf>,
    /// libvirt's own helper [default: taken out of Debian's package]
    #[arg(long, value_name = "PATH")]
    original: Option<PathBuf>,
}

/// The command as it was typed, but for the way to this program.
fn command() -> String {
    std::env::args().skip(1).fold("cargo xtask".to_owned(), |text, word| text + " " + &word)
}

pub(crate) fn run(args: &Args) -> Result<Outcome> {
    if let (Some(dir), Some(tools), Some(original)) = (&args.on_stage, &args.tools, &args.original) {
        let measured = host::measure(&Stage::at(dir), tools, original, args.quick)?;
        std::fs::write(dir.join("measured.json"), serde_json::to_vec(&measured)?)?;
        return Ok(Outcome::Passed);
    }
    setup::packages()?;
    let tools = args.tools.clone().map_or_else(workspace::static_tools, Ok)?;
    if let Some(suite) = args.suite {
        say!("{}", document::pairs(&guest::measure(suite, &tools)?, document::Why::Emulation))?;
        return Ok(Outcome::Passed);
    }
    let policy = differential::libvirt_policy()?;
    let original = args.original.clone().map_or_else(differential::libvirt_helper, Ok)?;
    let dir = workspace::scratch("bench")?.join("stage");
    Stage::make(&dir, policy.parent().unwrap_or(&policy))?;
    let facts = document::facts(&command())?;
    let mut measure = Stage::command()?;
    measure
        .args(["bench", "--on-stage"])
        .arg(&dir)
        .arg("--tools")
        .arg(&tools)
        .arg("--original")
        .arg(&original);
    if args.quick {
        measure.arg("--quick");
    }
    process::run(&mut measure)?;
    let host: Measured = serde_json::from_slice(&std::fs::read(dir.join("measured.json"))?)?;
    let docs = if args.quick { dir } else { workspace::root()?.join("docs") };
    let mut guests = Vec::new();
    let mut complete = true;
    if !args.quick && !args.no_guests {
        for suite in Suite::ALL {
            match guest::measure(suite, &tools) {
                Ok(measured) => guests.push((format!("Debian {}", suite.name()), measured)),
                // What the others told is written down all the same.
                Err(error) => {
                    report::error(&error);
                    complete = false;
                }
            }
        }
    }
    document::write(&docs, &document::text(&host, &guests, &facts)?, &host)?;
    say!("wrote {}", docs.join("performance.md").display())?;
    Ok(Outcome::of(complete))
}
