//! The end-to-end cases of tests/guest, in guests with real AppArmor kernels.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::sysinfo::sysinfo;

use crate::guest::boot::{Boot, Ending};
use crate::guest::results::Record;
use crate::guest::{Suite, image};
use crate::report::{self, Outcome, Tally, say, verdict};
use crate::{setup, workspace};

/// A guest that runs longer is ended, also if it still reports: several times what all cases take under emulation.
const LIMIT: Duration = Duration::from_secs(3 * 60 * 60);
/// Bytes that a machine needs for two guests at once: each takes 3 GiB.
const MEMORY_FOR_TWO: u64 = 8 << 30;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only this Debian release [default: each]
    #[arg(long)]
    suite: Option<Suite>,
    /// Make the guest's image anew from the packages that are current now
    #[arg(long)]
    refresh: bool,
    /// Take the tools from DIR instead of building them
    #[arg(long, value_name = "DIR")]
    tools: Option<PathBuf>,
    /// Only the cases whose names have this in them
    filter: Option<String>,
}

/// The boots of one suite: the directory of cases, the kernel's command line for them, and whether they find the
/// tools installed.
const BOOTS: [(&str, &str, bool); 4] = [
    (".", "apparmor=1", true),
    ("off", "apparmor=0", true),
    ("fresh", "apparmor=1", false),
    ("systemd", "apparmor=1 aa.init=systemd", true),
];

pub(crate) fn run(args: &Args) -> Result<Outcome> {
    setup::packages()?;
    let suites = args.suite.map_or(Suite::ALL.to_vec(), |suite| vec![suite]);
    let filter = args.filter.as_deref().unwrap_or_default();
    let tools = match &args.tools {
        Some(dir) => dir.clone(),
        None => workspace::static_tools()?,
    };
    let tally = cases(&suites, args.refresh, filter, &tools)?;
    say!("{tally}")?;
    Ok(tally.outcome())
}

/// Runs every case of these suites whose name has `filter` in it. An emulated guest keeps little more than one core busy, so
/// the suites run side by side where there is room for it. One that cannot be run counts as a failure.
///
/// # Errors
/// The filter cannot be one, or the programs that run beside the tools are not built.
pub(crate) fn cases(suites: &[Suite], refresh: bool, filter: &str, tools: &Path) -> Result<Tally> {
    // It travels on the kernel's command line.
    if filter.contains(char::is_whitespace) {
        bail!("no case has a space in its name: \"{filter}\"");
    }
    let programs = workspace::static_programs()?;
    let run = |&suite: &Suite| {
        report::timed(&format!("guest {}", suite.name()), || {
            suite_cases(suite, refresh, filter, tools, &programs)
        })
    };
    let at_once = if has_room_for_two()? { 2 } else { 1 };
    report::side_by_side(suites, at_once, run)
}

/// Whether two guests at once are no slower than one after the other.
fn has_room_for_two() -> Result<bool> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    Ok(cores > 1 && sysinfo()?.ram_total() >= MEMORY_FOR_TWO)
}

fn suite_cases(suite: Suite, refresh: bool, filter: &str, tools: &Path, programs: &Path) -> Result<Tally> {
    let image = image::image(suite, refresh)?;
    let tests = workspace::root()?.join("tests/guest");
    let dir = workspace::scratch(&format!("guest/{}", suite.name()))?;
    let more = [(programs.join("probe"), "tests/probe"), (programs.join("covers"), "tests/covers")];
    let mut tally = Tally::default();
    for (cases, line, installed) in BOOTS {
        if !has_case(&tests.join(cases), filter)? {
            continue;
        }
        let run_dir = dir.join(if cases == "." { "run" } else { cases });
        let boot = Boot {
            image: &image,
            dir: &run_dir,
            tests: &tests,
            tools,
            installed,
            more: &more,
            append: &format!("{line} aa.run=run-cases aa.cases={cases} aa.filter={filter}"),
            parallel: false,
            limit: LIMIT,
        };
        tally += report_cases(suite, cases, &boot)?;
    }
    Ok(tally)
}

/// Whether a directory has a case that run-cases, in the guest, would run.
fn has_case(dir: &Path, filter: &str) -> Result<bool> {
    for file in workspace::files(dir, "sh")? {
        let stem = file.file_stem().unwrap_or_default().to_string_lossy();
        let stem = stem.trim_start_matches(|c: char| c.is_ascii_digit()).trim_start_matches('-');
        let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let mut names = text.lines().filter_map(|line| line.strip_prefix("case_")?.split_once("()"));
        if names.any(|(name, _)| format!("{stem}/{name}").contains(filter)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Runs one boot and prints its cases as they end.
fn report_cases(suite: Suite, kind: &str, boot: &Boot<'_>) -> Result<Tally> {
    let started = Instant::now();
    let mut tally = Tally::default();
    let mut running: Option<String> = None;
    let mut lines: Vec<String> = Vec::new();
    let ending = boot.run(|record| {
        match record {
            Record::Start(name) => running = Some(name),
            Record::Line(line) => lines.push(line),
            Record::Case { name, passed, millis } => {
                tally.count(passed);
                running = None;
                let word = verdict(passed, if passed { "ok" } else { "FAIL" });
                let mut text = format!(
                    "{} {name} ... {word} ({}.{} s)",
                    suite.name(),
                    millis / 1000,
                    millis % 1000 / 100
                );
                // At once: another suite's cases are told meanwhile.
                for line in lines.drain(..) {
                    text += "\n    ";
                    text += &line;
                }
                say!("{text}")?;
            }
            Record::Exit(_) => {}
        }
        Ok(())
    })?;
    let clean = match ending {
        Ending::Exit(0) => true,
        Ending::Exit(_) => tally.failed > 0,
        Ending::Died | Ending::Hung => false,
    };
    if !clean {
        tally.count(false);
        let running = running.map_or_else(String::new, |name| format!(", in case {name}"));
        let console = std::fs::read(boot.dir.join("console.log")).context("no console log")?;
        let console = String::from_utf8_lossy(&console);
        let end: Vec<&str> = console.lines().rev().take(40).collect();
        say!(
            "{} boot {kind} ... {} ({ending:?}{running}); the end of its console:\n    {}",
            suite.name(),
            verdict(false, "FAIL"),
            end.into_iter().rev().collect::<Vec<_>>().join("\n    ")
        )?;
    }
    say!("{} boot {kind}: {tally} in {} s", suite.name(), started.elapsed().as_secs())?;
    Ok(tally)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_looked_for_in_whole_names() {
        let dir = workspace::root().unwrap().join("tests/guest/off");
        for (filter, wanted) in
            [("", true), ("disabled/it_is_off", true), ("led/it", true), ("10-dis", false)]
        {
            assert_eq!(has_case(&dir, filter).unwrap(), wanted, "{filter}");
        }
        assert!(has_case(&dir.join("none"), "").is_err());
        for (cases, ..) in BOOTS {
            assert!(has_case(&dir.with_file_name(cases), "").unwrap(), "{cases}");
        }
    }
}
