//! `aa-load`: the command line over the library.

mod privilege;
mod progress;
mod run;

use std::io::{self, LineWriter, Write};

use aa_contract::Exit;
use clap::Parser;

fn main() -> Exit {
    match aa_load::args::Args::try_parse() {
        Ok(args) => match privilege::drop_the_rest() {
            Ok(()) => run::run(args),
            Err(error) => {
                // There is nobody to tell where even that fails.
                let mut out = LineWriter::new(io::stderr().lock());
                drop(writeln!(out, "aa-load: capabilities cannot be given up: {error}"));
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
