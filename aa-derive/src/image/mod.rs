//! Disk images: what other host files an image's header names.
//!
//! Only headers are read, and only so much of them ([`reader::BUDGET`]); every offset in them is hostile.
//! The format files take bytes and give a [`Header`]; [`backing`] reads the forms a backing name can have;
//! [`chain`] puts both together; [`files`] is the only code here that touches the host.
//!
//! **A raw image is never read**: its bytes are the guest's own (CVE-2010-2237).

#![warn(clippy::arithmetic_side_effects)]

pub mod backing;
pub mod chain;
mod cow;
pub mod files;
mod json;
mod qcow;
mod qcow2;
mod qed;
pub mod reader;
mod vdi;
mod vhdx;
mod vmdk;
mod vpc;

use std::fmt;

use thiserror::Error;

pub use backing::{Node, Override, Remote, Source};
pub use chain::{
    Chain, ChainError, ChainNote, LIMIT, Layer, LayerKind, Named, Permit, Problem, Said, TopImage, Total,
    walk,
};
pub use files::{FileInfo, FileKind, Files, Identity, ImageHost, OpenError};
pub(crate) use json::{FILTERS, MAX_DEPTH as MAX_NODES};
pub use reader::{ReadAt, Reader};

/// Longest backing name, in bytes, that QEMU takes from a header (`docs/interop/qcow2.rst`).
const MAX_NAME: usize = 1023;

/// The format of an image: those of libvirt's `driver/@type` and those QEMU knows besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the variants are the formats' own names")]
pub enum Format {
    Raw,
    Dir,
    Bochs,
    Cloop,
    Dmg,
    Iso,
    Vpc,
    Vdi,
    Fat,
    Vhd,
    Ploop,
    Cow,
    Qcow,
    Qcow2,
    Qed,
    Vmdk,
    Vhdx,
    Parallels,
    Luks,
}

/// Every format with its name; the ones libvirt has in `driver/@type` come first, in the order of libvirt's
/// enumeration, which is also the order in which it probes.
const NAMES: [(&str, Format); 19] = [
    ("raw", Format::Raw),
    ("dir", Format::Dir),
    ("bochs", Format::Bochs),
    ("cloop", Format::Cloop),
    ("dmg", Format::Dmg),
    ("iso", Format::Iso),
    ("vpc", Format::Vpc),
    ("vdi", Format::Vdi),
    ("fat", Format::Fat),
    ("vhd", Format::Vhd),
    ("ploop", Format::Ploop),
    ("cow", Format::Cow),
    ("qcow", Format::Qcow),
    ("qcow2", Format::Qcow2),
    ("qed", Format::Qed),
    ("vmdk", Format::Vmdk),
    ("vhdx", Format::Vhdx),
    ("parallels", Format::Parallels),
    ("luks", Format::Luks),
];

impl Format {
    /// The format that libvirt's `driver/@type` calls `name`; none for names libvirt refuses
    /// (`vhdx`, `parallels`, `luks`, `auto` and what is no format).
    pub fn from_driver_type(name: &str) -> Option<Self> {
        Self::from_name(name).filter(|format| !matches!(format, Self::Vhdx | Self::Parallels | Self::Luks))
    }

    /// The format that libvirt or QEMU calls `name`, as image headers record it.
    pub fn from_name(name: &str) -> Option<Self> {
        NAMES.iter().find(|(known, _)| *known == name).map(|(_, format)| *format)
    }

    /// The format's name.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(_, format)| *format == self).map_or("raw", |(name, _)| name)
    }

    /// Whether images of this format are opened and their headers read. The others name no file.
    pub fn is_read(self) -> bool {
        matches!(
            self,
            Self::Cow
                | Self::Qcow
                | Self::Qcow2
                | Self::Qed
                | Self::Vmdk
                | Self::Vpc
                | Self::Vdi
                | Self::Vhdx
        )
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What an image says of the format of its backing file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackingFormat {
    /// This format.
    Declared(Format),
    /// Nothing: whoever opens it would have to probe.
    Absent,
    /// Nothing, but that it is not raw, so that probing is safe (QED without its no-probe bit, as libvirt has it).
    NotRaw,
    /// A name that is no format, such as `host_device`; libvirt takes it as raw.
    Unknown(String),
}

/// The backing file that an image names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackingRef {
    /// The name as the header has it; [`backing::parse`] reads it.
    pub text: String,
    /// What the header says of its format.
    pub format: BackingFormat,
}

/// What an image's header says about other files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The image's format.
    pub format: Format,
    /// The image below this one.
    pub backing: Option<BackingRef>,
    /// A qcow2 image's external data file; its content is raw.
    pub data_file: Option<String>,
    /// The files that hold a VMDK image's data, as the descriptor names them.
    pub extents: Vec<String>,
    /// A parent that the format can name and QEMU never opens (VHD, VHDX, VDI): text for people only.
    pub unread_parent: Option<String>,
}

impl Header {
    /// A header that names no other file.
    fn plain(format: Format) -> Self {
        Self { format, backing: None, data_file: None, extents: Vec::new(), unread_parent: None }
    }
}

/// Why an image's header was not understood.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HeaderError {
    /// The image does not start as its declared format does.
    #[error("the image is declared {declared} but its content is {}", found.map_or("not", Format::name))]
    Magic {
        /// The format it should have.
        declared: Format,
        /// The format that its first bytes show, if any.
        found: Option<Format>,
    },
    /// The version of the format is unknown.
    #[error("{format} version {version} is not known")]
    Version {
        /// The format.
        format: Format,
        /// The version in the header.
        version: u32,
    },
    /// The file ends before what the header points to.
    #[error("the image ends before the {len} bytes at offset {offset} that its header names")]
    Truncated {
        /// Where they should be, in bytes from the start.
        offset: u64,
        /// How many there should be.
        len: usize,
    },
    /// A field has a value that the format forbids.
    #[error("header field {field} is out of range")]
    Range {
        /// The field's name in the format's specification.
        field: &'static str,
    },
    /// A name is longer than QEMU takes.
    #[error("header field {field} is {len} bytes long, more than the {max} that QEMU takes")]
    TooLong {
        /// What the name names.
        field: &'static str,
        /// Its length.
        len: u64,
        /// The longest allowed.
        max: usize,
    },
    /// A name is not UTF-8, which no rule can hold.
    #[error("header field {field} is not UTF-8")]
    NotUtf8 {
        /// What the name names.
        field: &'static str,
    },
    /// The header says that there is an external data file and does not name it.
    #[error("the image has an external data file that its header does not name")]
    DataFileUnnamed,
    /// More extents than a descriptor may list here.
    #[error("the VMDK descriptor lists more than {0} extents")]
    TooManyExtents(usize),
    /// The header would have more read than any real one.
    #[error("the header spreads over more than {} KiB", reader::BUDGET / 1024)]
    Budget,
    /// The file could not be read.
    #[error("cannot be read: {0}")]
    Read(String),
}

/// The format that the content shows, by libvirt's order and magic numbers; [`Format::Raw`] if none.
///
/// # Errors
/// [`HeaderError::Read`] and [`HeaderError::Budget`] only.
pub fn detect(image: &mut Reader<'_>) -> Result<Format, HeaderError> {
    let head = image.up_to(0, 512)?;
    let be32 = |at| reader::be32(&head, at).ok();
    let le32 = |at| reader::le32(&head, at).ok();
    if image.up_to(32769, 5)? == b"CD001" {
        return Ok(Format::Iso);
    }
    let found = [
        (head.starts_with(b"conectix") && be32(12) == Some(0x1_0000), Format::Vpc),
        (le32(64) == Some(0xbeda_107f) && le32(68) == Some(0x1_0001), Format::Vdi),
        (head.starts_with(b"WithouFreSpacExt"), Format::Ploop),
        (head.starts_with(b"OOOM") && be32(4) == Some(2), Format::Cow),
        (head.starts_with(b"QFI") && be32(4) == Some(1), Format::Qcow),
        (head.starts_with(b"QFI") && matches!(be32(4), Some(2 | 3)), Format::Qcow2),
        (head.starts_with(b"QED"), Format::Qed),
        (head.starts_with(b"KDMV") && matches!(le32(4), Some(1..=3)), Format::Vmdk),
    ];
    Ok(found.iter().find(|(hit, _)| *hit).map_or(Format::Raw, |(_, format)| *format))
}

/// Reads the header of an image of a known format.
///
/// Formats that name no file, raw above all, are not read.
///
/// # Errors
/// [`HeaderError`]: the content is not of that format, or malformed; QEMU would not open it either.
pub fn read_header(format: Format, image: &mut Reader<'_>) -> Result<Header, HeaderError> {
    let read = match format {
        Format::Cow => cow::read(image),
        Format::Qcow => qcow::read(image),
        Format::Qcow2 => qcow2::read(image),
        Format::Qed => qed::read(image),
        Format::Vmdk => vmdk::read(image),
        Format::Vpc => vpc::read(image),
        Format::Vdi => vdi::read(image),
        Format::Vhdx => vhdx::read(image),
        Format::Raw
        | Format::Dir
        | Format::Bochs
        | Format::Cloop
        | Format::Dmg
        | Format::Iso
        | Format::Fat
        | Format::Vhd
        | Format::Ploop
        | Format::Parallels
        | Format::Luks => return Ok(Header::plain(format)),
    };
    match read {
        Err(HeaderError::Magic { declared, .. }) => {
            let found = Some(detect(image)?).filter(|found| *found != Format::Raw);
            Err(HeaderError::Magic { declared, found })
        }
        read => read,
    }
}

/// The error of a parser whose magic number is not there; [`read_header`] adds what was found.
fn no_magic(declared: Format) -> HeaderError {
    HeaderError::Magic { declared, found: None }
}

#[cfg(test)]
pub(crate) mod tests;
