//! The script by which libvirt tests its own helper, run on ours: `tests/virt-aa-helper-test` of each suite's
//! source package. It is fetched, never kept in the repository.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::guest::{Suite, packages};
use crate::report::{Outcome, Tally, say, verdict};
use crate::{process, setup, workspace};

const SCRIPT: &str = "tests/virt-aa-helper-test";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_: &Args) -> Result<Outcome> {
    setup::packages()?;
    let tally = checks(&workspace::static_tools()?)?;
    say!("{tally}")?;
    Ok(tally.outcome())
}

/// Runs the script of every suite on the drop-in in `tools`.
///
/// # Errors
/// A script cannot be had or started.
pub(crate) fn checks(tools: &Path) -> Result<Tally> {
    let mut tally = Tally::default();
    for suite in Suite::ALL {
        let script = script(suite)?;
        let mut command = Command::new("sh");
        // A debug run prints each check, with what the helper answered, and what was missing in it.
        command.arg(&script).arg("-d").arg(tools.join("virt-aa-helper")).current_dir("/");
        let output = process::filter(&mut command, b"")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let checks = text.lines().filter(|line| line.contains("'--dryrun ")).count();
        // A script that checked nothing has shown nothing.
        let passed = output.status.success() && checks > 0;
        tally.count(passed);
        say!(
            "libvirt's own script of {}: {checks} checks ... {}",
            suite.name(),
            verdict(passed, if passed { "ok" } else { "FAIL" })
        )?;
        if !passed {
            for line in text.lines().chain(String::from_utf8_lossy(&output.stderr).lines()) {
                say!("    {line}")?;
            }
        }
    }
    Ok(tally)
}

/// The script of a suite's libvirt, fetched once.
fn script(suite: Suite) -> Result<PathBuf> {
    let dir = workspace::scratch(&format!("upstream/{}", suite.name()))?;
    let script = dir.join("virt-aa-helper-test");
    if script.exists() {
        return Ok(script);
    }
    let source = packages::source(suite, "libvirt", &dir.join("apt"))?;
    let mut tar = Command::new("tar");
    tar.args(["--extract", "--xz", "--to-stdout", "--wildcards", "--file"]).arg(&source);
    let text = process::output(tar.arg(format!("*/{SCRIPT}")))?;
    if !text.starts_with(b"#!/bin/sh\n") {
        bail!("{} has no script {SCRIPT}", source.display());
    }
    let new = dir.join("new");
    fs::write(&new, text).with_context(|| format!("cannot write {}", new.display()))?;
    fs::rename(&new, &script)?;
    Ok(script)
}
