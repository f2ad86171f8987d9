//! The forms that the name of a backing file, a data file or an extent can have.
//!
//! What QEMU opens decides: `bdrv_parse_filename` and friends of QEMU, `docs/system/qemu-block-drivers.rst`.
//! libvirt's reading (`src/storage_file/storage_source_backingstore.c`) covers fewer forms.

use aa_contract::text::Printable;
use thiserror::Error;

use super::{Format, json};

/// Longest name that is looked at, in bytes; longer ones come from no header.
const MAX_TEXT: usize = 16 * 1024;

/// One image as a backing name describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The format, if the name itself says one (`json:` only).
    pub format: Option<Format>,
    /// Where the bytes are.
    pub source: Source,
    /// Whether the image is a part of the file, so that its header is not at the start.
    pub sliced: bool,
    /// What the name says of the image below this one.
    pub backing: Override,
    /// What the name says of the data file.
    pub data_file: Override,
}

impl Node {
    /// A file at an absolute path.
    pub fn file(path: impl Into<String>) -> Self {
        Self::plain(Source::File(path.into()))
    }

    /// A name that says where and nothing else.
    pub(super) fn plain(source: Source) -> Self {
        Self { format: None, source, sliced: false, backing: Override::Header, data_file: Override::Header }
    }
}

/// What a name says of another image that belongs to the one it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Override {
    /// Nothing: the image's header says it.
    Header,
    /// That there is none, or that it is named elsewhere.
    Nothing,
    /// It is this one.
    Node(Box<Node>),
}

/// Where the bytes of an image are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A regular file or a block device at this absolute path, as named: it may hold `..` and links.
    File(String),
    /// A directory shown to the guest as a FAT disk (`fat:`).
    Directory {
        /// Its absolute path, as named.
        path: String,
        /// Whether what the guest writes on the disk goes into it.
        is_written: bool,
    },
    /// Something that is not a file of this host.
    Remote(Remote),
    /// A controller of NVM Express, by PCI address, through VFIO.
    Nvme(String),
    /// Nothing at all (`null-co`, `null-aio`).
    Null,
}

/// An image that is reached by a protocol, with the host files that this takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// The protocol, as QEMU calls it: `nbd`, `rbd`, `iscsi`, `https` …
    pub protocol: &'static str,
    /// Unix sockets of this host that QEMU connects to.
    pub sockets: Vec<String>,
    /// Client configuration and key files that QEMU reads.
    pub configs: Vec<String>,
}

impl Remote {
    fn new(protocol: &'static str) -> Self {
        Self { protocol, sockets: Vec::new(), configs: Vec::new() }
    }
}

/// Why a name is not understood.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NameError {
    /// It is longer than any header can hold.
    #[error("the name is longer than {MAX_TEXT} bytes")]
    TooLong,
    /// The part after `json:` is not a JSON object, or holds a key twice over in two notations.
    #[error("not a json: name: {0}")]
    Json(String),
    /// A protocol or driver that is not known here.
    #[error("\"{}\" is no protocol or driver that is known here", Printable(.0))]
    Unknown(String),
    /// A path is relative to the working directory of whoever opens it.
    #[error("\"{}\" is relative to the working directory of the process that opens it", Printable(.0))]
    Relative(String),
    /// Something required is missing or has the wrong shape.
    #[error("{0}")]
    Shape(&'static str),
}

/// Protocols with URIs or JSON drivers that reach over the network; the names are QEMU's.
const NETWORK: [&str; 16] = [
    "nbd", "rbd", "iscsi", "iser", "gluster", "sheepdog", "nfs", "ssh", "vxhs", "http", "https", "ftp",
    "ftps", "tftp", "dav", "davs",
];

/// The protocol's name, if it is known.
pub(crate) fn network(name: &str) -> Option<&'static str> {
    NETWORK.iter().find(|known| **known == name).copied()
}

/// Reads a name that stands in the header of the image at `parent`, an absolute path as it was named.
///
/// A relative file name lies beside the parent as named, not beside what a link resolves to, which is where
/// QEMU and libvirt look for it.
///
/// # Errors
/// [`NameError`]: the form is unknown or unsafe to guess.
pub fn parse(text: &str, parent: &str) -> Result<Node, NameError> {
    if text.len() > MAX_TEXT {
        return Err(NameError::TooLong);
    }
    if let Some(object) = text.strip_prefix("json:") {
        return json::parse(object);
    }
    let Some((scheme, rest)) = protocol(text) else {
        let path = if text.starts_with('/') { text.to_owned() } else { beside(parent, text) };
        return Ok(Node::file(path));
    };
    match (scheme, rest.strip_prefix("//")) {
        ("file", _) => file(rest),
        ("host_device" | "host_cdrom", _) => absolute(rest),
        ("fat", _) => fat(rest),
        (_, Some(after)) => uri(scheme, after),
        ("nbd", None) => nbd(rest),
        ("rbd", None) => rbd(rest),
        _ => Err(NameError::Unknown(scheme.to_owned())),
    }
}

/// Splits at the colon, if one stands before the first slash.
pub(crate) fn protocol(text: &str) -> Option<(&str, &str)> {
    text.split_once(':').filter(|(scheme, _)| !scheme.contains('/'))
}

/// `name` in the directory of `parent`.
fn beside(parent: &str, name: &str) -> String {
    match parent.rsplit_once('/') {
        Some((dir, _)) => format!("{dir}/{name}"),
        None => name.to_owned(),
    }
}

fn absolute(path: &str) -> Result<Node, NameError> {
    if path.starts_with('/') { Ok(Node::file(path)) } else { Err(NameError::Relative(path.to_owned())) }
}

/// QEMU takes the text after `file:` as the path, slashes and percent signs included; so a host would
/// become a directory, which nobody means.
fn file(rest: &str) -> Result<Node, NameError> {
    match rest.strip_prefix("//") {
        Some(after) if !after.starts_with('/') => {
            Err(NameError::Shape("a file URI with a host is a path to QEMU and a host to everybody else"))
        }
        Some(after) => absolute(after),
        None => absolute(rest),
    }
}

/// `fat:[rw:|floppy:|32:|label:…]DIR`
fn fat(rest: &str) -> Result<Node, NameError> {
    let (options, dir) = rest.rsplit_once(':').unwrap_or(("", rest));
    let is_written = options.split(':').any(|option| option == "rw");
    Ok(Node::plain(Source::Directory { path: host_path(dir)?, is_written }))
}

/// `nbd:unix:PATH[:exportname=E]`, `nbd:HOST:PORT[:exportname=E]`
fn nbd(rest: &str) -> Result<Node, NameError> {
    let server = rest.split_once(":exportname=").map_or(rest, |(server, _)| server);
    let mut remote = Remote::new("nbd");
    if let Some(path) = server.strip_prefix("unix:") {
        remote.sockets.push(host_path(path)?);
    }
    Ok(Node::plain(Source::Remote(remote)))
}

/// `rbd:pool/image[@snapshot][:option=value]…`; a backslash takes the next character as it is.
fn rbd(rest: &str) -> Result<Node, NameError> {
    let mut remote = Remote::new("rbd");
    for option in split_escaped(rest).iter().skip(1) {
        if let Some(("conf" | "keyring", path)) = option.split_once('=') {
            remote.configs.push(host_path(path)?);
        }
    }
    Ok(Node::plain(Source::Remote(remote)))
}

fn split_escaped(text: &str) -> Vec<String> {
    let mut parts = Vec::new();
    let mut part = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => part.extend(chars.next()),
            ':' => parts.push(std::mem::take(&mut part)),
            c => part.push(c),
        }
    }
    parts.push(part);
    parts
}

/// `scheme[+transport]://[user@]host[:port]/path[?query]`, without the part up to the two slashes.
fn uri(scheme: &str, after: &str) -> Result<Node, NameError> {
    let (base, transport) = match scheme.split_once('+') {
        Some((base, transport)) => (base, Some(transport)),
        None => (scheme, None),
    };
    let source = match base {
        "nvme" => Source::Nvme(after.split('/').next().unwrap_or_default().to_owned()),
        "null-co" | "null-aio" => Source::Null,
        _ => {
            let protocol = network(base).ok_or_else(|| NameError::Unknown(scheme.to_owned()))?;
            let mut remote = Remote::new(protocol);
            if transport == Some("unix") {
                let query = after.split_once('?').map_or("", |(_, query)| query);
                let query = query.split('#').next().unwrap_or_default();
                let socket = query
                    .split(['&', ';'])
                    .find_map(|pair| pair.strip_prefix("socket="))
                    .ok_or(NameError::Shape("a URI of a Unix socket does not name the socket"))?;
                remote.sockets.push(host_path(&percent_decode(socket)?)?);
            }
            Source::Remote(remote)
        }
    };
    Ok(Node::plain(source))
}

/// An absolute path of this host.
pub(super) fn host_path(path: &str) -> Result<String, NameError> {
    if path.starts_with('/') { Ok(path.to_owned()) } else { Err(NameError::Relative(path.to_owned())) }
}

fn percent_decode(text: &str) -> Result<String, NameError> {
    const BAD: NameError =
        NameError::Shape("a percent escape in a URI is not two hexadecimal digits of UTF-8");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
        let (high, low) = (digit().ok_or(BAD)?, digit().ok_or(BAD)?);
        bytes.push(u8::try_from((high << 4) | low).map_err(|_| BAD)?);
    }
    String::from_utf8(bytes).map_err(|_| BAD)
}

#[cfg(test)]
#[path = "backing_tests.rs"]
mod tests;
