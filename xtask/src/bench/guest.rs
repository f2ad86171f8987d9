//! What needs a kernel with AppArmor: measured in guests, by tests/guest/bench.steps.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::host::Measured;
use super::measure::Took;
use super::work;
use crate::guest::boot::{Boot, Ending};
use crate::guest::results::Record;
use crate::guest::{Suite, image};
use crate::report::say;
use crate::workspace;

const LIMIT: Duration = Duration::from_secs(12 * 60);
/// How often each thing is done, and how many guests «many» are, under emulation.
const ROUNDS: usize = 3;
const MANY: usize = 10;

/// Boots a guest of the suite and takes the times that it reports.
pub(super) fn measure(suite: Suite, tools: &Path) -> Result<Measured> {
    say!("Booting a guest of Debian {} …", suite.name())?;
    let image = image::image(suite, false)?;
    let tests = workspace::root()?.join("tests/guest");
    let dir = workspace::scratch("guest/bench")?.join(suite.name());
    let boot = Boot {
        image: &image,
        dir: &dir,
        tests: &tests,
        tools,
        installed: true,
        more: &[],
        append: &format!("apparmor=1 aa.run=run-bench aa.rounds={ROUNDS} aa.many={MANY}"),
        parallel: true,
        limit: LIMIT,
    };
    let mut measured = Measured { many: MANY, ..Measured::default() };
    let ending = boot.run(|record| {
        if let Record::Line(line) = record
            && !take(&mut measured, &line)?
        {
            say!("    {line}")?;
        }
        Ok(())
    })?;
    match ending {
        Ending::Exit(0) => Ok(measured),
        other => bail!("the guest of {} ended so: {other:?}; see {}", suite.name(), dir.display()),
    }
}

/// Takes one line of the script: `bench WORK ours|theirs MICROSECONDS` or `fact NAME: VALUE`; any other is for people.
fn take(measured: &mut Measured, line: &str) -> Result<bool> {
    if let Some(fact) = line.strip_prefix("fact ") {
        let (name, value) = fact.split_once(": ").with_context(|| line.to_owned())?;
        measured.facts.push((name.to_owned(), value.to_owned()));
        return Ok(true);
    }
    let Some(rest) = line.strip_prefix("bench ") else { return Ok(false) };
    let words: Vec<&str> = rest.split(' ').collect();
    let [id, side, micros] = words.as_slice() else { bail!("the guest says: {line}") };
    if work::find(id).is_none() {
        bail!("the guest measures what nobody knows: {line}");
    }
    let wall = Duration::from_micros(micros.parse().with_context(|| line.to_owned())?).as_secs_f64();
    let samples = measured.pairs.entry((*id).to_owned()).or_default();
    let [ours, theirs] = samples;
    match *side {
        "ours" => ours,
        "theirs" => theirs,
        _ => bail!("the guest says: {line}"),
    }
    .push(Took { wall, cpu: f64::NAN });
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_script_become_samples() {
        let mut measured = Measured::default();
        for line in ["bench unload ours 2000", "bench unload theirs 9000", "fact kernel: 6.1 of: Debian"] {
            assert!(take(&mut measured, line).unwrap(), "{line}");
        }
        assert!(!take(&mut measured, "words for people").unwrap());
        let [ours, theirs] = &measured.pairs["unload"];
        assert!((theirs.wall() / ours.wall() - 4.5).abs() < 1e-9);
        assert_eq!(measured.facts, [("kernel".to_owned(), "6.1 of: Debian".to_owned())]);
        for line in
            ["bench unload ours", "bench unload mine 5", "bench nothing ours 5", "bench unload ours x"]
        {
            assert!(take(&mut measured, line).is_err(), "{line}");
        }
    }
}
