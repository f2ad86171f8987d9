//! What can go wrong, one variant for each refusal.

use std::io;
use std::path::{Path, PathBuf};

use aa_contract::record::RecordError;
use aa_contract::text::{Printable, strip_os_code};
use aa_contract::{Exit, Loaded, ProfileName};
use thiserror::Error;

use crate::blob::BlobError;
use crate::tasks::Task;

/// Why a profile was not loaded, not unloaded or not found right.
#[derive(Debug, Error)]
pub enum Error {
    /// A line of the input is not a record.
    #[error("{0}")]
    Record(#[from] RecordError),
    /// An operand is nothing at all.
    #[error(
        "\"{}\" is no verb ({}), profile name (libvirt-<uuid>) or file{}",
        Printable(.0), crate::args::Verb::names(), meant(.0)
    )]
    Nothing(String),
    /// An operand is a file that cannot be read.
    #[error("{}: {}", Printable(.operand), strip_os_code(.source))]
    Operand {
        /// The operand.
        operand: String,
        /// Why the file cannot be read.
        source: io::Error,
    },
    /// A profile file is not named after its profile.
    #[error("{}: a profile file must be named after its profile, libvirt-<uuid>", Printable(&.0.to_string_lossy()))]
    FileName(PathBuf),
    /// The input names one profile twice.
    #[error("the input names it twice")]
    Twice,
    /// A profile, or a file that it is made of, is not there, or is another user's to change.
    #[error("{}: {}", Printable(&.path.to_string_lossy()), strip_os_code(.source))]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The administrator has switched the profile off by a link in `disable/`.
    #[error("switched off by {}", Printable(&.0.to_string_lossy()))]
    Disabled(PathBuf),
    /// The parser compiled something else than the one profile that was asked for.
    #[error("{} defines {found}, which is not this profile and its children", Printable(&.file.to_string_lossy()))]
    OtherProfile {
        /// The file.
        file: PathBuf,
        /// What it defines instead, printable.
        found: String,
    },
    /// The parser's output is no policy.
    #[error("apparmor_parser wrote no policy: {0}")]
    Blob(#[from] BlobError),
    /// A file that the profile is made of, or the text of features, kept changing while it was compiled.
    #[error("a file that it is made of changes while it is compiled")]
    Unstable,
    /// `add` of a profile that is loaded.
    #[error("already in the kernel (use replace)")]
    Exists,
    /// `remove` of a profile that is not loaded.
    #[error("not in the kernel")]
    NotLoaded,
    /// `remove` of a profile that confines a process.
    #[error("in use by {}; removing it would leave it unconfined (--force does so)", tasks(.0))]
    InUse(Vec<Task>),
    /// What the kernel reports is not what was loaded.
    #[error("the kernel does not hold what was loaded: {0}")]
    ReadBack(String),
    /// The profile was loaded, but a child that it no longer has could not be taken out of the kernel.
    #[error("loaded, but \"{}\", which it no longer has, stays in the kernel: {source}", Printable(.child))]
    Stale {
        /// What was done.
        loaded: Loaded,
        /// The child's name in full.
        child: String,
        /// Why it stays.
        source: Box<Self>,
    },
    /// Such a child is carried by threads, or about to be entered.
    #[error("in use by {}", tasks(.0))]
    Carried(Vec<Task>),
    /// A load was tried, and the kernel does not tell what came of it.
    #[error("{0}; whether it was loaded is not known")]
    Unknown(Box<Self>),
    /// The profile is of a mode that confines nothing, or that no record can tell.
    #[error("of mode \"{0}\", which is not loaded")]
    Lax(&'static str),
    /// The kernel holds the profile in a mode that no record can tell.
    #[error("in the kernel in mode \"{}\"", Printable(.0))]
    Mode(String),
    /// `verify` found a profile or a process of it otherwise than it should be.
    #[error("{0}")]
    Unverified(String),
    /// The parser failed or refused.
    #[error(transparent)]
    Parser(#[from] ParserError),
    /// AppArmor is not there.
    #[error("AppArmor is not available: {0}")]
    NoAppArmor(String),
    /// The kernel's policy files refuse this process.
    #[error(
        "no privilege to change policy (CAP_MAC_ADMIN, as root), or it is locked until the next boot: {}",
        strip_os_code(.0)
    )]
    Privilege(io::Error),
    /// Nothing tells which guests are wanted.
    #[error("no definitions of guests: neither {} is there; name a directory with --definitions", .0.join(" nor "))]
    NoDefinitions([&'static str; 2]),
    /// A file of the host could not be read or written.
    #[error("{}: {}", Printable(&.path.to_string_lossy()), strip_os_code(.source))]
    Host {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Why a run of the parser gave nothing.
#[derive(Debug, Error)]
pub enum ParserError {
    /// No such program.
    #[error("no apparmor_parser at {0}")]
    NotFound(String),
    /// It is there but did not start.
    #[error("cannot run {}: {}", Printable(&.path.to_string_lossy()), strip_os_code(.source))]
    Start {
        /// The program.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It said no word for too long.
    #[error("apparmor_parser was ended after {0} seconds")]
    Timeout(u64),
    /// It took more memory than its limit.
    #[error("apparmor_parser was ended at {0} MiB of memory")]
    Memory(u64),
    /// It wrote more than any policy has.
    #[error("apparmor_parser was ended after writing {0} bytes")]
    Output(usize),
    /// A signal ended it.
    #[error("apparmor_parser was killed by signal {0}")]
    Signal(i32),
    /// It does not tell its version.
    #[error("apparmor_parser does not tell its version: \"{}\"", Printable(.0))]
    Version(String),
    /// It refused the profile; the text is its own message, printable, with file and line.
    #[error("apparmor_parser refused it: {0}")]
    Refused(String),
    /// The profile is loaded already.
    #[error("already in the kernel (use replace)")]
    Exists,
    /// The profile to be removed is not loaded.
    #[error("not in the kernel")]
    NotLoaded,
    /// The kernel lets this process load nothing.
    #[error(
        "no privilege to change policy (CAP_MAC_ADMIN, as root), or it is locked until the next boot: {0}"
    )]
    Privilege(String),
    /// The parser finds no AppArmor in the kernel.
    #[error("AppArmor is not available: {0}")]
    NoAppArmor(String),
    /// The kernel refused the compiled policy.
    #[error("the kernel refused it: {meaning}: {message}")]
    Kernel {
        /// The error number's name and sense.
        meaning: &'static str,
        /// The parser's message, printable.
        message: String,
    },
    /// The kernel could not take the compiled policy, whatever it is.
    #[error("the kernel could not load it: {meaning}: {message}")]
    Failed {
        /// The error number's name and sense.
        meaning: &'static str,
        /// The parser's message, printable.
        message: String,
    },
}

impl Error {
    /// That something could not be done with a path of the host, for `map_err`.
    pub(crate) fn host(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Host { path: path.to_owned(), source }
    }

    /// Whether the input is at fault (status 1) or the host (status 3).
    pub fn exit(&self) -> Exit {
        match self {
            Self::Record(_)
            | Self::Nothing(_)
            | Self::Operand { .. }
            | Self::FileName(_)
            | Self::Twice
            | Self::Read { .. }
            | Self::Disabled(_)
            | Self::OtherProfile { .. }
            | Self::Unstable
            | Self::Exists
            | Self::NotLoaded
            | Self::InUse(_)
            | Self::Carried(_)
            | Self::Lax(_)
            | Self::Mode(_)
            | Self::Unverified(_) => Exit::Refused,
            Self::Stale { source, .. } => source.exit(),
            Self::Parser(error) => error.exit(),
            // A parser or a kernel that does not do as it says has not refused anything.
            Self::Blob(_)
            | Self::ReadBack(_)
            | Self::NoAppArmor(_)
            | Self::Privilege(_)
            | Self::NoDefinitions(_)
            | Self::Host { .. }
            | Self::Unknown(_) => Exit::Host,
        }
    }
}

impl Error {
    /// The same failure of one write, or of one lock, for each profile that it concerned.
    pub(crate) fn again(&self) -> Self {
        let same = |error: &io::Error| {
            let of_ours = || io::Error::new(error.kind(), error.to_string());
            error.raw_os_error().map_or_else(of_ours, io::Error::from_raw_os_error)
        };
        match self {
            Self::Privilege(error) => Self::Privilege(same(error)),
            Self::Host { path, source } => Self::Host { path: path.clone(), source: same(source) },
            Self::Read { path, source } => Self::Read { path: path.clone(), source: same(source) },
            Self::Parser(ParserError::Exists) => Self::Parser(ParserError::Exists),
            Self::Parser(ParserError::Kernel { meaning, message }) => {
                Self::Parser(ParserError::Kernel { meaning, message: message.clone() })
            }
            Self::Parser(ParserError::Failed { meaning, message }) => {
                Self::Parser(ParserError::Failed { meaning, message: message.clone() })
            }
            other => Self::ReadBack(other.to_string()),
        }
    }
}

impl ParserError {
    /// Whether the input is at fault (status 1) or the host (status 3).
    pub fn exit(&self) -> Exit {
        match self {
            Self::Refused(_) | Self::Exists | Self::NotLoaded | Self::Kernel { .. } => Exit::Refused,
            Self::NotFound(_)
            | Self::Start { .. }
            | Self::Timeout(_)
            | Self::Memory(_)
            | Self::Output(_)
            | Self::Signal(_)
            | Self::Version(_)
            | Self::Privilege(_)
            | Self::Failed { .. }
            | Self::NoAppArmor(_) => Exit::Host,
        }
    }
}

/// Where an error belongs: a profile, or a place in the input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A profile.
    Profile(ProfileName),
    /// A line of a file of records, from 1; the name is printable.
    Line(String, usize),
    /// The host as a whole, or what the error itself names.
    Host,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Profile(name) => write!(f, "{name}: "),
            Self::Line(file, line) => write!(f, "{file}:{line}: "),
            Self::Host => Ok(()),
        }
    }
}

/// What a UUID that stands alone was to say.
fn meant(operand: &str) -> String {
    match format!("libvirt-{}", operand.to_lowercase()).parse::<ProfileName>() {
        Ok(name) => format!("; did you mean {name}?"),
        Err(_) => String::new(),
    }
}

/// The first processes of a list, for people.
fn tasks(tasks: &[Task]) -> String {
    const SHOWN: usize = 5;
    let mut text: Vec<String> = tasks.iter().take(SHOWN).map(ToString::to_string).collect();
    if tasks.len() > SHOWN {
        text.push(format!("{} more", tasks.len() - SHOWN));
    }
    text.join(", ")
}
