//! Every way in which the helper refuses or fails. The status is always 1.

use std::io;

use aa_contract::ProfileName;
use aa_contract::text::Printable;
use aa_derive::error::Resolves;
use thiserror::Error;

/// Why the profile is not as it was asked for.
#[derive(Debug, Error)]
pub enum Error {
    /// An option that there is not.
    #[error("unsupported option \"{}\"; --help lists them", Printable(.0))]
    Option(String),
    /// An option at the end that needs an argument.
    #[error("option \"{}\" needs an argument", Printable(.0))]
    Argument(String),
    /// An argument that is not UTF-8.
    #[error("argument \"{}\" is not UTF-8", Printable(.0))]
    NotText(String),
    /// None of `-a -c -r -R -D`.
    #[error("no mode was given; --help lists them")]
    NoMode,
    /// The profile's name is missing or none.
    #[error("invalid UUID: -u needs libvirt-<uuid>")]
    Name,
    /// The XML is another guest's.
    #[error("{asked} was asked for, and the XML is of {found}")]
    OtherGuest {
        /// `-u`
        asked: ProfileName,
        /// The profile of the XML's UUID.
        found: ProfileName,
    },
    /// `-c` where there is a profile.
    #[error("profile {0} exists")]
    Exists(ProfileName),
    /// Any other mode where there is none.
    #[error("profile {0} does not exist")]
    NoProfile(ProfileName),
    /// Standard input could not be read.
    #[error("could not read xml: {0}")]
    Input(io::Error),
    /// Standard input is longer than libvirt's limit.
    #[error("could not read xml: it is larger than 10 MiB")]
    TooLarge,
    /// The domain's name has a character that libvirt's helper refuses.
    #[error("domain name \"{}\" has one of / [ ] {{ }} ? ^ , \" *", Printable(.0))]
    DomainName(String),
    /// `<os><type>` is not one that the domain's type has.
    #[error("os type \"{}\" is not one of a domain of this type", Printable(.0))]
    OsType(String),
    /// The XML is refused.
    #[error("{0}")]
    Derive(#[from] aa_derive::Error),
    /// The argument of `-f` or `-F` is no path.
    #[error("file to add: {0}")]
    Extra(#[from] aa_contract::path::PathError),
    /// The argument of `-f` or `-F` leads nowhere.
    #[error("file to add \"{}\" cannot be resolved: {source}", Printable(.path))]
    Unresolvable {
        /// The argument.
        path: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The path policy refuses the argument of `-f` or `-F`.
    #[error("file to add \"{}\" may not be granted{}: {restriction}", Printable(.path), Resolves(.path, .resolved))]
    Restricted {
        /// The argument.
        path: String,
        /// Where its links lead.
        resolved: String,
        /// What the policy says of it.
        restriction: String,
    },
    /// The argument of `-f` or `-F` is the whole file system.
    #[error("file to add \"{}\" may not be granted: it is the root directory", Printable(.0))]
    Root(String),
    /// The profile's files.
    #[error("{0}")]
    Render(#[from] aa_render::Error),
    /// The parser refused or failed; the files are as they were before.
    #[error("{0}")]
    Parser(#[from] aa_load::error::ParserError),
    /// After a failure the files could not be put back.
    #[error("{failure}; and the old files could not be put back: {restore}")]
    NotRestored {
        /// What failed first.
        failure: aa_load::error::ParserError,
        /// What failed then.
        restore: aa_render::Error,
    },
    /// The built-in path policy, the host's root, or the helper's own note in the rules file.
    #[error("{what}: {reason}")]
    Setup {
        /// What is unusable.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// Standard error could not be written.
    #[error("standard error: {0}")]
    Output(io::Error),
}
