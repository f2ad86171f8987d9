//! `aa-load`: the command line over the library.

mod progress;
mod run;

use aa_contract::Exit;
use clap::Parser;

fn main() -> Exit {
    match aa_load::args::Args::try_parse() {
        Ok(args) => run::run(args),
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
