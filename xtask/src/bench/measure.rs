//! Timing whole processes, two ways of one piece of work in turn.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Seek as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use nix::sys::resource::UsageWho;
use serde::{Deserialize, Serialize};

use crate::process;

/// What one run took, in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Took {
    /// From before the first start to after the last end.
    pub(crate) wall: f64,
    /// Of all processors, in user and in kernel mode. On a busy machine it says more; where several cores work at once, less.
    pub(crate) cpu: f64,
}

impl std::ops::AddAssign for Took {
    fn add_assign(&mut self, other: Self) {
        self.wall += other.wall;
        self.cpu += other.cpu;
    }
}

/// All runs of one piece of work.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Sample(Vec<Took>);

impl Sample {
    pub(crate) fn push(&mut self, took: Took) {
        self.0.push(took);
    }

    /// The median; not a number if nothing was run.
    pub(crate) fn wall(&self) -> f64 {
        self.quantile(2, |took| took.wall)
    }

    pub(crate) fn cpu(&self) -> f64 {
        self.quantile(2, |took| took.cpu)
    }

    /// The quarters: a quarter of the runs took less than the first, a quarter more than the second.
    pub(crate) fn quartiles(&self) -> (f64, f64) {
        (self.quantile(1, |took| took.wall), self.quantile(3, |took| took.wall))
    }

    /// What was taken at so many quarters of the way.
    fn quantile(&self, quarters: usize, of: impl Fn(&Took) -> f64) -> f64 {
        let mut all: Vec<f64> = self.0.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        all.get(all.len().saturating_sub(1) * quarters / 4).copied().unwrap_or(f64::NAN)
    }
}

/// Seconds that processors have run everything that this process has started and that has ended.
fn cpu_of_children() -> Result<f64> {
    Ok(process::processor_time(UsageWho::RUSAGE_CHILDREN)?.as_secs_f64())
}

/// Programs that stand in one pipe.
#[derive(Debug, Clone)]
pub(crate) struct Pipe {
    programs: Vec<Vec<OsString>>,
    input: Option<PathBuf>,
}

impl Pipe {
    /// One program, and what it reads.
    pub(crate) fn program<S: Into<OsString>>(words: impl IntoIterator<Item = S>) -> Self {
        Self { programs: vec![words.into_iter().map(Into::into).collect()], input: None }
    }

    pub(crate) fn reads(mut self, input: impl Into<PathBuf>) -> Self {
        self.input = Some(input.into());
        self
    }

    /// What reads the output of the last one.
    pub(crate) fn into<S: Into<OsString>>(mut self, words: impl IntoIterator<Item = S>) -> Self {
        self.programs.push(words.into_iter().map(Into::into).collect());
        self
    }

    /// Each program under GNU time, which is small: a program's peak counts from before its exec, and so would begin
    /// with that of whoever starts it. The peaks are written to `name`.0 and so on.
    fn with_peaks(&self, name: &Path) -> Self {
        let mut pipe = self.clone();
        for (number, words) in pipe.programs.iter_mut().enumerate() {
            let mut report = name.as_os_str().to_owned();
            report.push(format!(".{number}"));
            let mut time: Vec<OsString> =
                vec!["/usr/bin/time".into(), "-f".into(), "%M".into(), "-o".into(), report];
            time.append(words);
            *words = time;
        }
        pipe
    }

    /// Runs it to its end. The environment is empty, as for the helper of libvirtd.
    ///
    /// # Errors
    /// A program cannot be started or ends with another status than 0: then there is nothing to measure.
    fn run(&self, errors: &mut File) -> Result<Took> {
        let mut input = match &self.input {
            Some(path) => File::open(path).with_context(|| path.display().to_string())?.into(),
            None => Stdio::null(),
        };
        let mut children: Vec<Child> = Vec::with_capacity(self.programs.len());
        let cpu = cpu_of_children()?;
        let started = Instant::now();
        for (number, words) in self.programs.iter().enumerate() {
            let (program, args) = words.split_first().context("a pipe of nothing")?;
            let is_last = number + 1 == self.programs.len();
            let mut command = Command::new(program);
            command.args(args).env_clear().stdin(input).stderr(errors.try_clone()?);
            command.stdout(if is_last { Stdio::null() } else { Stdio::piped() });
            let mut child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
            input = child.stdout.take().map_or_else(Stdio::null, Stdio::from);
            children.push(child);
        }
        let mut failed = None;
        for child in &mut children {
            let status = child.wait()?;
            failed = failed.or_else(|| (!status.success()).then_some(status));
        }
        let wall = started.elapsed().as_secs_f64();
        match failed {
            None => Ok(Took { wall, cpu: cpu_of_children()? - cpu }),
            Some(status) => bail!("{status}: {:?}", self.programs),
        }
    }
}

/// One way of doing a piece of work: how the host is made ready, which takes no time, and what is run, one pipe
/// after another.
pub(crate) struct Way<'a> {
    pub(crate) before: Box<dyn Fn() -> Result<()> + 'a>,
    pub(crate) pipes: Vec<Pipe>,
}

impl<'a> Way<'a> {
    pub(crate) fn new(before: impl Fn() -> Result<()> + 'a, pipes: impl Into<Vec<Pipe>>) -> Self {
        Self { before: Box::new(before), pipes: pipes.into() }
    }

    pub(crate) fn plain(pipe: Pipe) -> Self {
        Self::new(|| Ok(()), [pipe])
    }
}

/// Runs ways of doing things and takes the time.
pub(crate) struct Bench {
    /// What programs write on standard error, for the case that one fails.
    errors: File,
    path: PathBuf,
}

impl Bench {
    pub(crate) fn new(dir: &Path) -> Result<Self> {
        let path = dir.join("errors");
        let errors = File::options().create(true).append(true).open(&path)?;
        Ok(Self { errors, path })
    }

    /// Does it once, with the time of all its pipes.
    pub(crate) fn once(&mut self, way: &Way<'_>) -> Result<Took> {
        (way.before)()?;
        self.errors.set_len(0)?;
        self.errors.rewind()?;
        let mut took = Took::default();
        for pipe in &way.pipes {
            took += pipe.run(&mut self.errors).with_context(|| {
                let text = fs::read_to_string(&self.path).unwrap_or_default();
                text.lines().rev().take(5).collect::<Vec<_>>().join("; ")
            })?;
        }
        Ok(took)
    }

    /// Does each once without counting it, then all of them in turn, so that what else the machine does meets them
    /// alike.
    pub(crate) fn in_turn<const N: usize>(
        &mut self,
        rounds: usize,
        ways: &[Way<'_>; N],
    ) -> Result<[Sample; N]> {
        let mut samples = [const { Sample(Vec::new()) }; N];
        for round in 0..=rounds {
            for (way, sample) in ways.iter().zip(&mut samples) {
                let took = self.once(way)?;
                if round > 0 {
                    sample.push(took);
                }
            }
        }
        Ok(samples)
    }

    /// What a pipe took, and the peak of resident memory of each of its programs, in KiB.
    pub(crate) fn peaks(&mut self, pipe: &Pipe) -> Result<(Took, Vec<u64>)> {
        let name = self.path.with_extension("peak");
        let took = pipe.with_peaks(&name).run(&mut self.errors)?;
        let peaks: Result<Vec<u64>> = (0..pipe.programs.len())
            .map(|number| {
                let text = fs::read_to_string(format!("{}.{number}", name.display()))?;
                text.trim().parse().with_context(|| format!("GNU time wrote {text:?}"))
            })
            .collect();
        Ok((took, peaks?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_and_the_quartiles_are_those_of_the_sorted_times() {
        let mut sample = Sample::default();
        for time in [5.0, 1.0, 4.0, 2.0, 3.0] {
            sample.push(Took { wall: time, cpu: -time });
        }
        assert!((sample.wall() - 3.0).abs() < 1e-9 && (sample.cpu() + 3.0).abs() < 1e-9);
        let (low, high) = sample.quartiles();
        assert!((low - 2.0).abs() < 1e-9 && (high - 4.0).abs() < 1e-9);
        assert!(Sample::default().wall().is_nan());
    }

    #[test]
    fn a_program_that_fails_is_no_measurement() {
        let dir = tempfile::tempdir().unwrap();
        let mut bench = Bench::new(dir.path()).unwrap();
        let pipe = |script: &str| Pipe::program(["/bin/sh", "-c", script]);
        let error = bench.once(&Way::plain(pipe("echo because >&2; exit 3").into(["/bin/true"])));
        assert!(format!("{:#}", error.unwrap_err()).contains("because"));
        let took =
            bench.once(&Way::plain(pipe("echo x").into(["/bin/sh", "-c", "read x; test $x = x"]))).unwrap();
        assert!(took.wall > 0.0 && took.cpu >= 0.0);
    }
}
