//! Our rules beside those of libvirt's own helper, over recorded answers and live.
//!
//! Every difference must belong to a named family; the families are data (`families`), and
//! docs/differences.md must name each of them, no more and no fewer.

mod families;
mod mutate;
mod original;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher as _, RandomState};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use aa_contract::{Derived, Target};
use aa_derive::host::Files;
use aa_derive::path_policy::{self, PathPolicy};
use aa_derive::{Options, derive};
use aa_tests::numbers::Numbers;
use anyhow::{Context as _, Result, bail};
use nix::sys::resource::UsageWho;
use serde::Deserialize;

use crate::report::{Outcome, Tally, say};
use crate::{process, setup, workspace};

/// The domains of this repository, which are changed.
const OWN: [&str; 2] = ["tests/fixtures/domains", "fuzz/seeds/domain"];
/// How many of them each run compares, and where it starts, so that each is as the one before.
const CHANGED: usize = 300;
const SEED: u64 = 1;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A folder with xml/ and expected.jsonl, the recorded answers of the original
    /// [default: ../shared/corpus, if it is there]
    #[arg(long, value_name = "DIR")]
    corpus: Option<PathBuf>,
    /// The original, to be asked live about tests/fixtures/domains [default: taken out of Debian's package]
    #[arg(long, value_name = "PATH")]
    helper: Option<PathBuf>,
}

/// One rule as both sides can be compared: pattern and letters in order.
type Grant = (String, BTreeSet<char>);

/// What the original answered for one domain.
struct Answer {
    file: String,
    path: PathBuf,
    accepted: bool,
    grants: BTreeSet<Grant>,
    errors: Vec<String>,
}

/// A line of expected.jsonl.
#[derive(Debug, Deserialize)]
struct Recorded {
    file: String,
    exit: i32,
    rules: Vec<String>,
    errors: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<Outcome> {
    if args.helper.is_none() {
        setup::packages()?;
    }
    let tally = compare(args.corpus.as_deref(), args.helper.as_deref())?;
    say!("{tally}")?;
    Ok(tally.outcome())
}

/// Runs every comparison that can be run here, and prints the table.
///
/// # Errors
/// A tool cannot be built or started, or the corpus is not one.
pub(crate) fn compare(corpus: Option<&Path>, helper: Option<&Path>) -> Result<Tally> {
    let root = workspace::root()?;
    let tool = workspace::static_tools()?.join("aa-derive");
    let (mut table, mut skipped) = (Table::default(), Tally::default());
    let recorded = corpus.map_or_else(|| root.join("../shared/corpus"), Path::to_owned);
    if recorded.join("expected.jsonl").exists() {
        // The recorded answers were given on a host that had nothing but its system directories.
        let host = bare_host()?;
        for answer in recorded_answers(&recorded)? {
            table.add(&answer, &tool, host.path())?;
        }
    } else if corpus.is_some() {
        bail!("{}: there is no expected.jsonl", recorded.display());
    } else {
        skipped.skip("recorded answers of libvirt's helper: ../shared/corpus is not there");
    }
    let original = match helper {
        Some(helper) => original::Original::at(helper),
        None => original::Original::of_debian()?,
    };
    for path in workspace::files(&root.join("tests/fixtures/domains"), "xml")? {
        table.add(&original.ask(&path)?, &tool, Path::new("/"))?;
    }
    table.check_document(&root.join("docs/differences.md"))?;
    let mut tally = table.print()?;
    tally += skipped;
    tally += changed(&original)?;
    Ok(tally)
}

/// Compares a few hundred changed domains, the same each time and on each machine: the short run of [`search`].
fn changed(original: &original::Original) -> Result<Tally> {
    let herd = herd(&OWN)?;
    let findings = workspace::scratch("differential")?;
    say!("{CHANGED} changes of the {} domains in {}:", herd.len(), OWN.join(" and "))?;
    let mut numbers = Numbers::new(SEED);
    let (table, died) = compare_changed(original, &herd, &mut numbers, &findings, |count| count < CHANGED)?;
    say!("the original died of {died}")?;
    table.print()
}

/// Compares changed domains until the time is over. Those that show a difference which no family explains are put
/// into `findings`. Other domains each time.
///
/// # Errors
/// The original cannot be had or started.
pub(crate) fn search(seconds: u64, findings: &Path) -> Result<Tally> {
    let original = original::Original::of_debian()?;
    let herd = herd(&[&OWN[..], &["../shared/corpus/xml"]].concat())?;
    // From another place each time, or a second hour would be the first one again.
    let mut numbers = Numbers::new(RandomState::new().hash_one(()));
    let (started, before, limit) = (Instant::now(), processor_time()?, Duration::from_secs(seconds));
    let (table, died) =
        compare_changed(&original, &herd, &mut numbers, findings, |_| started.elapsed() < limit)?;
    let took = processor_time()?.saturating_sub(before).as_secs();
    say!("{} real domains, changed; the original died of {died}; {took} s of a processor", herd.len())?;
    table.print()
}

/// The domains in these folders, where they are there.
fn herd(folders: &[&str]) -> Result<mutate::Herd> {
    let mut herd = mutate::Herd::default();
    for folder in folders {
        let files = walkdir::WalkDir::new(workspace::root()?.join(folder)).sort_by_file_name();
        for file in files.into_iter().filter_map(Result::ok).filter(|file| file.file_type().is_file()) {
            herd.add(&String::from_utf8_lossy(&std::fs::read(file.path())?));
        }
    }
    Ok(herd)
}

/// Changes and compares for as long as `goes_on`, which is told how many there were. Gives the differences, and of how many the
/// original died.
fn compare_changed(
    original: &original::Original,
    herd: &mutate::Herd,
    numbers: &mut Numbers,
    findings: &Path,
    goes_on: impl Fn(usize) -> bool,
) -> Result<(Table, usize)> {
    let (options, host) = (Options::new(PathPolicy::parse(path_policy::DEFAULT)?), Files::new("/")?);
    let input = tempfile::NamedTempFile::new()?;
    let mut table = Table::default();
    let (mut died, mut shown) = (0, 0);
    while goes_on(table.domains + died) {
        let Some(xml) = herd.changed(numbers) else { bail!("there is no domain to change") };
        std::fs::write(input.path(), &xml)?;
        // The original does not survive every document.
        let Ok(answer) = original.ask(input.path()) else {
            died += 1;
            continue;
        };
        table.compare(&answer, derive(xml.as_bytes(), &options, &host).map_err(|error| error.to_string()));
        if table.unexplained.len() > shown {
            let finding = findings.join(format!("{}-{shown}.xml", std::process::id()));
            std::fs::write(&finding, &xml)?;
            say!("found: {}", finding.display())?;
            shown = table.unexplained.len();
        }
    }
    Ok((table, died))
}

/// That of this process, which derives, and of the original each time it was asked.
fn processor_time() -> Result<Duration> {
    let of = process::processor_time;
    Ok(of(UsageWho::RUSAGE_SELF)? + of(UsageWho::RUSAGE_CHILDREN)?)
}

/// The directory of libvirt's own templates, out of the distribution's package.
///
/// # Errors
/// The package cannot be had.
pub(crate) fn libvirt_policy() -> Result<PathBuf> {
    original::policy()
}

/// Whether each suite's packages hold what is taken out of the distribution's, as far as they are here.
///
/// # Errors
/// A package cannot be unpacked.
pub(crate) fn packages_of_each_suite() -> Result<Tally> {
    original::checks()
}

/// libvirt's own helper, out of the distribution's package.
///
/// # Errors
/// The package cannot be had, or what is in it does not start.
pub(crate) fn libvirt_helper() -> Result<PathBuf> {
    Ok(original::Original::of_debian()?.program().to_owned())
}

/// A tree with the system directories and links of a bare Debian, and nothing in them.
fn bare_host() -> Result<tempfile::TempDir> {
    let host = tempfile::tempdir()?;
    for dir in
        ["usr/bin", "usr/lib", "usr/sbin", "usr/lib64", "run", "var", "etc", "dev", "tmp", "proc", "sys"]
    {
        std::fs::create_dir_all(host.path().join(dir))?;
    }
    for (link, target) in [
        ("bin", "usr/bin"),
        ("lib", "usr/lib"),
        ("sbin", "usr/sbin"),
        ("lib64", "usr/lib64"),
        ("var/run", "/run"),
    ] {
        std::os::unix::fs::symlink(target, host.path().join(link))?;
    }
    Ok(host)
}

fn recorded_answers(corpus: &Path) -> Result<Vec<Answer>> {
    let text = std::fs::read_to_string(corpus.join("expected.jsonl"))?;
    text.lines()
        .map(|line| {
            let recorded: Recorded = serde_json::from_str(line).with_context(|| line.to_owned())?;
            Ok(Answer {
                path: corpus.join("xml").join(&recorded.file),
                accepted: recorded.exit == 0,
                grants: recorded.rules.iter().filter_map(|rule| original::grant(rule)).collect(),
                errors: recorded.errors,
                file: recorded.file,
            })
        })
        .collect()
}

/// What is the same and what is not, by family.
#[derive(Debug, Default)]
struct Table {
    same_rules: usize,
    same_refusals: usize,
    /// Family to how often, and one example.
    families: BTreeMap<&'static str, (usize, String)>,
    /// Differences that no family explains.
    unexplained: Vec<String>,
    domains: usize,
    undocumented: Vec<String>,
}

impl Table {
    /// Compares one domain.
    fn add(&mut self, answer: &Answer, tool: &Path, host: &Path) -> Result<()> {
        let output = Command::new(tool).arg("--root").arg(host).arg(&answer.path).output()?;
        let ours = ours(&output).with_context(|| format!("aa-derive, of {}", answer.file))?;
        self.compare(answer, ours);
        Ok(())
    }

    /// Compares with what ours answers: the record, or why there is none.
    fn compare(&mut self, answer: &Answer, ours: Result<Derived, String>) {
        self.domains += 1;
        match (ours, answer.accepted) {
            (Err(_), false) => self.same_refusals += 1,
            (Err(errors), true) => {
                self.explain(families::refusal_of_ours(&errors), &answer.file, errors.trim_end());
            }
            (Ok(record), false) => self.explain(
                families::refusal_of_theirs(&answer.errors, &record),
                &answer.file,
                &format!("the original refuses: {}", answer.errors.join(", ")),
            ),
            (Ok(record), true) => self.rules(answer, &record),
        }
    }

    fn rules(&mut self, answer: &Answer, record: &Derived) {
        let mut ours: BTreeMap<String, BTreeSet<char>> = BTreeMap::new();
        for rule in record.rules().iter().filter(|rule| !rule.deny) {
            ours.insert(rule.target.to_string(), rule.access.to_string().chars().collect());
        }
        for (pattern, letters) in &answer.grants {
            match ours.get(pattern) {
                Some(granted) if granted.is_superset(letters) => self.same_rules += 1,
                granted => {
                    let family = families::narrower(pattern, granted.is_some(), record);
                    self.explain(
                        family,
                        &answer.file,
                        &format!("only the original grants {pattern} {}", letters.iter().collect::<String>()),
                    );
                }
            }
        }
        for rule in record.rules().iter().filter(|rule| !rule.deny) {
            let pattern = match &rule.target {
                Target::Path(path) => path.as_str(),
                Target::Glob(glob) => glob.as_str(),
            };
            let letters: BTreeSet<char> = rule.access.to_string().chars().collect();
            let theirs: BTreeSet<char> = answer
                .grants
                .iter()
                .filter(|(other, _)| other == pattern)
                .flat_map(|(_, letters)| letters.clone())
                .collect();
            if !letters.is_subset(&theirs) {
                let family = families::wider(rule, !theirs.is_empty());
                self.explain(family, &answer.file, &format!("only ours grants {pattern} {}", rule.access));
            }
        }
    }

    fn explain(&mut self, family: Option<&'static str>, file: &str, what: &str) {
        match family {
            Some(family) => {
                self.families.entry(family).or_insert_with(|| (0, format!("{file}: {what}"))).0 += 1;
            }
            None => self.unexplained.push(format!("{file}: {what}")),
        }
    }

    /// Every family stands in the document as a heading, and every such heading is a family.
    fn check_document(&mut self, document: &Path) -> Result<()> {
        let text = std::fs::read_to_string(document).with_context(|| document.display().to_string())?;
        let named: BTreeSet<&str> =
            text.lines().filter_map(|line| line.strip_prefix("### `")?.strip_suffix('`')).collect();
        let known: BTreeSet<&str> = families::names().collect();
        self.undocumented = named
            .symmetric_difference(&known)
            .map(|name| format!("docs/differences.md and the families do not agree on `{name}`"))
            .collect();
        Ok(())
    }

    fn print(&self) -> Result<Tally> {
        say!(
            "{} domains; {} rules and {} refusals are the same",
            self.domains,
            self.same_rules,
            self.same_refusals
        )?;
        say!("{:<24} {:>6}  for example", "family", "times")?;
        for (family, (count, example)) in &self.families {
            say!("{family:<24} {count:>6}  {}", example.lines().next().unwrap_or_default())?;
        }
        for difference in self.unexplained.iter().chain(&self.undocumented) {
            say!("UNEXPLAINED {difference}")?;
        }
        let mut tally = Tally::default();
        tally.count(self.unexplained.is_empty());
        tally.count(self.undocumented.is_empty());
        tally.count(self.same_rules > 0 && self.same_refusals > 0);
        Ok(tally)
    }
}

/// What aa-derive answers: the record, or the words of its refusal. Any other end is none of both.
fn ours(output: &Output) -> Result<Result<Derived, String>> {
    let line = std::str::from_utf8(&output.stdout)?.trim_end();
    let errors = String::from_utf8_lossy(&output.stderr);
    match (output.status.code(), line) {
        (Some(0), line) => Ok(Ok(aa_contract::record::parse_line(line)?)),
        (Some(1), "") => Ok(Err(errors.into_owned())),
        _ => bail!("{} with {} bytes of output: {}", output.status, line.len(), errors.trim_end()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refusal_counts_as_one() {
        let ended = |script: &str| ours(&Command::new("sh").args(["-c", script]).output().unwrap());
        assert_eq!(ended("echo no >&2; exit 1").unwrap().unwrap_err(), "no\n");
        for script in ["", "exit 2", "exit 3", "kill -ABRT $$", "echo half; exit 1", "echo no record"] {
            assert!(ended(script).is_err(), "{script}");
        }
    }
}
