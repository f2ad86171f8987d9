//! The command line, on any kernel: what is refused before AppArmor is needed, and how.

#[cfg(test)]
mod fake_proc;

use snapbox::cmd::{Command, cargo_bin};
use snapbox::str;

const GUEST: &str = "a22e3930-d87a-584e-22b2-1d8950212bac";

fn aa_confine() -> Command {
    Command::new(cargo_bin!("aa-confine"))
}

/// Whether this kernel enforces AppArmor policy; the tests of what it does then are in the guest.
fn apparmor_is_on() -> bool {
    std::fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|answer| answer == "Y\n")
}

#[test]
fn a_command_without_its_mark_is_told_what_is_missing() {
    let said = |arguments: &[&str]| {
        let run = aa_confine().args(["--uuid", GUEST]).args(arguments).output().unwrap();
        assert_eq!(run.status.code(), Some(125));
        String::from_utf8(run.stderr).unwrap()
    };
    let tip = "tip: write -- before the command\n";
    let missing = said(&["qemu-system-x86_64", "-M", "q35"]);
    assert!(
        missing.contains("unexpected argument 'qemu-system-x86_64'") && missing.contains(tip),
        "{missing}"
    );
    for other in [&["-M"][..], &["--", "qemu"], &["--now"]] {
        assert!(!said(other).contains(tip), "{other:?}");
    }
}

#[test]
fn nothing_is_executed_without_the_profile() {
    let directory = tempfile::tempdir().unwrap();
    let trace = directory.path().join("trace");
    for options in [
        &["--uuid", GUEST][..],
        &["--profile", "no-such-profile"],
        &["--profile", "no-such-profile", "--now"],
        &["--profile", "no-such-profile", "--stack"],
        &["--profile", "no-such-profile", "--allow-complain"],
        &["--profile", "no-such-profile", "--namespace", "no-such-namespace"],
    ] {
        let run = aa_confine().args(options).arg("--").arg("touch").arg(&trace).output().unwrap();
        let message = String::from_utf8(run.stderr).unwrap();
        assert_eq!(run.status.code(), Some(125), "{options:?}: {message}");
        assert!(run.stdout.is_empty(), "{options:?}");
        assert_eq!(message.lines().count(), 1, "{options:?}: {message}");
        let reason = if apparmor_is_on() { "is not loaded" } else { "AppArmor is " };
        assert!(message.starts_with("aa-confine: ") && message.contains(reason), "{options:?}: {message}");
        assert!(!trace.exists(), "{options:?}");
    }
}

#[test]
fn a_wrong_call_is_status_125_too() {
    for wrong in [
        &[][..],
        &["--", "true"],
        &["--profile", "vm"],
        &["--profile", "vm", "--"],
        &["--profile", "vm", "true"],
        &["--profile", "vm", "--uuid", GUEST, "--", "true"],
        &["--profile", "vm", "--no-such-option", "--", "true"],
    ] {
        let run = aa_confine().args(wrong).output().unwrap();
        assert_eq!(run.status.code(), Some(125), "{wrong:?}");
        assert!(run.stdout.is_empty() && !run.stderr.is_empty(), "{wrong:?}");
    }
}

#[test]
fn a_name_that_means_something_else_is_refused_with_the_reason() {
    for (options, reason) in [
        (&["--profile", ""][..], "it is empty"),
        (&["--profile", "vm\n"], "control character"),
        (&["--profile", "vm "], "white space"),
        (&["--profile", ":ns:vm"], "--namespace"),
        (&["--profile", "vm//&unconfined"], "--stack"),
        (&["--profile", "unconfined"], "no profile"),
        (&["--uuid", "vm"], "not a UUID"),
        (&["--profile", "vm", "--namespace", "a:b"], "namespace"),
    ] {
        let run = aa_confine().args(options).args(["--", "true"]).output().unwrap();
        let message = String::from_utf8(run.stderr).unwrap();
        assert_eq!(run.status.code(), Some(125), "{options:?}: {message}");
        assert!(message.contains(reason), "{options:?}: {message}");
    }
}

#[test]
fn help_names_the_statuses() {
    aa_confine().arg("--help").assert().success().stdout_eq(str![[r"
...
Usage: aa-confine [OPTIONS] <--profile <NAME>|--uuid <UUID>> -- <COMMAND>...
...
Examples:
...
Exit status:
  125  aa-confine itself failed[..]
...
  126  COMMAND was found but could not be executed
  127  COMMAND was not found
...
"]]);
    let unread = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let run =
        std::process::Command::new(cargo_bin!("aa-confine")).arg("--help").stdout(unread).status().unwrap();
    assert_eq!(run.code(), Some(125), "help that nobody could read is no success");
}

#[test]
fn a_message_that_cannot_be_written_leaves_the_status() {
    let unread = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let run = std::process::Command::new(cargo_bin!("aa-confine"))
        .args(["--profile", "no-such-profile", "--", "true"])
        .stderr(unread)
        .status()
        .unwrap();
    assert_eq!(run.code(), Some(125));
}
