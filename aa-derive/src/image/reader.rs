//! Bounded reading of a header: never more than [`BUDGET`] bytes of an image, wherever its fields point.

use aa_contract::text::strip_os_code;
use std::io;

use super::HeaderError;

/// Most bytes read of one image. The largest header that is read whole is a VMDK descriptor of 1 MiB;
/// a qcow2 header is at most one cluster of 2 MiB.
pub const BUDGET: usize = 4 * 1024 * 1024;

/// What is read at once: covers most headers whole.
const BLOCK: usize = 4096;

/// The bytes of an image.
pub trait ReadAt {
    /// Size of the image in bytes.
    fn size(&self) -> u64;

    /// Up to `len` bytes from `offset`; fewer only where the image ends.
    ///
    /// # Errors
    /// Whatever the host says.
    fn read_at(&self, offset: u64, len: usize) -> io::Result<Vec<u8>>;
}

impl ReadAt for [u8] {
    fn size(&self) -> u64 {
        u64::try_from(self.len()).unwrap_or(u64::MAX)
    }

    fn read_at(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let tail = usize::try_from(offset).ok().and_then(|start| self.get(start..)).unwrap_or_default();
        Ok(tail.get(..len).unwrap_or(tail).to_vec())
    }
}

impl<const N: usize> ReadAt for [u8; N] {
    fn size(&self) -> u64 {
        self.as_slice().size()
    }

    fn read_at(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        self.as_slice().read_at(offset, len)
    }
}

impl ReadAt for Vec<u8> {
    fn size(&self) -> u64 {
        self.as_slice().size()
    }

    fn read_at(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        self.as_slice().read_at(offset, len)
    }
}

/// Reads pieces of one image, keeps the last block, and counts what it has read.
pub struct Reader<'a> {
    image: &'a dyn ReadAt,
    left: usize,
    start: u64,
    block: Vec<u8>,
}

impl std::fmt::Debug for Reader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("left", &self.left).field("start", &self.start).finish_non_exhaustive()
    }
}

impl<'a> Reader<'a> {
    /// Starts to read an image, with the whole [`BUDGET`].
    pub fn new(image: &'a dyn ReadAt) -> Self {
        Self { image, left: BUDGET, start: 0, block: Vec::new() }
    }

    /// Size of the image in bytes.
    pub fn size(&self) -> u64 {
        self.image.size()
    }

    /// How many bytes were read so far.
    pub fn read(&self) -> usize {
        BUDGET.saturating_sub(self.left)
    }

    /// Exactly `len` bytes from `offset`.
    ///
    /// # Errors
    /// [`HeaderError::Truncated`], [`HeaderError::Budget`], [`HeaderError::Read`].
    pub fn exact(&mut self, offset: u64, len: usize) -> Result<Vec<u8>, HeaderError> {
        let bytes = self.up_to(offset, len)?;
        if bytes.len() == len { Ok(bytes) } else { Err(HeaderError::Truncated { offset, len }) }
    }

    /// `len` bytes from `offset`, fewer only where the image ends.
    ///
    /// # Errors
    /// [`HeaderError::Budget`], [`HeaderError::Read`].
    pub fn up_to(&mut self, offset: u64, len: usize) -> Result<Vec<u8>, HeaderError> {
        if let Some(bytes) = self.kept(offset, len) {
            return Ok(bytes.to_vec());
        }
        let want = len.max(BLOCK);
        self.left = self.left.checked_sub(want).ok_or(HeaderError::Budget)?;
        self.block =
            self.image.read_at(offset, want).map_err(|error| HeaderError::Read(strip_os_code(&error)))?;
        self.block.truncate(want);
        self.start = offset;
        Ok(self.block.get(..len).unwrap_or(&self.block).to_vec())
    }

    /// The range, if the last block holds all of it.
    fn kept(&self, offset: u64, len: usize) -> Option<&[u8]> {
        let from = usize::try_from(offset.checked_sub(self.start)?).ok()?;
        self.block.get(from..from.checked_add(len)?)
    }
}

/// The `N` bytes at `at`.
pub(super) fn array<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], HeaderError> {
    bytes
        .get(at..)
        .and_then(|tail| tail.first_chunk())
        .copied()
        .ok_or(HeaderError::Truncated { offset: u64::try_from(at).unwrap_or(u64::MAX), len: N })
}

pub(super) fn be32(bytes: &[u8], at: usize) -> Result<u32, HeaderError> {
    array(bytes, at).map(u32::from_be_bytes)
}

pub(super) fn be64(bytes: &[u8], at: usize) -> Result<u64, HeaderError> {
    array(bytes, at).map(u64::from_be_bytes)
}

pub(super) fn le32(bytes: &[u8], at: usize) -> Result<u32, HeaderError> {
    array(bytes, at).map(u32::from_le_bytes)
}

pub(super) fn le64(bytes: &[u8], at: usize) -> Result<u64, HeaderError> {
    array(bytes, at).map(u64::from_le_bytes)
}

/// A 32-bit length or offset as the memory size it is.
pub(super) fn size(value: u32) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// A name up to its first NUL, as the C reader sees it; none if empty.
pub(super) fn name(bytes: &[u8], field: &'static str) -> Result<Option<String>, HeaderError> {
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    match std::str::from_utf8(text) {
        Ok("") => Ok(None),
        Ok(text) => Ok(Some(text.to_owned())),
        Err(_) => Err(HeaderError::NotUtf8 { field }),
    }
}

/// UTF-16 up to its first NUL, for a text that only people read.
pub(super) fn utf16_for_people(bytes: &[u8], read: fn([u8; 2]) -> u16) -> Option<String> {
    let units = bytes.chunks_exact(2).filter_map(|pair| pair.first_chunk().copied()).map(read);
    let text: String = char::decode_utf16(units.take_while(|unit| *unit != 0))
        .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect();
    (!text.is_empty()).then_some(text)
}
