//! The main job on real input, step by step, in a guest whose kernel has AppArmor.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::guest::boot::{Boot, Ending};
use crate::guest::results::Record;
use crate::guest::{Suite, image};
use crate::report::{Outcome, bold, say, verdict};
use crate::{process, setup, workspace};

const LIMIT: Duration = Duration::from_secs(5 * 60);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The Debian release of the guest
    #[arg(long, default_value = "bookworm")]
    suite: Suite,
}

pub(crate) fn run(args: &Args) -> Result<Outcome> {
    say!("{}", bold("aa-svirt: a virtual machine, confined by AppArmor"))?;
    let ready = setup::packages();
    let tools = workspace::static_tools()?;
    let image = match ready.and_then(|()| image::image(args.suite, false)) {
        Ok(image) => image,
        Err(error) => return without_guest(&tools, &error),
    };
    say!("Booting a guest of Debian {} with an AppArmor kernel …", args.suite.name())?;
    let tests = workspace::root()?.join("tests/guest");
    let dir = workspace::scratch("guest/demo")?.join("run");
    let boot = Boot {
        image: &image,
        dir: &dir,
        tests: &tests,
        tools: &tools,
        installed: true,
        more: &[],
        append: "apparmor=1 aa.run=run-demo",
        parallel: false,
        limit: LIMIT,
    };
    let ending = boot.run(|record| match record {
        Record::Line(line) => show(&line),
        _ => Ok(()),
    })?;
    match ending {
        Ending::Exit(0) => Ok(Outcome::Passed),
        Ending::Exit(_) => Ok(Outcome::Failed),
        Ending::Died | Ending::Hung => {
            bail!("the guest did not get to its end; see {}", dir.join("console.log").display())
        }
    }
}

/// A line of the demo: headings bold, rows of its table green or red.
fn show(line: &str) -> Result<()> {
    let row = |good: bool, row: &str| -> String {
        let (word, rest) = row.split_at_checked(8).unwrap_or((row, ""));
        format!("  {}{rest}", verdict(good, word))
    };
    match line.split_once(' ') {
        Some(("==", heading)) => say!("{}", bold(heading))?,
        Some(("+", rest)) => say!("{}", row(true, rest))?,
        Some(("-", rest)) => say!("{}", row(false, rest))?,
        _ => say!("{line}")?,
    }
    Ok(())
}

/// What can be shown without a guest: the rules, the profile, and that the parser takes it.
fn without_guest(tools: &Path, why: &anyhow::Error) -> Result<Outcome> {
    say!("No guest can be had here: {why:#}")?;
    let xml = workspace::root()?.join("tests/fixtures/domains/testqemu.xml");
    say!("\n{}", bold("The rules"))?;
    let rules = process::output(Command::new(tools.join("aa-derive")).arg(&xml))?;
    say!("$ aa-derive {}\n{}", xml.display(), String::from_utf8_lossy(&rules).trim_end())?;
    say!("\n{}", bold("The profile"))?;
    let profile = process::filter(Command::new(tools.join("aa-render")).arg("--stdout"), &rules)?;
    if !profile.status.success() {
        bail!("aa-render: {}", String::from_utf8_lossy(&profile.stderr));
    }
    say!("$ aa-derive … | aa-render --stdout\n{}", String::from_utf8_lossy(&profile.stdout).trim_end())?;
    say!("\n{}", bold("The parser"))?;
    let compiled = process::filter(
        // Not every user's PATH has that directory.
        Command::new("/usr/sbin/apparmor_parser").args([
            "--skip-kernel-load",
            "--skip-cache",
            "--skip-read-cache",
            "--names",
        ]),
        &profile.stdout,
    )
    .context("nothing was compiled");
    match compiled {
        Ok(output) if !output.status.success() => say!(
            "apparmor_parser refuses it, {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim_end()
        )?,
        Ok(output) => {
            say!("apparmor_parser reads it: {}", String::from_utf8_lossy(&output.stdout).trim_end())?;
        }
        Err(error) => say!("{error:#}")?,
    }
    say!("\nNot shown, for want of a guest: loading into a kernel, a confined QEMU, and what it may open.")?;
    Ok(Outcome::Failed)
}
