//! Executes a program under an AppArmor profile, or not at all.

use std::io::{self, LineWriter, Write};
use std::process::ExitCode;

use aa_confine::args::Args;

/// Status of every failure of aa-confine itself, as in env(1) and timeout(1): nothing was executed.
const OWN_FAILURE: u8 = 125;

fn main() -> ExitCode {
    let (request, command) = match Args::read() {
        Ok(request) => request,
        Err(answer) => {
            let written = answer.print();
            let asked_for = !answer.use_stderr() && written.is_ok();
            return if asked_for { ExitCode::SUCCESS } else { ExitCode::from(OWN_FAILURE) };
        }
    };
    let error = match aa_confine::confine(&request) {
        Ok(()) => aa_confine::execute(&command),
        Err(error) => error,
    };
    // A standard error that cannot be written to changes nothing: the status says it as well.
    let _ = writeln!(LineWriter::new(io::stderr().lock()), "aa-confine: {error}");
    ExitCode::from(error.status())
}
