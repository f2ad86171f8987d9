//! What tasks say to the person or the log that reads them.

use std::fmt;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::Result;

/// How a task that ran to its end came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Passed,
    Failed,
}

impl Outcome {
    pub(crate) fn of(passed: bool) -> Self {
        if passed { Self::Passed } else { Self::Failed }
    }
}

/// How many checks passed and failed, and what was not checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    /// What this machine lacks the means to check: each with the reason.
    pub(crate) skipped: Vec<String>,
}

impl Tally {
    /// Of one check.
    pub(crate) fn of(passed: bool) -> Self {
        Self { passed: usize::from(passed), failed: usize::from(!passed), ..Self::default() }
    }

    /// To be told at the end, where it is not overlooked.
    pub(crate) fn skip(&mut self, what_and_why: &str) {
        self.skipped.push(what_and_why.to_owned());
    }

    pub(crate) fn count(&mut self, passed: bool) {
        if passed {
            self.passed += 1;
        } else {
            self.failed += 1;
        }
    }

    /// Nothing failed, and something ran: no check at all is not a success.
    pub(crate) fn outcome(&self) -> Outcome {
        Outcome::of(self.failed == 0 && self.passed > 0)
    }
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped.extend(other.skipped);
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if !self.skipped.is_empty() {
            write!(f, ", {} skipped ({})", self.skipped.len(), self.skipped.join("; "))?;
        }
        Ok(())
    }
}

/// Writes a line to standard output: `say!("{x}")?`.
macro_rules! say {
    ($($arg:tt)*) => { $crate::report::line(format_args!($($arg)*)) };
}
pub(crate) use say;

/// Writes one line to standard output, at once.
pub(crate) fn line(text: fmt::Arguments<'_>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

/// Runs checks, and says how they came out and how long they took. What cannot be run at all is a failure, so that the
/// others are still run.
pub(crate) fn timed(name: &str, run: impl FnOnce() -> Result<Tally>) -> Result<Tally> {
    let started = Instant::now();
    let tally = match run() {
        Ok(tally) => tally,
        Err(error) => {
            say!("{name}: {error:#}")?;
            Tally::of(false)
        }
    };
    say!("{name}: {tally} in {} s", started.elapsed().as_secs())?;
    Ok(tally)
}

/// Runs the checks of each item, so many at once, and adds them up.
pub(crate) fn side_by_side<T: Sync>(
    items: &[T],
    at_once: usize,
    run: impl Fn(&T) -> Result<Tally> + Sync,
) -> Result<Tally> {
    let next = AtomicUsize::new(0);
    let work = || -> Result<Tally> {
        let mut tally = Tally::default();
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            tally += run(item)?;
        }
        Ok(tally)
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..at_once).map(|_| scope.spawn(work)).collect();
        let mut sum = Tally::default();
        for thread in threads {
            sum += thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        Ok(sum)
    })
}

/// Writes an error and its causes to standard error.
pub(crate) fn error(error: &anyhow::Error) {
    // Nobody is left to tell when standard error itself is gone.
    let _gone = writeln!(io::stderr().lock(), "xtask: {error:#}");
}

/// A word in green or red, plain where standard output is not a terminal.
pub(crate) fn verdict(good: bool, word: &str) -> String {
    if io::stdout().is_terminal() {
        let colour = if good { 32 } else { 31 };
        format!("\x1b[{colour}m{word}\x1b[0m")
    } else {
        word.to_owned()
    }
}

/// Text in bold, plain where standard output is not a terminal.
pub(crate) fn bold(text: &str) -> String {
    if io::stdout().is_terminal() { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn each_item_is_run_once_however_many_at_once() {
        let items: Vec<usize> = (0..20).collect();
        for at_once in [1, 2, 30] {
            let run = Mutex::new(Vec::new());
            let tally = side_by_side(&items, at_once, |item| {
                run.lock().unwrap().push(*item);
                Ok(Tally::of(item % 5 != 0))
            });
            assert_eq!(tally.unwrap(), Tally { passed: 16, failed: 4, ..Tally::default() });
            let mut run = run.into_inner().unwrap();
            run.sort_unstable();
            assert_eq!(run, items);
        }
        let failing =
            side_by_side(
                &items,
                2,
                |item| if *item == 7 { anyhow::bail!("7") } else { Ok(Tally::default()) },
            );
        assert_eq!(failing.unwrap_err().to_string(), "7");
    }

    #[test]
    fn what_is_skipped_is_told_and_is_no_success() {
        let mut tally = Tally::default();
        tally.skip("a: there is no b");
        assert_eq!(tally.outcome(), Outcome::Failed);
        tally += Tally::of(true);
        assert_eq!(tally.outcome(), Outcome::Passed);
        assert_eq!(tally.to_string(), "1 passed, 0 failed, 1 skipped (a: there is no b)");
    }
}
