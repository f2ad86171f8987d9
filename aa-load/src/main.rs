//! `aa-load`: the command line over the library.

mod privilege;
mod progress;
mod run;

use std::io::{self, Write};

use aa_contract::Exit;
use clap::Parser;

fn main() -> Exit {
    match aa_load::args::Args::try_parse() {
        Ok(args) => match privilege::drop_the_rest() {
            Ok(()) => run::run(args),
            Err(error) => {
                // There is nobody to tell where even that fails.
                drop(writeln!(io::stderr().lock(), "aa-load: capabilities cannot be given up: {error}"));
                Exit::Host
            }
        },
        Err(error) => {
            let failed = error.print().is_err();
            match error.exit_code() {
                0 if failed => Exit::Host,
                0 => Exit::Done,
                _ => Exit::Usage,
            }
        }
    }
}
