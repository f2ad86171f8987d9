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

/// Shell: takes a directory for what is made, and then a script with its arguments.
const FILES: &str = r#"
made=$1
shift
mount -t tmpfs none "$made" && mkdir "$made/new" "$made/work" &&
    mount -t overlay none -o "lowerdir=/usr/share,upperdir=$made/new,workdir=$made/work" /usr/share &&
    for file in ovmf/OVMF.fd OVMF/OVMF_CODE.fd AAVMF/AAVMF_CODE.fd AAVMF/AAVMF32_CODE.fd qemu-efi/QEMU_EFI.fd; do
        mkdir -p "/usr/share/${file%/*}"
        [ -e "/usr/share/$file" ] || : >"/usr/share/$file"
    done
ls /boot/initrd* >/dev/null 2>&1 || { mount -t tmpfs none /boot && : >/boot/initrd.img; }
exec sh "$@"
"#;

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
        let files = workspace::scratch("upstream/files")?;
        let mut command = with_its_files(&files, may_mount(&files));
        // A debug run prints each check, with what the helper answered, and what was missing in it.
        command.arg(&script).arg("-d").arg(tools.join("virt-aa-helper")).current_dir("/");
        let output = process::filter(&mut command, b"")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let checks = text.lines().filter(|line| line.contains("'--dryrun ")).count();
        // A script that checked nothing has shown nothing.
        let passed = output.status.success() && checks > 0;
        tally.count(passed);
        for reason in skipped(&text) {
            tally.skip(&format!("libvirt's own script of {}: {reason}", suite.name()));
        }
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

/// A shell that runs a script where an initial RAM disk and the firmware are that the script asks for, as empty files in a
/// mount namespace of its own; where nothing may be mounted, with what this machine has.
fn with_its_files(dir: &Path, may_mount: bool) -> Command {
    if !may_mount {
        return Command::new("sh");
    }
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", FILES, "sh"]).arg(dir);
    command
}

/// Whether something may be mounted on this directory: also root may not in most containers.
fn may_mount(dir: &Path) -> bool {
    let mut mount = Command::new("unshare");
    mount.args(["--mount", "mount", "-t", "tmpfs", "none"]).arg(dir);
    process::output(&mut mount).is_ok()
}

/// What the script says that it left out.
fn skipped(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| line.starts_with("Skipping "))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_script_leaves_out_is_told() {
        let text =
            "  create: \n '--dryrun -c': \npass\nSkipping FW AAVMF test. Could not find /x\n  Skipping: \n";
        assert_eq!(skipped(text).collect::<Vec<_>>(), ["Skipping FW AAVMF test. Could not find /x"]);
    }

    #[test]
    fn the_files_are_there_for_the_script_alone() {
        let dir = tempfile::tempdir().unwrap();
        let [script, files] = ["script", "files"].map(|name| dir.path().join(name));
        fs::create_dir(&files).unwrap();
        let firmware = "/usr/share/AAVMF/AAVMF32_CODE.fd";
        fs::write(&script, format!("echo \"$1\"; ls /boot/initrd* {firmware} 2>&1 || :")).unwrap();
        let was_there = Path::new(firmware).exists();
        let said = |may_mount| {
            let output = process::output(with_its_files(&files, may_mount).arg(&script).arg("a b")).unwrap();
            String::from_utf8(output).unwrap()
        };
        // The script runs in either case.
        let said_without = said(false);
        assert!(said_without.starts_with("a b\n"), "{said_without}");
        assert_eq!(said_without.ends_with(&format!("\n{firmware}\n")), was_there, "{said_without}");
        if may_mount(&files) {
            let said = said(true);
            assert!(
                said.starts_with("a b\n/boot/initrd") && said.ends_with(&format!("\n{firmware}\n")),
                "{said}"
            );
        }
        assert!(!may_mount(&dir.path().join("none")));
        assert_eq!(Path::new(firmware).exists(), was_there);
    }
}
