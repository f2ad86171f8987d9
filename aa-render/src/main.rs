//! Makes AppArmor profiles from aa-derive's records.

use std::io::{self, LineWriter};

use aa_contract::Exit;
use clap::Parser;

fn main() -> Exit {
    let args = aa_render::args::Args::parse();
    // A line in one write: other programs of a pipe talk there too.
    let mut diagnostics = LineWriter::new(io::stderr().lock());
    aa_render::batch::run(args, &mut io::stdin().lock(), &mut io::stdout().lock(), &mut diagnostics)
}
