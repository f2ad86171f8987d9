//! Running programs, so that every failure shows the command. (`bench::measure` runs those that are timed.)

use std::io::Write as _;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::{Pid, SysconfVar, sysconf};

/// The command as a person would type it, roughly.
pub(crate) fn shown(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args() {
        text.push(' ');
        text.push_str(&arg.to_string_lossy());
    }
    text
}

/// Runs a program with this process's own output.
///
/// # Errors
/// It cannot be started, or ends with another status than 0.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status =
        command.stdin(Stdio::null()).status().with_context(|| format!("cannot start: {}", shown(command)))?;
    if !status.success() {
        bail!("{status}: {}", shown(command));
    }
    Ok(())
}

/// Runs a program and says whether it ended with status 0.
///
/// # Errors
/// It cannot be started.
pub(crate) fn passes(command: &mut Command) -> Result<bool> {
    let status =
        command.stdin(Stdio::null()).status().with_context(|| format!("cannot start: {}", shown(command)))?;
    Ok(status.success())
}

/// Runs a program; says whether it ended with status 0, and how long a processor ran it.
///
/// # Errors
/// It cannot be started, or /proc does not tell.
pub(crate) fn accounted(command: &mut Command) -> Result<(bool, Duration)> {
    let mut child =
        command.stdin(Stdio::null()).spawn().with_context(|| format!("cannot start: {}", shown(command)))?;
    let pid = child.id();
    // It is not reaped before its account has been read.
    let _ended =
        waitid(Id::Pid(Pid::from_raw(pid.try_into()?)), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)?;
    let account = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let status = child.wait()?;
    // proc(5): utime and stime are the 14th and 15th, the 2nd is a name in parentheses, both in ticks.
    let (_, fields) = account.rsplit_once(')').context("/proc/PID/stat has no name")?;
    let ticks: u64 =
        fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    let each_second = sysconf(SysconfVar::CLK_TCK)?.context("no clock ticks")?;
    Ok((status.success(), Duration::from_millis(ticks * 1000 / u64::try_from(each_second)?)))
}

/// How long processors have run this process, or those that it has started and that have ended.
///
/// # Errors
/// The kernel does not tell.
pub(crate) fn processor_time(of: UsageWho) -> Result<Duration> {
    let usage = getrusage(of)?;
    let time = usage.user_time() + usage.system_time();
    Ok(Duration::from_micros(u64::try_from(time.num_microseconds())?))
}

/// Runs a program and takes its standard output.
///
/// # Errors
/// It cannot be started, or ends with another status than 0; its standard error is shown then.
pub(crate) fn output(command: &mut Command) -> Result<Vec<u8>> {
    let Output { status, stdout, stderr } =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot start: {}", shown(command)))?;
    if !status.success() {
        bail!("{status}: {}\n{}", shown(command), String::from_utf8_lossy(&stderr).trim_end());
    }
    Ok(stdout)
}

/// Runs a program on `input` and takes its standard output, whatever status it ends with.
///
/// # Errors
/// It cannot be started or fed.
pub(crate) fn filter(command: &mut Command, input: &[u8]) -> Result<Output> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start: {}", shown(command)))?;
    let stdin = child.stdin.take();
    // From a thread of its own: a program may write before it has read everything.
    let output = std::thread::scope(|scope| {
        let feeder = scope.spawn(move || stdin.map_or(Ok(()), |mut stdin| stdin.write_all(input)));
        let output = child.wait_with_output();
        // A program that ends without reading everything has said why by its status.
        let _unread = feeder.join();
        output
    });
    output.with_context(|| format!("cannot read: {}", shown(command)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_accounted_for_by_what_it_ran() {
        let (passed, idle) = accounted(Command::new("sleep").arg("1")).unwrap();
        assert!(passed && idle < Duration::from_millis(500), "{idle:?}");
        // The kernel ends it when a processor has run it for a second, as it counts; on a loaded machine it counts more.
        let (passed, busy) =
            accounted(Command::new("sh").args(["-c", "ulimit -t 1; while :; do :; done"])).unwrap();
        assert!(!passed && busy > Duration::from_millis(500), "{busy:?}");
    }
}
