//! Every way in which this tool refuses.

use std::io;
use std::path::PathBuf;

use aa_contract::text::{Printable, strip_os_code};
use aa_contract::{Exit, ProfileName};
use thiserror::Error;

use crate::profile_text::TextError;
use crate::rules_file::RulesFileError;

/// Why a profile was not made.
#[derive(Debug, Error)]
pub enum Error {
    /// A file or directory could not be used.
    #[error("{}: {doing}: {}", Printable(&path.to_string_lossy()), strip_os_code(source))]
    Io {
        /// What it was about.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A directory that someone else could change under this tool.
    #[error("{}: not used as a profile directory: {reason}", Printable(&path.to_string_lossy()))]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why not.
        reason: &'static str,
    },
    /// A file of the profile directory that is not an ordinary file of this user or root.
    #[error("{}: {reason}", Printable(&path.to_string_lossy()))]
    File {
        /// The file.
        path: PathBuf,
        /// What it is.
        reason: &'static str,
    },
    /// A file that could not be read again.
    #[error("{}: it would be larger than 10 MiB", Printable(&.0.to_string_lossy()))]
    TooLarge(PathBuf),
    /// The template directory was given and has no such template.
    #[error("{}: no such template", Printable(&.0.to_string_lossy()))]
    NoTemplate(PathBuf),
    /// A template without the marker, or with a block that is not closed.
    #[error("{}:{source}", Printable(&path.to_string_lossy()))]
    Template {
        /// The template.
        path: PathBuf,
        /// Where and what.
        source: TextError,
    },
    /// A base profile that does not hold this guest's profile.
    #[error("{}:{source}; the base profile is kept as it is: mend it, remove it, or use --renew", Printable(&path.to_string_lossy()))]
    Base {
        /// The base profile.
        path: PathBuf,
        /// Where and what.
        source: TextError,
    },
    /// A rules file that cannot be merged with.
    #[error("{}:{source}", Printable(&path.to_string_lossy()))]
    Rules {
        /// The rules file.
        path: PathBuf,
        /// Where and what.
        source: RulesFileError,
    },
    /// A line of the grants file that is not a grant.
    #[error("{}:{line}: {reason}", Printable(&path.to_string_lossy()))]
    Grants {
        /// The grants file.
        path: PathBuf,
        /// Line in it, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// Two rules execute one path in two ways.
    #[error(transparent)]
    Exec(#[from] aa_contract::access::ExecConflict),
    /// A grant with an access that only deny rules have.
    #[error(transparent)]
    Rule(#[from] aa_contract::rule::RuleError),
    /// A grant executes a path in another way than the guest's own rules do.
    #[error("the grant of \"{}\": {source}", Printable(path))]
    GrantExec {
        /// The path or pattern.
        path: String,
        /// The two ways.
        source: aa_contract::access::ExecConflict,
    },
    /// A grant of what the guest's own rules deny.
    #[error(
        "the grant of \"{}\": a rule of the guest denies \"{denied}\" there, whatever allows it",
        Printable(path)
    )]
    GrantDenied {
        /// The path or pattern.
        path: String,
        /// What is denied.
        denied: aa_contract::Access,
    },
    /// A minimal profile was asked for, and there is a base profile that is kept.
    #[error("{}: the base profile exists and is kept; --renew makes it anew from what the guest uses", Printable(&.0.to_string_lossy()))]
    NotMinimal(PathBuf),
    /// The grant to be dropped was never made.
    #[error("{profile} has no grant for \"{}\"", Printable(path))]
    NoGrant {
        /// The profile.
        profile: ProfileName,
        /// The path or pattern.
        path: String,
    },
}

impl Error {
    /// The exit status that this failure asks for.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Io { .. } | Self::Directory { .. } | Self::File { .. } | Self::NoTemplate(_) => Exit::Host,
            Self::TooLarge(_)
            | Self::Template { .. }
            | Self::Base { .. }
            | Self::Rules { .. }
            | Self::Grants { .. }
            | Self::Exec(_)
            | Self::Rule(_)
            | Self::GrantExec { .. }
            | Self::GrantDenied { .. }
            | Self::NotMinimal(_)
            | Self::NoGrant { .. } => Exit::Refused,
        }
    }
}
