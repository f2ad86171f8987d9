//! Runs `apparmor_parser`: fixed arguments, empty environment, no shell, bounded in time and output.
//!
//! Statuses and messages are those of 3.0.8 (Debian 12) and 4.1.0 (Debian 13). A load from text ends with
//! the low byte of the negative error number, a load of a blob (`-B`) with the positive one.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use aa_contract::text::Printable;

use crate::error::ParserError;
use crate::process::{Failure, Limits, Output, run};

/// Where distributions install it.
const PLACES: [&str; 2] = ["/usr/sbin/apparmor_parser", "/sbin/apparmor_parser"];
/// More than any compiled guest: with 7.2's features and parser 4.1.0 one takes 443 KB.
const LARGEST_BLOB: usize = 64 << 20;
/// The longest run, unless told otherwise. A compile takes 40 to 90 ms; two seconds in an emulated guest.
pub const TIME: Duration = Duration::from_secs(120);
/// The limits of an attempt with an optimisation that explodes on some rules.
const QUICK_TIME: Duration = Duration::from_secs(20);
const QUICK_MEMORY: u64 = 512 << 20;

/// Characters of the parser's message that are passed on.
const LONGEST_MESSAGE: usize = 1500;

/// What to do with a profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// `-a`: load it; fails if it is loaded.
    Add,
    /// `-r`: load it, or put it in the place of the loaded one.
    Replace,
}

impl Action {
    fn option(self) -> &'static str {
        match self {
            Self::Add => "-a",
            Self::Replace => "-r",
        }
    }
}

/// A release of the parser.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32, pub u32);

impl Version {
    /// Whether its perms tables are right on every kernel. 4.1.0 writes tables for Linux 7.2 in which `owner`
    /// is lost; 4.1.8 is the first release of that series that knows them.
    pub fn knows_perms_tables(self) -> bool {
        self >= Self(4, 1, 8)
    }

    /// Whether `-O no-expr-simplify` halves the time of a compile. From 4.x on it costs time.
    fn gains_from_no_expr_simplify(self) -> bool {
        self < Self(4, 0, 0)
    }

    fn parse(text: &str) -> Option<Self> {
        let text = text.lines().next()?.strip_prefix("AppArmor parser version ")?;
        let mut numbers = text.split('.').map(|part| {
            let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
            part.get(..end).and_then(|digits| digits.parse().ok())
        });
        Some(Self(numbers.next()??, numbers.next()??, numbers.next().flatten().unwrap_or(0)))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// Everything that a compile depends on besides the files.
#[derive(Debug, Clone, Copy)]
pub struct Compile<'a> {
    /// The profile.
    pub file: &'a Path,
    /// `-b`: where `<...>` is looked for, and `disable/` and `force-complain/`.
    pub base: &'a Path,
    /// `-I`
    pub include: &'a [PathBuf],
    /// What policy may use; the kernel's features if absent.
    pub policy_features: Option<&'a Path>,
    /// The text of the kernel's features.
    pub kernel_features: &'a str,
}

/// An installed parser.
#[derive(Debug, Clone)]
pub struct Parser {
    path: PathBuf,
    /// `--subdomainfs`: where AppArmor's files are, if not where the parser looks by itself.
    interface: Option<PathBuf>,
    time: Duration,
}

impl Parser {
    /// The parser at `path`, or the installed one.
    ///
    /// # Errors
    /// [`ParserError::NotFound`]: there is none.
    pub fn find(path: Option<&Path>) -> Result<Self, ParserError> {
        let found = match path {
            Some(path) => Some(path.to_owned()).filter(|path| path.is_file()),
            None => PLACES.iter().map(PathBuf::from).find(|path| path.is_file()),
        };
        match found {
            Some(found) => {
                // Run from another directory, a relative path would name another file.
                let path = std::path::absolute(&found)
                    .map_err(|source| ParserError::Start { path: found, source })?;
                Ok(Self { path, interface: None, time: TIME })
            }
            None => {
                Err(ParserError::NotFound(path.map_or_else(
                    || PLACES.join(" or "),
                    |path| Printable(&path.to_string_lossy()).to_string(),
                )))
            }
        }
    }

    /// The same parser, loading through another directory of AppArmor files.
    #[must_use]
    pub fn with_interface(mut self, directory: PathBuf) -> Self {
        self.interface = Some(directory);
        self
    }

    /// The same parser with another limit of time for one run.
    #[must_use]
    pub fn with_time(mut self, time: Duration) -> Self {
        self.time = time;
        self
    }

    /// The program.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What tells this file from every other that was ever at its path: device, inode, size and both times.
    /// The time of change cannot be set back, unlike that of modification.
    ///
    /// # Errors
    /// [`ParserError::Start`]: the file cannot be looked at.
    pub fn identity(&self) -> Result<String, ParserError> {
        let m = std::fs::metadata(&self.path)
            .map_err(|source| ParserError::Start { path: self.path.clone(), source })?;
        Ok(format!(
            "{} {} {} {} {}.{} {}.{}",
            self.path.display(),
            m.dev(),
            m.ino(),
            m.size(),
            m.mtime(),
            m.mtime_nsec(),
            m.ctime(),
            m.ctime_nsec()
        ))
    }

    /// Its release, as it tells.
    ///
    /// # Errors
    /// [`ParserError`]: it does not run, or tells none.
    pub fn version(&self) -> Result<Version, ParserError> {
        let limits = Limits { time: self.time.min(Duration::from_secs(10)), memory: None, stdout: 64 << 10 };
        let output = self.run(&["--version".into()], Vec::new(), limits)?;
        let text = String::from_utf8_lossy(&output.stdout);
        match Version::parse(&text) {
            Some(version) if output.status.success() => Ok(version),
            _ => Err(ParserError::Version(text.chars().take(200).collect())),
        }
    }

    /// The optimiser flags for a release, part of a cache's key.
    pub fn flags(version: Version) -> &'static [&'static str] {
        if version.gains_from_no_expr_simplify() { &["-O", "no-expr-simplify"] } else { &[] }
    }

    /// Compiles one profile, without the kernel and without the parser's own cache, which goes by file times.
    ///
    /// `--Werror=rule-not-enforced` is not given: libvirt's abstraction has D-Bus and Unix socket rules that no
    /// mainline kernel of these releases enforces, so no guest would ever load.
    ///
    /// # Errors
    /// [`ParserError`]: the parser refused it, or failed.
    pub fn compile(&self, job: &Compile<'_>, version: Version) -> Result<Vec<u8>, ParserError> {
        let mut args: Vec<OsString> = vec!["--config-file".into(), "/dev/null".into()];
        match job.policy_features {
            Some(file) => args.extend([
                "--policy-features".into(),
                file.into(),
                "--kernel-features".into(),
                "/dev/stdin".into(),
            ]),
            None => args.extend(["-M".into(), "/dev/stdin".into()]),
        }
        args.extend(["-b".into(), job.base.into()]);
        for directory in job.include {
            args.extend(["-I".into(), directory.into()]);
        }
        args.extend(["-QTK".into(), "-j0".into(), "-S".into()]);
        let stdin = job.kernel_features.as_bytes();
        let output = self.run_optimised(Self::flags(version), &args, job.file, stdin, LARGEST_BLOB)?;
        if !output.status.success() || output.stdout.is_empty() {
            return Err(failure(Input::Text, output.status, &output.stderr));
        }
        Ok(output.stdout)
    }

    /// Loads compiled policy. The parser holds `lock` until it ends: if this process is killed before it, nobody else
    /// loads what it would then replace. It has the lock as its standard output, where it writes nothing; any other
    /// way to hand over a file would hand it to what other threads start, too.
    ///
    /// # Errors
    /// [`ParserError`]: the kernel refused it, or the parser failed.
    pub fn load(
        &self,
        action: Action,
        blob: Vec<u8>,
        lock: Option<BorrowedFd<'_>>,
    ) -> Result<(), ParserError> {
        // Without -j0 it does the work in another process, which would outlive it.
        let mut args: Vec<OsString> = vec![
            "--config-file".into(),
            "/dev/null".into(),
            action.option().into(),
            "-B".into(),
            "-j0".into(),
        ];
        if let Some(directory) = &self.interface {
            args.extend(["--subdomainfs".into(), directory.into()]);
        }
        let start = |source| ParserError::Start { path: self.path.clone(), source };
        let lock = lock.map(|lock| lock.try_clone_to_owned()).transpose().map_err(start)?;
        let stdout = lock.map_or_else(Stdio::piped, Stdio::from);
        let limits = Limits { time: self.time, memory: None, stdout: 64 << 10 };
        let output = self.run_into(stdout, &args, blob, limits)?;
        if output.status.success() {
            return Ok(());
        }
        Err(failure(Input::Blob, output.status, &output.stderr))
    }

    /// Compiles and loads one file as the host is configured (`parser.conf` is read, its features pinned there),
    /// for a caller that may read neither the includes nor the kernel's features itself. Of the flags only those that
    /// save this release time and keep the policy are our own.
    ///
    /// # Errors
    /// [`ParserError`]: parser or kernel refused it, or the parser failed.
    pub fn load_file(&self, action: Action, file: &Path) -> Result<(), ParserError> {
        let mut args: Vec<OsString> = vec![action.option().into(), "-K".into(), "-j0".into()];
        if let Some(directory) = &self.interface {
            args.extend(["--subdomainfs".into(), directory.into()]);
        }
        // A release that nobody knows loads as well without them.
        let flags = self.version().map_or(&[] as &[&str], Self::flags);
        Self::done(Input::Text, &self.run_optimised(flags, &args, file, &[], 64 << 10)?)
    }

    /// Removes a profile by name, children with it: an empty profile of that name is what the parser reads,
    /// so neither its file nor a compile of it is needed.
    ///
    /// # Errors
    /// [`ParserError::NotLoaded`]: it is not in the kernel; others as with a load.
    pub fn remove(&self, name: aa_contract::ProfileName) -> Result<(), ParserError> {
        let mut args: Vec<OsString> = vec!["-R".into(), "-K".into(), "-j0".into()];
        if let Some(directory) = &self.interface {
            args.extend(["--subdomainfs".into(), directory.into()]);
        }
        let limits = Limits { time: self.time, memory: None, stdout: 64 << 10 };
        Self::done(Input::Removal, &self.run(&args, format!("profile {name} {{}}\n").into_bytes(), limits)?)
    }

    fn done(input: Input, output: &Output) -> Result<(), ParserError> {
        if output.status.success() { Ok(()) } else { Err(failure(input, output.status, &output.stderr)) }
    }

    /// A run on a file with flags that save time, and on some rules take all time and memory there is: then, which is
    /// before anything is loaded, it is ended, and run without them.
    fn run_optimised(
        &self,
        flags: &[&str],
        args: &[OsString],
        file: &Path,
        stdin: &[u8],
        stdout: usize,
    ) -> Result<Output, ParserError> {
        let limits = Limits { time: self.time, memory: None, stdout };
        let attempt = |flags: &[&str], limits| {
            let flags = flags.iter().map(OsString::from);
            let args: Vec<OsString> = args.iter().cloned().chain(flags).chain([file.into()]).collect();
            self.run(&args, stdin.to_vec(), limits)
        };
        if flags.is_empty() {
            return attempt(flags, limits);
        }
        let quick = Limits { time: self.time.min(QUICK_TIME), memory: Some(QUICK_MEMORY), ..limits };
        match attempt(flags, quick) {
            Err(ParserError::Timeout(_) | ParserError::Memory(_)) => attempt(&[], limits),
            other => other,
        }
    }

    fn run(&self, args: &[OsString], stdin: Vec<u8>, limits: Limits) -> Result<Output, ParserError> {
        self.run_into(Stdio::piped(), args, stdin, limits)
    }

    fn run_into(
        &self,
        stdout: Stdio,
        args: &[OsString],
        stdin: Vec<u8>,
        limits: Limits,
    ) -> Result<Output, ParserError> {
        run(&self.path, args, stdin, stdout, limits).map_err(|failure| match failure {
            Failure::Start(source) if source.kind() == io::ErrorKind::NotFound => {
                ParserError::NotFound(Printable(&self.path.to_string_lossy()).to_string())
            }
            Failure::Start(source) => ParserError::Start { path: self.path.clone(), source },
            Failure::Timeout => ParserError::Timeout(limits.time.as_secs()),
            Failure::Memory => ParserError::Memory(limits.memory.unwrap_or_default() >> 20),
            Failure::Output => ParserError::Output(limits.stdout),
        })
    }
}

/// What the parser was run on: its statuses mean one thing for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// The text of profiles, or no policy at all.
    Text,
    /// The text of profiles to be removed.
    Removal,
    /// Compiled policy.
    Blob,
}

/// The sense of a run that failed, by its status and by what it wrote to standard error.
pub fn failure(input: Input, status: ExitStatus, stderr: &[u8]) -> ParserError {
    // ENOENT: what is missing is the profile here, and the file that policy is written to in a load.
    const NO_PROFILE: i32 = 256 - 2;
    let message = message(stderr);
    match (input, status.code()) {
        (Input::Blob, Some(code)) => load_failure(code, message),
        (Input::Removal, Some(NO_PROFILE)) => ParserError::NotLoaded,
        (Input::Blob, None) | (Input::Text | Input::Removal, _) => text_failure(status, message),
    }
}

/// The sense of a status after a run on text.
fn text_failure(status: ExitStatus, message: String) -> ParserError {
    match status.code() {
        None => ParserError::Signal(status.signal().unwrap_or(0)),
        // 128 and above are negative error numbers, and only the kernel's interface gives those.
        Some(code @ 128..=255) => errno_failure(256 - code, message),
        Some(_) => host_failure(&message).unwrap_or(ParserError::Refused(message)),
    }
}

/// The sense of a status after a load of a blob.
fn load_failure(code: i32, message: String) -> ParserError {
    match host_failure(&message) {
        Some(failure) => failure,
        None => errno_failure(if code >= 128 { 256 - code } else { code }, message),
    }
}

/// Failures that both generations report with status 1 and a sentence only.
fn host_failure(message: &str) -> Option<ParserError> {
    let has = |text: &str| message.contains(text);
    if has("unable to find a suitable fs") || has("Apparmor is disabled") {
        Some(ParserError::NoAppArmor(message.to_owned()))
    } else if has("You need root privileges") || has("policy admin privileges") {
        Some(ParserError::Privilege(message.to_owned()))
    } else {
        None
    }
}

/// The kernel's error numbers, from `security/apparmor/apparmorfs.c` and `policy.c`.
fn errno_failure(errno: i32, message: String) -> ParserError {
    let meaning = match errno {
        2 => return ParserError::NoAppArmor(format!("there is no file to load policy by: {message}")),
        1 | 13 => return ParserError::Privilege(message),
        17 => return ParserError::Exists,
        12 => return ParserError::Failed { meaning: "ENOMEM, out of memory", message },
        22 => "EINVAL, invalid policy",
        71 => "EPROTO, the blob is not well formed",
        93 => "EPROTONOSUPPORT, the blob is for another kernel",
        // Of the policy it says nothing.
        _ => return ParserError::Failed { meaning: "another error", message },
    };
    ParserError::Kernel { meaning, message }
}

/// What the kernel refused when policy was written to it, by the number of its error; `None` if it is not the policy
/// that is at fault.
pub(crate) fn refusal(errno: i32, message: String) -> Option<ParserError> {
    matches!(errno, 17 | 22 | 71 | 93).then(|| errno_failure(errno, message))
}

/// The parser's words as one printable line. Remarks on caches and features are left out where there is more to say.
fn message(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let remark =
        |line: &&str| line.starts_with("Cache read/write disabled") || line.starts_with("Warning from ");
    let telling: Vec<&str> = lines.iter().copied().filter(|line| !remark(line)).collect();
    let line = if telling.is_empty() { lines } else { telling }.join("; ");
    if line.is_empty() {
        return "it gave no reason".to_owned();
    }
    let mut message: String = line.chars().take(LONGEST_MESSAGE).collect();
    if message.len() < line.len() {
        message.push_str(" ...");
    }
    Printable(&message).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use aa_contract::Exit;

    #[test]
    fn releases_compare_as_numbers() {
        let version = |text: &str| Version::parse(&format!("AppArmor parser version {text}\nCopyright"));
        assert_eq!(version("3.0.8"), Some(Version(3, 0, 8)));
        assert_eq!(version("4.1.0~beta5"), Some(Version(4, 1, 0)));
        assert_eq!(version("5.0"), Some(Version(5, 0, 0)));
        assert!(version("4.1.10").unwrap() > version("4.1.8").unwrap());
        assert_eq!(version("x"), None);
        assert_eq!(Version::parse("zsh 5.9"), None);
        assert!(!Version(4, 1, 0).knows_perms_tables());
        assert!(Version(5, 0, 2).knows_perms_tables());
    }

    /// Statuses of load-time failures, as real kernels gave them through parsers 3.0.8 and 4.1.0.
    #[test]
    fn statuses_of_both_generations_are_told_apart() {
        let text = |code: i32, message: &str| text_failure(ExitStatus::from_raw(code << 8), message.into());
        assert!(matches!(text(239, "Profile already exists"), ParserError::Exists));
        assert!(matches!(text(254, "Profile doesn't exist"), ParserError::NoAppArmor(_)));
        assert!(matches!(load_failure(2, String::new()), ParserError::NoAppArmor(_)));
        for (input, is_not_loaded) in [(Input::Removal, true), (Input::Text, false), (Input::Blob, false)] {
            let failure = failure(input, ExitStatus::from_raw(254 << 8), b"");
            assert_eq!(matches!(failure, ParserError::NotLoaded), is_not_loaded, "{input:?}");
        }
        assert!(matches!(text(243, "Access denied."), ParserError::Privilege(_)));
        assert!(matches!(
            text(1, "Sorry. You need root privileges to run this program."),
            ParserError::Privilege(_)
        ));
        assert_eq!((text(244, "").exit(), text(234, "").exit()), (Exit::Host, Exit::Refused));
        for (code, name) in [(234, "EINVAL"), (185, "EPROTO,"), (163, "EPROTONOSUPPORT"), (244, "ENOMEM")] {
            assert!(text(code, "").to_string().contains(name), "{code}");
        }
        assert!(matches!(text(1, "AppArmor parser error for f at line 3: x"), ParserError::Refused(_)));
        assert!(matches!(text(2, "File f not found, skipping..."), ParserError::Refused(_)));
        let off = "Warning: unable to find a suitable fs in /proc/mounts, is it mounted?";
        assert!(matches!(text(1, off), ParserError::NoAppArmor(_)));
        assert!(matches!(load_failure(1, off.into()), ParserError::NoAppArmor(_)));
        // What says nothing of the policy is the host's failure.
        for code in [5, 12, 28, 256 - 5, 256 - 12, 256 - 28] {
            assert_eq!(load_failure(code, String::new()).exit(), Exit::Host, "{code}");
        }
        for code in [22, 71, 93, 256 - 22, 256 - 71, 256 - 93] {
            assert_eq!(load_failure(code, String::new()).exit(), Exit::Refused, "{code}");
        }
        assert!(load_failure(93, String::new()).to_string().contains("EPROTONOSUPPORT"));
        assert!(load_failure(71, String::new()).to_string().contains("EPROTO,"));
        assert!(matches!(load_failure(17, String::new()), ParserError::Exists));
        assert!(matches!(text_failure(ExitStatus::from_raw(9), String::new()), ParserError::Signal(9)));
    }

    /// A parser of release 3.0.8 that does `quick` with the flags that save time, and notes each run.
    fn parser_that(dir: &Path, quick: &str) -> Parser {
        use std::os::unix::fs::PermissionsExt;
        let path = dir.join("parser");
        let here = dir.display();
        let script = format!(
            "#!/bin/sh\nPATH=/usr/bin:/bin\n[ \"$1\" = --version ] && echo 'AppArmor parser version 3.0.8' && exit\n\
             echo run >>{here}/runs\ncase \"$*\" in *no-expr-simplify*) {quick};; esac\necho policy\n"
        );
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        Parser::find(Some(&path)).unwrap()
    }

    #[test]
    fn an_optimisation_that_explodes_is_ended_and_left_out() {
        let gigabyte = "exec sort -S 1G /dev/zero";
        for (quick, time, runs) in [("sleep 30", 1, 2), (gigabyte, 60, 2), (":", 60, 1)] {
            let dir = tempfile::tempdir().unwrap();
            let parser = parser_that(dir.path(), quick).with_time(Duration::from_secs(time));
            let job = Compile {
                file: Path::new("/p"),
                base: Path::new("/"),
                include: &[],
                policy_features: None,
                kernel_features: "",
            };
            assert_eq!(parser.compile(&job, Version(3, 0, 8)).unwrap(), b"policy\n", "{quick}");
            parser.load_file(Action::Add, Path::new("/p")).unwrap();
            let log = std::fs::read_to_string(dir.path().join("runs")).unwrap();
            assert_eq!(log.lines().count(), 2 * runs, "{quick}");
        }
    }

    #[test]
    fn what_the_parser_refuses_is_not_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let parser = parser_that(dir.path(), "exit 1");
        assert!(matches!(parser.load_file(Action::Replace, Path::new("/p")), Err(ParserError::Refused(_))));
        assert_eq!(std::fs::read_to_string(dir.path().join("runs")).unwrap(), "run\n");
    }

    #[test]
    fn the_message_is_one_printable_line() {
        let text = "Cache read/write disabled: interface file missing.\nAppArmor parser error for /f at line 2: \x1b[2Jbad\n";
        assert_eq!(message(text.as_bytes()), "AppArmor parser error for /f at line 2: \\u{1b}[2Jbad");
        assert_eq!(message(b"Cache read/write disabled: x\n"), "Cache read/write disabled: x");
        assert_eq!(message(b""), "it gave no reason");
        assert!(message(&vec![b'a'; 100_000]).len() < 1600);
    }
}
