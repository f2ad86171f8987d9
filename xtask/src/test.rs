//! Everything that is checked, in one command: what CI runs, and what a person runs before a change lands.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use landlock::{AccessFs, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _};
use walkdir::WalkDir;

use crate::guest::Suite;
use crate::report::{self, Outcome, Tally, bold, say};
use crate::{deny, differential, e2e, fuzz, generate, process, setup, upstream, workspace};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_: &Args) -> Result<Outcome> {
    if !setup::is_root() {
        bail!(
            "some of the tests need root: run this as root, as by sudo -E env \"PATH=$PATH\" cargo xtask test \
             (cargo test --workspace needs no root)"
        );
    }
    let mut tally = Tally::default();
    setup::packages()?;
    stage("format", &mut tally, || passes(workspace::cargo().args(["fmt", "--all", "--check"])))?;
    stage("lints", &mut tally, || {
        passes(workspace::cargo().args([
            "clippy",
            "--quiet",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ]))
    })?;
    stage("scripts", &mut tally, scripts)?;
    stage("generated files", &mut tally, || {
        Ok(Tally::of(generate::run(&generate::Args { check: true })? == Outcome::Passed))
    })?;
    stage("unit and integration tests", &mut tally, cargo_test)?;
    stage("programs of libFuzzer", &mut tally, fuzz::checks)?;
    stage("differential", &mut tally, || differential::compare(None, None))?;
    stage("supply chain", &mut tally, || deny::checks(deny::Advisories::CheckIfReached))?;
    let tools = workspace::static_tools()?;
    stage("libvirt's own tests of its helper", &mut tally, || upstream::checks(&tools))?;
    stage("guests", &mut tally, || e2e::cases(&Suite::ALL, false, "", &tools))?;
    // Behind the guests, which fetch them.
    stage("libvirt's packages in each suite", &mut tally, differential::packages_of_each_suite)?;
    say!("\n{tally}")?;
    Ok(tally.outcome())
}

/// Runs one stage, with a heading before it and its time behind it.
fn stage(name: &str, tally: &mut Tally, run: impl FnOnce() -> Result<Tally>) -> Result<()> {
    say!("\n{}", bold(&format!("== {name}")))?;
    *tally += report::timed(name, run)?;
    Ok(())
}

fn passes(command: &mut Command) -> Result<Tally> {
    Ok(Tally::of(process::passes(command.current_dir(workspace::root()?))?))
}

/// Shellcheck over everything that is run in the guest, shipped as an example, or run by CI; and a look for what cannot
/// fail a case.
fn scripts() -> Result<Tally> {
    let mut own = Command::new("shellcheck");
    // The files of cases have no first line that names a shell: lib.sh reads them.
    let mut cases = Command::new("shellcheck");
    cases.arg("--shell=bash");
    for command in [&mut own, &mut cases] {
        command.current_dir(workspace::root()?).arg("--severity=warning");
    }
    let mut passed_over = false;
    for dir in [".ci", "contrib", "tests/guest"] {
        for entry in WalkDir::new(workspace::root()?.join(dir)).sort_by_file_name() {
            let path = entry?.into_path();
            if !path.is_file() {
                continue;
            }
            // What is no text is no script either.
            let text = String::from_utf8_lossy(&std::fs::read(&path)?).into_owned();
            if path.extension().is_some_and(|extension| extension == "sh" || extension == "steps") {
                cases.arg(&path);
            } else if text.starts_with("#!") {
                own.arg(&path);
            } else {
                continue;
            }
            for (number, line) in no_errexit(&text) {
                say!("{}:{number}: set -e passes over its failure: {line}", path.display())?;
                passed_over = true;
            }
        }
    }
    let mut tally = passes(&mut own)?;
    tally += passes(&mut cases)?;
    tally.count(!passed_over);
    Ok(tally)
}

/// The lines, with their numbers, whose failure `set -e` passes over: `! A`, and `A && B` where A fails. Not so where
/// it is the condition of something, has a way out (`||`), or is a function's last line and so its status.
fn no_errexit(text: &str) -> Vec<(usize, &str)> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let of_another = |line: &str| {
        line.starts_with(['#', '('])
            || ["if ", "elif ", "while ", "until "].iter().any(|word| line.starts_with(word))
    };
    let is_last = |at: usize| lines.get(at + 1).is_some_and(|next| *next == "}");
    let goes_on = |at: usize| {
        at.checked_sub(1)
            .and_then(|before| lines.get(before))
            .is_some_and(|line| ["\\", "&&", "||", "|"].iter().any(|end| line.ends_with(end)))
    };
    let found = lines.iter().enumerate().filter(|(at, line)| {
        let bare: String = line.split('\'').step_by(2).collect();
        let passed_over = bare.starts_with("! ") || bare.contains(" && ");
        passed_over && !bare.contains(" || ") && !of_another(line) && !is_last(*at) && !goes_on(*at)
    });
    found.map(|(at, line)| (at + 1, *line)).collect()
}

/// `cargo test`, with the tests that need what setup has installed; its own counts are added up.
fn cargo_test() -> Result<Tally> {
    let mut command = workspace::cargo();
    command.current_dir(workspace::root()?).args([
        "test",
        "--workspace",
        "--no-fail-fast",
        "--",
        "--include-ignored",
    ]);
    command.env("AA_LIBVIRT_POLICY", differential::libvirt_policy()?);
    let mut tally = Tally::default();
    if !workspace::root()?.join("../shared/captures").exists() {
        tally.skip("recorded calls of libvirtd: ../shared/captures is not there");
        command.args(["--skip", "replay::"]);
    }
    if !has_landlock() {
        tally.skip("aa-derive's cage: this kernel has no Landlock");
        command.args(["--skip", "sandbox::", "--skip", "landlock::a_kernel_that_has_it"]);
    }
    if !is_documents_parser()? {
        tally.skip("the sizes in docs/minimal.md: they are another parser's");
        command.args(["--skip", "document::the_document_shows_what_is_compiled"]);
    }
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start: {}", process::shown(&command)))?;
    for line in BufReader::new(child.stdout.take().context("no output")?).lines() {
        let line = line?;
        say!("{line}")?;
        tally += counts(&line);
    }
    let status = child.wait()?;
    if !status.success() && tally.failed == 0 {
        tally.count(false);
    }
    Ok(tally)
}

/// Whether the parser is the one that docs/minimal.md was made with.
fn is_documents_parser() -> Result<bool> {
    let document = std::fs::read_to_string(workspace::root()?.join("docs/minimal.md"))?;
    let output = Command::new("apparmor_parser").env("PATH", "/usr/sbin:/sbin").arg("--version").output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().is_some_and(|version| document.contains(&format!("Made with {version}.\n"))))
}

/// Whether this kernel can deny anything by it. Nothing is denied here.
fn has_landlock() -> bool {
    let ruleset = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    ruleset.handle_access(AccessFs::Execute).is_ok_and(|ruleset| ruleset.create().is_ok())
}

/// What a line `test result: ok. 5 passed; 0 failed; …` counts; nothing for any other line.
fn counts(line: &str) -> Tally {
    let Some(rest) = line.strip_prefix("test result: ") else { return Tally::default() };
    let number = |word: &str| {
        rest.split(['.', ';'])
            .find_map(|part| part.trim().strip_suffix(word)?.trim().parse().ok())
            .unwrap_or(0)
    };
    Tally { passed: number("passed"), failed: number("failed"), ..Tally::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_result_lines_count() {
        let line = "test result: FAILED. 12 passed; 3 failed; 4 ignored; 0 measured; 0 filtered out; finished in 0.01s";
        assert_eq!(counts(line), Tally { passed: 12, failed: 3, ..Tally::default() });
        assert_eq!(counts("test a ... ok"), Tally::default());
    }

    #[test]
    fn what_cannot_fail_a_case_is_found() {
        let bad = ["! a", "[ a ] && [ b ]", "a && b"];
        for line in bad {
            let text = format!("f() {{\n    {line}\n    c\n}}\n");
            assert_eq!(no_errexit(&text), [(2, line)]);
            assert_eq!(no_errexit(&format!("f() {{\n    {line}\n}}\n")), []);
        }
        for line in [
            "! a || fail",
            "if a && b; then",
            "while ! a; do",
            "(a && b)",
            "# a && b",
            "[[ a && b ]] || c",
            "d 'a && b'",
        ] {
            assert_eq!(no_errexit(&format!("{line}\nc\n")), [], "{line}");
        }
        assert_eq!(no_errexit("if a &&\n    ! b; then\n"), []);
    }
}
