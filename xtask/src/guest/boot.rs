//! Booting an image once, with tools and scripts beside it, and reading what it reports.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read as _, Seek as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use walkdir::WalkDir;

use super::cpio::{Attributes, Writer};
use super::image::Image;
use super::results::Record;
use crate::dist;
use crate::report::say;

/// A guest that reports nothing for so long hangs: no case may take longer (`case_timeout` in tests/guest).
const SILENCE: Duration = Duration::from_secs(15 * 60);

/// What one boot runs.
#[derive(Debug)]
pub(crate) struct Boot<'a> {
    pub(crate) image: &'a Image,
    /// Directory for the archive, the console's log and the results; made anew.
    pub(crate) dir: &'a Path,
    /// The directory tests/guest: it becomes /tests, and its `init` the guest's.
    pub(crate) tests: &'a Path,
    /// Where the built tools are; they and all that belongs to them are put where packages install them.
    pub(crate) tools: &'a Path,
    /// If not, the guest has the archive of them in root's home, for a case to install.
    pub(crate) installed: bool,
    /// More files: what they are, and where they go.
    pub(crate) more: &'a [(PathBuf, &'static str)],
    /// More for the kernel's command line.
    pub(crate) append: &'a str,
    /// Whether its two processors have a thread of the host each. That is how a machine is, but an emulated one then may
    /// run what its kernel has just patched in its own text as it was before, and die of a breakpoint: soon, where
    /// KVM guests within it come and go.
    pub(crate) parallel: bool,
    /// After this the guest is ended, whatever it reports.
    pub(crate) limit: Duration,
}

/// How a boot ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The guest reported this status.
    Exit(i32),
    /// The guest ended without a status: its kernel panicked, or QEMU failed.
    Died,
    /// The limit was reached, or the guest reported nothing for too long.
    Hung,
}

impl Boot<'_> {
    /// Boots, and gives each record to `seen` as it comes.
    ///
    /// # Errors
    /// A file cannot be read or written, or QEMU cannot be started.
    pub(crate) fn run(&self, mut seen: impl FnMut(Record) -> Result<()>) -> Result<Ending> {
        let _alone = self.alone()?;
        if self.dir.exists() {
            fs::remove_dir_all(self.dir)?;
        }
        fs::create_dir_all(self.dir)?;
        let initrd = self.dir.join("initrd");
        self.pack(&initrd)?;
        let results = self.dir.join("results.log");
        File::create(&results)?;
        let mut guest = Guest(self.command(&initrd).spawn().context("cannot start qemu-system-x86_64")?);
        let ending = follow(&mut guest.0, &results, SILENCE, self.limit, &mut seen);
        drop(guest);
        fs::remove_file(initrd)?;
        ending
    }

    /// Waits until no other task has a guest in the same directory; holds while the value lives.
    fn alone(&self) -> Result<File> {
        let path = self.dir.with_extension("lock");
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let lock = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
        if lock.try_lock().is_err() {
            say!("waiting for another task's guest in {}", self.dir.display())?;
            lock.lock()?;
        }
        Ok(lock)
    }

    fn command(&self, initrd: &Path) -> Command {
        // Not KVM: where it opens and then fails, QEMU aborts instead of trying the next accelerator.
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args([
            "-accel",
            if self.parallel { "tcg,thread=multi" } else { "tcg,thread=single" },
            "-cpu",
            "max",
            "-machine",
            "q35",
            "-smp",
            "2",
            "-m",
            "2048",
        ]);
        qemu.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]);
        // What the guest's own guests are given: a PCI device behind an IOMMU, two devices on USB.
        for device in [
            "intel-iommu,intremap=off",
            "pci-testdev,addr=10",
            "qemu-xhci,id=usb",
            "usb-kbd,bus=usb.0",
            "usb-tablet,bus=usb.0",
        ] {
            qemu.args(["-device", device]);
        }
        qemu.arg("-serial").arg(format!("file:{}", self.dir.join("console.log").display()));
        qemu.arg("-serial").arg(format!("file:{}", self.dir.join("results.log").display()));
        qemu.arg("-kernel").arg(&self.image.kernel).arg("-initrd").arg(initrd);
        // A log that wrapped around would hide what was denied.
        let kernel = "console=ttyS0 quiet panic=-1 security=apparmor log_buf_len=16M intel_iommu=on";
        qemu.arg("-append").arg(format!("{kernel} {}", self.append));
        qemu.stdin(Stdio::null());
        qemu
    }

    /// The image's archive, and after it one of our own: the kernel unpacks both.
    fn pack(&self, initrd: &Path) -> Result<()> {
        let mut out = File::create(initrd)?;
        io::copy(&mut File::open(&self.image.root)?, &mut out)?;
        let mut archive = Writer::new(BufWriter::new(out));
        let tests = [(self.tests.join("init"), "init"), (self.tests.to_owned(), "tests")];
        for (from, to) in tests.iter().chain(self.more) {
            for entry in WalkDir::new(from).sort_by_file_name() {
                let entry = entry?;
                let below = entry.path().strip_prefix(from)?;
                let path = Path::new(to).join(below);
                let path = path.to_str().context("a path is not UTF-8")?.trim_end_matches('/');
                if entry.file_type().is_dir() {
                    archive.directory(path, Attributes::root(0o755))?;
                } else {
                    let mode = entry.metadata()?.permissions().mode() & 0o777;
                    let content = fs::read(entry.path())
                        .with_context(|| format!("cannot read {}", entry.path().display()))?;
                    archive.file(path, Attributes::root(mode), &content)?;
                }
            }
        }
        let items = dist::items(self.tools)?;
        if self.installed {
            for item in items {
                archive.file(&item.path, Attributes::root(item.mode), &item.read()?)?;
            }
        } else {
            let path = format!("root/{}", dist::archive_name());
            archive.file(&path, Attributes::root(0o644), &dist::packed(&items, dist::date()?)?)?;
        }
        archive.finish()?;
        Ok(())
    }
}

/// A running QEMU that does not outlive this value.
#[derive(Debug)]
struct Guest(Child);

impl Drop for Guest {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// Hands on what a guest reports until it has ended, or has reported nothing for so long, or the limit is reached.
fn follow(
    guest: &mut Child,
    results: &Path,
    silence: Duration,
    limit: Duration,
    seen: &mut impl FnMut(Record) -> Result<()>,
) -> Result<Ending> {
    let started = Instant::now();
    let mut heard = started;
    let mut log = Tail::open(results)?;
    let mut ending = None;
    loop {
        let ended = guest.try_wait()?.is_some();
        for record in log.lines()?.iter().filter_map(|line| Record::parse(line)) {
            heard = Instant::now();
            match record {
                Record::Exit(status) => ending = Some(Ending::Exit(status)),
                record => seen(record)?,
            }
        }
        if ended {
            return Ok(ending.unwrap_or(Ending::Died));
        }
        if heard.elapsed() > silence || started.elapsed() > limit {
            return Ok(ending.unwrap_or(Ending::Hung));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Reads a growing file line by line.
#[derive(Debug)]
struct Tail {
    file: File,
    position: u64,
    rest: Vec<u8>,
}

impl Tail {
    fn open(path: &Path) -> Result<Self> {
        Ok(Self { file: File::open(path)?, position: 0, rest: Vec::new() })
    }

    /// The lines that have become whole since the last call.
    fn lines(&mut self) -> Result<Vec<String>> {
        // QEMU truncates the file when it opens it; a position of our own survives that.
        self.file.seek(io::SeekFrom::Start(self.position))?;
        let read = self.file.read_to_end(&mut self.rest)?;
        self.position += u64::try_from(read)?;
        let Some(end) = self.rest.iter().rposition(|&byte| byte == b'\n') else { return Ok(Vec::new()) };
        let whole: Vec<u8> = self.rest.drain(..=end).collect();
        Ok(String::from_utf8_lossy(&whole).lines().map(str::to_owned).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    /// How a guest ends that is this shell script, which writes to `$0`, and how many records it gave.
    fn ending(script: &str, silence: Duration, limit: Duration) -> (Ending, usize) {
        let results = tempfile::NamedTempFile::new().unwrap();
        let mut shell = Command::new("sh");
        shell.args(["-c", script]).arg(results.path());
        let mut guest = Guest(shell.spawn().unwrap());
        let mut records = 0;
        let seen = &mut |_| {
            records += 1;
            Ok(())
        };
        let ending = follow(&mut guest.0, results.path(), silence, limit, seen).unwrap();
        (ending, records)
    }

    #[test]
    fn no_case_takes_longer_than_a_guest_may_be_silent() {
        let mut found = 0;
        for file in WalkDir::new(crate::workspace::root().unwrap().join("tests/guest")) {
            let file = file.unwrap().into_path();
            let text = fs::read_to_string(&file).unwrap_or_default();
            for seconds in text.lines().filter_map(|line| line.strip_prefix("case_timeout=")) {
                assert!(Duration::from_secs(seconds.parse().unwrap()) < SILENCE, "{}", file.display());
                found += 1;
            }
        }
        assert!(found > 10, "only {found}");
    }

    #[test]
    fn a_guest_may_run_for_as_long_as_it_reports() {
        let short = Duration::from_millis(1500);
        // Three times as long as it may be silent.
        let speaks =
            "for i in 1 2 3 4 5 6 7 8 9; do echo E2E-START $i >>$0; sleep 0.5; done; echo E2E-EXIT 0 >>$0";
        assert_eq!(ending(speaks, short, LONG), (Ending::Exit(0), 9));
        let noise = "while :; do echo noise >>$0; sleep 0.1; done";
        for hangs in ["echo E2E-START a >>$0; exec sleep 60", noise] {
            assert_eq!(ending(hangs, short, LONG).0, Ending::Hung, "{hangs}");
        }
        let on_and_on = "while :; do echo E2E-START a >>$0; sleep 0.1; done";
        assert_eq!(ending(on_and_on, LONG, short).0, Ending::Hung);
        assert_eq!(ending("echo E2E-START a >>$0", short, LONG), (Ending::Died, 1));
    }
}
