//! Makes AppArmor profiles from aa-derive's records.

use std::io;

use aa_contract::Exit;
use clap::Parser;

fn main() -> Exit {
    let args = aa_render::args::Args::parse();
    aa_render::batch::run(args, &mut io::stdin().lock(), &mut io::stdout().lock(), &mut io::stderr().lock())
}
