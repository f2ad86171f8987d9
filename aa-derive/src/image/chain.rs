//! From the top image of a disk to every host file that opening it takes.
//!
//! What a guest can write must never widen its profile, so nothing is read whose format was not declared by
//! someone else than the image: not a raw image, and no header beyond an image that had to be probed.

use std::collections::HashSet;
use std::fmt;

use aa_contract::text::Printable;
use aa_contract::{Access, NoteKind};
use thiserror::Error;

use super::backing::{self, NameError, Node, Override, Remote, Source};
use super::files::{Identity, ImageHost, OpenError};
use super::{BackingFormat, Format, Header, HeaderError, Reader, detect, read_header};

/// Most images in one chain, the top included: libvirt's limit.
pub const LIMIT: u32 = 200;

/// Most files that the headers of one domain's images may name in all; what is not as it should be counts too.
const MAX_FILES: usize = 16 * 1024;
/// Most bytes of these headers that are read: a thousand disks of twenty images each have less.
const MAX_READ: usize = 256 * 1024 * 1024;

/// Where a path that may be granted and opened leads; the reason if it may not.
///
/// It gets paths as headers name them, before anything is done with them, and follows their links. What it gives is what
/// is opened, so that it is what was judged.
pub type Permit<'a> = &'a dyn Fn(Named<'_>) -> Result<String, String>;

/// A file that is about to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Named<'a> {
    /// Its path, as named.
    pub path: &'a str,
    /// What it is to be; none of the top image, and of a directory that is not granted.
    pub kind: Option<LayerKind>,
    /// What would be granted; of the top image, and of such a directory, as if it were only read.
    pub access: Access,
    /// The image whose header names it; empty for the top image, and below an image that is no file of this host.
    pub by: &'a str,
}

/// The image that a domain names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopImage<'a> {
    /// Its absolute path, as named.
    pub path: &'a str,
    /// The declared format; none is raw, as in libvirt, and is not probed.
    pub format: Option<Format>,
    /// Whether the guest only reads it; its data file and its extents follow.
    pub readonly: bool,
    /// What the domain says of it besides.
    pub said: Said,
}

/// What is said of an image elsewhere than in its header, which then is not asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Said {
    /// What is below it, or that nothing is.
    pub backing: bool,
    /// Where its data is.
    pub data_file: bool,
    /// That the image is a part of the file, so that its header is not at the start.
    pub sliced: bool,
}

impl Said {
    /// What either says.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            backing: self.backing || other.backing,
            data_file: self.data_file || other.data_file,
            sliced: self.sliced || other.sliced,
        }
    }
}

impl From<&Node> for Said {
    fn from(node: &Node) -> Self {
        Self {
            backing: node.backing != Override::Header,
            data_file: node.data_file != Override::Header,
            sliced: node.sliced,
        }
    }
}

/// What a file is to the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LayerKind {
    /// An image below the top.
    Backing,
    /// The external data file of a qcow2 image.
    DataFile,
    /// A file that holds data of a VMDK image.
    Extent,
    /// A Unix socket that QEMU connects to.
    Socket,
    /// A configuration or key file of a client library.
    Config,
}

/// A host file that the chain needs besides the top image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// The image that it belongs to: 0 is the top, 1 the image below it; a [`LayerKind::Backing`] has its own.
    pub depth: u32,
    /// Absolute path as named: it may hold `.`, `..` and links, which the caller resolves.
    pub path: String,
    /// What it is.
    pub kind: LayerKind,
    /// The least access that opening it takes.
    pub access: Access,
}

/// Everything that a chain names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chain {
    /// The files, from the top down, without the top itself; a file named twice is here twice.
    pub layers: Vec<Layer>,
    /// What is not as it should be, in the same order.
    pub notes: Vec<ChainNote>,
    /// Protocols that reach a layer, such as `rbd`: their client libraries may need features of their own.
    pub protocols: Vec<&'static str>,
    /// How many bytes of headers were read.
    pub read: usize,
}

/// What the chains of one domain have come to so far: many disks on one strange image may take no more than one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Total {
    files: usize,
    read: usize,
}

impl Total {
    /// Adds a chain.
    ///
    /// # Errors
    /// [`ChainError::TooManyFiles`], [`ChainError::TooMuch`].
    pub fn add(&mut self, chain: &Chain) -> Result<(), ChainError> {
        self.files = self.files.saturating_add(chain.layers.len()).saturating_add(chain.notes.len());
        self.read = self.read.saturating_add(chain.read);
        if self.files > MAX_FILES {
            Err(ChainError::TooManyFiles)
        } else if self.read > MAX_READ {
            Err(ChainError::TooMuch)
        } else {
            Ok(())
        }
    }
}

/// Why there is no chain.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ChainError {
    /// More images than any real chain has.
    #[error("the backing chain has more than {LIMIT} images")]
    TooDeep,
    /// An image is below itself.
    #[error("the backing chain is a loop: image {depth}, \"{}\", is above itself", Printable(.path))]
    Loop {
        /// The image that comes again, as named there.
        path: String,
        /// Where it comes again.
        depth: u32,
    },
    /// More files than any real chain has.
    #[error("the headers of the images name more than {MAX_FILES} files")]
    TooManyFiles,
    /// More to read than any real domain has.
    #[error("the headers of the images have more than {} MiB", MAX_READ >> 20)]
    TooMuch,
}

/// Something in a chain that is not as it should be; each names the image and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainNote {
    /// The place: 0 is the top image.
    pub depth: u32,
    /// The file that it is about, or the image whose header it is about; empty for what has no path.
    pub path: String,
    /// What it is.
    pub problem: Problem,
}

/// What can be wrong with one layer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Problem {
    /// A named file cannot be opened. It is listed all the same, unless it can never be an image.
    #[error("{0}")]
    Open(OpenError),
    /// An image's header is not what it should be; nothing below it is known.
    #[error("{0}")]
    Header(HeaderError),
    /// A name in the header is not understood, and nothing is granted for it.
    #[error("names \"{}\": {error}", Printable(.text))]
    Name {
        /// The name as the header has it.
        text: String,
        /// What is wrong with it.
        error: NameError,
    },
    /// The caller does not permit the path: neither granted nor opened.
    #[error("is not permitted: {0}")]
    Refused(String),
    /// The image above does not say the format; nothing below is followed.
    #[error(
        "has no declared format and looks like {found}; it is taken as raw and what it names is not followed"
    )]
    FormatAbsent {
        /// What the content shows. The guest may have written it.
        found: Format,
    },
    /// The image above says a format that is none; taken as raw.
    #[error("has the declared format \"{}\", which is none; it is taken as raw", Printable(.0))]
    FormatUnknown(String),
    /// A parent in a format whose parents QEMU does not open.
    #[error("has the parent \"{}\", which QEMU does not open", Printable(.0))]
    ParentNotOpened(String),
    /// An image that is a part of a file: its header is not looked for.
    #[error("is a part of a file; what its header names is not followed")]
    Sliced,
    /// An image on another host whose header may name files of this one.
    #[error("is {format} over {protocol}; what its header names is not followed")]
    Remote {
        /// The protocol.
        protocol: &'static str,
        /// The image's format, or the words for none.
        format: &'static str,
    },
    /// What a header calls a socket is none: to connect to one is to write to the path, and that to a file is more than a
    /// header may give.
    #[error("is named as a socket and {0}: no rule is made for it")]
    Socket(OpenError),
    /// A directory shown as a FAT disk, with all that is below it.
    #[error(
        "is a directory as a FAT disk, which the definition may name and no header: no rule is made for it"
    )]
    Directory,
    /// A controller of NVM Express, which needs its VFIO group.
    #[error("is the NVMe controller {}, which needs a VFIO group that is not granted here", Printable(.0))]
    Nvme(String),
}

impl ChainNote {
    /// The kind of record note that this makes.
    pub fn kind(&self) -> NoteKind {
        match &self.problem {
            Problem::Open(OpenError::Missing) => NoteKind::MissingFile,
            Problem::Open(_) | Problem::Header(_) => NoteKind::UnreadableLayer,
            Problem::Refused(_) => NoteKind::LeftOut,
            Problem::Socket(_) | Problem::Directory | Problem::Nvme(_) => NoteKind::NotCovered,
            Problem::Name { .. }
            | Problem::FormatAbsent { .. }
            | Problem::FormatUnknown(_)
            | Problem::ParentNotOpened(_)
            | Problem::Sliced
            | Problem::Remote { .. } => NoteKind::ChainEnds,
        }
    }
}

impl fmt::Display for ChainNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "image layer {}", self.depth)?;
        if !self.path.is_empty() {
            write!(f, " \"{}\"", Printable(&self.path))?;
        }
        write!(f, ": {}", self.problem)
    }
}

/// Follows the chain below a top image.
///
/// `permit` is asked before any path is opened or listed. Files that are missing or cannot be read are listed
/// all the same, with a note: QEMU may be able to, and libvirt's silence here is what breaks guests. What is no
/// image at all (a directory, a FIFO, a character device) is noted and not listed, nor is what is called a socket
/// and is not there as one.
///
/// # Errors
/// [`ChainError`]: a loop, or more images or files than `limit` and this module allow.
pub fn walk(
    host: &dyn ImageHost,
    permit: Permit<'_>,
    top: TopImage<'_>,
    limit: u32,
) -> Result<Chain, ChainError> {
    let data_access = if top.readonly { Access::RK } else { Access::RWK };
    let mut walk =
        Walk { host, permit, data_access, by: String::new(), seen: HashSet::new(), chain: Chain::default() };
    // Anything else, raw above all, is not even opened: the guest may have written every byte of it.
    let Some(format) = top.format.filter(|format| format.is_read()) else { return Ok(walk.chain) };
    let said = |said: bool| if said { Override::Nothing } else { Override::Header };
    let node = Node {
        sliced: top.said.sliced,
        backing: said(top.said.backing),
        data_file: said(top.said.data_file),
        ..Node::file(top.path)
    };
    let mut at = Below { node, format: BackingFormat::Declared(format) };
    let mut depth = 0u32;
    while let Some(below) = walk.image(at, depth)? {
        at = below;
        Total::default().add(&walk.chain)?;
        depth = depth.saturating_add(1);
        if depth >= limit {
            return Err(ChainError::TooDeep);
        }
    }
    Ok(walk.chain)
}

/// An image still to be looked at, and what the one above says of its format.
struct Below {
    node: Node,
    format: BackingFormat,
}

struct Walk<'a> {
    host: &'a dyn ImageHost,
    permit: Permit<'a>,
    /// For what belongs to the top image.
    data_access: Access,
    /// The image whose header names what comes next.
    by: String,
    seen: HashSet<Identity>,
    chain: Chain,
}

impl Walk<'_> {
    /// Lists one image and what belongs to it; the image below it, if that can be known.
    fn image(&mut self, at: Below, depth: u32) -> Result<Option<Below>, ChainError> {
        let Below { node, format } = at;
        let format = node.format.map_or(format, BackingFormat::Declared);
        let path = match node.source {
            Source::File(path) => path,
            other => {
                self.elsewhere(other, &format, depth)?;
                return Ok(overridden(node.backing));
            }
        };
        let kind = (depth > 0).then_some(LayerKind::Backing);
        let Some(real) = self.permitted(&path, kind, Access::RK, depth) else { return Ok(None) };
        let exists = match self.host.stat(&real) {
            Ok(info) => {
                if !self.seen.insert(info.identity) {
                    return Err(ChainError::Loop { path, depth });
                }
                true
            }
            Err(error) => {
                let never = error.is_for_ever();
                self.note(depth, &path, Problem::Open(error));
                if never {
                    return Ok(None);
                }
                false
            }
        };
        if depth > 0 {
            self.push(depth, path.clone(), LayerKind::Backing, Access::RK)?;
        }
        let header = if node.sliced {
            self.note(depth, &path, Problem::Sliced);
            None
        } else if exists {
            self.header(&path, &real, format, depth)
        } else {
            None
        };
        let data_in_header = node.data_file == Override::Header;
        if let Override::Node(data) = node.data_file {
            self.leaf(*data, LayerKind::DataFile, depth)?;
        }
        // What the name of an image says itself stands in the header of the one above; all else in its own.
        let above = std::mem::replace(&mut self.by, path.clone());
        let named = header.as_ref().and_then(|header| header.data_file.as_deref());
        if let Some(text) = named.filter(|_| data_in_header) {
            self.named_leaf(text, &path, LayerKind::DataFile, depth)?;
        }
        if let Some(header) = &header {
            for text in &header.extents {
                self.named_leaf(text, &path, LayerKind::Extent, depth)?;
            }
            if let Some(parent) = &header.unread_parent {
                self.note(depth, &path, Problem::ParentNotOpened(parent.clone()));
            }
        }
        if node.backing != Override::Header {
            self.by = above;
            return Ok(overridden(node.backing));
        }
        let Some(reference) = header.and_then(|header| header.backing) else { return Ok(None) };
        match backing::parse(&reference.text, &path) {
            Ok(node) => Ok(Some(Below { node, format: reference.format })),
            Err(error) => {
                self.note(depth, &path, Problem::Name { text: reference.text, error });
                Ok(None)
            }
        }
    }

    /// What the image's header names, if its format is known well enough to believe it. It is called `path` and lies
    /// at `target`.
    fn header(&mut self, path: &str, target: &str, format: BackingFormat, depth: u32) -> Option<Header> {
        let unsafe_to_probe = format == BackingFormat::Absent;
        let declared = match format {
            BackingFormat::Declared(format) => Some(format),
            BackingFormat::Unknown(name) => {
                self.note(depth, path, Problem::FormatUnknown(name));
                Some(Format::Raw)
            }
            BackingFormat::Absent | BackingFormat::NotRaw => None,
        };
        if declared.is_some_and(|format| !format.is_read()) {
            return None;
        }
        let image = match self.host.open(target) {
            Ok(image) => image,
            Err(error) => {
                self.note(depth, path, Problem::Open(error));
                return None;
            }
        };
        let mut reader = Reader::new(image.as_ref());
        let read = self.read(path, &mut reader, declared, unsafe_to_probe, depth);
        self.chain.read = self.chain.read.saturating_add(reader.read());
        read.unwrap_or_else(|error| {
            self.note(depth, path, Problem::Header(error));
            None
        })
    }

    fn read(
        &mut self,
        path: &str,
        reader: &mut Reader<'_>,
        declared: Option<Format>,
        unsafe_to_probe: bool,
        depth: u32,
    ) -> Result<Option<Header>, HeaderError> {
        let format = match declared {
            Some(format) => format,
            None => detect(reader)?,
        };
        if unsafe_to_probe {
            // libvirt refuses a probed image only if it names a backing file; a data file is as bad.
            self.note(depth, path, Problem::FormatAbsent { found: format });
            return Ok(None);
        }
        read_header(format, reader).map(Some)
    }

    /// A source that is no image file of this host.
    fn elsewhere(&mut self, source: Source, format: &BackingFormat, depth: u32) -> Result<(), ChainError> {
        match source {
            Source::Directory { path, .. } => {
                if self.permitted(&path, None, Access::R, depth).is_some() {
                    self.note(depth, &path, Problem::Directory);
                }
            }
            Source::Remote(remote) => {
                let format = match format {
                    BackingFormat::Declared(Format::Raw) | BackingFormat::Unknown(_) => None,
                    BackingFormat::Declared(format) => Some(format.name()),
                    BackingFormat::Absent | BackingFormat::NotRaw => Some("an image of no declared format"),
                };
                if let Some(format) = format {
                    let protocol = remote.protocol;
                    self.note(depth, "", Problem::Remote { protocol, format });
                }
                self.remote(remote, depth)?;
            }
            Source::Nvme(address) => self.note(depth, "", Problem::Nvme(address)),
            Source::File(_) | Source::Null => {}
        }
        Ok(())
    }

    fn remote(&mut self, remote: Remote, depth: u32) -> Result<(), ChainError> {
        if !self.chain.protocols.contains(&remote.protocol) {
            self.chain.protocols.push(remote.protocol);
        }
        for path in remote.sockets {
            let (kind, access) = (LayerKind::Socket, Access::RW);
            let Some(target) = self.permitted(&path, Some(kind), access, depth) else { continue };
            match self.host.find_socket(&target) {
                Ok(()) => self.push(depth, path, kind, access)?,
                Err(error) => self.note(depth, &path, Problem::Socket(error)),
            }
        }
        for path in remote.configs {
            if self.permitted(&path, Some(LayerKind::Config), Access::R, depth).is_some() {
                self.push(depth, path, LayerKind::Config, Access::R)?;
            }
        }
        Ok(())
    }

    /// A data file or an extent by the name that the header at `parent` has.
    fn named_leaf(
        &mut self,
        text: &str,
        parent: &str,
        kind: LayerKind,
        depth: u32,
    ) -> Result<(), ChainError> {
        match backing::parse(text, parent) {
            Ok(node) => self.leaf(node, kind, depth),
            Err(error) => {
                self.note(depth, parent, Problem::Name { text: text.to_owned(), error });
                Ok(())
            }
        }
    }

    /// A file with content of the guest's own: listed, never read.
    fn leaf(&mut self, node: Node, kind: LayerKind, depth: u32) -> Result<(), ChainError> {
        let path = match node.source {
            Source::File(path) => path,
            other => return self.elsewhere(other, &BackingFormat::Declared(Format::Raw), depth),
        };
        let access = if depth == 0 { self.data_access } else { Access::RK };
        let Some(real) = self.permitted(&path, Some(kind), access, depth) else { return Ok(()) };
        if let Err(error) = self.host.stat(&real) {
            let never = error.is_for_ever();
            self.note(depth, &path, Problem::Open(error));
            if never {
                return Ok(());
            }
        }
        self.push(depth, path, kind, access)
    }

    /// Where a permitted path leads.
    fn permitted(
        &mut self,
        path: &str,
        kind: Option<LayerKind>,
        access: Access,
        depth: u32,
    ) -> Option<String> {
        let real = (self.permit)(Named { path, kind, access, by: &self.by });
        real.map_err(|reason| self.note(depth, path, Problem::Refused(reason))).ok()
    }

    fn push(&mut self, depth: u32, path: String, kind: LayerKind, access: Access) -> Result<(), ChainError> {
        if self.chain.layers.len() >= MAX_FILES {
            return Err(ChainError::TooManyFiles);
        }
        self.chain.layers.push(Layer { depth, path, kind, access });
        Ok(())
    }

    fn note(&mut self, depth: u32, path: &str, problem: Problem) {
        self.chain.notes.push(ChainNote { depth, path: path.to_owned(), problem });
    }
}

/// The image below, where the name of an image says it itself.
fn overridden(backing: Override) -> Option<Below> {
    match backing {
        // A node without a format of its own is probed by QEMU.
        Override::Node(node) => Some(Below { node: *node, format: BackingFormat::Absent }),
        Override::Header | Override::Nothing => None,
    }
}

#[cfg(test)]
#[path = "chain_tests.rs"]
mod tests;
