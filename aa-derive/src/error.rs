//! Why a domain is refused, and where in its XML.

use std::fmt;

use aa_contract::domain::DomainNameError;
use aa_contract::path::PathError;
use aa_contract::text::Printable;
use thiserror::Error;

use crate::host::Kind;
use crate::path_policy::Restriction;
use crate::xml::{Pos, XmlError, XmlErrorKind};

/// A refusal of one domain.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub struct Error {
    /// Where in the document; none where the refusal is of an option.
    pub pos: Option<Pos>,
    /// Why.
    #[source]
    pub kind: Refusal,
}

impl fmt::Display for Error {
    /// `LINE:COLUMN: reason`, to stand behind the file's name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pos {
            Some(pos) => write!(f, "{pos}: {}", self.kind),
            None => write!(f, "{}", self.kind),
        }
    }
}

impl From<XmlError> for Error {
    fn from(error: XmlError) -> Self {
        Self { pos: Some(error.pos), kind: Refusal::Xml(error.kind) }
    }
}

/// The reasons, one variant each.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// Not well-formed.
    #[error("{0}")]
    Xml(XmlErrorKind),
    /// The root element is not a domain.
    #[error("the root element is <{}>, not <domain>", Printable(.0))]
    NotDomain(String),
    /// Something that every domain has is missing.
    #[error("the domain has no {0}")]
    Missing(&'static str),
    /// The UUID is not one.
    #[error("\"{}\" is not a UUID", Printable(.0))]
    Uuid(String),
    /// The id is not a number.
    #[error("\"{}\" is not a domain's id", Printable(.0))]
    Id(String),
    /// The name cannot be used.
    #[error("{0}")]
    Name(DomainNameError),
    /// Not a kind of guest that AppArmor confines under libvirt.
    #[error("domains of type \"{}\" are not confined by AppArmor: the types are kvm, qemu and lxc", Printable(.0))]
    VirtType(String),
    /// A path that is not absolute, or that no file can have.
    #[error("{what}: {error}")]
    Path {
        /// What the path is in the domain, as «disk source».
        what: &'static str,
        /// What is wrong with it.
        error: PathError,
    },
    /// A path whose symbolic links lead nowhere.
    #[error("{what} \"{}\" cannot be resolved: {reason}", Printable(.path))]
    Unresolvable {
        /// What the path is.
        what: &'static str,
        /// The path as written.
        path: String,
        /// The system's reason.
        reason: String,
    },
    /// The path policy refuses the path.
    #[error(
        "{what} \"{}\"{} may not be granted{}: {} ({}; {access} asked for by {asker})",
        Printable(.path), Header(.header), Resolves(.path, .resolved), .restriction.reason, .restriction.line
    )]
    Restricted {
        /// What the path is.
        what: &'static str,
        /// The path as written.
        path: String,
        /// Where its links lead.
        resolved: String,
        /// The image whose header names it, if it is not in the XML.
        header: Option<String>,
        /// The element or option that asks for it, or for that image.
        asker: String,
        /// What was asked for.
        access: String,
        /// What the policy says of it.
        restriction: Box<Restriction>,
    },
    /// The path is no file of the kind that can be granted there.
    #[error("{what} \"{}\" is a {}", Printable(.path), kind_name(*.kind))]
    WrongKind {
        /// What the path is.
        what: &'static str,
        /// The path as written.
        path: String,
        /// What is there.
        kind: Kind,
    },
    /// A value is not one of those that libvirt documents, and guessing it would grant the wrong files.
    #[error("{what} \"{}\" is not known", Printable(.value))]
    Value {
        /// What the value is.
        what: &'static str,
        /// The value as written.
        value: String,
    },
    /// A device without the attribute that says which host file it uses.
    #[error("{what} has no {missing}")]
    Incomplete {
        /// The device.
        what: &'static str,
        /// The attribute or element.
        missing: &'static str,
    },
    /// A storage volume that no pool definition explains.
    #[error("volume \"{}\" of pool \"{}\" is not resolved: {reason}", Printable(.volume), Printable(.pool))]
    Volume {
        /// The pool's name.
        pool: String,
        /// The volume's name.
        volume: String,
        /// Why not.
        reason: String,
    },
    /// A backing chain that cannot be granted.
    #[error("{what} \"{}\": {reason}", Printable(.path))]
    Chain {
        /// What the image is.
        what: &'static str,
        /// The image's path.
        path: String,
        /// Why not.
        reason: String,
    },
    /// Elements so deep, and so many of them, that a record of them would take memory without bound.
    #[error(
        "the elements that name files are so deep and so many that their names alone have more than {limit} MiB"
    )]
    TooDeep {
        /// The limit.
        limit: usize,
    },
    /// `--strict` turns a note into a refusal.
    #[error("{0} (refused by --strict)")]
    Strict(String),
    /// Two rules execute one program in two ways.
    #[error("{0}")]
    Exec(String),
}

impl Refusal {
    /// Whether a path is refused because it belongs to another guest.
    pub(crate) fn is_of_another_guest(&self) -> bool {
        matches!(self, Self::Restricted { restriction, .. } if restriction.another_guests)
    }
}

/// ` in the header of IMAGE` where a header names the path.
struct Header<'a>(&'a Option<String>);

impl fmt::Display for Header<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(image) => write!(f, " in the header of \"{}\"", Printable(image)),
            None => Ok(()),
        }
    }
}

/// Of a path and where its links lead: ` (it is "…")` if that is elsewhere.
#[derive(Debug, Clone, Copy)]
pub struct Resolves<'a>(pub &'a str, pub &'a str);

impl fmt::Display for Resolves<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == self.1 { Ok(()) } else { write!(f, " (it is \"{}\")", Printable(self.1)) }
    }
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Missing => "missing file",
        Kind::File => "regular file",
        Kind::Directory => "directory",
        Kind::Block => "block device",
        Kind::Character => "character device",
        Kind::Fifo => "FIFO",
        Kind::Socket => "socket",
    }
}
