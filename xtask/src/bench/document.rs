//! docs/performance.md: what people wrote, in the template, and the tables between.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::host::{Growth, Measured, Point};
use super::measure::Sample;
use super::work;
use crate::process;

const TEMPLATE: &str = include_str!("performance.md");

/// The whole text.
pub(super) fn text(
    host: &Measured,
    guests: &[(String, Measured)],
    facts: &[(String, String)],
) -> Result<String> {
    let mut tables = String::new();
    if guests.is_empty() {
        tables.push_str("Not measured this time.\n");
    }
    for (name, guest) in guests {
        let _ = write!(tables, "### {name}\n\n{}\n{}\n", list(&guest.facts), pairs(guest, Why::Emulation));
    }
    fill(
        TEMPLATE,
        &[
            ("facts", list(facts)),
            ("host", pairs(host, Why::Told)),
            ("starts", starts(host)),
            ("memory", memory(host)),
            ("growth", host.growth.iter().map(growth).collect()),
            ("guests", tables),
        ],
    )
}

/// Puts texts in the places that the template has for them: one line `{{name}}` each, all of them, once.
fn fill(template: &str, places: &[(&str, String)]) -> Result<String> {
    let mut text = template.to_owned();
    for (name, part) in places {
        let place = format!("{{{{{name}}}}}\n");
        if text.matches(&place).count() != 1 {
            bail!("the template has not one place for {name}");
        }
        text = text.replace(&place, part);
    }
    if text.contains("{{") {
        bail!("the template has a place for something unknown");
    }
    Ok(text)
}

fn list(facts: &[(String, String)]) -> String {
    facts.iter().fold(String::new(), |text, (name, value)| text + &format!("- {name}: {value}\n"))
}

/// What is said where a ratio is not reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// The reason.
    Told,
    /// That it is so; the reason is the place, as the text before it says.
    Emulation,
}

/// The table of a place, and below it what is not reached.
pub(super) fn pairs(measured: &Measured, why: Why) -> String {
    let mut text = "| work | ours | against | theirs | times faster | by processor time | at least (aim) |\n\
                    |---|--:|---|--:|--:|--:|--:|\n"
        .to_owned();
    let mut missed = String::new();
    for work in work::ALL {
        let Some([ours, theirs]) = measured.pairs.get(work.id) else { continue };
        let times = theirs.wall() / ours.wall();
        let wanted = match (work.at_least, work.aim) {
            (Some(least), Some(aim)) => format!("{least} ({aim})"),
            (Some(least), None) => format!("{least}"),
            _ => String::new(),
        };
        // Writing to a String does not fail.
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | **{}** | {} | {wanted} |",
            work.what.replace("MANY", &measured.many.to_string()),
            time(ours),
            work.against,
            time(theirs),
            ratio(times),
            ratio(theirs.cpu() / ours.cpu()),
        );
        if work.at_least.is_some_and(|least| times < least) {
            let what = work.what.replace("MANY", &measured.many.to_string());
            let why = if why == Why::Told { work.why } else { "" };
            let _ = writeln!(missed, "{}", format!("- Not reached: {what}. {why}").trim_end());
        }
    }
    if !missed.is_empty() {
        text.push('\n');
        text.push_str(&missed);
    }
    text
}

/// The median and, where it was run often, the quartiles.
fn time(sample: &Sample) -> String {
    let (low, high) = sample.quartiles();
    let median = sample.wall();
    if (high - low) / median < 0.005 {
        short(median)
    } else {
        format!("{} ({}–{})", short(median), short(low), short(high))
    }
}

fn short(seconds: f64) -> String {
    let millis = seconds * 1e3;
    if millis >= 10_000.0 {
        format!("{seconds:.1} s")
    } else if millis >= 100.0 {
        format!("{millis:.0} ms")
    } else if millis >= 10.0 {
        format!("{millis:.1} ms")
    } else {
        format!("{millis:.2} ms")
    }
}

fn ratio(times: f64) -> String {
    if !times.is_finite() {
        String::new()
    } else if times >= 20.0 {
        format!("{times:.0}")
    } else {
        format!("{times:.1}")
    }
}

fn starts(measured: &Measured) -> String {
    let mut text = "| program | time | more than `/bin/true` |\n|---|--:|--:|\n".to_owned();
    for (name, [sample, floor]) in &measured.starts {
        let _ = writeln!(
            text,
            "| `{name} --help` | {} | {} |",
            time(sample),
            short(sample.wall() - floor.wall())
        );
    }
    text
}

fn memory(measured: &Measured) -> String {
    let mut text = "| work | peak of each program of the pipe |\n|---|--:|\n".to_owned();
    for (what, peaks) in &measured.memory {
        let peaks: Vec<String> = peaks.iter().map(|kib| mib(*kib)).collect();
        let _ = writeln!(text, "| {what} | {} |", peaks.join(", "));
    }
    text
}

fn mib(kib: u64) -> String {
    format!("{}.{} MiB", kib / 1024, kib % 1024 * 10 / 1024)
}

fn growth(growth: &Growth) -> String {
    let mut text = format!(
        "### {}\n\n![{}](performance-{}.svg)\n\n| {} |",
        growth.title, growth.title, growth.id, growth.along
    );
    for (name, _) in &growth.curves {
        let _ = write!(text, " {name} | each | peak |");
    }
    text.push_str("\n|--:|");
    text.push_str(&"--:|--:|--:|".repeat(growth.curves.len()));
    text.push('\n');
    let counts = growth.curves.first().map(|(_, points)| points.as_slice()).unwrap_or_default();
    for (row, Point { count, .. }) in counts.iter().enumerate() {
        let _ = write!(text, "| {count} |");
        for (_, points) in &growth.curves {
            if let Some(point) = points.get(row) {
                let each = point.seconds / f64::from(u32::try_from(point.count).unwrap_or(u32::MAX));
                let _ = write!(
                    text,
                    " {} | {} | {} |",
                    short(point.seconds),
                    short(each),
                    point.peak.map(mib).unwrap_or_default()
                );
            }
        }
        text.push('\n');
    }
    text.push('\n');
    text
}

/// What the machine is, and when this was.
pub(super) fn facts(command: &str) -> Result<Vec<(String, String)>> {
    let run = |words: &[&str]| -> Result<String> {
        let (program, args) = words.split_first().context("no program")?;
        Ok(String::from_utf8_lossy(&process::output(Command::new(program).args(args))?).trim().to_owned())
    };
    let cpu = std::fs::read_to_string("/proc/cpuinfo")?;
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown");
    let cores = std::thread::available_parallelism()?;
    let load = std::fs::read_to_string("/proc/loadavg")?;
    let root = crate::workspace::root()?;
    let commit =
        run(&["git", "-C", root.to_str().context("the root is not UTF-8")?, "rev-parse", "--short", "HEAD"]);
    let fact = |name: &str, value: String| (name.to_owned(), value);
    Ok(vec![
        fact("command", format!("`{command}`")),
        fact("date", run(&["date", "--utc", "+%Y-%m-%d %H:%M UTC"])?),
        fact(
            "aa-svirt",
            format!("{} ({})", env!("CARGO_PKG_VERSION"), commit.unwrap_or_else(|_| "no commit".into())),
        ),
        fact("processor", format!("{}, {cores} cores", model.trim_start_matches([':', ' ', '\t']))),
        fact("load before", load.split(' ').next().unwrap_or_default().to_owned()),
        fact("Linux", run(&["uname", "-r"])?),
        fact("apparmor_parser", parser_version(&run(&["/usr/sbin/apparmor_parser", "--version"])?)),
        fact("libvirt", run(&["dpkg-query", "--show", "--showformat=${Version}", "libvirt0"])?),
    ])
}

fn parser_version(text: &str) -> String {
    text.lines().next().and_then(|line| line.rsplit(' ').next()).unwrap_or_default().to_owned()
}

/// Writes the text and draws the curves.
pub(super) fn write(docs: &Path, text: &str, host: &Measured) -> Result<()> {
    for growth in &host.growth {
        super::plot::draw(&docs.join(format!("performance-{}.svg", growth.id)), growth)?;
    }
    let path = docs.join("performance.md");
    std::fs::write(&path, text).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::super::measure::Took;
    use super::*;

    #[test]
    fn every_place_is_filled_and_none_is_left() {
        assert_eq!(fill("a\n{{x}}\nb\n", &[("x", "1\n".into())]).unwrap(), "a\n1\nb\n");
        for template in ["a\n", "{{x}}\n{{x}}\n", "{{x}}\n{{y}}\n"] {
            assert!(fill(template, &[("x", String::new())]).is_err(), "{template}");
        }
        // The real one.
        assert!(text(&Measured::default(), &[], &[]).is_ok());
    }

    #[test]
    fn a_ratio_that_is_not_reached_is_named() {
        let sample = |wall| {
            let mut sample = Sample::default();
            sample.push(Took { wall, cpu: wall });
            sample
        };
        let mut measured = Measured::default();
        measured.pairs.insert("unload".into(), [sample(0.001), sample(0.1)]);
        assert!(!pairs(&measured, Why::Told).contains("Not reached"));
        assert!(pairs(&measured, Why::Told).contains("| **100** |"));
        measured.pairs.insert("restart".into(), [sample(0.01), sample(0.1)]);
        assert!(pairs(&measured, Why::Told).contains("Not reached: restart"));
    }
}
