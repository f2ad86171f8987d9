//! Searches for inputs that break a promise: libFuzzer on each function of `fuzz/targets`, by cargo-fuzz.
//!
//! What it finds, and what it has learnt of the code, stays under `target/fuzz`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Context as _, Result, bail};

use crate::report::{self, Outcome, Tally, say};
use crate::{differential, process, setup, workspace};

/// The release that is used, and the Rust that builds it: its lock has cargo-platform 0.3.3, which is of later date than our own.
const CARGO_FUZZ: &str = "0.13.2";
const CARGO_FUZZ_RUST: &str = "1.91";
/// What cargo-fuzz builds for, unless it is told otherwise.
const TRIPLE: &str = "x86_64-unknown-linux-gnu";
/// Longest input, in bytes: room for a document, and for a header with its descriptor.
const LONGEST: usize = 64 * 1024;
/// An input that takes longer, in seconds, is a finding, as is one that takes more memory, in MiB.
const SLOWEST: u32 = 10;
const LARGEST: u32 = 2048;
/// The target that is no program of libFuzzer: changed domains, ours beside libvirt's own helper.
const DIFFERENTIAL: &str = "differential";
/// Targets whose inputs are made of the words of libvirt and QEMU.
const WORDED: [&str; 4] = ["domain", "pool", "qemu_args", "backing_name"];

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How long each target is run
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    minutes: u64,
    /// The targets to run, by a part of their name [default: all]
    #[arg(value_name = "TARGET")]
    filter: Option<String>,
}

pub(crate) fn run(args: &Args) -> Result<Outcome> {
    let root = workspace::root()?;
    let home = workspace::scratch("fuzz")?;
    setup::packages()?;
    let mut tally = Tally::default();
    let filter = args.filter.as_deref().unwrap_or_default();
    let is_chosen = |name: &str| name.contains(filter);
    if is_chosen(DIFFERENTIAL) {
        let findings = made(&home, "findings", DIFFERENTIAL)?;
        tally.count(differential::search(args.minutes * 60, &findings)?.outcome() == Outcome::Passed);
    }
    let chosen: Vec<String> = targets(root)?.into_iter().filter(|name| is_chosen(name)).collect();
    if chosen.is_empty() && is_chosen(DIFFERENTIAL) {
        return Ok(tally.outcome());
    }
    if chosen.is_empty() {
        bail!("no target has \"{filter}\" in its name");
    }
    let cargo_fuzz = workspace::cargo_tool("cargo-fuzz", CARGO_FUZZ).with_context(|| {
        format!("cargo-fuzz {CARGO_FUZZ} is built with Rust {CARGO_FUZZ_RUST} or later; all else needs no newer Rust than the tools")
    })?;
    say!("fuzz: building the targets")?;
    // The stable compiler takes the options that cargo-fuzz needs where RUSTC_BOOTSTRAP is set. There is no
    // sanitizer, since nothing of this project is unsafe.
    process::run(
        Command::new(cargo_fuzz)
            .args(["fuzz", "build", "--sanitizer", "none"])
            .current_dir(root)
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_TARGET_DIR", &home),
    )?;
    let cores = thread::available_parallelism()?.get();
    tally += report::side_by_side(&chosen, cores, |name| search(root, &home, name, args.minutes * 60))?;
    say!("fuzz: {tally}; {} minutes each", args.minutes)?;
    Ok(tally.outcome())
}

/// Whether libFuzzer's programs, which are no part of the workspace, still compile.
///
/// # Errors
/// cargo cannot be started.
pub(crate) fn checks() -> Result<Tally> {
    Ok(Tally::of(process::passes(
        workspace::cargo()
            .args(["check", "--quiet", "--locked", "--manifest-path", "fuzz/Cargo.toml"])
            .current_dir(workspace::root()?)
            .env("CARGO_TARGET_DIR", workspace::scratch("fuzz")?),
    )?))
}

/// The names of the programs in `fuzz/fuzz_targets`.
fn targets(root: &Path) -> Result<Vec<String>> {
    let programs = workspace::files(&root.join("fuzz/fuzz_targets"), "rs")?;
    Ok(programs.iter().filter_map(|path| Some(path.file_stem()?.to_string_lossy().into_owned())).collect())
}

/// The target's directory of this kind, made if missing.
fn made(home: &Path, kind: &str, name: &str) -> Result<PathBuf> {
    let dir = home.join(kind).join(name);
    std::fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    Ok(dir)
}

/// Runs one target; it passes if it found nothing.
fn search(root: &Path, home: &Path, name: &str, seconds: u64) -> Result<Tally> {
    let (corpus, findings) = (made(home, "corpus", name)?, made(home, "findings", name)?);
    let log = home.join(format!("{name}.log"));
    let output = std::fs::File::create(&log).with_context(|| log.display().to_string())?;
    let mut command = Command::new(home.join(TRIPLE).join("release").join(name));
    command
        .arg(&corpus)
        .arg(root.join("fuzz/seeds").join(name))
        .args([format!("-max_total_time={seconds}"), format!("-max_len={LONGEST}")])
        .args([format!("-timeout={SLOWEST}"), format!("-rss_limit_mb={LARGEST}")])
        .args([format!("-artifact_prefix={}/", findings.display()), "-print_final_stats=1".to_owned()])
        .stdout(output.try_clone()?)
        .stderr(output);
    if WORDED.contains(&name) {
        command.arg(format!("-dict={}", root.join("fuzz/dictionaries/xml.dict").display()));
    }
    // Real domains teach it more than the seeds do.
    let real = root.join("../shared/corpus/xml");
    if name == "domain" && real.exists() {
        command.arg(real);
    }
    let (passed, took) = process::accounted(&mut command)?;
    let text = String::from_utf8_lossy(&std::fs::read(&log)?).into_owned();
    let inputs = text.lines().rev().find_map(|line| line.strip_prefix("stat::number_of_executed_units: "));
    say!("{name:<16} {:>6} s of a processor {:>12} inputs", took.as_secs(), inputs.unwrap_or("?"))?;
    if !passed {
        let finding =
            text.lines().rev().find_map(|line| line.split_once("Test unit written to ")).map(|(_, at)| at);
        let finding = finding.unwrap_or("no input was written");
        let panic = text.lines().skip_while(|line| !line.contains("panicked at")).take(3);
        for line in panic {
            say!("  {line}")?;
        }
        say!("  {name} found: {finding}; all it said is in {}", log.display())?;
    }
    Ok(Tally::of(passed))
}
