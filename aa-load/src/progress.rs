//! What a person sees of a long run: a line that is written over while it goes, and what was done at the end.

use std::io::{self, IsTerminal, LineWriter, Write};
use std::time::{Duration, Instant};

use aa_contract::Action;
use aa_load::args::Args;

/// A run that is shorter needs no line.
const PATIENCE: Duration = Duration::from_millis(500);
/// Between two lines.
const PAUSE: Duration = Duration::from_millis(100);

/// Counts, and tells them.
#[derive(Debug)]
pub(crate) struct Progress<W> {
    out: W,
    /// Somebody looks at standard error, and nothing else is written there.
    live: bool,
    summary: bool,
    started: Instant,
    next: Instant,
    /// The line stands there and must be written over.
    shown: bool,
    counts: [(&'static str, u64); 5],
}

impl Progress<LineWriter<io::Stderr>> {
    /// For a run with these arguments.
    pub(crate) fn new(out: io::Stderr, args: &Args) -> Self {
        let watched = out.is_terminal();
        Self::of(LineWriter::new(out), watched && !io::stdout().is_terminal(), watched || args.verbose)
    }
}

impl<W: Write> Progress<W> {
    fn of(out: W, live: bool, summary: bool) -> Self {
        let started = Instant::now();
        let counts = ["added", "replaced", "unchanged", "removed", "failed"].map(|word| (word, 0));
        Self { out, live, summary, started, next: started + PATIENCE, shown: false, counts }
    }

    /// One profile more is done; none is one that failed.
    pub(crate) fn count(&mut self, done: Option<Action>) -> io::Result<()> {
        let at = match done {
            Some(Action::Added) => 0,
            Some(Action::Replaced) => 1,
            Some(Action::Unchanged) => 2,
            Some(Action::Removed) => 3,
            None => 4,
        };
        if let Some((_, count)) = self.counts.get_mut(at) {
            *count += 1;
        }
        let now = Instant::now();
        if !self.live || now < self.next {
            return Ok(());
        }
        self.next = now + PAUSE;
        self.shown = true;
        let text = self.text();
        write!(self.out, "\r\x1b[Kaa-load: {text}")?;
        self.out.flush()
    }

    /// A line of its own.
    pub(crate) fn line(&mut self, text: &str) -> io::Result<()> {
        self.clear()?;
        writeln!(self.out, "{text}")
    }

    /// Everything is done.
    pub(crate) fn end(&mut self) -> io::Result<()> {
        self.clear()?;
        if !self.summary || self.many() < 2 {
            return Ok(());
        }
        writeln!(self.out, "aa-load: {} in {:.1} s", self.text(), self.started.elapsed().as_secs_f64())
    }

    fn clear(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.shown) { write!(self.out, "\r\x1b[K") } else { Ok(()) }
    }

    fn many(&self) -> u64 {
        self.counts.iter().map(|(_, count)| count).sum()
    }

    fn text(&self) -> String {
        let counts: Vec<String> = self
            .counts
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(word, count)| format!("{count} {word}"))
            .collect();
        format!("{} profiles: {}", self.many(), counts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_terminal_sees_the_line_and_it_is_gone_before_others() {
        let run = |live| {
            let mut progress = Progress::of(Vec::new(), live, true);
            progress.count(Some(Action::Added)).unwrap();
            assert!(progress.out.is_empty(), "nobody waits for that");
            progress.next = Instant::now();
            progress.count(Some(Action::Added)).unwrap();
            progress.count(None).unwrap();
            progress.line("bad").unwrap();
            progress.end().unwrap();
            String::from_utf8(progress.out).unwrap()
        };
        let live = run(true);
        assert!(
            live.starts_with("\r\x1b[Kaa-load: 2 profiles: 2 added\r\x1b[Kbad\naa-load: 3 profiles"),
            "{live:?}"
        );
        let quiet = run(false);
        assert!(
            quiet.starts_with("bad\naa-load: 3 profiles: 2 added, 1 failed in ") && !quiet.contains('\r'),
            "{quiet:?}"
        );
    }

    #[test]
    fn one_profile_is_no_crowd() {
        let mut progress = Progress::of(Vec::new(), true, true);
        progress.count(Some(Action::Removed)).unwrap();
        progress.end().unwrap();
        assert!(progress.out.is_empty());
    }
}
