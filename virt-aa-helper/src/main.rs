//! virt-aa-helper: what libvirtd runs to make, change and remove the profile of a guest.

use std::io::{self, LineWriter, Write};
use std::process::ExitCode;

use aa_contract::text::Printable;
use virt_aa_helper::{Host, args, run};

// The environment is never looked at: libvirtd hands over its log settings in it, and whoever could set
// them could have a privileged process write a file.
fn main() -> ExitCode {
    let mut diagnostics = LineWriter::new(io::stderr().lock());
    let result = args::parse(std::env::args_os().skip(1))
        .and_then(|args| run(&args, &Host::installed()?, &mut io::stdin().lock(), &mut diagnostics));
    match result {
        Ok(text) => match io::stdout().lock().write_all(text.as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Err(error) => {
            // There is nobody to tell where even that fails.
            drop(writeln!(diagnostics, "virt-aa-helper: error: {}", Printable(&error.to_string())));
            ExitCode::FAILURE
        }
    }
}
