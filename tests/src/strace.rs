//! Faults in a program's system calls, injected by strace(1).

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output, Stdio};

/// Calls that concern the process alone: a fault in them is one of the run-time library.
const OWN: [&str; 24] = [
    "access",
    "arch_prctl",
    "brk",
    "clock_nanosleep",
    "execve",
    "exit_group",
    "futex",
    "getegid",
    "geteuid",
    "getpid",
    "getrandom",
    "madvise",
    "mmap",
    "mprotect",
    "munmap",
    "poll",
    "pread64",
    "prlimit64",
    "restart_syscall",
    "rseq",
    "rt_sigaction",
    "rt_sigprocmask",
    "set_robust_list",
    "set_tid_address",
];
/// Calls that only look: killed at one of them, a program leaves what it leaves when killed at the next that acts.
const LOOKING: [&str; 12] = [
    "fstat",
    "fstatfs",
    "getcwd",
    "getdents64",
    "lseek",
    "newfstatat",
    "read",
    "readlink",
    "sched_getaffinity",
    "sigaltstack",
    "statfs",
    "statx",
];

/// What a program's run came to.
#[derive(Debug)]
pub struct Run {
    /// Its exit status; none if a signal ended it.
    pub status: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// The system calls of its main thread, one a line, each descriptor with its path.
    pub log: String,
}

impl Run {
    /// Of a program's end, and the log of its calls.
    pub fn new(output: &Output, log: String) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            status: output.status.code(),
            signal: output.status.signal(),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
            log,
        }
    }

    /// Whether a fault was injected.
    pub fn was_hit(&self) -> bool {
        self.signal.is_some() || self.log.contains("(INJECTED)")
    }

    /// How often the main thread made each system call.
    pub fn calls(&self) -> BTreeMap<String, usize> {
        let mut calls = BTreeMap::new();
        for name in self.log.lines().filter_map(|line| line.split_once('(')).map(|(name, _)| name) {
            if name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_') {
                *calls.entry(name.to_owned()).or_default() += 1;
            }
        }
        calls
    }
}

/// Runs a program, its main thread under strace with the expressions for `-e`. When this returns, every process that it
/// started has ended too.
///
/// # Panics
/// strace cannot be run.
pub fn run<'a>(program: &Command, expressions: impl IntoIterator<Item = &'a str>, stdin: &str) -> Run {
    run_by(&[], program, expressions, stdin)
}

/// The same by way of another program, with its arguments, that executes what follows them.
///
/// # Panics
/// strace cannot be run.
pub fn run_by<'a>(
    way: &[&str],
    program: &Command,
    expressions: impl IntoIterator<Item = &'a str>,
    stdin: &str,
) -> Run {
    let log = tempfile::NamedTempFile::new().unwrap();
    // Every descendant inherits the second end of the pipe, and the output is read until all have closed it.
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$@\" 9>&1", "sh"]).args(way).args(["strace", "-y", "-o"]).arg(log.path());
    for expression in expressions {
        command.args(["-e", expression]);
    }
    command.arg(program.get_program()).args(program.get_args());
    for (name, value) in program.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    if let Some(dir) = program.get_current_dir() {
        command.current_dir(dir);
    }
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // The program may end before it has read everything.
    drop(child.stdin.take().unwrap().write_all(stdin.as_bytes()));
    let output = child.wait_with_output().unwrap();
    Run::new(&output, std::fs::read_to_string(log.path()).unwrap())
}

/// Checks that a log's changes outlive a loss of power: each file is synced after its last write and before it is renamed,
/// and its directory after that. Gives the number of renames.
///
/// # Panics
/// One of them is not.
pub fn changes_are_durable(log: &str) -> usize {
    let lines: Vec<&str> = log.lines().collect();
    let is =
        |line: &&str, call: &str, file: &str| line.starts_with(call) && line.contains(&format!("{file}>"));
    let mut renames = 0;
    for (at, line) in lines.iter().enumerate().filter(|(_, line)| line.ends_with(" = 0")) {
        let (earlier, later) = lines.split_at(at);
        let (call, arguments) = line.split_once('(').unwrap();
        if !["rename", "renameat", "renameat2", "unlink", "unlinkat"].contains(&call) {
            continue;
        }
        let name = arguments.split('"').nth(1).unwrap();
        if call.starts_with("rename") {
            renames += 1;
            let before = |call| earlier.iter().rposition(|line| is(line, call, name));
            assert!(before("fsync(") > before("write("), "not synced before: {line}");
        } else if std::path::Path::new(name).extension().is_some_and(|end| end == "new" || end == "lock") {
            // Nobody misses a temporary file or a lock, and nobody minds one of before.
            continue;
        }
        let directory = match arguments.split_once('<') {
            Some((_, rest)) => rest.split('>').next().unwrap(),
            None => name.rsplit_once('/').unwrap().0,
        };
        assert!(later.iter().any(|line| is(line, "fsync(", directory)), "not synced after: {line}");
    }
    renames
}

/// A fault, as strace writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The signal ends the program as it enters the call.
    Signal(&'static str),
    /// The call fails and does nothing.
    Error(&'static str),
}

/// Runs a program undisturbed and then once for each of its system calls that acts or reads, with the fault in just that
/// one. `run` makes the run, with the expression for [`run`], and judges it. Gives the number of faults.
pub fn in_each_call(fault: Fault, run: impl FnMut(Option<&str>) -> Run) -> usize {
    inject(fault, run, |call| {
        LOOKING.contains(&call) && (call != "read" || matches!(fault, Fault::Signal(_)))
    })
}

/// The same with errors in the calls that only look, too: for what must not take a look that failed for one that found nothing.
pub fn in_each_call_and_look(fault: Fault, run: impl FnMut(Option<&str>) -> Run) -> usize {
    inject(fault, run, |_| false)
}

fn inject(
    fault: Fault,
    mut run: impl FnMut(Option<&str>) -> Run,
    is_left_out: impl Fn(&str) -> bool,
) -> usize {
    let calls = run(None).calls();
    let mut hits = 0;
    for (call, count) in calls {
        let what = match fault {
            Fault::Signal(signal) => format!("signal={signal}"),
            // On Linux the descriptor is gone also where close(2) fails; strace would leave it open.
            Fault::Error(_) if call == "close" => continue,
            Fault::Error(error) => format!("error={error}"),
        };
        if is_left_out(&call) || OWN.contains(&call.as_str()) {
            continue;
        }
        for number in 1..=count {
            hits += usize::from(run(Some(&format!("inject={call}:{what}:when={number}"))).was_hit());
        }
    }
    hits
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: [&str; 5] = [
        r#"openat(4</d>, "p.new", O_WRONLY|O_CREAT, 0644) = 5</d/p.new>"#,
        r#"write(5</d/p.new>, "text", 4) = 4"#,
        "fsync(5</d/p.new>) = 0",
        r#"renameat(4</d>, "p.new", 4</d>, "p") = 0"#,
        "fsync(5</d>) = 0",
    ];

    #[test]
    fn a_sync_that_is_missing_or_too_early_is_seen() {
        assert_eq!(changes_are_durable(&GOOD.join("\n")), 1);
        for missing in [2, 4] {
            let mut lines = GOOD.to_vec();
            lines.remove(missing);
            assert!(
                std::panic::catch_unwind(|| changes_are_durable(&lines.join("\n"))).is_err(),
                "{missing}"
            );
            lines.insert(missing - 1, GOOD[missing]);
            assert!(
                std::panic::catch_unwind(|| changes_are_durable(&lines.join("\n"))).is_err(),
                "{missing}"
            );
        }
    }

    #[test]
    #[ignore = "needs strace"]
    fn each_call_is_hit_once_and_a_fault_is_told_from_none() {
        let program = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            command
        };
        let plain = run(&program("cat; exit 7"), None, "in");
        assert_eq!((plain.status, plain.stdout.as_str(), plain.was_hit()), (Some(7), "in", false));
        let mut names = Vec::new();
        let hits = in_each_call(Fault::Error("EIO"), |expression| {
            names.extend(expression.map(str::to_owned));
            run(&program("echo one; echo two"), expression, "")
        });
        assert_eq!(hits, names.len());
        assert!(names.contains(&"inject=write:error=EIO:when=2".to_owned()), "{names:?}");
        let killed = run(&program("echo one; echo two"), Some("inject=write:signal=KILL:when=2"), "");
        assert_eq!((killed.signal, killed.stdout.as_str(), killed.was_hit()), (Some(9), "one\n", true));
    }
}
