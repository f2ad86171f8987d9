//! The command line: one variant a task, whose options live in the task's own module.

use clap::{Parser, Subcommand};

/// Development tasks.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) task: Task,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// Install the Debian packages that the other tasks need
    Setup(crate::setup::Args),
    /// Show the main job, step by step, in a guest with an AppArmor kernel
    Demo(crate::demo::Args),
    /// Run every check there is
    Test(crate::test::Args),
    /// Run the end-to-end cases in guests with real AppArmor kernels
    E2e(crate::e2e::Args),
    /// Compare the rules with those of libvirt's own helper
    Differential(crate::differential::Args),
    /// Run libvirt's own tests of its helper on ours
    Upstream(crate::upstream::Args),
    /// Check licences, sources and advisories of the dependencies
    Deny(crate::deny::Args),
    /// Measure the tools against libvirt's own helper, and write docs/performance.md
    Bench(crate::bench::Args),
    /// Search for inputs that break a promise
    Fuzz(crate::fuzz::Args),
    /// Write the generated files that are committed
    Generate(crate::generate::Args),
    /// Lay out what is installed, as a tree and as an archive
    Dist(crate::dist::Args),
}
