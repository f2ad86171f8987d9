//! Runs a program that may hang, crash or never stop talking.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

/// What one run may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Wall-clock time.
    pub(crate) time: Duration,
    /// Resident memory in bytes; no limit if absent.
    pub(crate) memory: Option<u64>,
    /// Bytes of standard output. More ends the program.
    pub(crate) stdout: usize,
}

/// What a program left behind.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    /// The first bytes of it.
    pub(crate) stderr: Vec<u8>,
}

/// Why a program was ended or did not start.
#[derive(Debug)]
pub(crate) enum Failure {
    Start(io::Error),
    Timeout,
    Memory,
    Output,
}

/// Bytes of standard error kept; the rest is read and dropped, since warnings may be many.
const STDERR_KEPT: usize = 64 * 1024;
/// Time between two looks at the program's memory.
const TICK: Duration = Duration::from_millis(20);

enum End {
    Stdout(Vec<u8>),
    Stderr(Vec<u8>),
    TooMuch,
}

/// Runs `program` without a shell, with these arguments, an empty environment, in `/`, and feeds it `stdin`. What it
/// writes to `stdout` comes back if that is a pipe.
pub(crate) fn run(
    program: &Path,
    args: &[OsString],
    stdin: Vec<u8>,
    stdout: Stdio,
    limits: Limits,
) -> Result<Output, Failure> {
    let mut child = Command::new(program)
        .args(args)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(stdout)
        .stderr(Stdio::piped())
        .spawn()
        .map_err(Failure::Start)?;
    let result = watch(&mut child, stdin, limits);
    if result.is_err() {
        // It may have ended by itself meanwhile; either way it is reaped.
        let _ = child.kill();
        let _ = child.wait();
    }
    result
}

fn watch(child: &mut Child, stdin: Vec<u8>, limits: Limits) -> Result<Output, Failure> {
    // Without end, where the clock does not go that far.
    let deadline = Instant::now().checked_add(limits.time);
    // The threads are not joined: a grandchild may hold a pipe open after the program was ended.
    let (sender, receiver) = mpsc::channel();
    if let Some(mut pipe) = child.stdin.take() {
        // A program that does not read its input gets a closed pipe, and we a status from it.
        spawn(move || drop(pipe.write_all(&stdin)))?;
    }
    let (mut stdout, mut stderr) = (None, None);
    if let Some(pipe) = child.stdout.take() {
        let sender = sender.clone();
        spawn(move || {
            let mut bytes = Vec::new();
            let read = pipe.take(limits.stdout as u64 + 1).read_to_end(&mut bytes);
            let _ = sender.send(if read.is_ok() && bytes.len() <= limits.stdout {
                End::Stdout(bytes)
            } else {
                End::TooMuch
            });
        })?;
    } else {
        stdout = Some(Vec::new());
    }
    if let Some(mut pipe) = child.stderr.take() {
        spawn(move || {
            let mut bytes = Vec::new();
            let _ = (&mut pipe).take(STDERR_KEPT as u64).read_to_end(&mut bytes);
            let _ = io::copy(&mut pipe, &mut io::sink());
            let _ = sender.send(End::Stderr(bytes));
        })?;
    }
    while stdout.is_none() || stderr.is_none() {
        match receiver.recv_timeout(wait_until(deadline, limits.memory)?) {
            Ok(End::Stdout(bytes)) => stdout = Some(bytes),
            Ok(End::Stderr(bytes)) => stderr = Some(bytes),
            Ok(End::TooMuch) => return Err(Failure::Output),
            Err(RecvTimeoutError::Timeout) => check_memory(child.id(), limits.memory)?,
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    loop {
        if let Some(status) = child.try_wait().map_err(Failure::Start)? {
            let (stdout, stderr) = (stdout.unwrap_or_default(), stderr.unwrap_or_default());
            return Ok(Output { status, stdout, stderr });
        }
        std::thread::sleep(wait_until(deadline, limits.memory)?.min(Duration::from_micros(200)));
    }
}

/// A host that has no thread left is no reason to panic.
fn spawn(work: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    std::thread::Builder::new().spawn(work).map(drop).map_err(Failure::Start)
}

fn wait_until(deadline: Option<Instant>, memory: Option<u64>) -> Result<Duration, Failure> {
    let left = deadline.map_or(TICK, |deadline| deadline.saturating_duration_since(Instant::now()));
    if left.is_zero() {
        return Err(Failure::Timeout);
    }
    Ok(if memory.is_some() { left.min(TICK) } else { left })
}

fn check_memory(pid: u32, limit: Option<u64>) -> Result<(), Failure> {
    // Its name in there may be any bytes.
    let resident = std::fs::read(format!("/proc/{pid}/status")).ok().and_then(|bytes| {
        let text = String::from_utf8_lossy(&bytes);
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    });
    match (resident, limit) {
        (Some(kib), Some(limit)) if kib.saturating_mul(1024) > limit => Err(Failure::Memory),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, stdin: &[u8], limits: Limits) -> Result<Output, Failure> {
        run(Path::new("/bin/sh"), &["-c".into(), script.into()], stdin.to_vec(), Stdio::piped(), limits)
    }

    const LIMITS: Limits = Limits { time: Duration::from_secs(20), memory: None, stdout: 1 << 20 };

    #[test]
    fn streams_and_status_come_back_and_the_environment_is_empty() {
        let output = sh("cat; /usr/bin/env >&2; exit 7", b"in", LIMITS).unwrap();
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(7), b"in".as_slice()));
        let environment = String::from_utf8(output.stderr).unwrap();
        // The shell itself sets PWD and its like; nothing of this process gets through.
        assert!(!environment.contains("CARGO"), "{environment}");
    }

    #[test]
    fn one_that_may_take_for_ever_ends_when_it_does() {
        let limits = Limits { time: Duration::MAX, ..LIMITS };
        assert_eq!(sh("sleep 0.1; echo x", b"", limits).unwrap().stdout, b"x\n");
    }

    #[test]
    fn one_that_hangs_is_ended_though_its_child_keeps_the_pipe() {
        let start = Instant::now();
        let limits = Limits { time: Duration::from_millis(100), ..LIMITS };
        assert!(matches!(sh("sleep 30 & sleep 30", b"", limits), Err(Failure::Timeout)));
        assert!(matches!(sh("exec >&- 2>&-; sleep 30", b"", limits), Err(Failure::Timeout)));
        assert!(start.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn one_that_never_stops_talking_is_ended_on_stdout_and_cut_on_stderr() {
        assert!(matches!(sh("while :; do echo aaaaaaaaaaaaaaaa; done", b"", LIMITS), Err(Failure::Output)));
        let output = sh("head -c 3000000 /dev/zero >&2; exit 1", b"", LIMITS).unwrap();
        assert_eq!((output.status.code(), output.stderr.len()), (Some(1), STDERR_KEPT));
    }

    #[test]
    fn one_that_eats_memory_is_ended() {
        let limits = Limits { memory: Some(24 << 20), ..LIMITS };
        let script = "x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done";
        assert!(matches!(sh(script, b"", limits), Err(Failure::Memory)));
    }

    #[test]
    fn one_that_is_not_there_does_not_start() {
        let result = run(Path::new("/nonexistent"), &[], vec![], Stdio::piped(), LIMITS);
        assert!(matches!(result, Err(Failure::Start(_))));
    }
}
