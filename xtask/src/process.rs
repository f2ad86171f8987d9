//! Running programs, so that every failure shows the command. (`bench::measure` runs those that are timed.)

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, bail};

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
