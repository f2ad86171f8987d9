//! The command line.

use std::path::PathBuf;

use aa_render::layout::POLICY_BASE;
use clap::{Parser, ValueEnum};

use crate::load::SECURITYFS;
use crate::parser;

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Verb {
    /// Load profiles that are not loaded yet.
    Add,
    /// Load profiles, or update loaded ones; does nothing where the kernel holds exactly that already.
    Replace,
    /// Take profiles out of the kernel, by name, unless a process carries them.
    Remove,
    /// Tell what is wanted, on disk, in the kernel, and in use.
    Status,
    /// Fail unless each profile is loaded, in enforce mode, every process of the guest carries it, and what libvirt runs
    /// beside it is confined. Without names: of each guest that has a file, is loaded, or runs.
    Verify,
    /// Remove what no definition and no process needs.
    Gc,
    /// Tell whether this host can do it at all.
    Doctor,
}

impl Verb {
    /// All of them, as they are typed.
    pub fn names() -> String {
        Self::value_variants().iter().map(|verb| verb.name()).collect::<Vec<_>>().join(", ")
    }

    /// As it is typed.
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

/// Loads AppArmor profiles of guests into the kernel, removes them, and reports their state.
#[derive(Debug, Parser)]
#[command(
    name = "aa-load",
    version,
    disable_help_subcommand = true,
    after_help = "Exit status: 0 all done, 1 some input was refused, 2 usage, 3 the host failed (see --help)",
    after_long_help = AFTER
)]
#[expect(clippy::struct_excessive_bools, reason = "one for each switch of the command line")]
pub struct Args {
    /// add, replace (the default), remove, status, verify, gc or doctor; then profile names, profile files,
    /// files of records, or - for records on standard input (the default for add, replace and remove)
    #[arg(value_name = "VERB|NAME|FILE|-")]
    pub operands: Vec<String>,
    /// The program that compiles and loads [default: the one in /usr/sbin or /sbin]
    #[arg(long, value_name = "PATH")]
    pub parser: Option<PathBuf>,
    /// Another directory to look for included files in; may be repeated
    #[arg(long, value_name = "DIR")]
    pub include: Vec<PathBuf>,
    /// AppArmor's own directory of abstractions and tunables
    #[arg(long, value_name = "DIR", default_value = POLICY_BASE)]
    pub base: PathBuf,
    /// Directory of the profiles that are given by name
    #[arg(long, value_name = "DIR", default_value = "/etc/apparmor.d/libvirt")]
    pub dir: PathBuf,
    /// Where compiled profiles are kept
    #[arg(long, value_name = "DIR", default_value = crate::cache::DIRECTORY, conflicts_with = "no_cache")]
    pub cache_dir: PathBuf,
    /// Neither use nor write the cache
    #[arg(long)]
    pub no_cache: bool,
    /// Only tell what would be done, and write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// remove: also where a process carries the profile
    ///
    /// The process is unconfined from then on.
    #[arg(long)]
    pub force: bool,
    /// replace: load the whole set in one write to the kernel
    ///
    /// The kernel takes all of it or nothing. A profile that does not compile is named, and is not in the set.
    #[arg(long)]
    pub direct: bool,
    /// add, replace: compile what guests share once, and merge each guest's own rules into it
    ///
    /// What guests share is kept in the cache. What is not of a known form is compiled whole.
    #[arg(long, conflicts_with = "no_cache")]
    pub merge: bool,
    /// status, doctor: JSON Lines instead of a table
    #[arg(long)]
    pub json: bool,
    /// add, replace: profiles worked on at once [default: one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(crate::batch::MOST_JOBS)))]
    pub jobs: Option<u16>,
    /// Print a summary at the end even if standard error is not a terminal
    #[arg(short, long)]
    pub verbose: bool,
    /// Seconds after which a run of the parser is ended, at most a day
    #[arg(long, value_name = "SECONDS", default_value_t = parser::TIME.as_secs(), value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub timeout: u64,
    /// status, verify, gc: where guests are defined; may be repeated [default: libvirt's directories for QEMU and LXC,
    /// and /etc/aa-svirt/guests]
    ///
    /// They are defined as domain XML, in *.xml or in domain.xml of a directory for each.
    #[arg(long, value_name = "DIR")]
    pub definitions: Vec<PathBuf>,
    /// gc: leave alone what was written or loaded within this time [default: 600]
    ///
    /// Its guest may be starting.
    #[arg(long, value_name = "SECONDS")]
    pub min_age: Option<u64>,
    /// What policy may use [default: /usr/share/apparmor-features/features if there, else the kernel's]
    #[arg(long, value_name = "FILE")]
    pub policy_features: Option<PathBuf>,
    /// What to compile for [default: the running kernel]
    #[arg(long, value_name = "FILE")]
    pub kernel_features: Option<PathBuf>,
    /// Where securityfs is mounted
    #[arg(long, value_name = "DIR", default_value = SECURITYFS)]
    pub securityfs: PathBuf,
    /// Where procfs is mounted; it must be the host's, with all processes in it
    #[arg(long, value_name = "DIR", default_value = "/proc")]
    pub proc: PathBuf,
    /// Where AppArmor's parameters are
    #[arg(long, value_name = "DIR", default_value = crate::parameters::DIRECTORY)]
    pub parameters: PathBuf,
}

impl Args {
    /// The first option that a verb would ignore. Those that say where things are, or what is done there, go with every
    /// verb.
    pub fn misplaced(&self, verb: Verb) -> Option<&'static str> {
        let options: [(&str, bool, &[Verb]); 7] = [
            ("--force", self.force, &[Verb::Remove]),
            // The kernel's one write for a whole set is a replacement.
            ("--direct", self.direct, &[Verb::Replace]),
            ("--merge", self.merge, &[Verb::Add, Verb::Replace]),
            ("--jobs", self.jobs.is_some(), &[Verb::Add, Verb::Replace]),
            ("--json", self.json, &[Verb::Status, Verb::Doctor]),
            ("--definitions", !self.definitions.is_empty(), &[Verb::Status, Verb::Verify, Verb::Gc]),
            ("--min-age", self.min_age.is_some(), &[Verb::Gc]),
        ];
        options
            .into_iter()
            .find(|(_, is_given, verbs)| *is_given && !verbs.contains(&verb))
            .map(|(name, ..)| name)
    }
}

const AFTER: &str = "\
AppArmor 4 and later install another program called aa-load, in /usr/sbin. This one has its own directory.

Examples:
  virsh dumpxml vm | aa-derive | aa-render | aa-load
      load the profile of one guest, or update it while the guest runs
  aa-load libvirt-a22e3930-d87a-584e-22b2-1d8950212bac
      load the profile of that name from /etc/apparmor.d/libvirt
  aa-load remove libvirt-a22e3930-d87a-584e-22b2-1d8950212bac
      the guest has stopped
  aa-load status --json | jq -r 'select(.mode == \"complain\") | .profile'
      guests whose profile only logs
  aa-load gc --dry-run
      what is left behind of guests that are gone

Exit status:
  0  all done
  1  some input was refused, by this tool, the parser or the kernel; each is named, the rest was done
  2  the call was wrong
  3  the host failed: no parser, no AppArmor, no privilege, input or output, or the kernel does not hold
     what was loaded
In a pipe, use \"set -o pipefail\": an empty input is no error for this tool.";
