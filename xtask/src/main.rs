//! Development tasks of this workspace; `cargo xtask --help` lists them.
//!
//! A task is one module: an `Args` for clap and a `run`. Nothing here is installed.

mod args;
mod bench;
mod demo;
mod deny;
mod differential;
mod dist;
mod e2e;
mod fuzz;
mod generate;
mod guest;
mod process;
mod report;
mod setup;
mod test;
mod upstream;
mod workspace;

use std::process::ExitCode;

use clap::Parser as _;

use args::{Cli, Task};
use report::Outcome;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.task {
        Task::Setup(args) => setup::run(&args),
        Task::Demo(args) => demo::run(&args),
        Task::Test(args) => test::run(&args),
        Task::E2e(args) => e2e::run(&args),
        Task::Differential(args) => differential::run(&args),
        Task::Upstream(args) => upstream::run(&args),
        Task::Deny(args) => deny::run(&args),
        Task::Bench(args) => bench::run(&args),
        Task::Fuzz(args) => fuzz::run(&args),
        Task::Generate(args) => generate::run(&args),
        Task::Dist(args) => dist::run(&args),
    };
    match outcome {
        Ok(Outcome::Passed) => ExitCode::SUCCESS,
        Ok(Outcome::Failed) => ExitCode::FAILURE,
        Err(error) => {
            report::error(&error);
            ExitCode::FAILURE
        }
    }
}
