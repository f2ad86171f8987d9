//! Image headers, backing names, and chains of images.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io;

use aa_derive::image::backing::{self, Override};
use aa_derive::image::reader::BUDGET;
use aa_derive::image::{
    FileInfo, FileKind, Format, Identity, ImageHost, LayerKind, Named, Node, OpenError, ReadAt, Reader, Said,
    Source, TopImage, detect, read_header, walk,
};

use crate::domain::assert_one_line;

/// Longest name that QEMU takes from any header.
const LONGEST_NAME: usize = 1023;

/// An image that counts what is read of it.
struct Counted<'a> {
    bytes: &'a [u8],
    read: RefCell<usize>,
}

impl ReadAt for Counted<'_> {
    fn size(&self) -> u64 {
        self.bytes.size()
    }

    fn read_at(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let bytes = self.bytes.read_at(offset, len)?;
        *self.read.borrow_mut() += bytes.len();
        Ok(bytes)
    }
}

fn header(format: Format, bytes: &[u8]) {
    let image = Counted { bytes, read: RefCell::new(0) };
    let read = read_header(format, &mut Reader::new(&image));
    assert!(*image.read.borrow() <= BUDGET, "{} bytes were read", image.read.borrow());
    image.read.take();
    match read {
        Ok(header) => {
            assert_eq!(header.format, format);
            let names = header.backing.iter().map(|backing| &backing.text);
            for name in names.chain(&header.data_file).chain(&header.extents) {
                assert!(!name.is_empty() && name.len() <= LONGEST_NAME && !name.contains('\0'), "{name:?}");
            }
            assert!(header.extents.is_empty() || format == Format::Vmdk);
            assert!(header.data_file.is_none() || format == Format::Qcow2);
        }
        Err(error) => assert_one_line(&error.to_string()),
    }
    let raw = read_header(Format::Raw, &mut Reader::new(&image)).unwrap();
    assert_eq!(*image.read.borrow(), 0, "a raw image was read");
    assert!(raw.backing.is_none() && raw.data_file.is_none() && raw.extents.is_empty());
    let _found = detect(&mut Reader::new(&image));
    assert!(*image.read.borrow() <= BUDGET, "{} bytes were read", image.read.borrow());
}

/// A header of QEMU's old format cow.
pub fn cow(data: &[u8]) {
    header(Format::Cow, data);
}

/// A header of qcow, version 1.
pub fn qcow(data: &[u8]) {
    header(Format::Qcow, data);
}

/// A header of qcow2.
pub fn qcow2(data: &[u8]) {
    header(Format::Qcow2, data);
}

/// A header of QED.
pub fn qed(data: &[u8]) {
    header(Format::Qed, data);
}

/// A header of VDI.
pub fn vdi(data: &[u8]) {
    header(Format::Vdi, data);
}

/// A header of VMDK, or a descriptor file.
pub fn vmdk(data: &[u8]) {
    header(Format::Vmdk, data);
}

/// A header of VHD.
pub fn vpc(data: &[u8]) {
    header(Format::Vpc, data);
}

/// A header of VHDX. Its parts lie megabytes apart, so the data is pieces: three bytes of offset and two of
/// length, lowest first, then the bytes.
pub fn vhdx(data: &[u8]) {
    let mut image = Vec::new();
    let mut rest = data;
    while let Some((&[a, b, c, low, high], tail)) = rest.split_first_chunk::<5>() {
        let at = usize::from(a) | usize::from(b) << 8 | usize::from(c) << 16;
        let length = (usize::from(low) | usize::from(high) << 8).min(tail.len());
        let (bytes, tail) = tail.split_at(length);
        // Four megabytes are room for every part of a real one.
        let end = (at + length).min(4 << 20);
        if image.len() < end {
            image.resize(end, 0);
        }
        if let Some(place) = image.get_mut(at..end) {
            place.copy_from_slice(bytes.get(..place.len()).unwrap_or_default());
        }
        rest = tail;
    }
    header(Format::Vhdx, &image);
}

/// A backing name.
pub fn backing_name(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match backing::parse(text, "/srv/images/top.qcow2") {
        Ok(node) => absolute(&node),
        Err(error) => assert_one_line(&error.to_string()),
    }
}

/// Every path of a node is absolute: nothing depends on the directory of whoever opens it.
fn absolute(node: &Node) {
    match &node.source {
        Source::File(path) | Source::Directory { path, .. } => assert!(path.starts_with('/'), "{path:?}"),
        Source::Remote(remote) => {
            assert!(remote.sockets.iter().chain(&remote.configs).all(|path| path.starts_with('/')));
        }
        Source::Nvme(_) | Source::Null => {}
    }
    for other in [&node.backing, &node.data_file] {
        if let Override::Node(other) = other {
            absolute(other);
        }
    }
}

/// The only socket of the host that chains are on.
const SOCKET: &str = "/socket";

/// Images of a host that has nothing else but a socket: the n-th piece of the data is at `/n`.
struct Pieces<'a> {
    pieces: Vec<&'a [u8]>,
    opened: RefCell<BTreeSet<String>>,
}

impl Pieces<'_> {
    fn at(&self, path: &str) -> Result<(u64, &[u8]), OpenError> {
        let number = path.strip_prefix('/').and_then(|number| number.parse::<usize>().ok());
        let piece = number.and_then(|number| Some((number as u64, *self.pieces.get(number)?)));
        piece.ok_or(OpenError::Missing)
    }
}

impl ImageHost for Pieces<'_> {
    fn stat(&self, path: &str) -> Result<FileInfo, OpenError> {
        assert!(permit(path).is_ok(), "looked at {path}, which is not permitted");
        let (number, _) = self.at(path)?;
        Ok(FileInfo { kind: FileKind::Regular, identity: Identity::Inode(0, number) })
    }

    fn open(&self, path: &str) -> Result<Box<dyn ReadAt>, OpenError> {
        assert!(permit(path).is_ok(), "opened {path}, which is not permitted");
        self.opened.borrow_mut().insert(path.to_owned());
        Ok(Box::new(self.at(path)?.1.to_vec()))
    }

    fn find_socket(&self, path: &str) -> Result<(), OpenError> {
        assert!(permit(path).is_ok(), "looked at {path}, which is not permitted");
        if path == SOCKET { Ok(()) } else { self.at(path).and(Err(OpenError::NotASocket)) }
    }
}

fn permit(path: &str) -> Result<String, String> {
    if path.starts_with("/etc") { Err("it is restricted".to_owned()) } else { Ok(path.to_owned()) }
}

/// Most images of a chain here: few enough for short inputs to have more.
const DEEPEST: u32 = 8;

/// Between the images of a chain.
const BETWEEN: &[u8] = b"--image--";

/// A chain of images: the first byte is the format that the domain declares, the rest is the images.
pub fn chain(data: &[u8]) {
    let Some((&first, rest)) = data.split_first() else { return };
    let declared = [
        Format::Raw,
        Format::Qcow2,
        Format::Vmdk,
        Format::Qed,
        Format::Qcow,
        Format::Cow,
        Format::Vpc,
        Format::Vdi,
        Format::Dir,
    ];
    let format = declared.get(usize::from(first) % declared.len()).copied();
    let host = Pieces { pieces: split(rest), opened: RefCell::default() };
    let top = TopImage { path: "/0", format, readonly: first >= 128, said: Said::default() };
    match walk(&host, &|named: Named<'_>| permit(named.path), top, DEEPEST) {
        Ok(chain) => {
            for layer in &chain.layers {
                assert!(layer.path.starts_with('/') && permit(&layer.path).is_ok(), "{layer:?}");
                assert!(layer.depth < DEEPEST, "{layer:?} is too deep");
                let is_socket = layer.kind == LayerKind::Socket;
                assert!(!is_socket || layer.path == SOCKET, "{layer:?} is no socket");
                assert!(
                    is_socket || !top.readonly || !layer.access.writes(),
                    "{layer:?} below a read-only image"
                );
            }
            if format.is_none_or(|format| !format.is_read()) {
                assert!(chain.layers.is_empty() && host.opened.borrow().is_empty(), "{chain:?}");
            }
            chain.notes.iter().for_each(|note| assert_one_line(&note.to_string()));
        }
        Err(error) => assert_one_line(&error.to_string()),
    }
}

fn split(data: &[u8]) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    let mut rest = data;
    while let Some(at) = rest.windows(BETWEEN.len()).position(|window| window == BETWEEN) {
        let (piece, tail) = rest.split_at(at);
        pieces.push(piece);
        rest = tail.get(BETWEEN.len()..).unwrap_or_default();
    }
    pieces.push(rest);
    pieces
}
